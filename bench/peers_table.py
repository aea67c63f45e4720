"""Contestants, the rows that compare them, and the report."""
import os
import statistics

from peers_base import Fail, Skip, cpu, digest, say


class Contestant:
    """Something that is measured: `measure()` gives {key: value}; the samples of all rounds are kept.

    times: how often in a round; rounds: in how many of them at most; warm: once before the first time, not counted.
    A failure ends it, and only it.
    """

    def __init__(self, name, measure, times=1, rounds=None, warm=False):
        self.name, self.measure, self.times, self.rounds, self.warm = name, measure, times, rounds, warm
        self.samples, self.skipped, self.failed = {}, None, None

    def take(self):
        if self.skipped or self.failed:
            return
        try:
            if self.warm:
                self.warm = False
                self.measure()
            got = self.measure()
        except Skip as e:
            self.skipped = str(e)
            return
        except Fail as e:
            self.failed = str(e)
            say(self.failed)
            return
        for key, value in got.items():
            self.samples.setdefault(key, []).append(value)

    def why(self):
        return self.skipped or self.failed


class Row:
    """One comparison: a key of ours over a key of theirs. Either side may be missing (None)."""

    def __init__(self, part, test, unit, ours, theirs, key=None, their_key=None, against=None):
        self.part, self.test, self.unit, self.ours, self.theirs = part, test, unit, ours, theirs
        self.key = key or test
        self.their_key = their_key or self.key
        self.against = against or short(theirs)

    def left(self):
        return self.ours.samples.get(self.key, []) if self.ours else []

    def right(self):
        return self.theirs.samples.get(self.their_key, []) if self.theirs else []

    def ratios(self):
        """Round by round: what slowed both down falls out."""
        return [a / b for a, b in zip(self.left(), self.right())]

    def why(self):
        """Why there are no samples, or fewer than rounds."""
        for c, samples in ((self.ours, self.left()), (self.theirs, self.right())):
            if c and (c.failed or not samples):
                return c.why() or "%s gave no %s" % (c.name, self.key)
        return None


class Pair:
    """Contestants that take turns, each round in the other order."""

    def __init__(self, *contestants):
        self.contestants = [c for c in contestants if c]

    def play(self, i):
        for k in range(max(c.times for c in self.contestants)):
            order = self.contestants if (i + k) % 2 == 0 else self.contestants[::-1]
            for c in order:
                if k < c.times and (c.rounds is None or i < c.rounds):
                    c.take()


def number(x):
    return "%.3g" % x if abs(x) < 10 else "%.1f" % x


def spread(samples):
    if not samples:
        return "-"
    return "%s (%s-%s)" % tuple(number(x) for x in (statistics.median(samples), min(samples), max(samples)))


def ratio_text(row):
    r = row.ratios()
    return "**%.2f** (%.2f-%.2f)" % (statistics.median(r), min(r), max(r)) if r and max(r) >= 0.1 else \
        "**%.4f** (%.4f-%.4f)" % (statistics.median(r), min(r), max(r)) if r else "-"


def short(c):
    return c.name.split(" ", 1)[1] if c and c.name.startswith("troupe ") else c.name if c else "-"


def weights(files):
    return ["%s (%d bytes, SHA-256 %s...)" % (os.path.basename(f), os.path.getsize(f), digest(f)) for f in files]


def facts(args, files, programs):
    name, flags = cpu()
    return {"cpu": name, "visible_cpus": os.cpu_count(), "flags": flags, "threads": args.threads, "rounds": args.rounds,
            "programs": programs, "weights": weights(files)}


def report(known, rows, out):
    print("CPU: %s (%d visible; %s). Threads: %d. Rounds: %d, interleaved; median (lowest-highest), ratio round by round.\n"
          "Programs: %s.\nWeights: %s.\n" %
          (known["cpu"], known["visible_cpus"] or 0, " ".join(known["flags"]) or "no vector flags seen", known["threads"],
           known["rounds"], "; ".join(known["programs"]), "; ".join(known["weights"])), file=out)
    print("| part | test | unit | troupe | | against | | ratio |\n|---|---|---|---|---|---|---|---|", file=out)
    for r in rows:
        print("| %s | %s | %s | %s | %s | %s | %s | %s |" %
              (r.part, r.test, r.unit, short(r.ours), spread(r.left()), r.against, spread(r.right()), ratio_text(r)),
              file=out)
    reasons = []
    for r in rows:
        line = r.why() and "%s, %s: %s" % (r.part, (r.ours or r.theirs).name, r.why())
        if line and line not in reasons:
            reasons.append(line)
    if reasons:
        print("\nNot (or not always) measured:\n" + "\n".join("- " + x for x in reasons), file=out)


def as_json(known, rows):
    return {"machine": known,
            "rows": [{"part": r.part, "test": r.test, "unit": r.unit, "troupe": r.ours and r.ours.name,
                      "troupe_samples": r.left(), "peer": r.against, "peer_samples": r.right(),
                      "ratio": statistics.median(r.ratios()) if r.ratios() else None, "why_not": r.why()} for r in rows]}
