#!/usr/bin/env python3
"""Write tests/golden/dequant/TYPE.bin: random blocks and the floats that the `gguf` package makes of them.

File: u32 number of blocks, then the blocks, then block_elems * blocks float32, all little-endian.
Needs: pip install gguf numpy (made with gguf 0.19.0). The seed is fixed, so a second run writes the same bytes.
"""
import pathlib
import sys

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Type -> byte positions of the f16 values in a block; everything else is free for random bytes.
HALVES = {
    T.F16: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.F32: [], T.BF16: [],
}
# Largest, smallest normal, largest and smallest denormal, zeros, one: with both signs.
EDGES = [0x7BFF, 0x0400, 0x03FF, 0x0001, 0x0000, 0x3C00]


def finite_halves(rng, n):
    """Random f16 bit patterns without infinities and NaN."""
    bits = rng.integers(0, 0x7C00, n, dtype=np.uint16)
    return bits | (rng.integers(0, 2, n, dtype=np.uint16) << 15).astype(np.uint16)


def make_blocks(rng, kind):
    elems, size = GGML_QUANT_SIZES[kind]
    if kind == T.F32:
        bits = rng.integers(0, 0x7F800000, 1024, dtype=np.uint32) | (rng.integers(0, 2, 1024, dtype=np.uint32) << 31)
        return bits.astype(np.uint32).view(np.uint8).reshape(-1, size)
    if kind == T.BF16:
        bits = rng.integers(0, 0x7F80, 1024, dtype=np.uint16) | (rng.integers(0, 2, 1024, dtype=np.uint16) << 15)
        return bits.astype(np.uint16).view(np.uint8).reshape(-1, size)
    count = 1024 if elems == 1 else 64 if elems == 32 else 24
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for position in HALVES[kind]:
        halves = finite_halves(rng, count)
        for i, edge in enumerate(EDGES):
            halves[2 * i] = edge
            halves[2 * i + 1] = edge | 0x8000
        halves[12:18] = rng.permutation(halves[12:18])
        if position > 0:
            halves = rng.permutation(halves)
        blocks[:, position:position + 2] = halves.view(np.uint8).reshape(-1, 2)
    blocks[-1, [b for b in range(size) if all(b - p not in (0, 1) for p in HALVES[kind])]] = 0xFF
    blocks[-2, [b for b in range(size) if all(b - p not in (0, 1) for p in HALVES[kind])]] = 0x00
    return blocks


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/dequant")
    folder.mkdir(parents=True, exist_ok=True)
    for kind in HALVES:
        rng = np.random.default_rng(1000 + int(kind))
        blocks = np.ascontiguousarray(make_blocks(rng, kind))
        values = dequantize(blocks.reshape(1, -1), kind).astype(np.float32).ravel()
        assert np.isfinite(values).all(), kind.name
        assert values.size == blocks.shape[0] * GGML_QUANT_SIZES[kind][0]
        data = np.uint32(blocks.shape[0]).tobytes() + blocks.tobytes() + values.tobytes()
        (folder / f"{kind.name}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
