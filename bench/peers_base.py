"""What the parts of bench/peers share: failures, running programs, the cache folder, facts about machine and files."""
import hashlib
import json
import os
import platform
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PATIENCE = 900  # s that one program may take; more is a hang


class Fail(Exception):
    """Ends a measurement (or, before the first one, the program) with an exit code."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


class Skip(Exception):
    """This measurement cannot be made here, for a reason that is no fault."""


def say(text):
    print("peers: " + text, file=sys.stderr, flush=True)


def last_line(data):
    return (data.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]


def run(cmd, what, log=None, env=None):
    """Stdout of a command. On failure: one line, with the end of what it said (or where the log lies)."""
    try:
        r = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                           timeout=None if log else PATIENCE, check=False)
    except OSError as e:
        raise Fail(69, "%s: cannot run %s: %s" % (what, cmd[0], e.strerror))
    except subprocess.TimeoutExpired:
        raise Fail(69, "%s did not end within %d s" % (what, PATIENCE))
    if log:
        with open(log, "ab") as f:
            f.write(r.stdout + r.stderr)
    if r.returncode:
        refuse(r.returncode, last_line(r.stderr or r.stdout), what, log)
    return r.stdout.decode("utf-8", "replace")


def refuse(status, said, what, log=None):
    """A program that ended badly: what this version does not have yet is skipped, all else is a failure."""
    if status in (64, 69, 78) and "not available yet" in said:
        raise Skip(said)
    raise Fail(69, "%s failed (status %d): %s%s" % (what, status, said, "; log: " + log if log else ""))


def load(text, who):
    """An array of objects, or one object a line."""
    try:
        got = json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.splitlines() if x.strip()]
    except ValueError as e:
        raise Fail(69, "%s printed no JSON: %s" % (who, e))
    if not got or not all(isinstance(r, dict) for r in got):
        raise Fail(69, "%s printed no array of results" % who)
    return got


def test_name(kind, n, batch=1, depth=0):
    """"pp512", "tg64 b16" (sequences at once), "tg64 d4096" (context before it)."""
    return "%s%d" % (kind, n) + (" b%d" % batch if batch != 1 else "") + (" d%d" % depth if depth else "")


def positive(x, who):
    if not 0 < x < 1e9:
        raise Fail(69, "%s reports %g" % (who, x))
    return x


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(base, "troupe", "peers")
    os.makedirs(path, exist_ok=True)
    return path


def derived(model, suffix):
    """Path in the cache of something made from a model; keyed by name, size and time of the source."""
    st = os.stat(model)
    stem = os.path.splitext(os.path.basename(model))[0]
    return os.path.join(cache_dir(), "%s-%d-%d-%s" % (stem, st.st_size, int(st.st_mtime), suffix))


def cpu():
    """Model and the flags that decide about kernels."""
    name, flags = platform.machine(), set()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    name = value.strip()
                elif key.strip() == "flags":
                    flags = set(value.split())
    except OSError:
        pass
    known = ["avx2", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512vbmi", "avx512_bf16", "avx512_fp16",
             "gfni", "amx_tile", "amx_int8", "amx_bf16"]
    return name, [k for k in known if k in flags]


def digest(path):
    """First 12 digits of the SHA-256 of a file."""
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 22), b""):
            h.update(block)
    return h.hexdigest()[:12]
