#!/usr/bin/env python3
"""fp32 reference logits of a GGUF model or a Hugging Face folder: transformers, eager attention, dequantized weights.

    reference_logits.py MODEL.gguf OUT_FOLDER IDS.json...

Each IDS.json is a list of token ids (`troupe tokenize MODEL --text FILE --json`), one sequence. For x.ids.json the float32
logits go to OUT_FOLDER/x.npy [positions, vocabulary]. Prints the perplexity of each as a first plausibility check.
Needs: numpy, torch, transformers, gguf.
"""
import argparse
import json
import os
import sys

import numpy as np
import torch

from gguf_to_hf import load, logits_by_chunk


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("out")
    p.add_argument("ids", nargs="+")
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    model, _ = load(args.model)
    os.makedirs(args.out, exist_ok=True)
    for path in args.ids:
        with open(path, encoding="utf-8") as f:
            ids = json.load(f)
        stem = os.path.basename(path).removesuffix(".json").removesuffix(".ids")
        target = os.path.join(args.out, stem + ".npy")
        out = np.lib.format.open_memmap(target, "w+", np.float32, (len(ids), model.config.vocab_size))
        row, nll = 0, 0.0
        for block in logits_by_chunk(model, ids):
            out[row:row + len(block)] = block
            logp = torch.log_softmax(torch.from_numpy(block).double(), -1)
            n = min(len(block), len(ids) - 1 - row)
            nll -= float(logp[torch.arange(n), torch.tensor(ids[row + 1:row + 1 + n], dtype=torch.long)].sum())
            row += len(block)
        out.flush()
        print("%s: %d positions, ppl %.3f" % (target, len(ids), np.exp(nll / max(len(ids) - 1, 1))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
