"""Sizes, names and left-overs of the files."""
import collections
import os
import re
import unittest

import tree

LIMIT = {".h": 250, ".c": 500, ".inc": 500, ".py": 600}
TESTS = 650  # sources below tests/
HARD = 900
# Longer than the budget for a reason; never above HARD.
EXCEPTIONS = {
    "base/options_table.h": 300,  # every option, a row each
    "transport/schema.h": 420,  # every message of the company, a field a line
}


def limit_of(name):
    return TESTS if name.startswith("tests/") else LIMIT[os.path.splitext(name)[1]]


class Files(tree.Rule):
    def test_lengths(self):
        bad = []
        for name in tree.files(*LIMIT):
            n = tree.read(name).count("\n")
            limit = min(EXCEPTIONS.get(name, limit_of(name)), HARD)
            if n > limit:
                bad.append("%s has %d lines, %d are allowed" % (name, n, limit))
        self.holds(bad)

    def test_exceptions_are_needed(self):
        self.holds([n for n in EXCEPTIONS if n not in tree.files(*LIMIT) or
                    tree.read(n).count("\n") <= limit_of(n)])

    def test_stems_are_unique(self):
        """The stem is the symbol prefix: one header and one source of a name in the whole tree."""
        seen = collections.defaultdict(list)
        for name in tree.library_files(".c", ".h", ".inc", ".cu"):
            seen[os.path.basename(name)].append(os.path.dirname(name))
        self.holds(["%s is in %s" % (s, " and ".join(f)) for s, f in seen.items() if len(f) > 1])

    def test_nothing_left_to_do(self):
        word = re.compile(r"\b(%s)\b" % "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)))
        bad = []
        for name in tree.files(".c", ".h", ".inc", ".py", ".txt", ".cmake", ".sh", ".md", ".yaml", ".yml"):
            if name.startswith("tests/golden/"):
                continue
            for i, line in enumerate(tree.read(name).split("\n"), 1):
                if word.search(line):
                    bad.append("%s:%d: %s" % (name, i, line.strip()[:100]))
        self.holds(bad)

    def test_header_guards_carry_the_stem(self):
        bad = []
        for name in tree.library_files(".h"):
            stem = os.path.splitext(os.path.basename(name))[0].upper()
            if not re.search(r"^#ifndef TR_%s_H\n#define TR_%s_H$" % (stem, stem), tree.read(name), re.M):
                bad.append("%s has no guard TR_%s_H" % (name, stem))
        self.holds(bad)


if __name__ == "__main__":
    unittest.main()
