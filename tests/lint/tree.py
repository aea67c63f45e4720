"""The tracked files of the source tree, for the lint tests."""
import os
import subprocess
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARIES = ("base", "affinity", "transport", "kernels", "kv", "model", "stages", "scheduler", "client", "actors")
SKIP = 77  # ctest: SKIP_RETURN_CODE


def files(*endings):
    """Tracked files, relative to the root, that end so and exist; a tree without git is walked."""
    try:
        out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        names = out.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder, below, found in os.walk(ROOT):
            below[:] = [b for b in below if not b.startswith((".", "build"))]
            names += [os.path.relpath(os.path.join(folder, f), ROOT) for f in found]
    return sorted(n for n in names if n.endswith(endings) and os.path.isfile(os.path.join(ROOT, n)))


def library_files(*endings):
    return [f for f in files(*endings) if f.split("/")[0] in LIBRARIES]


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8", errors="replace") as f:
        return f.read()


def skip(reason):
    print("skipped: " + reason)
    sys.exit(SKIP)


class Rule(unittest.TestCase):
    """A test that collects every breach before it fails."""

    longMessage = False

    def holds(self, breaches):
        self.assertEqual(len(breaches), 0, "%d breaches:\n  %s" % (len(breaches), "\n  ".join(breaches)))
