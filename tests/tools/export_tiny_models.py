#!/usr/bin/env python3
"""Make the tiny random models of tests/golden/tiny and their reference logits (transformers, fp32, eager attention).

    export_tiny_models.py OUT_FOLDER

gemma3.gguf: 7 layers (the sixth global, the others with a window of 24), 4 query heads, 1 kv head, head size 32.
llama.gguf: 3 layers, 6 query heads, 2 kv heads, head size 16. llama-hf/: the same model as safetensors + config.json.
Weights are bf16 and come from a seed, so a repeated run writes the same weights; vocabularies are tiny but complete
(SentencePiece-style scores with byte tokens; byte-level BPE with merges). NAME.ids.json, NAME.logits.npy: one sequence of
96 tokens and its float32 logits. NAME.embedding.json: beginnings of it with the mean of their final hidden states, of length 1.
The script refuses to write logits that could not tell a wrong implementation: window, both RoPE bases, norm shift and
the permutation of q and k must each change them clearly.
Needs: numpy, torch, transformers, gguf, safetensors.
"""
import argparse
import json
import os
import shutil
import sys

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from gguf_to_hf import GEMMA3, LLAMA, TOP, load, permute_qk

POSITIONS = 96
WINDOW = 24
BYTES = list(range(256))


def gemma3_config(**changes):
    values = dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=7, num_attention_heads=4,
                  num_key_value_heads=1, head_dim=32, query_pre_attn_scalar=32, sliding_window=WINDOW,
                  max_position_embeddings=512, layer_types=["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
                  rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 1e6},
                                   "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
                  rms_norm_eps=1e-6, tie_word_embeddings=True, attn_implementation="eager")
    return Gemma3TextConfig(**{**values, **changes})


def llama_config(**changes):
    values = dict(vocab_size=288, hidden_size=96, intermediate_size=160, num_hidden_layers=3, num_attention_heads=6,
                  num_key_value_heads=2, head_dim=16, max_position_embeddings=512, rms_norm_eps=1e-5,
                  tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, attn_implementation="eager",
                  rope_parameters={"rope_type": "default", "rope_theta": 1e5})
    return LlamaConfig(**{**values, **changes})


def randomize(model, seed, norm_centre):
    """bf16-exact weights with unit gain, so that every part of a layer has a say in the logits."""
    g = torch.Generator().manual_seed(seed)
    for name, w in sorted(dict(model.named_parameters()).items()):
        if name.endswith("norm.weight"):
            x = norm_centre + 0.3 * torch.randn(w.shape, generator=g)
            if "q_norm" in name or "k_norm" in name:
                x = x + 0.5  # sharper attention: the window and the rotation show
        else:
            x = torch.randn(w.shape, generator=g) * (1.5 / w.shape[1] ** 0.5)
        w.data = x.to(torch.bfloat16).to(torch.float32)
    return model.eval()


@torch.no_grad()
def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def mean_kl(a, b):
    a, b = (torch.log_softmax(torch.from_numpy(x).double(), -1) for x in (a, b))
    return float((a.exp() * (a - b)).sum(-1).mean())


def variant(model, cls, config, edit=None):
    """The same weights under another config, or edited: what a wrong implementation would compute."""
    state = {k: v.clone() for k, v in model.state_dict().items()}
    if edit:
        edit(state)
    other = cls(config)
    other.load_state_dict(state)
    other.tie_weights()
    return other.eval()


def must_differ(what, good, wrong):
    kl = mean_kl(good, wrong)
    print("  without %s: mean KL %.3g" % (what, kl))
    if kl < 0.01:
        raise SystemExit("the logits hardly depend on %s: change the weights" % what)


# ---- vocabularies ----------------------------------------------------------------------------------------------

PIECES = ["\u2581", "e", "t", "a", "o", "i", "n", "s", "r", "h", "l", "d", "u", "c", "m", "f", "p", "g", "w", "y", "b", "v", "k",
          "x", "j", "q", "z", "th", "he", "in", "er", "an", "re", "on", "\u2581a", "\u2581t", "\u2581th", "\u2581the", "ing", "and",
          "\u2581and", "\u00e9", "\u4e2d", ".", ",", "\n", "\u2581\u2581", "0", "1", "2", "ou", "st", "en", "ed", "\u2581o", "\u2581of"]


def spm_vocabulary(writer, size):
    kinds = gguf.TokenType
    rows = [("<pad>", 0.0, kinds.CONTROL), ("<eos>", 0.0, kinds.CONTROL), ("<bos>", 0.0, kinds.CONTROL),
            ("<unk>", 0.0, kinds.UNKNOWN), ("<start_of_turn>", 0.0, kinds.CONTROL), ("<end_of_turn>", 0.0, kinds.CONTROL)]
    rows += [("<0x%02X>" % b, 0.0, kinds.BYTE) for b in BYTES]
    rows += [(p, -float(i), kinds.NORMAL) for i, p in enumerate(PIECES)]
    rows += [("<unused%d>" % i, 0.0, kinds.UNUSED) for i in range(size - len(rows))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([r[0] for r in rows])
    writer.add_token_scores([r[1] for r in rows])
    writer.add_token_types([int(r[2]) for r in rows])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def byte_letters():
    """GPT-2's printable stand-ins for bytes: printable Latin-1 stands for itself, the others follow from U+0100."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in BYTES if b not in own]
    return {b: chr(b) for b in own} | {b: chr(0x100 + i) for i, b in enumerate(rest)}


def bpe_vocabulary(writer, size):
    letters = byte_letters()
    merges = ["t h", "h e", "i n", "e r", "a n", "r e", "o n", letters[32] + " t", letters[32] + "t h", letters[32] + "th e",
              letters[32] + " a", "in g", "an d", letters[32] + "an d", letters[32] + " o", letters[32] + "o f", "e n", "e d",
              "o u", "s t", letters[32] + " s", letters[32] + " w", "o r", "a t", "e s", letters[32] + " c", "l l"]
    merges.insert(merges.index(letters[32] + "an d"), letters[32] + "a n")
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [letters[b] for b in BYTES]
    for m in merges:
        left, right = m.split(" ")
        if left not in tokens or right not in tokens:
            raise SystemExit("merge '%s' has a part that is no token" % m)
        tokens.append(left + right)
    types = [int(gguf.TokenType.CONTROL)] * 3 + [int(gguf.TokenType.NORMAL)] * (len(tokens) - 3)
    while len(tokens) < size:
        tokens.append("[PAD%d]" % len(tokens))
        types.append(int(gguf.TokenType.UNUSED))
    if len(tokens) != size:
        raise SystemExit("%d tokens, should be %d" % (len(tokens), size))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)


# ---- files -----------------------------------------------------------------------------------------------------


def add_weights(writer, model, arch, config):
    names = {v: k for k, v in (GEMMA3 if arch == "gemma3" else LLAMA).items()}
    top = {v: k for k, v in TOP.items()}
    for name, w in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        stem, w = name.removesuffix(".weight"), w.numpy()
        parts = stem.split(".", 3)
        target = top.get(stem) or "blk.%s.%s" % (parts[2], names[parts[3]])
        if name.endswith("norm.weight"):
            writer.add_tensor(target + ".weight", w + np.float32(1) if arch == "gemma3" else w)
            continue
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            w = permute_qk(w, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
        bits = (np.ascontiguousarray(w).view(np.uint32) >> 16).astype(np.uint16)  # exact: the values are bf16 already
        writer.add_tensor(target + ".weight", bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)


def write_gguf(path, model, arch):
    c = model.config
    w = gguf.GGUFWriter(path, arch)
    w.add_name("tiny random " + arch)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    if arch == "gemma3":
        w.add_key_length(c.head_dim)
        w.add_value_length(c.head_dim)
        w.add_sliding_window(c.sliding_window)
        w.add_rope_freq_base(c.rope_parameters["full_attention"]["rope_theta"])
        spm_vocabulary(w, c.vocab_size)
    else:
        w.add_vocab_size(c.vocab_size)
        w.add_rope_dimension_count(c.head_dim)
        w.add_rope_freq_base(c.rope_parameters["rope_theta"])
        bpe_vocabulary(w, c.vocab_size)
    add_weights(w, model, arch, c)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_safetensors(folder, model):
    os.makedirs(folder, exist_ok=True)
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    os.chmod(os.path.join(folder, "model.safetensors"), 0o644)
    config = model.config.to_dict()
    keep = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
            "hidden_act", "attention_bias", "mlp_bias", "bos_token_id", "eos_token_id"]
    out = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
           "rope_theta": model.config.rope_parameters["rope_theta"], "rope_scaling": None}
    out.update((k, config[k]) for k in keep)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(out, f, indent=2, sort_keys=True)
        f.write("\n")


@torch.no_grad()
def write_embeddings(path, model, ids):
    rows = []
    for n in (7, 40, POSITIONS):
        mean = model.model(torch.tensor([ids[:n]]), use_cache=False).last_hidden_state[0].double().mean(0)
        rows.append({"ids": ids[:n], "embedding": [float("%.7g" % v) for v in mean / mean.norm()]})
    with open(path, "w") as f:
        f.write("[" + ",\n".join(json.dumps(r) for r in rows) + "]\n")


def write_reference(folder, name, arch, model, ids):
    path = os.path.join(folder, name + ".gguf")
    write_gguf(path, model, arch)
    logits = logits_of(model, ids)
    again, _ = load(path)
    if not np.array_equal(logits, logits_of(again, ids)):
        raise SystemExit("%s does not read back as the same model" % path)
    np.save(os.path.join(folder, name + ".logits.npy"), logits)
    write_embeddings(os.path.join(folder, name + ".embedding.json"), model, ids)
    with open(os.path.join(folder, name + ".ids.json"), "w", encoding="utf-8") as f:
        json.dump(ids, f)
        f.write("\n")
    print("%s: %d parameters, logits std %.2f" % (name, sum(p.numel() for p in model.parameters()), logits.std()))
    return logits


def make_gemma3(folder):
    model = randomize(Gemma3ForCausalLM(gemma3_config()), 20260, 0.0)
    ids = [2] + [int(x) for x in np.random.default_rng(7).integers(4, 318, POSITIONS - 1)]
    good = write_reference(folder, "gemma3", "gemma3", model, ids)
    rope = model.config.rope_parameters
    for what, changes in (("the window", {"sliding_window": 512}), ("the window's exact edge", {"sliding_window": WINDOW + 1}),
                          ("the local RoPE base", {"rope_parameters": {k: rope["full_attention"] for k in rope}}),
                          ("the global RoPE base", {"rope_parameters": {k: rope["sliding_attention"] for k in rope}}),
                          ("the global layer", {"layer_types": ["sliding_attention"] * 7}),
                          ("the scale of q", {"query_pre_attn_scalar": 64}),
                          ("GELU by tanh", {"hidden_activation": "silu"})):
        must_differ(what, good, logits_of(variant(model, Gemma3ForCausalLM, gemma3_config(**changes)), ids))

    def no_qk_norm(state):
        for k in state:
            if "q_norm" in k or "k_norm" in k:
                state[k].zero_()
    must_differ("QK-norm weights", good, logits_of(variant(model, Gemma3ForCausalLM, gemma3_config(), no_qk_norm), ids))


def make_llama(folder):
    model = randomize(LlamaForCausalLM(llama_config()), 20261, 1.0)
    ids = [int(x) for x in np.random.default_rng(8).integers(3, 287, POSITIONS)]
    good = write_reference(folder, "llama", "llama", model, ids)
    write_safetensors(os.path.join(folder, "llama-hf"), model)
    rope = {"rope_type": "default", "rope_theta": 1e4}
    must_differ("the RoPE base", good, logits_of(variant(model, LlamaForCausalLM, llama_config(rope_parameters=rope)), ids))

    def permuted(state):
        for k in state:
            if "q_proj" in k or "k_proj" in k:
                state[k] = torch.from_numpy(np.ascontiguousarray(permute_qk(state[k].numpy(), 6 if "q_proj" in k else 2)))
    must_differ("the permutation", good, logits_of(variant(model, LlamaForCausalLM, llama_config(), permuted), ids))

    def swapped(state):
        for k in state:
            if "k_proj" in k:
                state[k] = state[k].roll(16, 0)
    must_differ("the right kv head", good, logits_of(variant(model, LlamaForCausalLM, llama_config(), swapped), ids))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    folder = p.parse_args().out
    os.makedirs(folder, exist_ok=True)
    shutil.rmtree(os.path.join(folder, "llama-hf"), ignore_errors=True)
    torch.set_num_threads(1)
    make_gemma3(folder)
    make_llama(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
