"""A company over several hosts: the same text as on one, whatever dies, breaks or is refused between them."""
import os
import signal
import socket
import subprocess
import time
import unittest

import company
import nodes
from company import PROMPTS, SLOW, Company, Home, wait_until
from nodes import Net, NodesCompany

MODEL = os.environ.get("TROUPE_TEST_MODEL", company.GEMMA)
N = int(os.environ.get("TROUPE_TEST_TOKENS", "120"))
HOW = ("--temp", "1", "--seed", "3", "--ignore-eos")
C = ("-c", "512")
PD = "prefill: {pp: 2, hosts: [a]}\ndecode: {pp: 1, hosts: [b]}\n"
DP = "prefill: {pp: 1, hosts: [b]}\ndecode: {pp: 2, hosts: [a]}\n"
CACHE = Home()
MISSING = nodes.namespaces_missing()


def tearDownModule():
    CACHE.close()


class Case(unittest.TestCase):
    truth = {}

    def setUp(self):
        self.home = Home(cache=CACHE.cache)
        self.addCleanup(self.home.close)

    def net(self, n=2):
        if MISSING:
            self.skipTest("no network namespaces here: " + MISSING)
        net = Net(n)
        self.addCleanup(net.close)
        return net

    def start(self, topology, model=MODEL, **how):
        c = NodesCompany(model, topology, home=self.home, args=how.pop("args", C), **how)
        self.addCleanup(lambda: c.log.closed or c.close())
        return c

    def want(self, model):
        """The texts of one host, asked once."""
        if model not in Case.truth:
            home = Home(cache=CACHE.cache)
            with Company(model, *C, "--prefill", "pp=1", "--decode", "pp=1", home=home) as c:
                Case.truth[model] = [t.out for t in c.generate_all(PROMPTS, N, *HOW)]
                c.stop()
            home.close()
        return Case.truth[model]

    def streams(self, c):
        return [c.stream(p, N, *HOW) for p in PROMPTS]

    def same(self, c, streams, what, model=MODEL):
        for prompt, want, s in zip(PROMPTS, self.want(model), streams):
            text = s.wait()
            self.assertEqual((text.code, text.out), (0, want), "%s, %r: %s\n%s" % (what, prompt, text, c.all_messages()))

    def flowing(self, c):
        """All prompts at once; returns when most of them have text and none has all."""
        streams = self.streams(c)
        wait_until("first texts", 30, lambda: sum(s.size() > 0 for s in streams) >= 3, 0)
        return streams


class SameText(Case):
    def check(self, topology, model=MODEL, hosts=2, **how):
        c = self.start(topology, model, net=self.net(hosts), hosts=hosts, **how)
        self.same(c, self.streams(c), topology, model)
        self.assertEqual({a["node"] for a in c.status()["actors"]}, set(nodes.NAMES[:hosts]))
        c.wait_idle()
        c.stop()
        self.home.wait_empty()

    def test_prefill_here_decode_there(self):
        self.check(PD)

    def test_prefill_there_decode_here(self):
        self.check(DP)

    def test_the_other_model_and_zeromq_inside(self):
        self.check("prefill: {pp: 1, hosts: [a]}\ndecode: {pp: 2, hosts: [b], page: 32}\ntransport: {local: zmq}\n",
                   company.LLAMA)

    def test_a_head_without_stages(self):
        self.check("prefill: {hosts: [b]}\ndecode: {hosts: [b]}\nscheduler: {chunk: 16}\n")

    def test_three_hosts(self):
        self.check("prefill: {pp: 2, hosts: [b], page: 64}\ndecode: {pp: 1, tp: 2, hosts: [c]}\n", hosts=3)

    def test_logits(self):
        """eval through two hosts: the same bits."""
        text, out = os.path.join(self.home.path, "text"), os.path.join(self.home.path, "logits.npy")
        with open(os.path.join(company.ROOT, "tests/golden/texts/german.txt"), encoding="utf-8") as f:
            german = f.read()[:360]
        with open(text, "w", encoding="utf-8") as f:
            f.write(german)

        def evaluate(*args):
            run = self.home.run("eval", *args, "--text", text, "--path", "handoff", "--json", "--logits", out)
            self.assertEqual(run.returncode, 0, run.stderr.decode())
            with open(out, "rb") as f:
                return run.stdout, f.read()
        want = evaluate(MODEL, "--prefill", "pp=1", "--decode", "pp=1")
        address = "127.0.0.1:%d" % (20000 + os.getpid() % 20000)
        node = self.home.popen("node", "b", "a@" + address, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        got = evaluate(MODEL, "--prefill", "pp=1,hosts=a", "--decode", "pp=2,hosts=b", "--set", "hosts=a@%s,b" % address)
        self.assertEqual(node.wait(10 * SLOW), 0)
        self.assertEqual(got, want)


class Deaths(Case):
    def test_every_actor_dies(self):
        """kill -9 of stages, resharders and agents on both hosts: no text changes."""
        c = self.start(PD, net=self.net())
        victims = [a for a in c.actors() if a.split(".")[0] in ("prefill", "decode", "resharder", "node")]
        self.assertEqual(len(victims), 7)
        for victim in victims:
            before, pid = c.actors()[victim]["incarnation"], c.pid(victim)
            streams = self.flowing(c)
            os.kill(pid, signal.SIGKILL)
            self.same(c, streams, "%s killed" % victim)
            wait_until("%s is back" % victim, 10, lambda: c.actors()[victim]["incarnation"] > before)
        c.wait_idle()
        c.stop()
        self.home.wait_empty()

    def test_the_other_supervisor_dies(self):
        """It took its memory along: the company ends with an error, everything is gone, everybody is told."""
        c = self.start(PD, net=self.net())
        streams = self.flowing(c)
        os.kill(c.pid("supervisor.b"), signal.SIGKILL)
        self.assertEqual(c.serve.wait(15 * SLOW), 69, c.all_messages())
        self.assertIn("node_lost node=b", c.messages())
        self.assertIn("link_down node=b", c.messages())
        self.assertNotEqual(c.wait_nodes(), [0])
        for s in streams:
            text = s.wait()
            self.assertIn(text.code, (0, 69), text)
        self.home.wait_empty(3)

    def test_the_head_dies(self):
        c = self.start(PD, net=self.net())
        for p in (c.pid("supervisor"), c.serve.pid):
            os.kill(p, signal.SIGKILL)
        begin = time.monotonic()
        self.assertEqual(c.wait_nodes(10), [69])
        self.assertIn("node_lost node=a", c.node_messages())
        print("the node ended %.1f s after its head" % (time.monotonic() - begin))
        c.serve.wait()
        self.home.wait_empty(3)

    def test_a_node_that_is_stopped(self):
        c = self.start(PD, net=self.net())
        c.node[1].terminate()
        self.assertEqual(c.serve.wait(15 * SLOW), 69, c.all_messages())
        self.assertRegex(c.messages(), "node_(left|lost) node=b")  # lost: it had no time to say so
        c.wait_nodes()
        self.home.wait_empty(3)


class Breaks(Case):
    def cut(self, seconds, told):
        net = self.net()
        c = self.start(PD, net=net)
        streams = self.flowing(c)
        net.link(1, "down")
        begin = time.monotonic()
        if told:
            wait_until("the break is noticed", 2, lambda: "link_down node=b" in c.messages(), 0.01)
            print("a dead link was noticed after %.2f s" % (time.monotonic() - begin))
            self.assertIsNone(c.actors()["decode.0"]["pid"])
        time.sleep(max(0, seconds - (time.monotonic() - begin)))
        net.link(1, "up")
        begin = time.monotonic()
        wait_until("text flows again", 10, lambda: c.try_status() and c.actors()["decode.0"]["pid"])
        self.same(c, streams, "link down for %g s" % seconds)
        print("link down for %g s: all texts %.2f s after it was up" % (seconds, time.monotonic() - begin))
        c.wait_idle()
        c.stop()

    def test_a_short_one(self):
        self.cut(0.3, False)

    def test_a_long_one(self):
        self.cut(2, True)


class Keys(Case):
    def refused(self, hint, code, *args):
        run = self.home.run(*args, timeout=20)
        self.assertEqual((run.returncode, run.stdout), (code, b""), run.stderr)
        self.assertIn(hint, run.stderr.decode())
        self.assertEqual(run.stderr.count(b"\n"), 1, run.stderr)

    def test_a_wrong_key(self):
        """Unknown keys, no keys, and the key of another host do not come in; the right one then does."""
        c = self.start(PD, wait=False)
        c.node[1].terminate()
        other = os.path.join(self.home.path, "other")
        self.assertEqual(self.home.run("keygen", other, "a", "b").returncode, 0)
        with open(os.path.join(c.keys, "a.pub"), "rb") as good, open(os.path.join(other, "a.pub"), "wb") as f:
            f.write(good.read())  # it knows the head, the head does not know it
        self.refused("refused the key of b", 69, "node", "b", "a@" + c.address, "--keys", other)
        wrong_head = os.path.join(self.home.path, "wrong")
        self.assertEqual(self.home.run("keygen", wrong_head, "a", "b").returncode, 0)
        self.refused("refused the key of b", 69, "node", "b", "a@" + c.address, "--keys", wrong_head)
        self.refused("refused the key of b", 69, "node", "b", "a@" + c.address)
        self.assertIn("key_refused", c.messages())
        c.node[1].wait()
        c.node[1] = c.start_node(1)
        c.wait_ready()
        self.assertEqual(c.generate(PROMPTS[0], 8).code, 0)
        c.stop()

    def test_junk_at_the_door(self):
        """Hundreds of connections that say nothing, half a greeting, or garbage: the streams do not notice."""
        c = self.start(PD)
        pids = {n: a["pid"] for n, a in c.actors().items()}
        streams, held = self.flowing(c), []
        for i in range(300):
            s = socket.create_connection(("127.0.0.1", c.port))
            s.setblocking(False)
            try:
                s.send((b"", b"\xff\0\0\0\0\0\0\0\1\x7f", b"GET / HTTP/1.1\r\n\r\n" * 50, os.urandom(4000))[i % 4] or b"\0")
            except OSError:
                pass
            held.append(s)
        self.same(c, streams, "junk")
        for s in held:
            s.close()
        self.assertEqual({n: a["pid"] for n, a in c.actors().items()}, pids)
        c.stop()

    def test_files(self):
        keys = os.path.join(self.home.path, "k")
        run = self.home.run("keygen", keys, "a", "b")
        self.assertEqual(run.returncode, 0)
        self.assertEqual(os.stat(os.path.join(keys, "a.key")).st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(keys).st_mode & 0o777, 0o700)
        self.assertEqual([len(line.split()[1]) for line in run.stdout.decode().splitlines()], [40, 40])
        self.refused("cannot create", 73, "keygen", keys, "a")
        os.chmod(os.path.join(keys, "b.key"), 0o640)
        self.refused("is open to others", 78, "node", "b", "a@127.0.0.1:5570", "--keys", keys)
        self.refused("cannot read the key", 78, "node", "c", "a@127.0.0.1:5570", "--keys", keys)
        self.refused("give a folder", 64, "keygen", keys)
        self.refused("is no name", 64, "keygen", keys, "../x")

    def test_addresses(self):
        """Nothing listens where others can reach it, and nothing is connected to, without keys."""
        self.refused("which needs keys", 64, "node", "b", "a@10.0.0.1:5570")
        self.refused("that needs keys", 78, "run", MODEL, "x", "--set", "hosts=a@0.0.0.0:5570,b")
        self.refused("is no head", 64, "node", "b", "10.0.0.1")
        c = self.start("prefill: {}\ndecode: {hosts: [b]}\n")
        self.refused("is in use by another process", 69, "run", MODEL, "x", "--set", "hosts=a@%s,b" % c.address)
        c.stop()


class Launch(Case):
    """scripts/launch: keys, nodes and the head in one command, and nothing left behind."""

    def launch(self, hosts, *command, net=None, env=None):
        file = os.path.join(self.home.path, "launch.yaml")
        with open(file, "w", encoding="utf-8") as f:
            f.write("version: 1\nmodel: %s\nhosts: [%s]\n%s" % (MODEL, hosts, PD))
        words = ["scripts/launch", "-f", file, "--troupe", company.TROUPE, "--remote-troupe", company.TROUPE, "--", *command]
        return subprocess.run(words, cwd=company.ROOT, env={**self.home.env, **(env or {})}, capture_output=True,
                              timeout=60 * SLOW, stdin=subprocess.DEVNULL)

    def one_text(self, run):
        self.assertEqual(run.returncode, 0, run.stderr.decode())
        self.assertEqual(run.stdout.rstrip(b"\n"), self.want(MODEL)[0].rstrip(b"\n"), run.stderr.decode())
        self.assertIn("[b] troupe: host b runs its part", run.stderr.decode())
        self.assertEqual([n for n in os.listdir("/tmp") if n.startswith("troupe-keys-b-")], [])
        self.home.wait_empty()

    def test_namespaces(self):
        net = self.net()
        hosts = "{name: a, address: '%s:5570', netns: %s}, {name: b, netns: %s}" % (net.address(0), *net.names)
        self.one_text(self.launch(hosts, "run", "-q", "-n", str(N), *HOW, *C, PROMPTS[0]))

    def test_ssh(self):
        """An ssh that runs its command here."""
        folder = os.path.join(self.home.path, "bin")
        os.mkdir(folder)
        with open(os.path.join(folder, "ssh"), "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nwhile case $1 in -*) true;; *) false;; esac; do shift; done\n"
                    "test \"$1\" = me@b || exit 255\nshift\nexec sh -c \"$*\"\n")
        os.chmod(os.path.join(folder, "ssh"), 0o755)
        port = 20000 + os.getpid() % 20000
        env = {"PATH": folder + ":" + os.environ["PATH"]}
        hosts = "{name: a, address: '127.0.0.1:%d'}, {name: b, ssh: me@b}" % port
        self.one_text(self.launch(hosts, "run", "-q", "-n", str(N), *HOW, *C, PROMPTS[0], env=env))
        run = self.launch(hosts.replace("me@b", "nobody"), "run", "-q", "x", env=env)
        self.assertEqual(run.returncode, 69)
        self.assertIn("cannot copy the keys", run.stderr.decode())

    def test_the_example(self):
        words = ["scripts/launch", "-f", "configs/two-hosts.yaml", "--troupe", company.TROUPE, "--model", MODEL, "--", "run",
                 "-q", "-n", str(N), *HOW, *C, PROMPTS[0]]
        self.one_text(subprocess.run(words, cwd=company.ROOT, env=self.home.env, capture_output=True, timeout=60 * SLOW,
                                     stdin=subprocess.DEVNULL))

    def test_a_host_that_fails(self):
        run = self.launch("{name: a, address: '127.0.0.1:%d'}, {name: b, netns: no-such-namespace}" % (
            20000 + os.getpid() % 20000), "run", "-q", "x")
        self.assertNotIn(run.returncode, (0, 130), run.stderr.decode())
        self.assertIn("launch: host b ended", run.stderr.decode())
        self.home.wait_empty(3)


class Damage(Case):
    """A proxy between two hosts without keys flips bits: with keys the connection would just break."""

    def behind_a_proxy(self, mode, count):
        port = 20000 + os.getpid() % 20000
        words = ["python3", "-B", "tests/e2e/flip_proxy.py", str(port + 1), str(port), mode, str(count)]
        proxy = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=company.ROOT)
        self.addCleanup(lambda: (proxy.kill(), proxy.wait(), proxy.stdout.close()))
        proxy.stdout.readline()
        c = self.start("prefill: {hosts: [a]}\ndecode: {hosts: [b]}\n", company.GEMMA, keys=False, port=port, wait=False)
        c.node[1].terminate()
        c.node[1].wait()
        c.node[1] = c.popen(1, c.node_log[1], "node", "b", "a@127.0.0.1:%d" % (port + 1))
        c.wait_ready()
        return c

    def test_some_tiles(self):
        """The page and the link are named, the page is sent again, the text is the same."""
        c = self.behind_a_proxy("tiles", 6)
        self.same(c, self.streams(c), "damaged tiles", company.GEMMA)
        log = c.node_messages()
        self.assertIn('page_damaged link="resharder -> resharder.b"', log)
        self.assertNotIn("frame of link", log)  # no session ended for it
        print("%d tiles were damaged and sent again" % log.count("page_damaged"))
        c.wait_idle()
        c.stop()

    def test_every_tile(self):
        """After three tries the request ends with one error; when the link is sound again, so is the company."""
        c = self.behind_a_proxy("all", 21)  # seven layers of one head, three times
        text = c.generate(PROMPTS[0], N, *HOW)
        self.assertEqual(text.code, 70, text)
        self.assertIn("hand-off to the decode pool failed", text.err)
        self.assertIn("3 times", c.node_messages())
        for _ in range(6):  # what the proxy has left to damage
            text = c.generate(PROMPTS[0], 4)
            if text.code == 0:
                break
        self.assertEqual(text.code, 0, text)
        self.same(c, self.streams(c), "after damage", company.GEMMA)
        c.wait_idle()
        c.stop()

    def test_other_frames(self):
        """A damaged message is never read: the session begins anew, the text is the same."""
        c = self.behind_a_proxy("others", 2)
        self.same(c, self.streams(c), "damaged messages", company.GEMMA)
        self.assertIn("damaged", c.node_messages())
        self.assertIn("link_down", c.node_messages())
        c.wait_idle()
        c.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)
