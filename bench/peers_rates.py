"""Parts that compare rates which a benchmark program prints: tokens a second, hops, bytes a second."""
import os
import re

from peers_base import Fail, Skip, load, positive, run, test_name
from peers_llama import has, parse_batched, parse_bench, requantize
from peers_table import Contestant, Pair, Row


def parse_troupe(text):
    """troupe bench model -o json -> {"pp512": tok/s, "tg64 b16": ..., "tg64 d4096": ...}; with `read` beside a tg."""
    out = {}
    for row in load(text, "troupe bench"):
        try:
            kind, n, speed = str(row["test"])[:2], int(str(row["test"])[2:]), float(row["tok_s"])
            batch, far = int(row.get("batch", 1)), int(row.get("depth", 0))
        except (KeyError, TypeError, ValueError):
            raise Fail(69, "troupe bench: a result lacks test or tok_s")
        name = test_name(kind, n, batch, far)
        out[name] = positive(speed, "troupe bench")
        if "read_share" in row:
            step = int(row["step_bytes"]) * speed / batch * 1e-9
            out[name + " step"], out[name + " read"] = step, step / positive(float(row["read_share"]), "troupe bench")
    return out


class Setting:
    """What all parts need: arguments and tools."""

    def __init__(self, args, tools):
        self.args, self.tools = args, tools
        self.files = [args.model]
        self.close = []  # to be called in the end

    def file(self, kind):
        """The weights of that type; named in the report from now on."""
        path = requantize(self.tools, self.args.model, kind)
        if path not in self.files:
            self.files.append(path)
        return path

    def troupe(self, name, *more):
        """One `bench model` a round; None without a binary."""
        if not self.args.troupe:
            return None
        cmd = [self.args.troupe, "bench", "model", self.args.model, "-r", "1", "-t", str(self.args.threads), "-o", "json", *more]
        return Contestant("troupe " + name, lambda: parse_troupe(run(cmd, "troupe " + name)))

    def bench(self, kind, *more):
        return [os.path.join(self.tools, "llama-bench"), "-m", self.file(kind), "-r", "1", "-t", str(self.args.threads), "-o",
                "json", *more]

    def need(self, tool):
        if not has(self.tools, [tool]):
            raise Skip("%s is not in %s" % (tool, self.tools))
        return os.path.join(self.tools, tool)


def rates(s, what, pairs):
    """Prefill and decode of one sequence: the same file or the same class of precision on both sides."""
    p, n = s.args.p if "prefill" in what else 0, s.args.n if "decode" in what else 0
    tests = [(part, test) for part, test, count in (("prefill", "pp%d" % p, p), ("decode", "tg%d" % n, n)) if count]
    plays, rows = [], []
    for dtype, kind in pairs if tests else []:
        ours = s.troupe(dtype, "-p", str(p), "-n", str(n), "-b", "1", "--dtype", dtype)
        cmd = s.bench(kind, "-p", str(p), "-n", str(n))
        theirs = Contestant("llama.cpp " + kind, lambda cmd=cmd: parse_bench(run(cmd, "llama-bench")))
        plays.append(Pair(ours, theirs))
        rows += [Row(part, test, "tok/s", ours, theirs) for part, test in tests]
    rows.sort(key=lambda r: r.part != "prefill")
    return plays, rows


def batch(s):
    """Decode of several sequences at once, each with a prompt behind it; and what a batch brings over one sequence."""
    prompt, n, sizes = 128, 64, s.args.batches
    listed = ",".join(map(str, sizes))

    def gain(got):
        got = {k.replace(" d%d" % prompt, ""): v for k, v in got.items()}
        one = got.get(test_name("tg", n))
        return dict(got, **{"b%d over b1" % b: got[test_name("tg", n, b)] / one for b in sizes
                            if b != 1 and one and test_name("tg", n, b) in got})

    ours = s.troupe("int8", "-p", "0", "-n", str(n), "-d", str(prompt), "-b", listed, "--dtype", "int8")
    if ours:
        ours.measure = lambda inner=ours.measure: gain(inner())

    def measure():
        cmd = [s.need("llama-batched-bench"), "-m", s.file("Q8_0"), "-c", str(max(sizes) * (prompt + n)), "-npp", str(prompt),
               "-ntg", str(n), "-npl", listed, "-t", str(s.args.threads), "-tb", str(s.args.threads), "--output-format", "jsonl"]
        return gain(parse_batched(run(cmd, "llama-batched-bench")))

    theirs = Contestant("llama.cpp Q8_0", measure)
    rows = [Row("batch", test_name("tg", n, b), "tok/s", ours, theirs) for b in sizes]
    rows += [Row("batch", "b%d over b1" % b, "times", ours, theirs) for b in sizes if b != 1 and 1 in sizes]
    return [Pair(ours, theirs)], rows


def depth(s):
    """Decode far into a context over decode at its beginning, both with 8-bit KV; llama.cpp in its better -fa setting."""
    n, far = 64, s.args.depth
    at, base, share = test_name("tg", n, 1, far), test_name("tg", n), "d%d over d0" % far
    ours = s.troupe("int8", "-p", "0", "-n", str(n), "--dtype", "int8")
    if ours:
        deep = s.troupe("int8", "-p", "0", "-n", str(n), "-d", str(far), "--dtype", "int8")

        def both(first=ours.measure, second=deep.measure):
            got = dict(first(), **second())
            return dict(got, **{share: got[at] / got[base]})
        ours.measure = both
    refused = set()

    def measure():
        best = None
        for fa in [x for x in ("0", "1") if x not in refused]:
            cmd = s.bench("Q8_0", "-p", "0", "-n", str(n), "-d", "0,%d" % far, "-ctk", "q8_0", "-ctv", "q8_0", "-fa", fa)
            try:
                got = parse_bench(run(cmd, "llama-bench -fa " + fa))
            except Fail:  # an 8-bit V needs -fa 1 in some versions
                refused.add(fa)
                continue
            if best is None or got[at] > best[at]:
                best = got
        if best is None:
            raise Fail(69, "llama-bench runs with neither -fa 0 nor -fa 1 on a q8_0 cache")
        return dict(best, **{share: best[at] / best[base]})

    theirs = Contestant("llama.cpp Q8_0", measure)
    return [Pair(ours, theirs)], [Row("depth", base, "tok/s", ours, theirs), Row("depth", at, "tok/s", ours, theirs),
                                  Row("depth", share, "share", ours, theirs)]


def pipelines(s):
    """The same work on the same cores: two pipelines of several stages over one stage that does both."""
    tests = ["-p", "512", "-n", "64", "-b", "1,8"]
    ours = s.troupe("prefill pp=2, decode pp=3", *tests, "--prefill", "pp=2", "--decode", "pp=3")
    other = s.troupe("unified pp=1", *tests, "--unified", "pp=1")
    if not ours:
        return [], []
    return [Pair(ours, other)], [Row("pipelines", t, "tok/s", ours, other) for t in ("pp512", "pp512 b8", "tg64", "tg64 b8")]


HOP = re.compile(r"^(ring spin|ring sleep|spin raw|futex raw|zmq ipc)\s+(\d+) B\s+p50\s+([\d.]+) us\s+p99\s+([\d.]+) us$", re.M)


def hop(s):
    """Half a round trip between two threads. us: the smaller ratio is the better one."""
    if not s.args.troupe:
        return [], []
    program = os.path.join(os.path.dirname(os.path.abspath(s.args.troupe)), "tests", "contract", "hop_bench")

    def measure():
        if not os.access(program, os.X_OK):
            raise Skip("%s is not built" % program)
        return {"%s %s" % (m[0], m[1]): float(m[2]) for m in HOP.findall(run([program, "5000"], "hop_bench"))}

    c = Contestant("troupe hop", measure)

    def row(channel, size, other, their_size):
        return Row("hop", "%s %s B" % (channel, size), "us", c, c, "%s %s" % (channel, size), "%s %s" % (other, their_size),
                   "%s %s B" % (other, their_size))
    return [Pair(c)], [row("ring spin", "1344", "zmq ipc", "1344"), row("ring spin", "2624", "zmq ipc", "2624"),
                       row("ring spin", "1344", "spin raw", "0"),
                       row("ring sleep", "1344", "futex raw", "0"), row("ring sleep", "2624", "futex raw", "0")]


def read(s, dtypes):
    """Weights that a decode step reads a second, over what reading alone reached in the same run."""
    plays, rows = [], []
    for dtype in dtypes:
        c = s.troupe(dtype, "-p", "0", "-n", "64", "--dtype", dtype)
        if c:
            plays.append(Pair(c))
            rows.append(Row("bytes", "decode step", "GB/s", c, c, "tg64 step", "tg64 read", "reading alone"))
    return plays, rows
