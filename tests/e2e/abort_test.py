"""Nothing leaks: aborts, timeouts, deaths of clients, deaths and hangs of every actor at random moments, in companies
whose pages are so few that requests wait. Who stays gets exactly the undisturbed text or one error; at rest every page is free; after the end
no process, no shared memory and no folder is left.
TROUPE_TEST_FAULTS (60) and TROUPE_TEST_SEED choose a longer run, or one again."""
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import company
from company import SLOW, wait_until
from gateway_test import Gateway
from prefix_cache_test import ASK, line, prompt

FAULTS = int(os.environ.get("TROUPE_TEST_FAULTS", "60"))
SEED = int(os.environ.get("TROUPE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
SHAPES = {
    "split": ("--prefill", "pp=2,dtype=bf16", "--decode", "pp=2,dtype=int8", "--chunk", "32"),
    "ranks": ("--prefill", "pp=2,dtype=bf16,page=32", "--decode", "pp=2,tp=2,dtype=int8", "--chunk", "64"),
    "zmq": ("--prefill", "pp=2,dtype=bf16", "--decode", "pp=2,dtype=int8", "--set", "transport.local=zmq"),
}
FEW = ("--kv-memory", "560K")
ABORTED, ALL_SAMPLES, TIMEOUT = 3, 16, 75
# what is asked for: prompt, tokens, samples; the first two begin alike
ASKED = [(prompt(1, 200), 60, 1), (prompt(1, 200)[:150] + prompt(2, 60), 40, 2), (prompt(3, 20), 150, 3),
         (prompt(4, 300), 100, 1), (prompt(5, 90), 20, 1), (prompt(6, 7), 200, 1), (prompt(7, 140), 80, 4),
         (prompt(8, 33), 30, 2)]
HTTP_PROMPT, HTTP_TOKENS = "the quick brown fox", 150


def ask_line(k, **more):
    tokens, most, n = ASKED[k]
    return line(tokens, max=most, n=n, temp=3, seed=k, **more)


class Client:
    """A process with a few requests. No rng: it takes all of ASKED and aborts nothing."""

    def __init__(self, c, rng=None):
        with open(os.path.join(c.home.runtime, "troupe", c.name, "lock")) as f:
            endpoint = f.read().split("\n")[1]
        self.asked = [rng.randrange(len(ASKED)) for _ in range(rng.randint(1, 4))] if rng else list(range(len(ASKED)))
        self.aborts, self.timeouts, lines = set(), set(), []
        for i, k in enumerate(self.asked):
            how = {}
            if rng and rng.random() < 0.3:
                how = {"abort": rng.randint(1, 40)} if rng.random() < 0.3 else {"abort_ms": rng.randint(1, 300)}
                self.aborts.add(i)
            elif rng and rng.random() < 0.15:
                how = {"timeout_ms": rng.choice((rng.randint(1, 300), rng.randint(300, 3000)))}
                self.timeouts.add(i)
            lines.append(ask_line(k, **how))
        self.out, self.err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([ASK, endpoint], env=c.home.env, stdin=subprocess.PIPE, stdout=self.out,
                                        stderr=self.err, text=True)
        try:
            self.process.stdin.write("\n".join(lines) + "\n\n")
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.killed = self.slept = False

    def ends(self):
        """Per request, per sample: its end. Every sample ends once."""
        found = [[None] * ASKED[k][2] for k in self.asked]
        self.out.seek(0)
        for e in map(json.loads, self.out):
            samples = found[e["request"]]
            each = [s for s in range(len(samples)) if samples[s] is None] if e["sample"] == ALL_SAMPLES else [e["sample"]]
            assert each, "an end of nothing: %s" % e
            for s in each:
                assert samples[s] is None, "ends twice: %s, %s" % (samples[s], e)
                samples[s] = e
        return found

    def check(self, truth, counts):
        code = self.process.wait(60 * SLOW)
        self.err.seek(0)
        said = self.err.read()
        found = self.ends() if not self.killed else []
        self.out.close()
        self.err.close()
        if self.killed:
            return
        assert code == 0, "exit %d: %s" % (code, said)
        for i, (k, samples) in enumerate(zip(self.asked, found)):
            for s, e in enumerate(samples):
                assert e is not None, "sample %d of request %d never ended" % (s, i)
                if "error" in e:
                    assert e["code"] in (69, 70) or (e["code"] == TIMEOUT and i in self.timeouts), e
                    counts["error: " + e["error"][:60]] = counts.get("error: " + e["error"][:60], 0) + 1
                elif e["finish"] == ABORTED:
                    assert i in self.aborts or self.slept, "aborted by nobody: %s" % e
                    assert truth[k][s][:len(e["tokens"])] == e["tokens"], "a wrong text: %s" % e
                    counts["aborted"] = counts.get("aborted", 0) + 1
                else:
                    assert truth[k][s] == e["tokens"], "a wrong text: %s" % e
                    counts["whole"] = counts.get("whole", 0) + 1


class Stream(threading.Thread):
    """A text over HTTP; leave: seconds until it hangs up."""

    def __init__(self, port, leave=None):
        super().__init__()
        self.port, self.leave, self.got, self.begin, self.end = port, leave, None, time.monotonic(), None
        self.start()

    def run(self):
        self.got = self.ask()
        self.end = time.monotonic()

    def ask(self):
        body = json.dumps({"prompt": HTTP_PROMPT, "max_tokens": HTTP_TOKENS, "ignore_eos": True, "temperature": 0,
                           "stream": True}).encode()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=60 * SLOW) as s:
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                          % (len(body), body))
                if self.leave is not None:
                    time.sleep(self.leave)
                    return "left"
                r = http.client.HTTPResponse(s)
                r.begin()
                data = r.read().decode()
        except (ConnectionError, http.client.HTTPException) as e:
            return "broken: %r" % e
        except OSError as e:
            return "dead: %r" % e
        events = [json.loads(e[6:]) for e in data.split("\n\n") if e.startswith("data: {")]
        if r.status != 200 or any("error" in e for e in events):
            return "refused"
        if not data.rstrip().endswith("[DONE]"):
            return "broken: in the stream"
        return "".join(c["text"] for e in events for c in e["choices"])


def segments(pids):
    """Shared memory objects that these processes hold, by inode."""
    found = set()
    for pid in pids:
        try:
            for fd in os.listdir("/proc/%s/fd" % pid):
                path = "/proc/%s/fd/%s" % (pid, fd)
                if os.readlink(path).startswith("/memfd:"):
                    found.add((os.stat(path).st_dev, os.stat(path).st_ino))
        except OSError:
            continue
    return found


class Abort(unittest.TestCase):
    def fault(self, c, rng, counts):
        """One of them, at once; its name."""
        kind = rng.choice(("client", "client", "client", "leave", "leave", "actor", "actor", "actor", "actor", "hang"))
        if kind == "client":
            running = [x for x in self.clients if x.process.poll() is None and not x.killed and not x.slept]
            if not running:
                return
            victim = rng.choice(running)
            victim.killed = True
            victim.process.kill()
        elif kind == "leave":
            self.streams.append(Stream(c.port, rng.uniform(0.0, 0.3)))
        else:
            actors = {text.rpartition(" ")[2]: pid for pid, text in c.home.processes().items() if " --actor " in text}
            if not actors:
                return
            victim, hangs = rng.choice(sorted(actors)), kind == "hang"
            begin = time.monotonic()  # before: a stream may see its end at once
            try:
                os.kill(actors[victim], signal.SIGSTOP if hangs else signal.SIGKILL)
            except ProcessLookupError:
                return
            if victim == "gateway":  # one that hangs is killed a lease later
                self.gateway_deaths.append(begin)
            kind = victim + (" hangs" if hangs else "")
        counts[kind] = counts.get(kind, 0) + 1

    def sleeper(self, c):
        """A client that is stopped while its requests run."""
        x = Client(c)
        wait_until("work", 30, lambda: c.status()["requests"]["running"] > 0, 0)
        x.process.send_signal(signal.SIGSTOP)
        x.slept = True
        return x

    def storm(self, c, rng, truth, web, n, sleeps):
        faults, ends = {}, {}
        self.clients, self.streams, self.gateway_deaths, waited = [], [], [], 0
        sleeper, begin = self.sleeper(c) if sleeps else None, time.monotonic()
        faults["sleeper"] = int(sleeps)
        while sum(faults.values()) < n:
            while sum(x.process.poll() is None for x in self.clients) < 6:
                self.clients.append(Client(c, rng))
                faults["abort"] = faults.get("abort", 0) + len(self.clients[-1].aborts)
                faults["timeout"] = faults.get("timeout", 0) + len(self.clients[-1].timeouts)
            while sum(s.is_alive() for s in self.streams) < 2:
                self.streams.append(Stream(c.port))
            status = c.try_status() if waited == 0 or rng.random() < 0.2 else None  # all are at work now
            time.sleep(rng.uniform(0.0, 0.4))
            self.fault(c, rng, faults)
            waited = max(waited, status["requests"]["waiting"] if status else 0)
        for x in self.clients:
            x.check(truth, ends)
        for s in self.streams:
            s.join()
            if s.got.startswith("broken"):
                self.assertTrue(any(s.begin - 5 * SLOW < d < s.end for d in self.gateway_deaths),
                                "%s, %.3f to %.3f, gateway died at %s" % (s.got, s.begin, s.end, self.gateway_deaths))
            elif s.got not in ("left", "refused"):
                self.assertEqual(s.got, web)
            what = "http " + (s.got if s.got in ("left", "refused") else "broken" if s.got.startswith("broken") else "whole")
            ends[what] = ends.get(what, 0) + 1
        c.wait_ready()
        c.wait_idle(20)  # the sleeper is silent for 10 s, and what it asked for is over
        if sleeper:
            sleeper.process.send_signal(signal.SIGCONT)
            sleeper.check(truth, ends)
            c.wait_idle(20)
        print("%d faults in %.0f s: %s\n  ends: %s\n  waiting at once: %d" % (
            sum(faults.values()), time.monotonic() - begin, faults, ends, waited), flush=True)
        return sum(faults.values()), waited

    def check(self, shape, n, sleeps):
        rng = random.Random("%d %s" % (SEED, shape))
        print("%s: seed %d" % (shape, SEED), flush=True)
        c = Gateway("-c", "512", *FEW, *SHAPES[shape])
        self.addCleanup(lambda: c.log.closed or c.close())
        first = Client(c)
        self.assertEqual(first.process.wait(60 * SLOW), 0)
        truth = [[e["tokens"] for e in samples] for samples in first.ends()]
        first.out.close()
        first.err.close()
        web = Stream(c.port)
        web.join()
        self.assertGreater(len(web.got), HTTP_TOKENS // 2)
        c.wait_idle()
        supervisor = c.actors()["supervisor"]["pid"]
        before = segments(c.home.processes()), len(os.listdir("/proc/%d/fd" % supervisor))
        done, waited = self.storm(c, rng, truth, web.got, n, sleeps)
        self.assertGreater(waited, 0, "pages are not few")
        after = segments(c.home.processes()), len(os.listdir("/proc/%d/fd" % supervisor))
        self.assertEqual(after, before, "shared memory objects, and descriptors of the supervisor")
        again = Client(c)
        again.check(truth, {})
        c.wait_idle()
        c.home.close, close = lambda: {}, c.home.close  # its folder is looked at first
        self.addCleanup(close)
        c.stop()
        c.home.wait_empty()
        self.assertEqual(segments(filter(str.isdigit, os.listdir("/proc"))) & before[0], set())
        self.assertEqual(os.listdir(os.path.join(c.home.runtime, "troupe")), [])
        return done

    def test_storm(self):
        shapes = list(SHAPES) if FAULTS > 100 else ["split", "ranks"]
        done = 0
        for i, shape in enumerate(shapes):
            with self.subTest(shape):
                done += self.check(shape, -(-(FAULTS - done) // (len(shapes) - i)), i == 0 or FAULTS > 100)
        print("%d faults in all" % done)


if __name__ == "__main__":
    unittest.main()
