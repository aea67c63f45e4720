#!/usr/bin/env python3
"""Compare the reading of tokenizer.json with the `tokenizers` library.

    compare_tokenizer_json.py [-n 20000] [--seed 1] VOCABULARY.gguf|tokenizer.json|FOLDER ...
    compare_tokenizer_json.py --golden VOCABULARY.gguf ...

A GGUF's vocabulary is made into a tokenizer.json first (gguf_tokenizer.py). n texts in many scripts are tokenized with
special tokens parsed, with and without BOS; ids must be equal, and for a GGUF those of its own loading are counted
against them (they may differ: see docs/models.md). Exit 1 when the library and the loader differ.
--golden writes NAME/tokenizer.json, NAME/tokenizer_config.json and the library's answers NAME/answers.txt into
tests/golden/tokenizer_json, for vocabularies named NAME-small.gguf.
Needs: numpy, gguf, tokenizers; a C compiler, jansson and xxhash.
"""
import argparse
import json
import os
import random
import shutil
import sys
import tempfile

import gguf
from tokenizers import Tokenizer

import gguf_tokenizer
from make_tokenizer_golden import BOS, ROOT, SPECIAL, build_batch, make_texts, ours


def folder_of(path, work, pairs):
    """Folder with a tokenizer.json."""
    if os.path.isdir(path):
        return path
    if path.endswith(".gguf"):
        made = gguf_tokenizer.convert(gguf.GGUFReader(path), pairs, rstrip="phi-3" in os.path.basename(path))
        for name, data in zip(("tokenizer.json", "tokenizer_config.json"), made):
            with open(os.path.join(work, name), "w", encoding="utf-8") as f:
                json.dump(data, f, ensure_ascii=False, separators=(",", ":"))
    else:
        shutil.copy(path, os.path.join(work, "tokenizer.json"))
    return work


def valid(text):
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def compare(exe, path, n, seed):
    r = random.Random(seed)
    with tempfile.TemporaryDirectory() as work:
        folder = folder_of(path, work, seed % 2 == 1)
        reference = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        jobs = [(t, SPECIAL | r.choice([0, BOS])) for t in make_texts(n, seed) if valid(t) is not None]
        mine = ours(exe, folder, jobs)
        own = ours(exe, path, jobs) if path.endswith(".gguf") else [None] * len(jobs)
        differ, gguf_differ = 0, 0
        for (text, flags), a, b in zip(jobs, mine, own):
            want = reference.encode(valid(text), add_special_tokens=bool(flags & BOS)).ids
            gguf_differ += b is not None and b != want
            if a != want:
                differ += 1
                if differ <= 3:
                    print(f"DIFFERENT flags {flags} {text!r}\n  tokenizers {want}\n  here       {a}")
    print(f"{os.path.basename(path)}: {len(jobs)} texts, {differ} differ; loaded from the GGUF {gguf_differ}", flush=True)
    return differ


def golden(path):
    """Lines "flags hex-of-text id id ..."; a text of no bytes is "-"."""
    name = os.path.basename(path).removesuffix("-small.gguf")
    folder = os.path.join(ROOT, "tests", "golden", "tokenizer_json", name)
    os.makedirs(folder, exist_ok=True)
    folder_of(path, folder, name not in ("gpt-2", "llama-bpe"))
    reference, r = Tokenizer.from_file(os.path.join(folder, "tokenizer.json")), random.Random(11)
    texts = [t for t in make_texts(2000, 11)[-110:] + make_texts(160, 11) if valid(t) is not None]
    with open(os.path.join(folder, "answers.txt"), "w", encoding="utf-8") as f:
        f.write("# answers of the tokenizers library: flags (1 BOS, 2 parse special), text in hex, ids\n")
        for text in texts:
            flags = SPECIAL | r.choice([0, BOS])
            ids = reference.encode(valid(text), add_special_tokens=bool(flags & BOS)).ids
            f.write(" ".join([str(flags), text.hex() or "-", *map(str, ids)]) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-n", type=int, default=20000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--golden", action="store_true")
    p.add_argument("paths", nargs="+")
    a = p.parse_args()
    if a.golden:
        return [golden(path) for path in a.paths] and 0
    exe = build_batch()
    return 1 if sum(compare(exe, path, a.n, a.seed) for path in a.paths) else 0


if __name__ == "__main__":
    sys.exit(main())
