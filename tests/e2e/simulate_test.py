"""troupe simulate: figures that can be done by hand, equal runs, errors in words; costs measured on a real small company."""
import json
import os
import unittest

from company import LLAMA, Home

MODEL = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 16, "hidden_size": 512,
         "intermediate_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 4096, "rms_norm_eps": 1e-5,
         "max_position_embeddings": 8192, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False}
TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.5000000,100,4
2023-11-16 18:15:47.5000000,50,2
2023-11-16 18:15:48.5000000,300,3
"""


class Simulate(unittest.TestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.close)

    def write(self, name, text):
        path = os.path.join(self.home.path, name)
        with open(path, "w") as f:
            f.write(text if isinstance(text, str) else json.dumps(text))
        return path

    def costs(self, **more):
        step = {"step_us": 1000, "row_us": 10}
        return self.write("costs.json", {"prefill": step, "decode": step, "model": MODEL, "cores": 8, **more})

    def simulate(self, *args, code=0):
        r = self.home.run("simulate", *map(str, args))
        self.assertEqual(r.returncode, code, r.stderr.decode())
        return json.loads(r.stdout) if code == 0 and "--json" in args else (r.stdout.decode(), r.stderr.decode())

    def test_a_trace_by_hand(self):
        """Stages of one pipeline on cores of their own; nobody meets anybody."""
        r = self.simulate("--costs", self.costs(), "--trace", self.write("t.csv", TRACE), "--unified", "pp=2,dtype=int8", "--json")
        self.assertEqual((r["completed"], r["output_tokens"]), (3, 9))
        # the longest prompt: chunks of 256 and 44 tokens; half of the layers each, the head belongs to decode steps
        self.assertAlmostEqual(r["ttft_ms"]["max"], (1 + 2.56) / 2 + (1 + 2.56) / 2 + (1 + 0.44) / 2, places=2)
        self.assertAlmostEqual(r["itl_ms"]["mean"], 1.01, places=2)
        self.assertEqual([s["name"] for s in r["stages"]], ["unified.0", "unified.1"])

    def test_equal_runs_and_loads(self):
        args = ["--costs", self.costs(), "-p", 300, "-n", 40, "--length-spread", 0.8, "--lengths", "lognormal", "--request-rate", 40,
                "--burstiness", 0.3, "--num-prompts", 200, "--prefill", "pp=2", "--decode", "pp=2", "--json", "--goodput",
                "ttft:500,itl:20", "--prompt-max", 4000]
        a, b = self.simulate(*args), self.simulate(*args)
        self.assertEqual(a, b)
        self.assertNotEqual(a, self.simulate(*args, "--seed", 1))
        more = self.simulate(*args, "--replicas", 3)
        self.assertLess(more["ttft_ms"]["mean"], a["ttft_ms"]["mean"])
        self.assertGreaterEqual(more["good"], a["good"])

    def test_policies_differ_as_they_should(self):
        base = ["--costs", self.costs(cores=16), "--unified", "pp=4,dtype=int8", "-p", 600, "-n", 60, "--length-spread", 0.5,
                "--request-rate", 30, "--num-prompts", 150, "--json"]
        r = {p: self.simulate(*base, "--policy", p) for p in ("sarathi", "prefill-first", "fcfs", "gpipe")}
        self.assertLess(r["sarathi"]["itl_ms"]["p99"], r["prefill-first"]["itl_ms"]["p99"])
        self.assertGreater(r["fcfs"]["ttft_ms"]["p50"], r["sarathi"]["ttft_ms"]["p50"])
        self.assertGreater(r["gpipe"]["bubble"], r["sarathi"]["bubble"])

    def test_text(self):
        out, _ = self.simulate("--costs", self.costs(), "--prefill", "pp=2", "--decode", "pp=1", "--num-prompts", 5)
        for word in ("time to first token", "prefill.1", "decode.0", "bubble", "policy sarathi"):
            self.assertIn(word, out)

    def test_errors(self):
        for text, words in (("{", "costs.json:1"), ({"prefill": {"step_us": -1}, "decode": {}}, "step_us"),
                            ({"prefill": {}}, "decode"), ([], "not a file of costs"),
                            ({"prefill": {}, "decode": {}, "cores": "many"}, "cores"),
                            ({"prefill": {}, "decode": {}, "model": {"model_type": "x"}}, "costs.json")):
            path = self.write("costs.json", text)
            self.assertIn(words, self.simulate("--costs", path, code=65)[1])
        self.simulate("--costs", "/nowhere", code=66)
        self.assertIn("--costs", self.simulate(LLAMA, code=64)[1])
        self.simulate("--costs", self.costs(), "--trace", "/nowhere", code=66)

    def test_measured_costs(self):
        path = os.path.join(self.home.path, "measured.json")
        r = self.home.run("bench", "model", LLAMA, "--costs", path, "-t", "1", "--set", "scheduler.max_batch=2")
        self.assertEqual(r.returncode, 0, r.stderr.decode())
        with open(path) as f:
            costs = json.load(f)
        for phase in ("prefill", "decode"):
            self.assertGreater(costs[phase]["step_us"] + costs[phase]["row_us"] + costs[phase]["least_us"], 0)
        self.assertEqual(costs["workers"], 1)
        r = self.simulate(LLAMA, "--costs", path, "-p", 32, "-n", 8, "--num-prompts", 4, "--json")
        self.assertEqual(r["completed"], 4)
        self.assertGreater(r["ttft_ms"]["mean"], 0)

    def test_a_plan_predicts(self):
        path = self.costs(prefill={"step_us": 900, "row_us": 30}, decode={"step_us": 500, "row_us": 40}, hop_us=50)
        args = ["plan", LLAMA, "-c", "256", "--costs", path, "-p", "100", "-n", "20"]
        r = self.home.run(*args, "--compare", "--json")
        self.assertEqual(r.returncode, 0, r.stderr.decode())
        p = json.loads(r.stdout)["prediction"]
        self.assertAlmostEqual(p["plan"]["ttft_lone_ms"], 0.9 + 101 * 0.03, places=1)
        self.assertAlmostEqual(p["plan"]["itl_lone_ms"], 0.54, places=2)
        self.assertGreater(p["plan"]["output_tok_s"], 100)
        self.assertIn("prefill_dtype_for_both", p)
        self.assertGreaterEqual(len(p["candidates"]), 2)
        text = self.home.run(*args, "--compare").stdout.decode()
        for word in ("predicted  alone", "between tokens", "disaggregation is", "two precisions in turn"):
            self.assertIn(word, text)
        self.assertNotIn("predicted", self.home.run("plan", LLAMA, "-c", "256").stdout.decode())
        self.assertIn("--measure", self.home.run("plan", LLAMA, "--compare").stderr.decode())


if __name__ == "__main__":
    unittest.main()
