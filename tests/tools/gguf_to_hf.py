#!/usr/bin/env python3
"""Load a GGUF file (gemma3 or llama architecture) into a transformers model, dequantized to fp32.

    gguf_to_hf.py MODEL.gguf OUT_FOLDER [--dtype bfloat16] [--shard 200MB]

writes it as a Hugging Face folder: config.json, generation_config.json, weights (in shards of at most that size, with an
index), tokenizer.json and tokenizer_config.json (gguf_tokenizer.py).
The config comes from the file's metadata; the weights are put back into the transformers convention: Gemma stores its
norm weights with 1 added, Llama has the rows of q and k permuted for interleaved rotary pairs.
Needs: numpy, torch, transformers, gguf.
"""
import argparse
import json
import os
import sys

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from transformers import (AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig,
                          LlamaForCausalLM)

import gguf_tokenizer

COMMON = {  # GGUF name inside blk.N -> transformers name inside model.layers.N
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
}
GEMMA3 = dict(COMMON, attn_q_norm="self_attn.q_norm", attn_k_norm="self_attn.k_norm",
              post_attention_norm="post_attention_layernorm", ffn_norm="pre_feedforward_layernorm",
              post_ffw_norm="post_feedforward_layernorm")
LLAMA = dict(COMMON, ffn_norm="post_attention_layernorm")
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def permute_qk(w, heads):
    """Rows of each head from halves (rotate_half) to interleaved pairs, as the llama GGUF stores them."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def unpermute_qk(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def hf_name(arch, name):
    stem = name.removesuffix(".weight")
    if stem in TOP:
        return TOP[stem] + ".weight"
    _, layer, inner = stem.split(".")
    return "model.layers.%s.%s.weight" % (layer, (GEMMA3 if arch == "gemma3" else LLAMA)[inner])


class Meta:
    """Metadata of a GGUFReader by key, with the architecture's prefix for `arch()`."""

    def __init__(self, reader):
        self.reader = reader
        self.arch = self.get("general.architecture")

    def get(self, key, default=None):
        field = self.reader.get_field(key)
        if field is None and default is None:
            raise KeyError(key)
        return default if field is None else field.contents()

    def of_arch(self, key, default=None):
        return self.get(self.arch + "." + key, default)


def make_config(meta, vocab):
    m = meta.of_arch
    heads, hidden = m("attention.head_count"), m("embedding_length")
    both = dict(vocab_size=vocab, hidden_size=hidden, intermediate_size=m("feed_forward_length"),
                num_hidden_layers=m("block_count"), num_attention_heads=heads,
                num_key_value_heads=m("attention.head_count_kv"), max_position_embeddings=m("context_length"),
                rms_norm_eps=m("attention.layer_norm_rms_epsilon"), attn_implementation="eager")
    if meta.arch == "llama":
        return LlamaConfig(**both, head_dim=m("attention.key_length", hidden // heads),
                           rope_parameters={"rope_type": "default", "rope_theta": m("rope.freq_base", 10000.0)})
    if meta.arch != "gemma3":
        raise SystemExit("architecture %s is not known here" % meta.arch)
    head_dim = m("attention.key_length")
    layers = m("block_count")
    # The file does not carry the pattern: five sliding layers, then a full one. Only the 62-layer model scales q otherwise.
    types = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)]
    rope = {"full_attention": {"rope_type": "default", "rope_theta": m("rope.freq_base", 1e6)},
            "sliding_attention": {"rope_type": "default", "rope_theta": m("rope.freq_base_swa", 1e4)}}
    return Gemma3TextConfig(**both, head_dim=head_dim, sliding_window=m("attention.sliding_window"), layer_types=types,
                            query_pre_attn_scalar=hidden // heads if layers == 62 else head_dim, rope_parameters=rope)


def load(path):
    """(model in eval mode with fp32 weights, Meta; a Hugging Face folder has no Meta)."""
    if os.path.isdir(path):
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval(), None
    reader = gguf.GGUFReader(path)
    meta = Meta(reader)
    state = {}
    for t in reader.tensors:
        if t.name == "rope_freqs.weight":
            raise SystemExit("rope_freqs (scaled rotary embedding) is not supported here")
        w = dequantize(t.data, t.tensor_type).astype(np.float32)
        w = w.reshape([int(n) for n in reversed(t.shape)])
        if meta.arch == "gemma3" and t.name.endswith("norm.weight"):
            w = w - np.float32(1)
        if meta.arch == "llama" and t.name.endswith(("attn_q.weight", "attn_k.weight")):
            key = "attention.head_count" if "attn_q" in t.name else "attention.head_count_kv"
            w = unpermute_qk(w, meta.of_arch(key))
        state[hf_name(meta.arch, t.name)] = torch.from_numpy(np.ascontiguousarray(w))
    config = make_config(meta, state["model.embed_tokens.weight"].shape[0])
    config.tie_word_embeddings = "lm_head.weight" not in state
    cls = Gemma3ForCausalLM if meta.arch == "gemma3" else LlamaForCausalLM
    return fill(cls, config, state), meta


def fill(cls, config, state):
    model = cls(config).to(torch.float32)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [k for k in missing if not (k == "lm_head.weight" and config.tie_word_embeddings)]
    if missing or unexpected:
        raise SystemExit("weights do not fit: missing %s, unexpected %s" % (missing, unexpected))
    model.tie_weights()
    return model.eval()


@torch.no_grad()
def logits_by_chunk(model, ids, rows=128):
    """Yield float32 logits [<= rows, vocabulary] of one sequence, in order: the head is the large part."""
    hidden = model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0]
    for i in range(0, len(ids), rows):
        yield model.lm_head(hidden[i:i + rows]).numpy()


def write_folder(path, folder, dtype, shard):
    model, meta = load(path)
    for key in ("bos", "eos"):
        value = meta.get("tokenizer.ggml.%s_token_id" % key, -1)
        for config in (model.config, model.generation_config):
            setattr(config, key + "_token_id", None if value < 0 else int(value))
    model.config.dtype = dtype
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    for name, data in zip(("tokenizer.json", "tokenizer_config.json"), gguf_tokenizer.convert(meta.reader)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(data, f, ensure_ascii=False)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("folder")
    p.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    p.add_argument("--shard", default="200MB")
    args = p.parse_args()
    write_folder(args.model, args.folder, args.dtype, args.shard)
    return 0


if __name__ == "__main__":
    sys.exit(main())
