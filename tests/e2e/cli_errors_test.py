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
        self.fails(69, "not available yet", "trace")
        self.fails(69, "cannot connect", "bench", "serve", "--url", "http://127.0.0.1:1")
        self.fails(64, "--batch is not for bench serve", "bench", "serve", "-b", "2")
        self.fails(64, "--url is not for bench model", "bench", "model", "--url", "http://127.0.0.1:1")
        self.fails(64, "no kernel of that name", "bench", "kernel", "nonsense")
        self.fails(64, "--prompt-tokens is not for bench kernel", "bench", "kernel", "-p", "8")
        self.fails(64, "is not for bench kernel, but for bench model", "bench", "kernel", "--unified", "pp=2")
        self.fails(64, "bench model", "bench")
        self.fails(64, "nothing to measure", "bench", "model", MODEL, "-p", "0", "-n", "0")
        self.fails(64, "troupe --help lists", "tpo")

    def test_flags(self):
        self.fails(64, "did you mean --decode?", "run", MODEL, "x", "--decoed", "pp=2")
        self.fails(64, "use --decode tp=N", "run", MODEL, "x", "--tensor-parallel-size", "2")
        self.fails(64, "use -n N", "run", MODEL, "x", "--max-tokens=3")
        self.fails(64, "did you mean -n?", "run", MODEL, "x", "--n", "3")
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
        self.fails(78, "no machine description", "plan", MODEL, env={"HWLOC_SYNTHETIC": "garbage"})

    def warns(self, hint, **env):
        """The run goes well, and one line on stderr holds the hint."""
        got = self.call("run", MODEL, "hello", "-n", "4", "-q", env=env)
        text = got.stderr.decode()
        self.assertEqual(got.returncode, 0, text)
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertIn("troupe: warning: ", text)
        self.assertIn(hint, text)

    def test_warnings(self):
        self.warns("use error, warn, info, debug or trace", TROUPE_LOG="bogus")
        self.warns("not cached: cannot make /proc/x/troupe/images", XDG_CACHE_HOME="/proc/x")
        self.warns("the machine is a description", HWLOC_SYNTHETIC="node:2 core:4 pu:1")

    def test_doctor(self):
        def doctor(**env):
            got = self.call("doctor", "--json", env=env)
            return got.returncode, {c["check"]: (c["verdict"], c["detail"]) for c in json.loads(got.stdout)}

        code, checks = doctor()
        self.assertEqual(code, 0, checks)
        self.assertEqual((checks["cache"][0], checks["runtime folder"][0]), ("ok", "ok"))
        code, checks = doctor(XDG_CACHE_HOME="/proc/x")
        self.assertEqual((code, checks["cache"][0]), (0, "warn"))
        self.assertIn("/proc/x/troupe", checks["cache"][1])
        code, checks = doctor(XDG_RUNTIME_DIR="/nowhere", TMPDIR="/proc")
        self.assertEqual((code, checks["runtime folder"][0]), (69, "no"))

    def test_keys_of_sides(self):
        self.fails(78, "did you mean 'decode.tp'", "run", MODEL, "x", "--decode", "tq=2")
        self.fails(78, "did you mean 'decode.layers'", "run", MODEL, "x", "--set", "decode.layrs=7")
        self.fails(78, "the keys of decode are pp, tp, dtype", "run", MODEL, "x", "--decode", "foo=1")
        self.fails(64, "key=value", "run", MODEL, "x", "--decode", "pp")
        self.fails(78, "out of range", "run", MODEL, "x", "--decode", "tp=65")
        self.fails(78, "66 ranks of stages in all: at most 64", "plan", MODEL, "--prefill", "pp=2,tp=32", "--decode", "tp=2")
        self.fails(69, "not available yet", "run", MODEL, "x", "--prefill", "dtype=fp16")
        self.fails(78, "needs an address", "run", MODEL, "x", "--set", "hosts=a,b")
        self.fails(78, "only with keys", "serve", MODEL, "--port", "8000", "--host", "0.0.0.0")
        self.fails(78, "only with keys", "serve", MODEL, "--port", "8000", "--host", "0.0.0.0")
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
        self.topology(78, "unknown key of a host", head + "hosts: [{name: a, gpus: 1}]\n")
        self.topology(78, "that needs keys", head + "hosts: [{name: a, address: '10.0.0.1:5570'}, b]\n")
        self.topology(78, "only with keys", head + "server: {port: 8000, host: 0.0.0.0}\n")
        self.topology(78, "only with keys", head + "server: {port: 8000, host: 0.0.0.0}\n")
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
            if name == "two-hosts.yaml":
                continue  # scripts/launch runs it, in nodes_test.py
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


    def test_plan_says_what_is_packed(self):
        env = {"XDG_CACHE_HOME": os.path.join(self.folder.name, "empty")}
        plan = json.loads(self.call("plan", MODEL, "--json", env=env).stdout)
        self.assertEqual(plan["cached"], {"bf16": False, "int8": False})
        self.assertIn(b"will be packed", self.call("plan", MODEL, env=env).stdout)
        self.assertEqual(self.call("run", MODEL, "hello", "-n", "4", "-q", env=env).returncode, 0)
        plan = json.loads(self.call("plan", MODEL, "--json", env=env).stdout)
        self.assertEqual(plan["cached"], {"bf16": True, "int8": True})


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
        folder = "tests/golden/tiny/llama-hf"
        for path in (folder, folder + "/model.safetensors"):
            self.fails(69, "tokenizer.json: no such file", "tokenize", path, "--text", "-", stdin=b"x")
            self.fails(69, "tokenizer.json: no such file", "run", path, "x")

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "wb") as full:
            got = subprocess.run([BIN, "run", MODEL, "hello", "-n", "4"], env=self.env, stdout=full,
                                 stderr=subprocess.PIPE, check=False)
        self.assertEqual(got.returncode, 73, got.stderr)
        self.fails(73, "nowhere", "eval", MODEL, "--text", MODEL[:0] + "-", "--logits", "/nowhere/x.npy", stdin=b"hello")

    def test_closed_standard_descriptors(self):
        """Their numbers must not be given to files of the company."""
        for closed, code in (("<&-", 0), (">&-", 73), ("2>&-", 0), ("<&- >&- 2>&-", 73)):
            got = subprocess.run(["sh", "-c", '"$0" run "$1" hello -q -n 4 ' + closed, BIN, MODEL], env=self.env,
                                 stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
            self.assertEqual((got.returncode, len(got.stdout) > 0), (code, code == 0), (closed, got.stderr))


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
        self.assertEqual(p.wait(3), 70)
        text = p.stderr.read().decode().splitlines()
        self.assertEqual(len(text), 1, text)
        self.assertIn("troupe: the supervisor was killed (signal 9", text[0])
        self.close(p)

    def test_supervisor_killed_at_the_start(self):
        """As soon as it is seen, so that the company never becomes ready."""
        p = subprocess.Popen([BIN, "serve", MODEL, "--name", "early"], env=self.env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, p)
        found, end = None, time.monotonic() + 10
        while not found and time.monotonic() < end:
            for pid in processes(self.runtime):
                try:
                    with open("/proc/%d/cmdline" % pid, "rb") as f:
                        supervisor = b"--supervisor" in f.read()
                    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
                        parent = int(f.read().rsplit(")", 1)[1].split()[1])
                except OSError:
                    continue
                if supervisor and parent == p.pid:  # a child of the supervisor has its command line, too, until it execs
                    found = pid
        self.assertTrue(found)
        os.kill(found, signal.SIGKILL)
        self.assertEqual(p.wait(10), 70)
        text = p.stderr.read().decode().splitlines()
        self.assertIn("troupe: the supervisor was killed (signal 9", text[-1])
        self.close(p)

    def test_stop_with_an_open_stream(self):
        """The client is told at once; the stage stands still, so that the stream is open for sure."""
        p = self.serve("--name", "o")
        status = json.loads(self.call("status", "--name", "o", "--json").stdout)
        os.kill({a["name"]: a["pid"] for a in status["actors"]}["unified.0"], signal.SIGSTOP)
        client = subprocess.Popen([BIN, "generate", "--name", "o", "hello", "-q"], env=self.env,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, client)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            requests = json.loads(self.call("status", "--name", "o", "--json").stdout)["requests"]
            if sum(requests.values()) == 1:
                break
        self.assertEqual(sum(requests.values()), 1)
        began = time.monotonic()
        stop = subprocess.Popen([BIN, "stop", "--name", "o"], env=self.env)
        self.assertEqual(client.wait(5), 69)
        self.assertLess(time.monotonic() - began, 1)
        self.assertEqual(client.stderr.read(), b"troupe: the company was stopped\n")
        self.assertEqual((stop.wait(5), p.wait(5)), (0, 0))
        self.close(client)
        self.close(p)

    def test_waiting_for_a_start(self):
        """A held lock without an endpoint is a company that is starting."""
        folder = os.path.join(self.runtime, "troupe", "w")
        os.makedirs(folder, 0o700)
        lock = os.path.join(folder, "lock")
        with open(lock, "w", encoding="utf-8") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            f.write("%d\n\n" % os.getpid())
            f.flush()
            p = subprocess.Popen([BIN, "generate", "--name", "w", "x"], env=self.env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.addCleanup(self.end, p)
            self.assertTrue(select.select([p.stderr], [], [], 5)[0])
            self.assertEqual(os.read(p.stderr.fileno(), 4096), b"troupe: the company 'w' is starting, waiting for it\n")
            p.send_signal(signal.SIGINT)
            self.assertEqual(p.wait(3), 130)
        self.close(p)
        os.unlink(lock)
        os.rmdir(folder)

    def test_figures(self):
        """One token has a time to the first, and none between."""
        for n, between in ((1, False), (4, True)):
            got = self.call("run", MODEL, "hello", "-n", str(n), "--ignore-eos")
            self.assertEqual(got.returncode, 0, got.stderr)
            self.assertIn(b"%d generated, ended by length\nTTFT " % n, got.stderr)
            self.assertEqual(b"inter-token" in got.stderr, between, got.stderr)


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
