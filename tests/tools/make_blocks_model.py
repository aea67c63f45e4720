#!/usr/bin/env python3
"""Make tests/golden/tiny/blocks.gguf: a Gemma with random weights in every block type that the loader reads, and fused
tensors whose parts differ in type. Tokenizer and settings are those of tests/golden/tiny/gemma3.gguf.

    make_blocks_model.py OUT.gguf          (from the source folder; needs numpy, gguf)

A repeated run writes the same file. There is no reference beside it: it is compared with itself, in bf16 and native.
"""
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

HIDDEN, FFN, HEADS, HEAD_DIM = 256, 256, 4, 32
LAYERS = [dict(attn_q=T.Q5_0, attn_k=T.Q8_0, attn_v=T.Q5_1, attn_output=T.Q4_0, ffn_gate=T.Q4_K, ffn_up=T.Q5_K, ffn_down=T.Q6_K),
          dict(attn_q=T.Q4_1, attn_k=T.BF16, attn_v=T.Q4_0, attn_output=T.Q8_0, ffn_gate=T.Q5_0, ffn_up=T.Q4_1, ffn_down=T.Q4_K)]
rng = np.random.default_rng(7)


def f16(x):
    return np.asarray(x, dtype=np.float16).view(np.uint8)


def k_block(kind, std):
    """256 weights: random codes, scales so that their mean is 0 and their deviation std."""
    if kind == T.Q6_K:
        scales = rng.integers(20, 64, 16).astype(np.int8) * rng.choice([-1, 1], 16).astype(np.int8)
        return np.concatenate([rng.integers(0, 256, 192, dtype=np.uint8), scales.view(np.uint8), f16([std / 18.5 / 40])])
    bits = 4 if kind == T.Q4_K else 5
    mean, spread = ((1 << bits) - 1) / 2, (1 << bits) / np.sqrt(12)
    s = rng.integers(20, 64, 8)
    packed = np.zeros(12, dtype=np.uint8)
    packed[0:4] = s[:4] | (s[4:] >> 4) << 6
    packed[4:8] = s[:4] | (s[4:] >> 4) << 6
    packed[8:12] = (s[4:] & 15) | (s[4:] & 15) << 4
    d = std / spread / 40
    return np.concatenate([f16([d, d * mean]), packed, rng.integers(0, 256, 128 if bits == 4 else 160, dtype=np.uint8)])


def tensor(kind, rows, cols):
    std = 1 / np.sqrt(cols)
    if kind in (T.Q4_K, T.Q5_K, T.Q6_K):
        return np.stack([np.concatenate([k_block(kind, std) for _ in range(cols // 256)]) for _ in range(rows)])
    w = (rng.standard_normal((rows, cols)) * std).astype(np.float32)
    return gguf.quants.quantize(w, kind)


def main():
    source = gguf.GGUFReader("tests/golden/tiny/gemma3.gguf")
    out = gguf.GGUFWriter(sys.argv[1], "gemma3")
    changed = {"gemma3.embedding_length": HIDDEN, "gemma3.feed_forward_length": FFN, "gemma3.block_count": len(LAYERS),
               "gemma3.attention.head_count": HEADS, "gemma3.attention.head_count_kv": 1,
               "gemma3.attention.key_length": HEAD_DIM, "gemma3.attention.value_length": HEAD_DIM}
    for key, field in source.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = changed.get(key, field.contents())
        if key == "gemma3.attention.sliding_window_pattern" and isinstance(value, list):
            value = value[:len(LAYERS)]
        out.add_key_value(key, value, field.types[0], field.types[1] if len(field.types) > 1 else None)
    vocab = len(source.fields["tokenizer.ggml.tokens"].contents())
    norm = lambda n: (1 + 0.3 * rng.standard_normal(n)).astype(np.float32)
    out.add_tensor("token_embd.weight", tensor(T.Q8_0, vocab, HIDDEN), raw_dtype=T.Q8_0)
    out.add_tensor("output_norm.weight", norm(HIDDEN))
    shapes = dict(attn_q=(HEADS * HEAD_DIM, HIDDEN), attn_k=(HEAD_DIM, HIDDEN), attn_v=(HEAD_DIM, HIDDEN),
                  attn_output=(HIDDEN, HEADS * HEAD_DIM), ffn_gate=(FFN, HIDDEN), ffn_up=(FFN, HIDDEN), ffn_down=(HIDDEN, FFN))
    for i, kinds in enumerate(LAYERS):
        for name, kind in kinds.items():
            out.add_tensor("blk.%d.%s.weight" % (i, name), tensor(kind, *shapes[name]), raw_dtype=kind)
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            out.add_tensor("blk.%d.%s.weight" % (i, name), norm(HIDDEN))
        for name in ("attn_q_norm", "attn_k_norm"):
            out.add_tensor("blk.%d.%s.weight" % (i, name), norm(HEAD_DIM) + np.float32(0.5))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


main()
