#!/usr/bin/env python3
"""troupe eval and bench: the figures follow from the logits, and the logits are the same bits in every topology.

Standard library only; TROUPE_BIN names the binary. Models: tests/golden/tiny.
"""
import array
import json
import math
import os
import subprocess
import sys
import tempfile
import unittest

BIN = os.environ.get("TROUPE_BIN", "build/troupe")
if not os.access(BIN, os.X_OK):
    print("skipped: %s is not there" % BIN)
    sys.exit(77)
MODELS = ["tests/golden/tiny/gemma3.gguf", "tests/golden/tiny/llama.gguf"]
TEXT = "The quick brown fox jumps over the lazy dog. 0123456789 äöü €"
TOPOLOGIES = [
    ["--unified", "pp=1"],
    ["--unified", "pp=3", "--chunk", "7"],
    ["--prefill", "pp=1", "--decode", "pp=1", "-t", "1"],
    ["--prefill", "pp=2", "--decode", "pp=3", "--chunk", "16"],
    ["--prefill", "pp=3", "--decode", "pp=2", "--set", "transport.local=zmq"],
    ["--prefill", "pp=2", "--decode", "pp=2", "--set", "decode.page=64"],
    ["--prefill", "pp=1", "--decode", "pp=1", "--set", "scheduler.cores=shared"],
]


def read_npy(path):
    with open(path, "rb") as f:
        data = f.read()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    size = int.from_bytes(data[8:10], "little")
    head = eval(data[10:10 + size].decode(), {"__builtins__": {}})  # a Python literal by definition of the format
    assert (10 + size) % 64 == 0 and head["descr"] == "<f4" and not head["fortran_order"]
    values = array.array("f", data[10 + size:])
    rows, cols = head["shape"]
    assert len(values) == rows * cols
    return [values[i * cols:(i + 1) * cols] for i in range(rows)]


class Eval(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="troupe-")
        self.addCleanup(self.folder.cleanup)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("TROUPE_")}
        self.env["XDG_RUNTIME_DIR"] = self.folder.name
        self.env["XDG_CACHE_HOME"] = os.path.join(self.folder.name, "cache")
        self.text = os.path.join(self.folder.name, "text")
        with open(self.text, "w", encoding="utf-8") as f:
            f.write(TEXT)

    def call(self, *args):
        got = subprocess.run([BIN, *args], env=self.env, capture_output=True, timeout=60, check=False)
        self.assertEqual(got.returncode, 0, got.stderr.decode())
        return got.stdout

    def evaluate(self, model, path, *args):
        npy = os.path.join(self.folder.name, "logits.npy")
        out = self.call("eval", model, "--text", self.text, "--path", path, "--topk", "3", "--json", "--logits", npy, *args)
        with open(npy, "rb") as f:
            return json.loads(out), f.read(), npy

    def test_figures_follow_from_the_logits(self):
        for model in MODELS:
            ids = json.loads(self.call("tokenize", model, "--text", self.text, "--json"))
            for path in ("prefill", "decode", "handoff"):
                got, _, npy = self.evaluate(model, path)
                self.assertEqual(got["ids"], ids)
                rows = read_npy(npy)
                self.assertEqual((len(rows), len(got["top"])), (len(ids), len(ids)))
                nll = []
                for i, row in enumerate(rows):
                    norm = max(row) + math.log(sum(math.exp(x - max(row)) for x in row))
                    order = sorted(range(len(row)), key=lambda k: (-row[k], k))[:3]
                    self.assertEqual([t[0] for t in got["top"][i]], order)
                    for t in got["top"][i]:
                        self.assertAlmostEqual(t[1], row[t[0]] - norm, places=6)
                    if i + 1 < len(ids):
                        nll.append(norm - row[ids[i + 1]])
                self.assertAlmostEqual(got["nll"], sum(nll) / len(nll), places=6)
                self.assertAlmostEqual(got["ppl"], math.exp(got["nll"]), places=4)

    def test_same_bits_in_every_topology(self):
        for model in MODELS:
            for path in ("prefill", "decode", "handoff"):
                first = self.evaluate(model, path, *TOPOLOGIES[0])
                for topology in TOPOLOGIES[1:]:
                    again = self.evaluate(model, path, *topology)
                    self.assertEqual(first[0], again[0], "%s %s %s" % (model, path, topology))
                    self.assertTrue(first[1] == again[1], "logits differ: %s %s %s" % (model, path, topology))

    def test_calibrated_kv(self):
        """int8-static and int8-residual: refused without a calibration, with one the same bits in every topology."""
        model = MODELS[0]
        got = subprocess.run([BIN, "eval", model, "--text", self.text, "--set", "unified.kv=int8-static"], env=self.env,
                             capture_output=True, timeout=60, check=False)
        self.assertEqual(got.returncode, 66, got.stderr)
        self.assertIn(b"troupe calibrate", got.stderr)
        self.call("calibrate", model, "--text", self.text)
        for kv in ("int8-static", "int8-residual"):
            first = self.evaluate(model, "handoff", "--prefill", "pp=1", "--decode", "kv=" + kv)
            for prefill, decode, more in (("pp=2", "pp=3", ["--chunk", "7"]), ("pp=1,page=64", "pp=2,page=32", ["-t", "1"])):
                again = self.evaluate(model, "handoff", "--prefill", prefill, "--decode", decode + ",kv=" + kv, *more)
                self.assertTrue(first[1] == again[1], "logits differ: %s %s %s" % (kv, prefill, decode))
            self.evaluate(model, "handoff", "--prefill", "kv=" + kv, "--decode", "dtype=bf16,kv=bf16")
        self.env["TROUPE_KV_CALIBRATION"] = self.text
        got = subprocess.run([BIN, "eval", model, "--text", self.text, "--set", "unified.kv=int8-static"], env=self.env,
                             capture_output=True, timeout=60, check=False)
        self.assertEqual(got.returncode, 65, got.stderr)

    def test_compare_kv(self):
        """A row a format; those that need a calibration are left out where there is none."""
        rows = json.loads(self.call("eval", MODELS[1], "--text", self.text, "--compare-kv", "--json"))["kv"]
        self.assertEqual([r["format"] for r in rows], ["bf16", "int8"])
        self.assertEqual((rows[0]["kl_mean"], rows[0]["top1"]), (0, 1))
        self.assertTrue(0 < rows[1]["kl_mean"] < 0.01 and rows[1]["kl_mean"] <= rows[1]["kl_p99"] <= rows[1]["kl_max"])
        self.assertTrue(rows[1]["decode_ms"] > 0 and rows[0]["bytes_per_token"] > 1.5 * rows[1]["bytes_per_token"])
        self.call("calibrate", MODELS[1], "--text", self.text)
        table = self.call("eval", MODELS[1], "--text", self.text, "--path", "prefill", "--compare-kv").decode().splitlines()
        self.assertEqual([x.split(" | ")[0] for x in table[2:]], ["| bf16", "| int8", "| int8-static", "| int8-residual"])

    def test_the_paths_are_different_paths(self):
        one, two, three = (self.evaluate(MODELS[0], p)[1] for p in ("prefill", "decode", "handoff"))
        self.assertFalse(one == two or two == three or one == three)

    def test_one_token(self):
        with open(self.text, "w", encoding="utf-8"):
            pass
        got, _, _ = self.evaluate(MODELS[0], "handoff")
        self.assertEqual((len(got["ids"]), len(got["top"]), got["nll"]), (1, 1, 0))

    def test_bench(self):
        out = self.call("bench", "model", MODELS[0], "-p", "32,0", "-n", "8", "-b", "2", "-d", "16", "-r", "2", "-t", "1",
                        "--dtype", "bf16", "-o", "json")
        rows = json.loads(out)
        self.assertEqual([(r["test"], r["batch"], r["dtype"], r["threads"]) for r in rows],
                         [("pp32", 2, "bf16", 1), ("tg8", 2, "bf16", 1)])
        for r in rows:
            self.assertTrue(r["tok_s_min"] <= r["tok_s"] <= r["tok_s_max"])
        if "avx2" in open("/proc/cpuinfo", encoding="utf-8").read():
            self.assertGreater(rows[1]["read_share"], 0)
            self.assertGreater(rows[1]["step_bytes"], 1000)
        only = json.loads(self.call("bench", "model", MODELS[0], "-p", "0", "-n", "4", "-r", "1", "-o", "json"))
        self.assertEqual([r["test"] for r in only], ["tg4"])
        self.assertTrue(self.call("bench", "model", MODELS[0], "-p", "8", "-n", "0", "-o", "csv").startswith(b"test,batch"))
        table = self.call("bench", "model", MODELS[0], "-p", "8", "-n", "4", "-b", "1,4", "-r", "1").decode().splitlines()
        self.assertEqual([x.split(" | ")[:2] for x in table[2:]], [["| pp8", "1"], ["| pp8", "4"], ["| tg4", "1"], ["| tg4", "4"]])
        self.assertEqual({x.count("|") for x in table}, {table[0].count("|")})

    def test_bench_kernel(self):
        rows = json.loads(self.call("bench", "kernel", "rope", "-r", "2", "-t", "1", "-o", "json"))
        self.assertTrue(rows and all("rope" in r["kernel"] for r in rows))
        for r in rows:
            self.assertGreater(r["us"], 0)
            self.assertTrue(r["share_min"] <= r["share"] <= r["share_max"])
            self.assertEqual((r["unit"], r["limit"], r["threads"]), ("GB/s", "summing", 1))
        for form in ("md", "csv"):
            table = self.call("bench", "kernel", "argmax", "-r", "1", "-o", form).decode().splitlines()
            mark = "|" if form == "md" else ","
            self.assertEqual({x.count(mark) for x in table}, {table[0].count(mark)})
            self.assertIn("argmax 1x262144", table[-1])


if __name__ == "__main__":
    unittest.main(verbosity=1)
