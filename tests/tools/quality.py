#!/usr/bin/env python3
"""Quality of troupe against the fp32 reference: every text of tests/golden/texts through `troupe eval`, KL by path.

    quality.py MODEL.gguf|FOLDER [--paths prefill,decode,handoff] [--troupe build/troupe] [--work FOLDER] [-- OPTIONS OF troupe eval]

Reference logits are made once with transformers (reference_logits.py) and kept in the work folder, keyed by the model's
name and size; the token ids are those of `troupe tokenize`. Limits (mean KL; same top-1): prefill 0.001 and 98.5 %,
decode 0.01 and 94 %, handoff 0.012. Exit 1 when one is missed, also when there are fewer than 2,000 positions.
Needs: numpy, torch, transformers, gguf; disk: 4 bytes x positions x vocabulary twice (Gemma: 8 GB).
"""
import argparse
import json
import os
import subprocess
import sys

import numpy as np

import compare_eval

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LIMITS = {"prefill": (0.001, 98.5), "decode": (0.01, 94.0), "handoff": (0.012, 0.0)}
MIN_POSITIONS = 2000


def run(cmd):
    r = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if r.returncode:
        raise SystemExit("quality: %s: exit %d" % (" ".join(cmd[:3]), r.returncode))
    return r.stdout


def references(args, folder):
    """[(name, ids file, reference)], made where they are missing or where the ids have changed."""
    out, todo = [], []
    for text in sorted(f for f in os.listdir(args.texts) if f.endswith(".txt")):
        stem = os.path.join(folder, text.removesuffix(".txt"))
        ids = json.loads(run([args.troupe, "tokenize", args.model, "--text", os.path.join(args.texts, text), "--json"]))
        known = json.load(open(stem + ".ids.json", encoding="utf-8")) if os.path.exists(stem + ".ids.json") else None
        if ids != known or not os.path.exists(stem + ".npy"):
            with open(stem + ".ids.json", "w", encoding="utf-8") as f:
                json.dump(ids, f)
            todo.append(stem + ".ids.json")
        out.append((text, ids, stem + ".npy"))
    if todo:
        print("making %d references" % len(todo), file=sys.stderr)
        run([sys.executable, os.path.join(HERE, "reference_logits.py"), args.model, folder, *todo])
    return out


def one_path(args, path, refs, folder):
    """Rows of all texts and their total for one path."""
    rows, parts, cand = [], [], os.path.join(folder, "candidate.npy")
    for text, ids, ref in refs:
        got = json.loads(run([args.troupe, "eval", args.model, "--text", os.path.join(args.texts, text), "--path", path,
                              "--logits", cand, "--json", *args.options]))
        if got["ids"] != ids:
            raise SystemExit("quality: eval and tokenize differ in the ids of %s" % text)
        parts.append(compare_eval.compare(np.load(ref, mmap_mode="r"), np.load(cand, mmap_mode="r"), ids))
        rows.append(compare_eval.summary("%s %s" % (path, text.removesuffix(".txt")), *parts[-1]))
        os.unlink(cand)
    rows.append(compare_eval.summary("**%s all**" % path, *[np.concatenate(x) for x in zip(*parts)]))
    return rows


def main(argv):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--paths", default=",".join(LIMITS))
    p.add_argument("--texts", default=os.path.join(ROOT, "tests", "golden", "texts"))
    p.add_argument("--troupe", default=os.path.join(ROOT, "build", "troupe"))
    p.add_argument("--work", default=os.path.join(ROOT, "build", "quality"))
    own, options = (argv[:argv.index("--")], argv[argv.index("--") + 1:]) if "--" in argv else (argv, [])
    args = p.parse_args(own)
    args.options = options
    name = "%s-%d" % (os.path.basename(args.model.rstrip("/")).removesuffix(".gguf"), os.path.getsize(args.model))
    folder = os.path.join(args.work, name)
    os.makedirs(folder, exist_ok=True)
    refs, rows, missed = references(args, folder), [], []
    for path in args.paths.split(","):
        if path not in LIMITS:
            p.error("unknown path " + path)
        rows += one_path(args, path, refs, folder)
        total, (kl, top1) = rows[-1], LIMITS[path]
        if not (total["kl_mean"] <= kl and total["top1_percent"] >= top1 and total["positions"] >= MIN_POSITIONS):
            missed.append(path)
    compare_eval.show(rows)
    if missed:
        print("quality: limits missed: " + ", ".join(missed), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
