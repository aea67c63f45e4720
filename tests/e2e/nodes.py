"""Companies over several hosts for the end-to-end tests: network namespaces of this machine, joined by a bridge, with a
`troupe node` in each but the first, where `troupe serve` runs. Everything made here is removed by close()."""
import os
import shutil
import subprocess
import tempfile

import company
from company import TROUPE, Company, Home, wait_until

NAMES = "abc"


def sh(*words):
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise OSError("%s: %s" % (" ".join(words), run.stderr.strip()))
    return run.stdout


class Net:
    """n namespaces at 10.91.K.1 .. n of one bridge."""
    count = 0

    def __init__(self, n=2):
        Net.count += 1
        self.tag = "tr%d%s" % (os.getpid() % 100000, "abcdefghijklmnopqrstuvwxyz"[Net.count % 26])
        self.subnet = "10.91.%d" % (os.getpid() % 200 + 20)
        self.names = []
        try:
            sh("ip", "link", "add", self.tag, "type", "bridge")
            sh("ip", "link", "set", self.tag, "up")
            for i in range(n):
                self.add(i)
        except OSError:
            self.close()
            raise

    def add(self, i):
        name, outside, inside = "%s-%s" % (self.tag, NAMES[i]), "%so%d" % (self.tag, i), "%si%d" % (self.tag, i)
        sh("ip", "netns", "add", name)
        self.names.append(name)
        sh("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        sh("ip", "link", "set", outside, "master", self.tag, "up")
        sh("ip", "-n", name, "addr", "add", "%s/24" % self.address(i), "dev", inside)
        sh("ip", "-n", name, "link", "set", "lo", "up")
        sh("ip", "-n", name, "link", "set", inside, "up")

    def address(self, i):
        return "%s.%d" % (self.subnet, i + 1)

    def link(self, i, state):
        sh("ip", "link", "set", "%so%d" % (self.tag, i), state)

    def run_in(self, i):
        return ["ip", "netns", "exec", self.names[i]]

    def close(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.tag], capture_output=True, check=False)


def namespaces_missing():
    """Why there can be no namespaces here, or None."""
    if not shutil.which("ip"):
        return "no ip command (iproute2)"
    try:
        Net(1).close()
    except OSError as e:
        return str(e)
    return None


class NodesCompany(Company):
    """serve on host a, a node on every other one. net None: all on loopback, without namespaces."""

    def __init__(self, model, topology, net=None, hosts=2, keys=True, home=None, port=0, args=(), wait=True, address=None):
        self.net, self.name, self.own_home = net, "e2e", home is None
        self.home = home or Home()
        self.port = port or 20000 + os.getpid() % 20000
        self.keys = os.path.join(self.home.path, "keys") if keys else None
        if keys and not os.path.isdir(self.keys):
            self.home.run("keygen", self.keys, *NAMES[:hosts])
        self.address = address or "%s:%d" % (net.address(0) if net else "127.0.0.1", self.port)
        self.file = os.path.join(self.home.path, "topology.yaml")
        with open(self.file, "w", encoding="utf-8") as f:
            f.write("version: 1\nmodel: %s\nhosts: [{name: a, address: '%s'}, %s]\n%s" % (
                model, self.address, ", ".join(NAMES[1:hosts]), topology))
        self.log = tempfile.TemporaryFile()
        self.node_log = [tempfile.TemporaryFile() for _ in range(hosts)]
        self.node = [None] + [self.start_node(i) for i in range(1, hosts)]
        self.serve = self.popen(0, self.log, "serve", "-f", self.file, "--name", self.name, *self.key_args(), *args)
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.close()
                raise

    def key_args(self):
        return ["--keys", self.keys] if self.keys else []

    def start_node(self, i):
        return self.popen(i, self.node_log[i], "node", NAMES[i], "a@" + self.address, *self.key_args())

    def popen(self, i, log, *args):
        words = (self.net.run_in(i) if self.net else []) + [TROUPE, *args]
        return subprocess.Popen(words, env=self.home.env, cwd=company.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def node_messages(self, i=1):
        self.node_log[i].seek(0)
        return self.node_log[i].read().decode(errors="replace")

    def all_messages(self):
        return "head:\n%s\n%s" % (self.messages(), "\n".join(
            "node %s:\n%s" % (NAMES[i], self.node_messages(i)) for i in range(1, len(self.node))))

    def wait_ready(self, seconds=30):
        try:
            return super().wait_ready(seconds)
        except AssertionError as e:
            raise AssertionError("%s\n%s" % (e, self.all_messages()))

    def wait_nodes(self, seconds=8):
        """Exit codes of the nodes, all of which end by themselves."""
        wait_until("the nodes have ended", seconds, lambda: all(n.poll() is not None for n in self.node[1:]))
        return [n.returncode for n in self.node[1:]]

    def stop(self):
        run = self.home.run("stop", "--name", self.name)
        assert run.returncode == 0, "stop: exit %d %s" % (run.returncode, run.stderr.decode(errors="replace"))
        code = self.serve.wait(10 * company.SLOW)
        assert code == 0, "serve: exit %d %s" % (code, self.all_messages())
        assert self.wait_nodes() == [0] * (len(self.node) - 1), self.all_messages()
        text = self.all_messages()
        assert "Sanitizer" not in text and "runtime error" not in text, text
        self.close()
        return text

    def close(self):
        for n in self.node[1:]:
            if n.poll() is None:
                n.terminate()
        if self.serve.poll() is None:
            self.serve.terminate()
        for p in [self.serve] + self.node[1:]:
            try:
                p.wait(5 * company.SLOW)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        self.log.close()
        for f in self.node_log:
            f.close()
        return self.home.close() if self.own_home else {}
