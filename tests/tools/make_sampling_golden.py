#!/usr/bin/env python3
"""Make tests/golden/sampling.json: what others make of logits before a token is drawn from them.

    make_sampling_golden.py

Needs torch, transformers and vllm. Bias, repetition penalty, min-p, top-k and top-p by the logits processors of transformers;
frequency and presence penalties by vLLM's apply_penalties; log-probabilities by torch.log_softmax. The order is vLLM's: bias,
repetition, frequency, presence, temperature, min-p, top-k, top-p."""
import json
import os

import torch
import transformers
import vllm
from transformers import (MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, SequenceBiasLogitsProcessor, TopKLogitsWarper,
                          TopPLogitsWarper)
from vllm.model_executor.layers.utils import apply_penalties

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "sampling.json")
VOCAB = 40


def case(seed):
    g = torch.Generator().manual_seed(seed)
    pick = lambda n: torch.randint(0, VOCAB, (n,), generator=g).tolist()
    real = lambda low, high: low + (high - low) * torch.rand((), generator=g).item()
    logits = (torch.randn(1, VOCAB, generator=g) * 4).float()
    prompt, output = pick(1 + seed % 12), pick(seed % 17)
    how = {"repetition": round(real(0.5, 2), 3) if seed % 3 else 1.0, "frequency": round(real(-2, 2), 3) if seed % 4 else 0.0,
           "presence": round(real(-2, 2), 3) if seed % 5 else 0.0, "temperature": round(real(0.3, 2), 3),
           "min_p": round(real(0.01, 0.5), 3) if seed % 2 else 0.0, "top_k": 1 + seed % 30 if seed % 7 < 3 else 0,
           "top_p": round(real(0.2, 0.99), 3) if seed % 7 > 3 else 1.0}
    bias = {i: round(real(-20, 20), 2) for i in sorted(set(pick(seed % 6)))}
    x = logits.clone()
    if bias:
        x = SequenceBiasLogitsProcessor([[[i], b] for i, b in bias.items()])(torch.tensor([prompt + output]), x)
    if how["repetition"] != 1:
        x = RepetitionPenaltyLogitsProcessor(how["repetition"])(torch.tensor([prompt + output]), x)
    tensor = lambda t: torch.tensor([t], dtype=torch.long).reshape(1, -1)
    x = apply_penalties(x, tensor(prompt), tensor(output), torch.tensor([how["presence"]]), torch.tensor([how["frequency"]]),
                        torch.ones(1))
    edited = x.clone()
    x = x / how["temperature"]
    if how["min_p"]:
        x = MinPLogitsWarper(how["min_p"])(None, x)
    if how["top_k"]:
        x = TopKLogitsWarper(how["top_k"])(None, x)
    if how["top_p"] < 1:
        x = TopPLogitsWarper(how["top_p"])(None, x)
    short = lambda t: [float("%.9g" % v) for v in t[0].tolist()]
    return {**how, "logits": short(logits), "prompt": prompt, "output": output, "bias": [[i, b] for i, b in bias.items()],
            "edited": short(edited), "probabilities": short(torch.softmax(x, -1)),
            "logprobs": short(torch.log_softmax(logits.double(), -1))}


def main():
    rows = [case(seed) for seed in range(40)]
    with open(OUT, "w") as f:
        f.write('{"torch": "%s", "transformers": "%s", "vllm": "%s", "rows": [\n' % (torch.__version__, transformers.__version__,
                                                                                   vllm.__version__))
        f.write(",\n".join(json.dumps(r) for r in rows) + "\n]}\n")


main()
