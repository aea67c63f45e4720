#!/usr/bin/env python3
"""Compare logits with the reference: KL(reference || candidate) over the full vocabulary, in nats, float64 in chunks.

    compare_eval.py --ids IDS.json REF.npy CAND.npy [--ids IDS.json REF.npy CAND.npy ...] [--json]
                    [--max-kl X] [--min-top1 PERCENT]

Both are float32 .npy [positions, vocabulary] (`reference_logits.py`; `troupe eval --logits`). Prints for each pair and for
all together: positions, mean, p99 and largest KL, share of positions with the same most likely token, and the perplexity of
both (over positions 1..). Ties for the top count as the same when the reference's top is among the candidate's.
With --max-kl or --min-top1 the exit status is 1 when the total misses one of them. --skip N leaves out the first N positions
(for the decode part of a hand-off). Needs: numpy.
"""
import argparse
import json
import sys

import numpy as np

ROWS = 64


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def compare(ref, cand, ids, skip=0):
    """Arrays by position: KL, same-top flags; and the negative log-likelihoods of ids[1..] under both."""
    if ref.shape != cand.shape or len(ids) != len(ref):
        raise SystemExit("shapes differ: reference %s, candidate %s, %d ids" % (ref.shape, cand.shape, len(ids)))
    kl, same, nll = [], [], ([], [])
    for i in range(skip, len(ref), ROWS):
        a, b = np.asarray(ref[i:i + ROWS]), np.asarray(cand[i:i + ROWS])
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise SystemExit("a logit at positions %d..%d is not finite" % (i, i + len(a) - 1))
        rows = np.arange(len(a))
        same.append(b[rows, a.argmax(1)] == b.max(1))
        a, b = log_softmax(a), log_softmax(b)
        kl.append((np.exp(a) * (a - b)).sum(1))
        n = min(len(a), len(ids) - 1 - i)
        target = np.asarray(ids[i + 1:i + 1 + n], dtype=np.int64)
        for sink, logp in zip(nll, (a, b)):
            sink.append(-logp[rows[:n], target])
    return np.concatenate(kl), np.concatenate(same), np.concatenate(nll[0]), np.concatenate(nll[1])


def summary(name, kl, same, nll_ref, nll_cand):
    return {"name": name, "positions": len(kl), "kl_mean": float(kl.mean()), "kl_p99": float(np.quantile(kl, 0.99)),
            "kl_max": float(kl.max()), "top1_percent": 100.0 * float(same.mean()),
            "ppl_ref": float(np.exp(nll_ref.mean())) if len(nll_ref) else None,
            "ppl_cand": float(np.exp(nll_cand.mean())) if len(nll_cand) else None}


def show(rows):
    print("| text | positions | KL mean | p99 | max | same top-1 | ppl reference | ppl |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        print("| %s | %d | %.3g | %.3g | %.3g | %.2f %% | %.4f | %.4f |" %
              (r["name"], r["positions"], r["kl_mean"], r["kl_p99"], r["kl_max"], r["top1_percent"],
               r["ppl_ref"] or 0, r["ppl_cand"] or 0))


def main(argv):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ids", nargs=3, action="append", required=True, metavar=("IDS", "REF", "CAND"))
    p.add_argument("--skip", type=int, default=0)
    p.add_argument("--json", action="store_true")
    p.add_argument("--max-kl", type=float)
    p.add_argument("--min-top1", type=float)
    args = p.parse_args(argv)
    parts, rows = [], []
    for ids_path, ref_path, cand_path in args.ids:
        with open(ids_path, encoding="utf-8") as f:
            ids = json.load(f)
        parts.append(compare(np.load(ref_path, mmap_mode="r"), np.load(cand_path, mmap_mode="r"), ids, args.skip))
        name = ids_path.rsplit("/", 1)[-1].removesuffix(".json").removesuffix(".ids")
        rows.append(summary(name, *parts[-1]))
    total = summary("all", *[np.concatenate(x) for x in zip(*parts)])
    if args.json:
        print(json.dumps({"texts": rows, "all": total}, indent=1))
    else:
        show(rows + [total])
    missed = (args.max_kl is not None and not total["kl_mean"] <= args.max_kl) or \
             (args.min_top1 is not None and not total["top1_percent"] >= args.min_top1)
    if missed:
        print("compare_eval: the limits are missed", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
