"""Parts that look at whole processes: time from exec to the first token, memory of a company with its context filled."""
import os
import select
import subprocess
import tempfile
import time

from peers_base import Fail, last_line, refuse, run
from peers_table import Contestant, Pair, Row

PROMPT = "Hello my name is"


def wait_output(p, until):
    """True when the process has written to stdout, False when it closed it without; Fail behind `until`."""
    ready, _, _ = select.select([p.stdout], [], [], max(0, until - time.monotonic()))
    if not ready:
        raise Fail(69, "%s printed nothing in time" % p.args[0])
    return bool(os.read(p.stdout.fileno(), 1 << 16))


def end(p):
    """No process stays, whatever happened."""
    if p.poll() is None:
        p.terminate()
        try:
            p.wait(10)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
    for f in (p.stdin, p.stdout, p.stderr):
        if f:
            f.close()


def launch(cmd, errors, stdin=subprocess.DEVNULL):
    try:
        return subprocess.Popen(cmd, stdin=stdin, stdout=subprocess.PIPE, stderr=errors)
    except OSError as e:
        raise Fail(69, "cannot run %s: %s" % (cmd[0], e.strerror))


def first_output(cmd, what):
    """Seconds from exec to the first byte on stdout; the program is then left to end by itself."""
    with tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        p = launch(cmd, errors)
        try:
            some = wait_output(p, began + 120)
            seconds = time.monotonic() - began
            p.communicate(timeout=60)
            if p.returncode or not some:
                errors.seek(0)
                refuse(p.returncode, last_line(errors.read()), what)
            return seconds
        except subprocess.TimeoutExpired:
            raise Fail(69, "%s did not end" % what)
        finally:
            end(p)


def start(s):
    """Whole process, weights in the page cache (and packed, on our side), to the first token; the same file."""
    model, threads = s.args.model, str(s.args.threads)
    ours = None
    if s.args.troupe:
        cmd = [s.args.troupe, "run", model, "-n", "1", "-q", "--ignore-eos", "-t", threads, PROMPT]
        ours = Contestant("troupe run -n 1", lambda: {"s": first_output(cmd, "troupe run")}, times=3, warm=True)
    # The first flushes prompt and token together; it has no choice of threads.
    cmds = {"llama-simple": ["-m", model, "-n", "1", PROMPT],
            "llama-completion": ["-m", model, "-n", "1", "-t", threads, "--no-warmup", "-no-cnv", "--no-display-prompt",
                                 "--ignore-eos", "-p", PROMPT]}
    theirs = [Contestant(tool, lambda tool=tool, more=more: {"s": first_output([s.need(tool)] + more, tool)},
                         times=3, warm=True)
              for tool, more in cmds.items()]
    return [Pair(ours, *theirs)], [Row("start", "first token", "s", ours, t, "s") for t in theirs]


# ---- memory ------------------------------------------------------------------------------------------------------


def children():
    """pid -> its children, of all processes that can be seen."""
    out = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name, encoding="utf-8", errors="replace") as f:
                parent = int(f.read().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        out.setdefault(parent, []).append(int(name))
    return out


def family(pid):
    known, todo, out = children(), [pid], []
    while todo:
        out.append(todo.pop())
        todo += known.get(out[-1], [])
    return out


def pss_mb(pids):
    """Proportional set size of these processes together, in MB: what is shared among them counts once."""
    total = 0
    for pid in pids:
        try:
            with open("/proc/%d/smaps_rollup" % pid, encoding="utf-8") as f:
                total += sum(int(x.split()[1]) for x in f if x.startswith("Pss:"))
        except OSError:  # it has just ended
            continue
    return total * 1024 / 1e6


def highest_pss(worker, pid):
    """While `worker` prints: highest sum over the family of pid. From its first output on the context is filled."""
    if not wait_output(worker, time.monotonic() + 300):
        return 0
    high = 0
    while worker.poll() is None:
        high = max(high, pss_mb(family(pid)))
        time.sleep(0.1)  # looking costs: it walks the page tables
        while select.select([worker.stdout], [], [], 0)[0] and os.read(worker.stdout.fileno(), 1 << 16):
            pass
    return high


def prompt_file(s, folder, tokens):
    """A text of that many tokens: words that the tokenizers in question keep whole, counted by ours."""
    path = os.path.join(folder, "prompt.txt")
    words = tokens
    for _ in range(4):
        with open(path, "w", encoding="utf-8") as f:
            f.write(" the" * words)
        if not s.args.troupe:
            break
        text = run([s.args.troupe, "tokenize", s.args.model, "--text", path, "--json"], "troupe tokenize")
        n = text.count(",") + 1
        if n == tokens:
            break
        words = max(1, words * tokens // n if n > 2 * tokens else words + tokens - n)
    return path


def troupe_memory(s, tokens, n):
    name, threads = "peers-%d" % os.getpid(), str(s.args.threads)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        prompt = prompt_file(s, folder, tokens)
        serve = launch([s.args.troupe, "serve", s.args.model, "--name", name, "-t", threads, "-c", str(tokens + n),
                        "--unified", "prefill=int8,decode=int8"], errors)
        ask = None
        try:
            with open(prompt, "rb") as text:
                ask = launch([s.args.troupe, "generate", "--name", name, "-q", "-n", str(n), "--ignore-eos", "-"], errors, text)
            high = highest_pss(ask, serve.pid)
            if ask.wait(60) or not high:
                errors.seek(0)
                refuse(ask.returncode, last_line(errors.read()), "troupe serve and generate")
            return {"MB": high}
        finally:
            for p in (ask, serve):
                if p:
                    end(p)


def llama_memory(s, tokens, n):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        cmd = [s.need("llama-completion"), "-m", s.file("Q8_0"), "-f", prompt_file(s, folder, tokens), "-n", str(n), "-c",
               str(tokens + n), "-t", str(s.args.threads), "-no-cnv", "--no-display-prompt", "--no-warmup", "--ignore-eos",
               "-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on"]
        p = launch(cmd, errors)
        try:
            high = highest_pss(p, p.pid)
            if p.wait(60) or not high:
                errors.seek(0)
                refuse(p.returncode, last_line(errors.read()), "llama-completion")
            return {"MB": high}
        finally:
            end(p)


def memory(s):
    """Memory of all processes together near the end of a full context, both with 8-bit weights and KV. One round."""
    n, tokens = 48, s.args.depth - 48
    ours = Contestant("troupe int8", lambda: troupe_memory(s, tokens, n), rounds=1) if s.args.troupe else None
    theirs = Contestant("llama.cpp Q8_0", lambda: llama_memory(s, tokens, n), rounds=1)
    return [Pair(ours, theirs)], [Row("memory", "%d tokens of context" % (tokens + n), "MB", ours, theirs, "MB")]
