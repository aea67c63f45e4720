#!/usr/bin/env python3
"""bench/peers with stand-ins for llama.cpp and troupe that print what the real ones print."""
import importlib.machinery
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "peers")
sys.dont_write_bytecode = True

# Speeds depend on the run's number, so that a median can be told from a mean, a first or a last value.
LLAMA = """#!/usr/bin/env python3
import json, sys
a = sys.argv[1:]
get = lambda f: a[a.index(f) + 1]
log = %(log)r
open(log, "a").write("llama " + get("-m").rsplit("-", 1)[-1] + "\\n")
n = open(log).read().count("llama " + get("-m").rsplit("-", 1)[-1])
slow = 0.5 if n == 2 else 1
rows = [{"n_prompt": int(get("-p")), "n_gen": 0, "avg_ts": 600.0 * slow, "n_threads": int(get("-t"))},
        {"n_prompt": 0, "n_gen": int(get("-n")), "avg_ts": 60.0 * slow, "n_threads": int(get("-t"))}]
print(json.dumps([r for r in rows if r["n_prompt"] or r["n_gen"]]))
"""
TROUPE = """#!/usr/bin/env python3
import json, sys
a = sys.argv[1:]
get = lambda f: a[a.index(f) + 1]
assert a[:2] == ["bench", "model"] and get("-b") == "1" and get("-o") == "json" and get("-r") == "1", a
open(%(log)r, "a").write("troupe " + get("--dtype") + "\\n")
row = lambda t, s: {"test": t, "batch": 1, "dtype": get("--dtype"), "threads": int(get("-t")),
                    "tok_s": s, "tok_s_min": s, "tok_s_max": s}
print(json.dumps([row("pp" + get("-p"), 300.0), row("tg" + get("-n"), 45.0)]))
"""
QUANTIZE = """#!/bin/sh
[ "$1" = --allow-requantize ] && cp "$2" "$3"
"""


def load_script():
    loader = importlib.machinery.SourceFileLoader("peers", SCRIPT)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("peers", loader))
    loader.exec_module(module)
    return module


class Peers(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="troupe-peers-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.log = os.path.join(self.dir, "log")
        os.mkdir(os.path.join(self.dir, "bin"))
        self.tool("bin/llama-bench", LLAMA % {"log": self.log})
        self.tool("bin/llama-quantize", QUANTIZE)
        self.tool("troupe", TROUPE % {"log": self.log})
        self.model = os.path.join(self.dir, "m.gguf")
        with open(self.model, "w") as f:
            f.write("model")

    def tool(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o755)

    def peers(self, *argv):
        env = dict(os.environ, XDG_CACHE_HOME=os.path.join(self.dir, "cache"))
        return subprocess.run([sys.executable, SCRIPT, "--model", self.model, "--llama", self.dir, "--troupe",
                               os.path.join(self.dir, "troupe"), *argv], env=env, capture_output=True, text=True)

    def test_interleaved_medians_and_ratios(self):
        out = os.path.join(self.dir, "out.json")
        r = self.peers("--rounds", "3", "--json", out)
        self.assertEqual(r.returncode, 0, r.stderr)
        rows = [x for x in r.stdout.splitlines() if x.startswith("| pp") or x.startswith("| tg")]
        self.assertEqual([x.split(" | ")[0][2:] for x in rows], ["pp512", "pp512", "tg64", "tg64"])
        self.assertIn("| pp512 | bf16 | 300.0 (300.0-300.0) | BF16 | 600.0 (300.0-600.0) | **0.50** |", rows)
        self.assertIn("| tg64 | int8 | 45.0 (45.0-45.0) | Q8_0 | 60.0 (30.0-60.0) | **0.75** |", rows)
        with open(self.log) as f:
            order = f.read().split("\n")[:-1]
        a = ["troupe bf16", "llama BF16.gguf", "troupe int8", "llama Q8_0.gguf"]
        self.assertEqual(order, a + [a[1], a[0], a[3], a[2]] + a)
        with open(out) as f:
            self.assertEqual(json.load(f)[0]["peer_tok_s"], [600.0, 300.0, 600.0])

    def test_without_troupe(self):
        r = self.peers("--troupe", "none", "--rounds", "1", "--pairs", "native:as-is")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("| pp512 | - | - | as-is | 600.0", r.stdout)

    def test_errors(self):
        for argv, code in ((["--rounds", "0"], 64), (["--pairs", "bf16"], 64), (["--nonsense"], 64), (["-p", "0", "-n", "0"], 64),
                           (["--model", "/nowhere"], 66), (["--llama", "/nowhere"], 66), (["--troupe", "/nowhere"], 69)):
            with self.subTest(argv):
                r = self.peers(*argv)
                self.assertEqual((r.returncode, r.stdout), (code, ""))
                self.assertEqual(len(r.stderr.splitlines()), 1, r.stderr)
        self.tool("troupe", "#!/bin/sh\necho 'the model is too large' >&2; exit 65\n")
        r = self.peers()
        self.assertEqual(r.returncode, 69)
        self.assertIn("the model is too large", r.stderr)

    def test_output_that_is_not_what_it_should_be(self):
        p = load_script()
        for parse, texts in ((p.parse_llama, ("", "{}", "[]", "[1]", '[{"n_prompt": 1}]',
                                              '[{"n_prompt": 1, "n_gen": 1, "avg_ts": 5}]',
                                              '[{"n_prompt": 1, "n_gen": 0, "avg_ts": 0}]', '[{"n_prompt": 1, "n_gen": 0, "avg_ts": NaN}]')),
                             (p.parse_troupe, ("x", "[]", '[{"test": "pp512"}]', '[{"test": "pp512", "tok_s": -1}]'))):
            for text in texts:
                with self.subTest(text):
                    self.assertRaises(p.Fail, parse, text)
        c = p.Contestant("x", ["echo", '[{"test": "pp8", "tok_s": 3}]'], p.parse_troupe, ["pp8", "tg8"])
        self.assertRaises(p.Fail, c.measure)

    def test_the_report_names_the_machine(self):
        p = load_script()
        out = io.StringIO()
        args, _ = p.parse_args(["--troupe", "none", "--model", "m.gguf"])
        p.report(args, [], [], out)
        self.assertIn("CPU: ", out.getvalue())
        self.assertIn("Threads: 2", out.getvalue())


if __name__ == "__main__":
    unittest.main()
