#!/usr/bin/env python3
"""Write the seed corpora of the fuzz targets tokenizer_json and shard_index: make_folder_corpus.py tests/fuzz/corpus"""
import json
import os
import sys

from gguf_tokenizer import added, byte_level, split, template

BLANK = "▁"


def tokenizer(model, pre, decoder, normalizer=None, post=None, tokens=()):
    return {"version": "1.0", "added_tokens": list(tokens), "normalizer": normalizer, "pre_tokenizer": pre,
            "post_processor": post, "decoder": decoder, "model": {"type": "BPE", **model}}


def seeds():
    words = {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "'": 4, "t": 5, "Ã": 6, "©": 7, "Ã©": 8, "1": 9, "2": 10, "'t": 11}
    small = {"vocab": words, "merges": ["a b", ["Ã", "©"], "' t"], "unk_token": None}
    special = [added(12, "<s>", True, False), added(13, "<|im_end|>", True, True), added(14, "12", False, False)]
    level = byte_level(True, True)
    yield "gpt2", tokenizer(small, byte_level(False, True), level, tokens=special), None
    yield "smollm", tokenizer(small, {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, byte_level(False, True)]}, level, tokens=special), {
            "bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}, "add_bos_token": True}
    yield "llama3", tokenizer({**small, "ignore_merges": True}, split("{1,3}"), level, tokens=special, post={
        "type": "Sequence", "processors": [level, template("<s>", 12)]}), {"model_max_length": 10 ** 30}
    yield "qwen", tokenizer(small, split(""), level, normalizer={"type": "NFC"}, tokens=special), {}
    pieces = {"<0x%02X>" % b: b for b in range(256)}
    pieces.update({"a": 256, "b": 257, BLANK: 258, "ab": 259, BLANK * 2: 260})
    model = {"byte_fallback": True, "fuse_unk": True, "vocab": pieces, "merges": [["a", "b"], [BLANK, BLANK]]}
    blank = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    back = [{"type": "Replace", "pattern": {"String": BLANK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    more = [added(261, "<s>", True, False), added(262, "\n\n", False, False)]
    yield "gemma", tokenizer(model, {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                                     "invert": False}, {"type": "Sequence", "decoders": back}, blank,
                             template("<s>", 261), more), None
    yield "llama2", tokenizer(model, None, {"type": "Sequence", "decoders": back + [
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}, {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": BLANK}, blank]}, template("<s>", 261), more), None
    space = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "first", "split": False}
    yield "metaspace", tokenizer(model, space, space, tokens=more), None
    yield "unigram", {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.5]]}}, None


def main():
    out = sys.argv[1]
    for name, text, config in seeds():
        data = json.dumps(text, ensure_ascii=False, separators=(",", ":")).encode()
        if config is not None:
            data += b"\0" + json.dumps(config, separators=(",", ":")).encode()
        os.makedirs(os.path.join(out, "tokenizer_json"), exist_ok=True)
        with open(os.path.join(out, "tokenizer_json", name), "wb") as f:
            f.write(data)
    a, b = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    indexes = {
        "two": {"metadata": {"total_size": 96}, "weight_map": {"model.embed_tokens.weight": a, "model.norm.weight": b,
                                                               "lm_head.weight": b}},
        "one": {"weight_map": {"x": "model.safetensors"}},
        "leaves": {"weight_map": {"x": "../model.safetensors", "y": "/etc/passwd"}},
        "deep": {"metadata": {"a": {"b": {"c": []}}}, "weight_map": {}},
    }
    os.makedirs(os.path.join(out, "shard_index"), exist_ok=True)
    for name, index in indexes.items():
        with open(os.path.join(out, "shard_index", name), "w", encoding="utf-8") as f:
            json.dump(index, f)


if __name__ == "__main__":
    main()
