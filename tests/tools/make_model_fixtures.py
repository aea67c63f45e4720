#!/usr/bin/env python3
"""Write tests/golden/model_file: two tiny models, each as GGUF and as safetensors with config.json, same weights.

The values are small multiples of 1/16, exact in F16, BF16 and F32. The GGUF side follows the published converter:
llama's q and k rows are interleaved by head, gemma's norm weights have the 1 added. No packages needed.
"""
import json
import pathlib
import struct
import sys

from make_loader_corpus import ARR, BOOL, F32, STR, U32, Gguf

SIZES = {"hidden": 32, "ffn": 48, "heads": 4, "kv": 2, "dim": 16, "vocab": 20, "layers": 2}


class Numbers:
    """Small deterministic generator: multiples of 1/16 in [-4, 4)."""

    def __init__(self, seed):
        self.state = seed

    def take(self, n):
        out = []
        for _ in range(n):
            self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
            out.append(((self.state >> 40) % 128 - 64) / 16)
        return out


def raw(kind, values):
    if kind == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    if kind == "F32":
        return struct.pack(f"<{len(values)}f", *values)
    return b"".join(struct.pack("<f", v)[2:] for v in values)  # BF16: the values have short mantissas


def tensors(arch):
    """(GGUF name, HF name, rows, columns, kind of change)"""
    s = SIZES
    q, k = s["heads"] * s["dim"], s["kv"] * s["dim"]
    yield "token_embd", "model.embed_tokens", s["vocab"], s["hidden"], None
    yield "output_norm", "model.norm", 1, s["hidden"], "norm"
    if arch == "llama":
        yield "output", "lm_head", s["vocab"], s["hidden"], None
    for i in range(s["layers"]):
        g, h = f"blk.{i}.", f"model.layers.{i}."
        yield g + "attn_norm", h + "input_layernorm", 1, s["hidden"], "norm"
        yield g + "attn_q", h + "self_attn.q_proj", q, s["hidden"], "heads"
        yield g + "attn_k", h + "self_attn.k_proj", k, s["hidden"], "heads"
        yield g + "attn_v", h + "self_attn.v_proj", k, s["hidden"], None
        yield g + "attn_output", h + "self_attn.o_proj", s["hidden"], q, None
        if arch == "gemma3":
            yield g + "attn_q_norm", h + "self_attn.q_norm", 1, s["dim"], "norm"
            yield g + "attn_k_norm", h + "self_attn.k_norm", 1, s["dim"], "norm"
            yield g + "post_attention_norm", h + "post_attention_layernorm", 1, s["hidden"], "norm"
            yield g + "ffn_norm", h + "pre_feedforward_layernorm", 1, s["hidden"], "norm"
            yield g + "post_ffw_norm", h + "post_feedforward_layernorm", 1, s["hidden"], "norm"
        else:
            yield g + "ffn_norm", h + "post_attention_layernorm", 1, s["hidden"], "norm"
        yield g + "ffn_gate", h + "mlp.gate_proj", s["ffn"], s["hidden"], None
        yield g + "ffn_up", h + "mlp.up_proj", s["ffn"], s["hidden"], None
        yield g + "ffn_down", h + "mlp.down_proj", s["hidden"], s["ffn"], None


def interleave(values, rows, cols):
    """reshape(heads, 2, dim/2, cols).swapaxes(1, 2), written out."""
    dim, out = SIZES["dim"], []
    for head in range(rows // dim):
        for i in range(dim // 2):
            for half in range(2):
                row = head * dim + half * (dim // 2) + i
                out += values[row * cols:(row + 1) * cols]
    return out


def gguf_metadata(arch):
    s = SIZES
    g = Gguf().kv("general.architecture", STR, arch).kv("general.name", STR, f"tiny {arch}")
    for key, value in (("block_count", s["layers"]), ("context_length", 128), ("embedding_length", s["hidden"]),
                       ("feed_forward_length", s["ffn"]), ("attention.head_count", s["heads"]),
                       ("attention.head_count_kv", s["kv"]), ("attention.key_length", s["dim"]),
                       ("attention.value_length", s["dim"])):
        g.kv(f"{arch}.{key}", U32, value)
    g.kv(f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-6)
    g.kv(f"{arch}.rope.freq_base", F32, 1e6 if arch == "gemma3" else 5e5)
    if arch == "gemma3":
        g.kv("gemma3.attention.sliding_window", U32, 32).kv("gemma3.attention.sliding_window_pattern", U32, 2)
    else:
        g.kv("llama.rope.dimension_count", U32, s["dim"])
    g.kv("tokenizer.ggml.model", STR, "llama")
    g.kv("tokenizer.ggml.tokens", ARR, [f"t{i}" for i in range(s["vocab"])], STR)
    g.kv("tokenizer.ggml.bos_token_id", U32, 2).kv("tokenizer.ggml.eos_token_id", U32, 1)
    g.kv("tokenizer.ggml.eot_token_id", U32, 6).kv("tokenizer.ggml.add_bos_token", BOOL, 1)
    return g.kv("tokenizer.chat_template", STR, "{{ messages }}")


def hf_config(arch):
    s = SIZES
    c = {"hidden_size": s["hidden"], "intermediate_size": s["ffn"], "num_attention_heads": s["heads"],
         "num_key_value_heads": s["kv"], "head_dim": s["dim"], "num_hidden_layers": s["layers"],
         "vocab_size": s["vocab"], "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "bos_token_id": 2,
         "eos_token_id": 1, "_name_or_path": f"tiny {arch}"}
    if arch == "gemma3":
        c.update(architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", query_pre_attn_scalar=s["dim"],
                 rope_theta=1e6, rope_local_base_freq=1e4, sliding_window=32, hidden_activation="gelu_pytorch_tanh",
                 layer_types=["sliding_attention", "full_attention"])
    else:
        c.update(architectures=["LlamaForCausalLM"], model_type="llama", rope_theta=5e5, hidden_act="silu",
                 tie_word_embeddings=False,
                 rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                               "original_max_position_embeddings": 64})
    return c


def llama3_factors():
    """Factors of the scaling above, by the converter's formula."""
    dim, base, old, factor, low, high = SIZES["dim"], 5e5, 64, 8.0, 1.0, 4.0
    out = []
    for i in range(0, dim, 2):
        wavelen = 2 * 3.141592653589793 * base ** (i / dim)
        if wavelen < old / high:
            out.append(1.0)
        elif wavelen > old / low:
            out.append(factor)
        else:
            smooth = (old / wavelen - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return out


def write_model(folder, arch, seed):
    numbers, g, data, header = Numbers(seed), gguf_metadata(arch), bytearray(), {}
    blob = bytearray()
    if arch == "llama":
        g.tensor("rope_freqs.weight", [SIZES["dim"] // 2])
        blob += raw("F32", llama3_factors())
    for gguf_name, hf_name, rows, cols, change in tensors(arch):
        values = numbers.take(rows * cols)
        norm = rows == 1
        hf = raw("BF16", values)
        shape = [cols] if norm else [rows, cols]
        header[hf_name + ".weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(hf)]}
        data += hf
        if change == "norm" and arch == "gemma3":
            values = [v + 1 for v in values]
        if change == "heads" and arch == "llama":
            values = interleave(values, rows, cols)
        g.tensor(gguf_name + ".weight", [cols] if norm else [cols, rows], 0 if norm else 1, offset=len(blob))
        blob += raw("F32" if norm else "F16", values)
        blob += b"\0" * (-len(blob) % 32)
    g.data = bytes(blob)
    place = folder / arch
    place.mkdir(parents=True, exist_ok=True)
    (folder / f"{arch}.gguf").write_bytes(g.build())
    text = json.dumps(header, separators=(",", ":")).encode()
    (place / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (place / "config.json").write_text(json.dumps(hf_config(arch), indent=1) + "\n")
    (place / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 6]}) + "\n")
    (place / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "chat_template": "{{ m }}"}) + "\n")


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/model_file")
    write_model(folder, "llama", 1)
    write_model(folder, "gemma3", 2)


if __name__ == "__main__":
    main()
