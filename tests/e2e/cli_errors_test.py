#!/usr/bin/env python3
"""Bad input: one clear line on stderr, the right exit code, nothing on stdout, nothing left running.

Also what belongs to it: names and endpoints in use, interruption, serve and stop. Standard library only; TROUPE_BIN names
the binary.
"""
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BIN = os.environ.get("TROUPE_BIN", "build/troupe")
MODEL = "tests/golden/tiny/gemma3.gguf"
if not os.access(BIN, os.X_OK):
    print("skipped: %s is not there" % BIN)
    sys.exit(77)


def processes(marker):
    """Pids whose environment holds the marker: everything that this test started."""
    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        try:
            with open("/proc/%s/environ" % pid, "rb") as f:
                if marker.encode() in f.read():
                    with open("/proc/%s/stat" % pid) as s:
                        if s.read().rsplit(")", 1)[1].split()[0] != "Z":
                            found.append(int(pid))
        except OSError:
            pass
    return found


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="troupe-")
        cls.runtime = os.path.join(cls.folder.name, "r")
        os.mkdir(cls.runtime, 0o700)
        cls.env = {k: v for k, v in os.environ.items() if not k.startswith("TROUPE_")}
        cls.env["XDG_RUNTIME_DIR"] = cls.runtime
        cls.env["XDG_CACHE_HOME"] = os.path.join(cls.folder.name, "cache")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def setUp(self):
        self.addCleanup(self.nothing_is_left)  # runs last

    def nothing_is_left(self):
        end = time.monotonic() + 2
        while processes(self.runtime) and time.monotonic() < end:
            time.sleep(0.02)
        self.assertEqual(processes(self.runtime), [], "processes were left")
        root = os.path.join(self.runtime, "troupe")
        self.assertEqual(os.listdir(root) if os.path.isdir(root) else [], [], "the runtime folder was not cleaned")

    def call(self, *args, stdin=b"", env=None, timeout=60):
        return subprocess.run([BIN, *args], input=stdin, env={**self.env, **(env or {})}, timeout=timeout,
                              capture_output=True, check=False)

    def fails(self, code, hint, *args, **kw):
        """Exit code, exactly one line that holds the hint, no output."""
        got = self.call(*args, **kw)
        text = got.stderr.decode()
        self.assertEqual(got.returncode, code, text)
        self.assertEqual(got.stdout, b"")
        lines = text.splitlines()
        self.assertEqual(len(lines), 1, text)
        self.assertTrue(lines[0].startswith("troupe: "), text)
        self.assertIn(hint, lines[0])

    def file(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, "wb") as f:
            f.write(text if isinstance(text, bytes) else text.encode())
        return path

    def serve(self, *args):
        p = subprocess.Popen([BIN, "serve", MODEL, *args], env=self.env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, p)
        end = time.monotonic() + 60
        seen = b""
        while b" serves " not in seen and time.monotonic() < end and p.poll() is None:
            if select.select([p.stderr], [], [], 0.2)[0]:
                seen += os.read(p.stderr.fileno(), 4096)
        self.assertIn(b" serves ", seen)
        return p

    def end(self, p):
        """After a failure nothing may stay in the way of the next test."""
        if p.poll() is None:
            p.terminate()
            p.wait(5)
        self.close(p)

    def close(self, p):
        for f in (p.stdout, p.stderr):
            if f:
                f.close()


class Usage(Case):
    def test_commands(self):
        self.fails(64, "did you mean 'run'", "runn")
        self.fails(64, "a command comes first", "--frob")
        self.fails(69, "not available yet", "chat")
        self.fails(69, "not available yet", "bench", "kernel")
        self.fails(64, "bench model", "bench")

    def test_flags(self):
        self.fails(64, "did you mean --decode?", "run", MODEL, "x", "--decoed", "pp=2")
        self.fails(64, "use --decode tp=N", "run", MODEL, "x", "--tensor-parallel-size", "2")
        self.fails(64, "use -n N", "run", MODEL, "x", "--max-tokens=3")
        self.fails(64, "is no option of troupe run", "run", MODEL, "x", "--json")
        self.fails(64, "needs a value", "run", MODEL, "x", "-n")
        self.fails(64, "not a whole number", "run", MODEL, "x", "-n", "many")
        self.fails(64, "out of range", "run", MODEL, "x", "-n", "0")
        self.fails(64, "out of range", "run", MODEL, "x", "--top-p", "1.5")
        self.fails(64, "not a number", "run", MODEL, "x", "--temp", "nan")
        self.fails(64, "one argument too many", "run", MODEL, "x", "y")
        self.fails(64, "one argument too many", "serve", MODEL, "x")
        self.fails(64, "--name", "run", MODEL, "x", "--name", "../x")
        self.fails(64, "no model named", "run")
        self.fails(64, "--text", "eval", MODEL)
        self.fails(64, "ipc:///PATH", "serve", MODEL, "--endpoint", "somewhere")

    def test_environment(self):
        self.fails(64, "TROUPE_THREADS", "run", MODEL, "x", env={"TROUPE_THREADS": "two"})
        self.fails(78, "ref", "run", MODEL, "x", env={"TROUPE_CPU": "pentium"})

    def test_keys_of_sides(self):
        self.fails(78, "did you mean 'decode.tp'", "run", MODEL, "x", "--decode", "tq=2")
        self.fails(78, "did you mean 'decode.layers'", "run", MODEL, "x", "--set", "decode.layrs=7")
        self.fails(64, "key=value", "run", MODEL, "x", "--decode", "pp")
        self.fails(69, "not available yet", "run", MODEL, "x", "--decode", "tp=2")
        self.fails(69, "not available yet", "run", MODEL, "x", "--prefill", "dtype=int4")
        self.fails(69, "not available yet", "run", MODEL, "x", "--set", "hosts=a:b")
        self.fails(69, "not available yet", "serve", MODEL, "--port", "8000")
        self.fails(64, "choose one pipeline or two", "run", MODEL, "x", "--decode", "pp=2", "--unified", "pp=1")


class Topologies(Case):
    def topology(self, code, hint, text):
        path = self.file("t.yaml", text)
        self.fails(code, hint, "plan", "-f", path)

    def test_file(self):
        head = "version: 1\nmodel: %s\n" % os.path.abspath(MODEL)
        self.fails(66, "nowhere.yaml", "run", "-f", "nowhere.yaml", "x")
        self.topology(78, "t.yaml:4: unknown key 'decode.pq', did you mean 'decode.pp'?",
                      head + "decode:\n  pq: 2\n")
        self.topology(78, "t.yaml:3: unknown key 'decoed', did you mean 'decode'?", head + "decoed: {}\n")
        self.topology(78, "t.yaml:4: key 'pp' comes twice", head + "decode: {pp: 2,\n  pp: 3}\n")
        self.topology(78, "t.yaml:3: ", head + "decode: {pp: two}\n")
        self.topology(78, "takes a number", head + "decode: {pp: '2'}\n")
        self.topology(78, "out of range", head + "decode: {pp: 0}\n")
        self.topology(78, "out of range", head + "decode: {pp: 99999999999999999999999}\n")
        self.topology(78, "aliases are not allowed", head + "decode: *x\n")
        self.topology(78, "anchors are not allowed", head + "decode: &x {pp: 2}\n")
        self.topology(78, "tags are not allowed", head + "decode: {pp: !!int 2}\n")
        self.topology(78, "one document only", head + "---\nversion: 1\n")
        self.topology(78, "has no value", head + "decode: {pp: }\n")
        self.topology(78, "section", head + "decode: 3\n")
        self.topology(78, "a plain value is expected", head + "decode: {pp: {x: 1}}\n")
        self.topology(78, "takes one value, not a list", head + "decode: {pp: [1, 2]}\n")
        self.topology(78, "'version' is missing", "model: x\n")
        self.topology(78, "version", "version: 2\n")
        self.topology(78, "t.yaml", "version: [1\n")
        self.topology(78, "t.yaml", "")
        self.topology(78, "mapping", "- a\n")
        self.topology(78, "choose one pipeline or two", head + "decode: {pp: 2}\nunified: {pp: 1}\n")
        self.topology(69, "not available yet", head + "hosts: [{name: a}]\n")
        self.topology(69, "not available yet", head + "server: {port: 8000}\n")
        self.topology(69, "not available yet", head + "transport: {gpu: nccl}\n")
        self.topology(66, "scripts/fetch-model", "version: 1\nmodel: no-such-model\n")
        self.topology(78, "t.yaml", b"version: 1\nmodel: \xff\xfe\n")

    def test_layers(self):
        self.fails(78, "add up to 6, the model has 7", "run", MODEL, "x", "--decode", "pp=2,layers=3:3")
        self.fails(78, "2 entries for 3 stages", "run", MODEL, "x", "--decode", "pp=3,layers=3:4")
        self.fails(78, "8 stages for the 7 layers", "run", MODEL, "x", "--prefill", "pp=8")
        self.fails(78, "page", "run", MODEL, "x", "--decode", "page=24")
        self.fails(78, "--kv-memory", "run", MODEL, "x", "--kv-memory", "8K")
        self.fails(78, "at most 512 tokens", "run", MODEL, "x", "-c", "513")

    def test_configs(self):
        for name in sorted(os.listdir("configs")):
            got = self.call("run", "-f", "configs/" + name, "--model", os.path.abspath(MODEL), "hello", "-n", "6")
            self.assertEqual(got.returncode, 0, name + got.stderr.decode())
            self.assertGreater(len(got.stdout), 0)

    def test_two_numa_machine(self):
        env = {"HWLOC_SYNTHETIC": "node:2 core:4 pu:1"}
        got = self.call("plan", "-f", "configs/two-numa.yaml", "--model", os.path.abspath(MODEL), "--json", "--verify",
                        env=env)
        self.assertEqual(got.returncode, 0, got.stderr)
        plan = json.loads(got.stdout)
        cores = [c for s in plan["stages"] for c in s["cores"]]
        self.assertEqual(sorted(cores), list(range(8)), "every core has one stage")
        self.assertEqual([s["numa"] for s in plan["stages"]], [0, 1, 0, 0, 1, 1])
        self.assertEqual(plan["in_flight"], [2, 4])
        self.assertFalse(plan["this_system"])


class Data(Case):
    def test_model(self):
        self.fails(66, "no such file", "run", "nowhere.gguf", "x")
        self.fails(66, "scripts/fetch-model", "run", "no-such-model", "x")
        self.fails(65, "not a GGUF file", "run", self.file("x.gguf", "hello"), "x")
        with open(MODEL, "rb") as f:
            cut = self.file("cut.gguf", f.read()[:100000])
        self.fails(65, "cut.gguf", "run", cut, "x")
        self.fails(66, "nowhere.txt", "tokenize", MODEL, "--text", "nowhere.txt")

    def test_prompt(self):
        self.fails(65, "not UTF-8 at byte 2", "run", MODEL, stdin=b"ab\xff")
        self.fails(65, "not UTF-8 at byte 0", "run", MODEL, "-", stdin=b"\xc3")
        self.fails(65, "the context holds 512", "run", MODEL, stdin=b"abc def " * 400)
        self.fails(65, "the context holds 4 ", "run", MODEL, "hello", "-c", "4")
        self.fails(65, "the prompt is empty", "run", MODEL, "--no-bos", "")
        self.fails(65, "the text is empty", "eval", MODEL, "--no-bos", "--text", "-")
        self.fails(65, "the context 512", "eval", MODEL, "--text", "-", stdin=b"abc def " * 400)

    def test_long_output_is_cut_with_a_warning(self):
        got = self.call("run", MODEL, "hello", "-n", "9999", "--ignore-eos")
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertIn(b"warning: -n 9999", got.stderr)

    def test_tokenize(self):
        got = self.call("tokenize", MODEL, "--text", "-", "--json", "--no-bos", stdin=b"")
        self.assertEqual((got.returncode, json.loads(got.stdout)), (0, []))

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "wb") as full:
            got = subprocess.run([BIN, "run", MODEL, "hello", "-n", "4"], env=self.env, stdout=full,
                                 stderr=subprocess.PIPE, check=False)
        self.assertEqual(got.returncode, 73, got.stderr)
        self.fails(73, "nowhere", "eval", MODEL, "--text", MODEL[:0] + "-", "--logits", "/nowhere/x.npy", stdin=b"hello")


class Names(Case):
    def test_name_endpoint_and_stop(self):
        api = os.path.join(self.folder.name, "api")
        p = self.serve("--name", "a", "--endpoint", "ipc://" + api)
        self.fails(69, "already running (process %d)" % p.pid, "serve", MODEL, "--name", "a")
        self.fails(69, "already running", "run", MODEL, "x", "--name", "a")
        self.fails(69, api, "serve", MODEL, "--name", "b", "--endpoint", "ipc://" + api)
        status = json.loads(self.call("status", "--name", "a", "--json").stdout)
        names = [a["name"] for a in status["actors"]]
        self.assertEqual(names, ["supervisor", "frontend", "scheduler", "resharder", "unified.0"])
        self.assertTrue(all(a["pid"] > 0 and a["rss"] > 0 for a in status["actors"]))
        self.assertEqual(status["requests"], {"running": 0, "waiting": 0})
        for pool in status["pools"]:
            self.assertEqual(pool["pages"], pool["free"])
        one = self.call("generate", "--name", "a", "hello", "-n", "8", "-q")
        two = self.call("run", MODEL, "hello", "-n", "8", "-q")
        self.assertEqual((one.returncode, two.returncode), (0, 0), one.stderr + two.stderr)
        self.assertEqual(one.stdout, two.stdout)
        self.assertEqual(self.call("generate", "--connect", "ipc://" + api, "hello", "-n", "8", "-q").stdout, two.stdout)
        self.assertEqual(self.call("stop", "--name", "a").returncode, 0)
        self.assertEqual(processes(self.runtime), [], "stop returned before the company was gone")
        self.assertEqual(p.wait(5), 0)
        self.close(p)

    def test_port_in_use(self):
        p = self.serve("--endpoint", "tcp://127.0.0.1:45917")
        self.fails(69, "45917", "serve", MODEL, "--name", "b", "--endpoint", "tcp://127.0.0.1:45917")
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(5), 0)
        self.close(p)

    def test_drain_and_stop(self):
        p = self.serve()
        self.assertEqual(self.call("drain").returncode, 0)
        self.fails(69, "no new requests", "generate", "hello", "-q")
        self.assertEqual(self.call("drain", "--and-stop").returncode, 0)
        self.assertEqual(p.wait(10), 0)
        self.close(p)

    def test_nobody_runs(self):
        self.fails(69, "no company named 'default'", "status")
        self.fails(69, "no company named 'x'", "stop", "--name", "x")
        self.fails(69, "no company named 'x'", "drain", "--name", "x")

    def test_a_killed_company_leaves_its_name_free(self):
        p = self.serve("--name", "k")
        p.kill()
        p.wait(5)
        self.close(p)
        end = time.monotonic() + 1
        while processes(self.runtime) and time.monotonic() < end:
            time.sleep(0.02)
        self.assertEqual(processes(self.runtime), [], "actors outlived the supervisor's parent")
        p = self.serve("--name", "k")
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(5), 0)
        self.close(p)

    def test_supervisor_killed(self):
        p = self.serve("--name", "s")
        status = json.loads(self.call("status", "--name", "s", "--json").stdout)
        os.kill(status["actors"][0]["pid"], signal.SIGKILL)
        self.assertNotEqual(p.wait(3), 0)
        self.close(p)


class Interruption(Case):
    def test_serve(self):
        p = self.serve("--name", "i")
        began = time.monotonic()
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(3), 130)
        self.assertLess(time.monotonic() - began, 1.5)
        self.close(p)

    def test_waiting_for_the_prompt(self):
        p = subprocess.Popen([BIN, "run", MODEL], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        time.sleep(0.3)
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(3), 130)
        p.stdin.close()
        self.close(p)

    def test_in_the_middle_of_the_text(self):
        """The pipe is full, so the run stands in the middle of its text; the figures still come."""
        reader, writer = os.pipe()
        fcntl.fcntl(writer, 1031, 4096)  # F_SETPIPE_SZ
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 512)
        except BlockingIOError:
            pass
        os.set_blocking(writer, True)
        p = subprocess.Popen([BIN, "run", MODEL, "hello", "-n", "200", "--ignore-eos", "--name", "m"], env=self.env,
                             stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE)
        end = time.monotonic() + 30
        while len(processes(self.runtime)) < 6 and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.5)
        began = time.monotonic()
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(5), 130)
        self.assertLess(time.monotonic() - began, 1.5)
        self.assertIn(b"generated, ended by interrupted", p.stderr.read())
        p.stderr.close()
        os.close(reader)
        os.close(writer)


if __name__ == "__main__":
    unittest.main(verbosity=1)
