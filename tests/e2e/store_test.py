"""Prefixes in a store on a server: a company of any shape goes on from what another one, or an earlier life, has put
there, with the same tokens and logits; a server that is slow, full, gone or lies costs time, never a request or a
token."""
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest

import company
from company import SLOW, Company, Home, wait_until
from prefix_cache_test import CACHE, MODELS, Asker, line, prompt, tearDownModule  # noqa: F401

FILLS = ["--prefill", "pp=2,dtype=bf16", "--decode", "pp=3,dtype=int8", "--chunk", "16"]
# Other shapes of the same prefill path; those that decode alike give the same text.
SAME = {"unified": ["--unified", "pp=1,prefill=bf16,decode=int8"],
        "pages": ["--prefill", "dtype=bf16,page=32", "--decode", "dtype=int8,page=16"],
        "ranks": ["--prefill", "pp=1,tp=2,dtype=bf16,page=64", "--decode", "pp=2,tp=2,dtype=int8"]}
OTHER = {"int8": ["--unified", "pp=2,dtype=int8"], "kv": ["--prefill", "dtype=bf16,kv=int8", "--decode", "dtype=int8"]}


class Server:
    """A redis-server on a socket of its own, with nothing on disk."""

    def __init__(self, folder, *args):
        self.path, self.folder, self.args, self.process = os.path.join(folder, "redis"), folder, args, None
        self.start()

    def start(self):
        self.process = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", self.path, "--save", "",
                                         "--appendonly", "no", "--dir", self.folder, *self.args],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("redis-server", 10, lambda: self.alive())

    def alive(self):
        try:
            return self.ask("PING") is not None
        except OSError:
            return False

    def ask(self, *words):
        """One answer, as it comes: bytes of a value, else the text behind its first letter."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.path)
            words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            return answer(s.makefile("rb"))

    def names(self):
        return self.ask("KEYS", "troupe:1:*")

    def kill(self, sig=signal.SIGKILL):
        self.process.send_signal(sig)
        if sig == signal.SIGKILL:
            self.process.wait()

    def close(self):
        self.process.kill()
        self.process.wait()


def answer(f):
    head = f.readline().rstrip(b"\r\n")
    kind, rest = head[:1], head[1:]
    if kind == b"*":
        return [answer(f) for _ in range(int(rest))]
    if kind == b"$":
        return f.read(int(rest) + 2)[:-2] if int(rest) >= 0 else None
    return int(rest) if kind == b":" else rest.decode()


class Liar:
    """A server that says the same to whatever comes, or nothing."""

    def __init__(self, folder, first, then):
        self.path, self.first, self.then = os.path.join(folder, "liar"), first, then
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen(8)
        self.open = []
        threading.Thread(target=self.run, daemon=True).start()

    def serve(self, c):
        try:
            c.recv(1 << 16)
            c.sendall(self.first)
            while c.recv(1 << 16):
                c.sendall(self.then)
        except OSError:
            pass

    def cut(self):
        while self.open:
            c = self.open.pop()
            try:
                c.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            c.close()

    def run(self):
        while True:
            try:
                self.open.append(self.socket.accept()[0])
                threading.Thread(target=self.serve, args=(self.open[-1],), daemon=True).start()
            except OSError:
                return

    def close(self):
        self.socket.close()
        self.cut()


@unittest.skipUnless(shutil.which("redis-server"), "redis-server is not installed: scripts/deps --test")
class Store(unittest.TestCase):
    def setUp(self):
        self.folder = Home()
        self.addCleanup(self.folder.close)

    def server(self, *args):
        s = Server(self.folder.path, *args)
        self.addCleanup(s.close)
        return s

    def company(self, model, at, *args, up=True):
        home = Home(cache=CACHE.cache)
        self.addCleanup(home.close)
        c = Company(MODELS[model], "-c", "512", "--set", "kv.store=unix://" + at, "--set",
                    "kv.store_timeout_ms=%d" % (1000 * SLOW), *args, home=home)
        self.addCleanup(c.close)
        a = Asker(c)
        self.addCleanup(a.close)
        if up:
            wait_until("the store is up", 10, lambda: c.status()["store"]["up"])
        return c, a

    def settled(self, c, name, least):
        """Figures of the store, once one of them is there."""
        return wait_until("%s of the store" % name, 10, lambda: (c.status()["store"][name] >= least and
                                                                c.status()["store"]))

    def end(self, c):
        c.wait_idle()
        c.stop()

    def fill(self, model, at, *args):
        """What the first company says of prompts that nobody knows, and what it has stored then."""
        c, a = self.company(model, at, *FILLS, *args)
        ends = a.ask(line(prompt(1, 200), max=30, temp=3, logits=2), line(prompt(2, 90), max=20, temp=3, logits=2))
        self.assertEqual([e["cached"] for e in ends], [0, 0])
        groups = 2 if model == "gemma3" else 1
        figures = self.settled(c, "stored", groups * (200 // 16 + 90 // 16))
        self.assertEqual((figures["refused"], figures["dropped"], figures["failed"]), (0, 0, 0))
        self.end(c)
        return ends

    def again(self, a):
        return a.ask(line(prompt(1, 200), max=30, temp=3, logits=2), line(prompt(2, 90), max=20, temp=3, logits=2))

    def same(self, got, want, where=""):
        for g, w in zip(got, want):
            self.assertEqual(g["tokens"], w["tokens"], where)
            for at, value in g["logits"].items():
                self.assertEqual(value, w["logits"][at], "%s: logits of position %s" % (where, at))


class Shapes(Store):
    def test_every_shape_goes_on(self):
        for model in MODELS:
            s = self.server()
            want = self.fill(model, s.path)
            for shape in SAME:
                with self.subTest(model=model, shape=shape):
                    c, a = self.company(model, s.path, *SAME[shape])
                    got = self.again(a)
                    self.same(got, want, shape)
                    page = {"pages": 32, "ranks": 64}.get(shape, 16)
                    self.assertEqual([e["cached"] for e in got], [199 // page * page, 89 // page * page])
                    figures = c.status()["store"]
                    self.assertEqual((figures["asked"], figures["hits"], figures["refused"]), (2, 2, 0))
                    self.assertEqual(figures["hit_tokens"], sum(e["cached"] for e in got))
                    # from the middle, and another tenant
                    middle = a.ask(line(prompt(1, 200)[:140] + prompt(page, 60), max=20, temp=3))[0]
                    self.assertEqual(middle["cached"], 140 // page * page)
                    self.assertEqual(a.ask(line(prompt(1, 200), max=20, salt=shape))[0]["cached"], 0)
                    self.end(c)
            s.close()

    def test_other_numbers_never_meet(self):
        s = self.server()
        self.fill("llama", s.path)
        names = set(n.split(b":")[2] for n in s.names())
        for shape in OTHER.values():
            c, a = self.company("llama", s.path, *shape)
            self.assertEqual([e["cached"] for e in self.again(a)], [0, 0])
            self.settled(c, "stored", 1)
            self.end(c)
            more = set(n.split(b":")[2] for n in s.names())
            self.assertEqual(len(more), len(names) + 1)
            names = more
        c, a = self.company("gemma3", s.path, *FILLS)
        self.assertEqual([e["cached"] for e in self.again(a)], [0, 0])
        self.end(c)

    def test_a_turn_after_a_restart(self):
        """Where both phases are one path the answers are known too."""
        s = self.server()
        shape = ["--unified", "pp=2,dtype=bf16"]
        c, a = self.company("gemma3", s.path, *shape, "--chunk", "16")
        first = a.ask(line(prompt(4, 100), max=60))[0]
        wait_until("all is stored", 10, lambda: c.status()["store"]["stored"] >= 2 * (159 // 16))
        self.end(c)
        talk = prompt(4, 100) + first["tokens"] + prompt(5, 20)
        c, a = self.company("gemma3", s.path, *shape)
        warm = a.ask(line(talk, max=20, temp=3, logits=2))[0]
        self.assertEqual(warm["cached"], 159 // 16 * 16)
        self.end(c)
        c, a = self.company("gemma3", s.path, *shape, "--set", "kv.store_timeout_ms=1000")
        s.ask("FLUSHALL")
        cold = a.ask(line(talk, max=20, temp=3, logits=2))[0]
        self.assertEqual(cold["cached"], 0)
        self.same([warm], [cold])
        self.end(c)

    def test_samples(self):
        s = self.server()
        want = self.fill("llama", s.path)
        c, a = self.company("llama", s.path, *SAME["unified"])
        a.send([line(prompt(1, 200), max=30, temp=3, n=4)])
        ends = a.ends(4)[0]
        self.assertEqual(ends[0]["tokens"], want[0]["tokens"])
        self.assertEqual(c.status()["store"]["hits"], 1)
        self.end(c)


class Trouble(Store):
    def test_the_server_dies_and_comes_back(self):
        s = self.server()
        want = self.fill("llama", s.path)
        c, a = self.company("llama", s.path, *FILLS)
        lines = [line(prompt(i, 200), max=40, temp=3) for i in range(1, 9)]
        a.send(lines)
        s.kill()
        ends = [e[0] for e in a.ends(len(lines))]
        self.assertEqual(ends[0]["tokens"][:30], want[0]["tokens"])
        wait_until("it is down", 10, lambda: not c.status()["store"]["up"])
        later = a.ask(*lines[:4], line(prompt(30, 200), max=10))
        self.assertEqual([e["tokens"] for e in later[:4]], [e["tokens"] for e in ends[:4]])
        s.start()
        wait_until("it is up", 20, lambda: c.status()["store"]["up"])
        before = c.status()["store"]["stored"]
        a.ask(line(prompt(31, 200), max=10))
        self.settled(c, "stored", before + 1)
        c.wait_idle()
        text = c.stop()
        self.assertEqual(text.count("store_down"), 1, text)

    def test_the_server_sleeps(self):
        s = self.server()
        want = self.fill("llama", s.path)
        c, a = self.company("llama", s.path, *FILLS, "--set", "kv.store_timeout_ms=50")
        s.kill(signal.SIGSTOP)
        self.addCleanup(s.kill, signal.SIGCONT)
        begin = time.monotonic()
        self.same(self.again(a), want)
        self.assertLess(time.monotonic() - begin, 5 * SLOW)
        figures = self.settled(c, "failed", 1)
        self.assertEqual((figures["up"], figures["hits"]), (False, 0))
        s.kill(signal.SIGCONT)
        self.end(c)

    def test_a_pause_while_storing(self):
        """What is stored has more time than a question, as long as none waits. So short a prompt asks nothing."""
        s = self.server()
        c, a = self.company("llama", s.path, *FILLS, "--set", "kv.store_timeout_ms=500")
        s.kill(signal.SIGSTOP)
        self.addCleanup(s.kill, signal.SIGCONT)
        a.ask(line(prompt(70, 60), max=5))
        time.sleep(1)
        s.kill(signal.SIGCONT)
        figures = self.settled(c, "stored", 3)
        self.assertEqual((figures["asked"], figures["failed"], figures["dropped"]), (0, 0, 0))
        self.end(c)

    def test_the_server_is_full(self):
        s = self.server("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
        c, a = self.company("gemma3", s.path, *FILLS)
        ends = a.ask(*[line(prompt(i, 250), max=5) for i in range(40, 52)])
        self.assertEqual(len(ends), 12)
        self.settled(c, "dropped", 1)
        self.assertTrue(c.status()["store"]["up"])
        c.wait_idle()
        text = c.stop()
        self.assertIn("store_refuses", text)

    def test_wrong_values_are_refused(self):
        """Every prompt's blocks are damaged in another way."""
        s = self.server()
        c, a = self.company("llama", s.path, *FILLS)
        ways = {"a bit": lambda v: v[:len(v) // 2] + bytes([v[len(v) // 2] ^ 4]) + v[len(v) // 2 + 1:],
                "nothing": lambda v: b"", "too short": lambda v: v[:-1], "too long": lambda v: v + b"x",
                "another version": lambda v: v[:8] + b"\2" + v[9:], "noise": lambda v: bytes(reversed(v)),
                "of another block": None, "no string": None, "far too long": lambda v: v * 300}
        lines = [line(prompt(80 + i, 120), max=20, temp=3, logits=2) for i in range(len(ways))]
        want, names, known = [], [], set()
        for i, text in enumerate(lines):
            want += a.ask(text)
            wait_until("all is stored", 10, lambda: c.status()["store"]["stored"] == (i + 1) * (120 // 16))
            names.append(sorted(set(s.names()) - known))
            known |= set(names[-1])
        self.end(c)
        value = {n: s.ask("GET", n) for n in known}
        for way, of in zip(ways, names):
            for n, next_one in zip(of, of[1:] + of[:1]):
                if way == "no string":
                    s.ask("DEL", n)
                    s.ask("LPUSH", n, "x")
                else:
                    s.ask("SET", n, ways[way](value[n]) if ways[way] else value[next_one])
        c, a = self.company("llama", s.path, *FILLS)
        for i, way in enumerate(ways):
            with self.subTest(way=way):
                got = a.ask(lines[i])
                self.same(got, want[i:i + 1])
                self.assertEqual(got[0]["cached"], 0)
        figures = self.settled(c, "failed", 1)  # "far too long" ended the connection
        self.assertEqual((figures["refused"], figures["hits"]), (len(ways) - 2, 0))
        wait_until("all is right again", 10, lambda: all(s.ask("GET", n) == value[n] for of in names[:7] for n in of))
        self.end(c)

    def test_a_server_that_lies(self):
        good = b"+PONG\r\n"
        cases = {"arrays": b"*3\r\n:1\r\n:1\r\n:1\r\n", "huge array": b"*1000000000\r\n" * 3,
                 "huge value": b"$400000000\r\n" + b"x" * (3 << 20), "deep": b"*1\r\n" * 40,
                 "noise": bytes(range(256)) * 20, "too much": b":1\r\n" * 4000, "silent": b"",
                 "negative": b"$-7\r\n:99999999999999999999999\r\n", "yes to all": b":1\r\n" * 7}
        liar = Liar(self.folder.path, good, b"")
        self.addCleanup(liar.close)
        c, a = self.company("llama", liar.path, *FILLS, "--set", "kv.store_timeout_ms=100")
        want = {}
        for what, then in cases.items():
            with self.subTest(what=what):
                wait_until("it is up", 20, lambda: c.status()["store"]["up"])
                failed, liar.then = c.status()["store"]["failed"], then
                want[what] = a.ask(line(prompt(100 + len(want), 120), max=20, temp=3, logits=2))
                self.assertEqual(want[what][0]["cached"], 0)
                self.settled(c, "failed", failed + 1)
        for first in (b"-NOAUTH no\x1b[2J\r\n", b"", b"$5\r\nhello\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
            liar.first = good
            wait_until("it is let in", 20, lambda: c.status()["store"]["up"])
            liar.first, failed = first, c.status()["store"]["failed"]
            liar.cut()
            self.settled(c, "failed", failed + 2)  # closed, and not let in again
        self.assertFalse(c.status()["store"]["up"])
        c.wait_idle()
        self.assertEqual(c.actors()["store"]["incarnation"], 1)
        self.assertNotIn("\x1b", c.stop())
        c, a = self.company("llama", self.folder.path + "/nothing", *FILLS, up=False)
        for i, what in enumerate(want):
            self.same(a.ask(line(prompt(100 + i, 120), max=20, temp=3, logits=2)), want[what], what)
        self.assertFalse(c.status()["store"]["up"])
        self.end(c)

    def test_its_actor_dies(self):
        s = self.server()
        want = self.fill("llama", s.path)
        c, a = self.company("llama", s.path, *SAME["unified"])
        for turn in range(3):
            lines = [line(prompt(i, 200), max=40, temp=3, seed=turn) for i in range(1, 5)]
            a.send(lines + [line(prompt(50 + turn, 200), max=5)])
            c.kill("store")
            ends = [e[0] for e in a.ends(5)]
            if turn == 0:
                self.assertEqual(ends[0]["tokens"][:30], want[0]["tokens"])
            self.assertEqual([e["finish"] for e in ends], [2] * 5)
        wait_until("it is up", 20, lambda: c.status()["store"]["up"])
        a.ask(line(prompt(60, 200), max=5))
        self.settled(c, "stored", 12)
        self.end(c)


class Keys(Store):
    def write(self, name, text):
        path = os.path.join(self.folder.path, name)
        with open(path, "w") as f:
            f.write(text + "\n")
        return path

    def test_password_and_secret(self):
        s = self.server("--requirepass", "tulip 1")
        right, wrong = self.write("right", "tulip 1"), self.write("wrong", "tulips")
        secret, other = self.write("secret", "of our own, 32 letters or so"), self.write("other", "of somebody else 123")
        password = ["--set", "kv.store_password_file=" + right]
        want = self.fill("llama", s.path, *password, "--set", "kv.store_secret_file=" + secret)
        for keys, hits in ((["--set", "kv.store_secret_file=" + secret], 2),
                           (["--set", "kv.store_secret_file=" + other], 0), ([], 0)):
            c, a = self.company("llama", s.path, *SAME["unified"], *password, *keys)
            self.same(self.again(a), want)
            self.assertEqual(c.status()["store"]["hits"], hits)
            self.end(c)
        c, a = self.company("llama", s.path, *FILLS, "--set", "kv.store_password_file=" + wrong, up=False)
        self.same(self.again(a), want)
        self.settled(c, "failed", 1)
        c.wait_idle()
        text = c.stop()
        self.assertIn("store_down", text)
        self.assertNotIn("tulip", text)

    def test_what_is_refused(self):
        empty = self.write("empty", "")
        short = self.write("short", "too short")
        for code, args in ((78, ["kv.store=redis://10.1.2.3:6379"]), (78, ["kv.store=redis://me:word@127.0.0.1"]),
                           (78, ["kv.store=127.0.0.1:6379"]), (78, ["kv.store=unix://relative"]),
                           (78, ["kv.store=redis://127.0.0.1:0"]), (78, ["kv.store=redis://127.0.0.1/x"]),
                           (78, ["kv.store=redis://example.org:6379"]),
                           (66, ["kv.store=unix:///tmp/x", "kv.store_password_file=/nowhere/at/all"]),
                           (78, ["kv.store=unix:///tmp/x", "kv.store_password_file=" + empty]),
                           (78, ["kv.store=unix:///tmp/x", "kv.store_secret_file=" + short]),
                           (78, ["kv.store=unix:///tmp/x", "scheduler.prefix_cache=off"])):
            with self.subTest(args=args):
                sets = [w for a in args for w in ("--set", a)]
                got = CACHE.run("run", company.LLAMA, *sets, "-n", "1", "x")
                self.assertEqual((got.returncode, got.stdout, got.stderr.count(b"\n")), (code, b"", 1), got.stderr)
                self.assertNotIn(b"word@", got.stderr)


if __name__ == "__main__":
    unittest.main()
