#!/usr/bin/env python3
"""Make the tiny Hugging Face folders of tests/golden/folders with transformers itself, and their reference logits.

    make_tiny_folders.py tests/golden/folders

qwen3: QK norms without biases, an output matrix of its own, in shards with an index; with a tokenizer.json (trained here, in
Qwen's form, NFC and all), a chat template in a file, and chat.json: a conversation as text, its ids, and what transformers
answers greedily in fp32.
mistral: a window in every layer, an output matrix of its own. llama3: RoPE scaled by Llama 3's rule, tied embeddings.
llama-linear: RoPE scaled by a factor, an output matrix of its own, the keys of older files (rope_theta, rope_scaling).
gemma3: a global layer between two with a window, linear scaling in the global one only, norms stored without their 1, in shards.
Weights are bf16 from a seed. NAME/reference.ids.json, NAME/reference.logits.npy: one sequence and its fp32 logits; the script
refuses to write logits that do not show the trait.
Needs: numpy, torch, transformers, tokenizers, safetensors.
"""
import argparse
import copy
import json
import os
import shutil
import sys

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, MistralConfig,
                          MistralForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM)

import gguf_tokenizer
from export_tiny_models import logits_of, must_differ, randomize, variant

POSITIONS = 40
COMMON = dict(vocab_size=288, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, head_dim=16, max_position_embeddings=256, rms_norm_eps=1e-6,
              attn_implementation="eager")
TEXTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden", "texts")
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "cafe\u0301 12 <|im_end|>?"}]
TEMPLATE = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def rope(theta, **more):
    return {"rope_type": "default", "rope_theta": theta, **more}


def save(folder, model, shard="5GB"):
    os.makedirs(folder)
    model.config.dtype = "bfloat16"
    ids = [int(x) for x in np.random.default_rng(9).integers(3, 280, POSITIONS)]
    logits = logits_of(model, ids)
    np.save(os.path.join(folder, "reference.logits.npy"), logits)
    with open(os.path.join(folder, "reference.ids.json"), "w", encoding="utf-8") as f:
        json.dump(ids, f)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o644)
    print("%s: %d parameters, logits std %.2f" % (folder, sum(p.numel() for p in model.parameters()), logits.std()))
    return ids, logits


def make_tokenizer(folder):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(gguf_tokenizer.SPLIT % ""), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    t.post_processor = processors.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False)
    t.train([os.path.join(TEXTS, n) for n in ("english.txt", "german.txt", "code.txt")], trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_tokens([AddedToken(x, special=True, normalized=False) for x in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    t.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return fast


@torch.no_grad()
def answer(model, ids, n):
    """Greedy ids; the smallest lead of the first over the second tells whether rounding could change them."""
    out, lead = list(ids), 1e9
    for _ in range(n):
        row = np.sort(logits_of(model, out)[-1])
        lead = min(lead, float(row[-1] - row[-2]))
        out.append(int(logits_of(model, out)[-1].argmax()))
    return out[len(ids):], lead


def make_qwen3(folder):
    config = Qwen3Config(**COMMON, tie_word_embeddings=False, rope_parameters=rope(1e6), eos_token_id=282,
                         bos_token_id=None)
    model = randomize(Qwen3ForCausalLM(config), 20262, 1.0)
    model.generation_config.eos_token_id = [282, 280]
    ids, good = save(folder, model, "30KB")

    def no_qk_norm(state):
        for k in state:
            if "q_norm" in k or "k_norm" in k:
                state[k].fill_(1)
    must_differ("QK-norm weights", good, logits_of(variant(model, Qwen3ForCausalLM, config, no_qk_norm), ids))
    fast = make_tokenizer(folder)
    text = fast.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    prompt = fast(text, add_special_tokens=False)["input_ids"]
    out, lead = answer(model, prompt, 8)
    print("  answer %s, lead %.3f" % (out, lead))
    if lead < 0.05:
        raise SystemExit("the answer hangs on rounding: change the seed")
    with open(os.path.join(folder, "chat.json"), "w", encoding="utf-8") as f:
        json.dump({"messages": CHAT, "text": text, "ids": prompt, "answer": out, "answer_text": fast.decode(out)}, f)


def make_mistral(folder):
    config = MistralConfig(**COMMON, sliding_window=8, tie_word_embeddings=False, rope_parameters=rope(1e4))
    model = randomize(MistralForCausalLM(config), 20263, 1.0)
    ids, good = save(folder, model)
    for what, window in (("the window", None), ("the window's exact edge", 9)):
        config = MistralConfig(**COMMON, sliding_window=window, tie_word_embeddings=False, rope_parameters=rope(1e4))
        must_differ(what, good, logits_of(variant(model, MistralForCausalLM, config), ids))


def llama_linear_config(factor):
    return LlamaConfig(**{**COMMON, "num_hidden_layers": 1}, tie_word_embeddings=False,
                       rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": factor})


def make_llama_linear(folder):
    model = randomize(LlamaForCausalLM(llama_linear_config(4.0)), 20265, 1.0)
    ids, good = save(folder, model)
    must_differ("the factor", good, logits_of(variant(model, LlamaForCausalLM, llama_linear_config(1.0)), ids))
    path = os.path.join(folder, "config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    del config["rope_parameters"]
    config.update(rope_theta=1e4, rope_scaling={"type": "linear", "factor": 4.0})
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f, indent=2)


def gemma3_config(factor=4.0, local=1e4, window=8):
    kinds = {"full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": factor},
             "sliding_attention": rope(local)}
    return Gemma3TextConfig(**{**COMMON, "num_hidden_layers": 3, "num_key_value_heads": 1}, query_pre_attn_scalar=16,
                            sliding_window=window, tie_word_embeddings=True, rope_parameters=kinds,
                            layer_types=["sliding_attention", "full_attention", "sliding_attention"])


def make_gemma3(folder):
    model = randomize(Gemma3ForCausalLM(gemma3_config()), 20266, 0.0)
    ids, good = save(folder, model, "30KB")
    for what, change in (("the factor", {"factor": 1.0}), ("the base of the sliding layers", {"local": 1e6}),
                         ("the window's exact edge", {"window": 9})):
        must_differ(what, good, logits_of(variant(model, Gemma3ForCausalLM, gemma3_config(**change)), ids))


def make_llama3(folder):
    scaled = rope(1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
    scaled["rope_type"] = "llama3"
    config = LlamaConfig(**COMMON, tie_word_embeddings=True, rope_parameters=scaled)
    model = randomize(LlamaForCausalLM(config), 20264, 1.0)
    ids, good = save(folder, model)
    config = LlamaConfig(**COMMON, tie_word_embeddings=True, rope_parameters=rope(1e4))
    must_differ("the scaling", good, logits_of(variant(model, LlamaForCausalLM, config), ids))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    out = p.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    torch.set_num_threads(1)
    make_qwen3(os.path.join(out, "qwen3"))
    make_mistral(os.path.join(out, "mistral"))
    make_llama3(os.path.join(out, "llama3"))
    make_llama_linear(os.path.join(out, "llama-linear"))
    make_gemma3(os.path.join(out, "gemma3"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
