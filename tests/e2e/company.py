"""Real companies for the end-to-end tests: each in runtime and cache folders of its own, so that what is left behind
can be seen, and so that the user's own companies are never touched."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TROUPE = os.environ.get("TROUPE_BIN", os.path.join(ROOT, "build", "troupe"))
GEMMA = os.path.join(ROOT, "tests/golden/tiny/gemma3.gguf")
LLAMA = os.path.join(ROOT, "tests/golden/tiny/llama.gguf")
SKIP = 77  # ctest: SKIP_RETURN_CODE
SLOW = float(os.environ.get("TROUPE_TEST_SLOW", "1"))  # factor on every time limit; sanitizers want more


def skip(reason):
    print("skipped: " + reason)
    sys.exit(SKIP)


def real_model(name):
    """Path of a real model, fetched when it is not cached; None when neither works."""
    run = subprocess.run([os.path.join(ROOT, "scripts", "fetch-model"), name], capture_output=True, text=True)
    path = run.stdout.strip().split("\n")[-1] if run.returncode == 0 else ""
    return path if os.path.isfile(path) else None


def wait_until(what, seconds, condition, pause=0.01):
    """The first true value of condition(), or a failure that says what was waited for."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("waited %g s in vain: %s" % (seconds * SLOW, what))
        time.sleep(pause)


class Home:
    """Runtime folder, cache and the processes that use them."""

    def __init__(self, cache=None):
        self.path = tempfile.mkdtemp(prefix="tr", dir="/tmp")  # short: socket paths end at 107 bytes
        self.runtime = os.path.join(self.path, "run")
        os.mkdir(self.runtime, 0o700)
        self.cache = cache or os.path.join(self.path, "cache")
        self.streams = []
        self.env = dict(os.environ, XDG_RUNTIME_DIR=self.runtime, XDG_CACHE_HOME=self.cache)
        for name in [n for n in self.env if n.startswith("TROUPE_") and n != "TROUPE_CPU"]:
            del self.env[name]

    def popen(self, *args, **how):
        return subprocess.Popen([TROUPE, *args], env=self.env, cwd=ROOT, **how)

    def run(self, *args, timeout=60, stdin=b""):
        return subprocess.run([TROUPE, *args], env=self.env, cwd=ROOT, input=stdin, capture_output=True,
                              timeout=timeout * SLOW)

    def processes(self):
        """pid -> command line of everything that was started with this runtime folder and still lives."""
        mark = ("XDG_RUNTIME_DIR=" + self.runtime).encode()
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/environ" % pid, "rb") as f:
                    ours = mark in f.read().split(b"\0")
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    line = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
                with open("/proc/%s/stat" % pid) as f:
                    state = f.read().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if ours and state != "Z":
                found[int(pid)] = line
        return found

    def wait_empty(self, seconds=1.0):
        """Nothing runs any more, and no folder of a company is left."""
        wait_until("processes still run: %s" % self.processes(), seconds, lambda: not self.processes())

    def close(self):
        left = self.processes()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for s in self.streams:
            s.process.wait()
        shutil.rmtree(self.path, ignore_errors=True)
        return left


class Text:
    """A finished `troupe generate`."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err.decode(errors="replace")

    def __repr__(self):
        return "exit %d, %r, %s" % (self.code, self.out, self.err.strip())


class Stream:
    """A running `troupe generate`."""

    def __init__(self, home, args):
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.process = home.popen(*args, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err)
        home.streams.append(self)

    def size(self):
        return os.fstat(self.out.fileno()).st_size

    def wait(self, timeout=60):
        try:
            code = self.process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        texts = []
        for f in (self.out, self.err):
            f.seek(0)
            texts.append(f.read())
            f.close()
        return Text(code, *texts)


class Company:
    """`troupe serve`, ready when the constructor returns."""

    def __init__(self, model, *args, name="e2e", home=None, wait=True):
        self.name, self.own_home = name, home is None
        self.home = home or Home()
        self.log = tempfile.TemporaryFile()
        self.serve = self.home.popen("serve", model, "--name", name, *args, stdin=subprocess.DEVNULL, stdout=self.log,
                                     stderr=self.log)
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.close()
                raise

    def messages(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def try_status(self):
        run = self.home.run("status", "--name", self.name, "--json")
        if run.returncode != 0:
            return None
        return json.loads(run.stdout)

    def wait_ready(self, seconds=30):
        def ready():
            if self.serve.poll() is not None:
                raise AssertionError("serve ended with %d: %s" % (self.serve.returncode, self.messages()))
            status = self.try_status()
            return status if status and status["ready"] and all(a["pid"] for a in status["actors"]) else None

        try:
            return wait_until("ready company", seconds, ready)
        except AssertionError as e:
            raise AssertionError("%s\n%s\nlast status: %s" % (e, self.messages(), self.try_status()))

    def status(self):
        status = self.try_status()
        assert status, "no status: " + self.messages()
        return status

    def actors(self):
        return {a["name"]: a for a in self.status()["actors"]}

    def stages(self):
        return [n for n in self.actors() if n.split(".")[0] in ("prefill", "decode", "unified")]

    def pid(self, actor):
        """Of that actor; waits while it is down."""
        return wait_until(actor + " is up", 10, lambda: (self.try_status() and self.actors()[actor]["pid"]))

    def kill(self, actor, sig=signal.SIGKILL):
        pid = self.pid(actor)
        os.kill(pid, sig)
        return pid

    def stream(self, prompt, n, *args):
        return Stream(self.home, ["generate", "--name", self.name, "-q", "-n", str(n), *args, prompt])

    def generate(self, prompt, n, *args, timeout=60):
        return self.stream(prompt, n, *args).wait(timeout)

    def generate_all(self, prompts, n, *args, timeout=60):
        """One text a prompt, all at once."""
        streams = [self.stream(p, n, *args) for p in prompts]
        return [s.wait(timeout) for s in streams]

    def all_pages_free(self):
        return all(p["free"] == p["pages"] for p in self.status()["pools"])

    def wait_idle(self, seconds=5):
        """No request is open and every page is free."""
        def idle():
            s = self.try_status()
            return s and s["requests"] == {"running": 0, "waiting": 0} and all(
                p["free"] == p["pages"] for p in s["pools"])

        try:
            wait_until("idle company", seconds, idle)
        except AssertionError as e:
            raise AssertionError("%s: %s\n%s" % (e, self.try_status(), self.messages()[-4000:]))

    def stop(self):
        """Orderly end: exit 0, and nothing is left. Returns what serve printed."""
        run = self.home.run("stop", "--name", self.name)
        assert run.returncode == 0, "stop: exit %d %s" % (run.returncode, run.stderr.decode(errors="replace"))
        code = self.serve.wait(10 * SLOW)
        assert code == 0, "serve: exit %d %s" % (code, self.messages())
        text = self.messages()
        assert "Sanitizer" not in text and "runtime error" not in text, text
        self.close()
        return text

    def close(self):
        """Forced end. Returns the processes that were still there when the home is ours."""
        if self.serve.poll() is None:
            self.serve.terminate()
            try:
                self.serve.wait(5 * SLOW)
            except subprocess.TimeoutExpired:
                self.serve.kill()
                self.serve.wait()
        self.log.close()
        return self.home.close() if self.own_home else {}

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        if not self.log.closed:
            self.close()


PROMPTS = ["the quick brown fox", "a", "once upon a time there was a long prompt that needs more than one chunk of the "
           "prefill pipeline, and more than one page of every pool, before the first token comes out of it at all",
           "numbers 1 2 3 4", "Zwei Wege trennten sich", "x y z", "to be or not to be that is the question",
           "the end is the beginning is the end"]
