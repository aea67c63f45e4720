"""Any topology to any topology: a prefill pipeline (pp x tp) hands a prompt over to a decode pipeline (pp x tp), with KV
pages of 16, 32 or 64 tokens and KV in bf16 or int8 on either side. The greedy text must be that of one process of the
same numeric identity (model, precisions, KV formats). Prints a table and the number of differences; exit 1 if any."""
import argparse
import collections
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHAPES = list(itertools.product((1, 2, 3), (1, 2, 3)))  # pp, tp
PAGES = (16, 32, 64)
FORMATS = ("bf16", "int8")
DTYPE = ("bf16", "int8")  # prefill, decode: the defaults
CHUNK = 48  # a prompt is several of them, and their borders are not those of pages
PROMPTS = ("The capital of France is",
           "A river begins as a spring in the hills, and on its long way to the sea it becomes",
           "Once upon a time there was a long prompt that needs more than one chunk of the prefill pipeline, and more "
           "than one page of every pool, before the first token comes out of it at all. It went on about ships and "
           "harbours, about the wind that blows from the west in spring, and about the old man who")

Combination = collections.namedtuple("Combination", "prefill decode page_prefill page_decode kv_prefill kv_decode prompt")


def all_combinations():
    """The prompts take turns."""
    every = itertools.product(SHAPES, SHAPES, PAGES, PAGES, FORMATS, FORMATS)
    return [Combination(*c, i % len(PROMPTS)) for i, c in enumerate(every)]


def choose(sample, seed):
    every = all_combinations()
    return random.Random(seed).sample(every, sample) if 0 < sample < len(every) else every


def side(name, shape, dtype, kv, page):
    return ["--" + name, "pp=%d,tp=%d,dtype=%s,kv=%s,page=%d" % (*shape, dtype, kv, page)]


def arguments(c):
    return (side("prefill", c.prefill, DTYPE[0], c.kv_prefill, c.page_prefill) +
            side("decode", c.decode, DTYPE[1], c.kv_decode, c.page_decode) + ["--chunk", str(CHUNK)])


def one_process(c):
    """The same numbers from one stage of one rank; a unified pipeline where it can have these formats."""
    if (c.kv_prefill, c.kv_decode) == DTYPE:
        return ["--unified", "pp=1,prefill=%s,decode=%s" % DTYPE]
    if c.kv_prefill == c.kv_decode:
        return ["--unified", "pp=1,prefill=%s,decode=%s,kv=%s" % (*DTYPE, c.kv_decode)]
    return side("prefill", (1, 1), DTYPE[0], c.kv_prefill, 16) + side("decode", (1, 1), DTYPE[1], c.kv_decode, 16)


class Matrix:
    """Texts of one model; those of one process are asked for once."""

    def __init__(self, troupe, model, tokens, runtime, temperature=0, timeout=120):
        self.command = [troupe, "run", model, "-n", str(tokens), "--ignore-eos", "-q", "--temp", str(temperature)]
        self.model, self.timeout = model, timeout
        self.env = dict(os.environ, XDG_RUNTIME_DIR=runtime)
        self.known = {}

    def text(self, arguments_, prompt):
        """What it writes, or the error as text: neither a crash nor a timeout is like any text."""
        try:
            got = subprocess.run([*self.command, *arguments_, prompt], env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                                 timeout=self.timeout, check=False)
        except subprocess.TimeoutExpired:
            return "no end after %d s" % self.timeout
        return got.stdout if got.returncode == 0 else "exit %d: %s" % (got.returncode, got.stderr.decode(errors="replace"))

    def truth(self, c):
        key = c.kv_prefill, c.kv_decode, c.prompt
        if key not in self.known:
            text = self.text(one_process(c), PROMPTS[c.prompt])
            if isinstance(text, str) or not text:
                raise RuntimeError("%s: the run of one process fails: %s" % (self.model, text))
            self.known[key] = text
        return self.known[key]

    def differs(self, c):
        """None, or what is wrong."""
        want, got = self.truth(c), self.text(arguments(c), PROMPTS[c.prompt])
        return None if got == want else "%r, not %r" % (got, want)


def grid(results):
    """Combinations and differences, prefill shapes down, decode shapes across."""
    count, bad = collections.Counter(), collections.Counter()
    for c, wrong in results:
        count[c.prefill, c.decode] += 1
        bad[c.prefill, c.decode] += wrong is not None
    lines = ["prefill \\ decode (pp x tp)  " + "".join("%9s" % ("%dx%d" % d) for d in SHAPES)]
    for p in SHAPES:
        cells = ["%9s" % ("-" if not count[p, d] else "%d" % count[p, d] if not bad[p, d] else
                          "%d of %d" % (bad[p, d], count[p, d])) for d in SHAPES]
        lines.append("%-27s" % ("%dx%d" % p) + "".join(cells))
    return "\n".join(lines)


def parse(argv):
    p = argparse.ArgumentParser(prog="bench/matrix", description=__doc__)
    p.add_argument("models", nargs="+", metavar="MODEL", help="file, or a name that scripts/fetch-model stored")
    p.add_argument("--sample", type=int, default=0, metavar="N", help="so many combinations drawn by chance [all: %d]" %
                   len(all_combinations()))
    p.add_argument("--seed", type=int, default=1, help="of the drawing [1]")
    p.add_argument("-n", "--tokens", type=int, default=48, help="length of each text [48]")
    p.add_argument("--temp", type=float, default=0, metavar="T", help="draw at this temperature: sees more than the "
                   "likeliest token [0: greedy]")
    p.add_argument("--troupe", default=os.environ.get("TROUPE_BIN", os.path.join(ROOT, "build", "troupe")))
    return p.parse_args(argv)


def main(argv):
    a = parse(argv)
    chosen, differences = choose(a.sample, a.seed), 0
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as runtime:  # short: socket paths end at 107 bytes
        for model in a.models:
            matrix, results, begin = Matrix(a.troupe, model, a.tokens, runtime, a.temp), [], time.monotonic()
            for i, c in enumerate(chosen, 1):
                wrong = matrix.differs(c)
                results.append((c, wrong))
                if wrong:
                    differences += 1
                    print("%s %s: %s" % (model, " ".join(arguments(c)), wrong), flush=True)
                if sys.stderr.isatty():
                    print("\r%d of %d" % (i, len(chosen)), end="\r", file=sys.stderr)
            seconds = time.monotonic() - begin
            print("%s: %d combinations, %d tokens each, %.2f s a combination; pages %s, KV %s on either side" %
                  (model, len(chosen), a.tokens, seconds / len(chosen), "/".join(map(str, PAGES)), "/".join(FORMATS)))
            print(grid(results))
    print("%d differences" % differences)
    return 1 if differences else 0
