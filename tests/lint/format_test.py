"""clang-format agrees with every tracked C file."""
import os
import re
import shutil
import subprocess
import unittest

import tree

MAJOR = 14  # Debian 12; other versions break lines elsewhere
TOOL = shutil.which("clang-format-%d" % MAJOR) or shutil.which("clang-format")


class Format(tree.Rule):
    def test_all_files(self):
        names = tree.files(".c", ".h", ".inc")
        run = subprocess.run([TOOL, "--dry-run", "-Werror", "--ferror-limit=1", *names], cwd=tree.ROOT,
                             capture_output=True, text=True, timeout=110)
        bad = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error", run.stderr, re.M)))
        self.holds(["%s: run clang-format -i" % b for b in bad])
        self.assertEqual(run.returncode, 0, run.stderr[:2000])


if __name__ == "__main__":
    if not TOOL:
        tree.skip("no clang-format (apt-get install clang-format)")
    found = re.search(r"version (\d+)", subprocess.run([TOOL, "--version"], capture_output=True, text=True).stdout)
    if not found or int(found.group(1)) != MAJOR:
        tree.skip("the tree is formatted by clang-format %d, found %s" % (MAJOR, found.group(1) if found else "none"))
    unittest.main()
