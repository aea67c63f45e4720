"""Every header compiles alone, with the flags of the build, and guards against a second inclusion."""
import concurrent.futures
import os
import shlex
import subprocess
import unittest

import tree

CC = os.environ.get("LINT_CC", "cc")
FLAGS = shlex.split(os.environ.get("LINT_CFLAGS", "-Wall -Wextra -Werror"))


def compile_alone(header):
    text = '#include "%s"\n#include "%s"\nint lint_translation_unit;\n' % (header, header)
    run = subprocess.run([CC, "-std=c11", "-D_GNU_SOURCE", "-I.", *FLAGS, "-fsyntax-only", "-x", "c", "-"],
                         input=text, cwd=tree.ROOT, capture_output=True, text=True, timeout=60)
    return "" if run.returncode == 0 else "%s: %s" % (header, run.stderr.strip().split("\n")[0])


class Headers(tree.Rule):
    def test_each_alone_and_twice(self):
        headers = tree.library_files(".h")
        self.assertGreater(len(headers), 50)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            self.holds([e for e in pool.map(compile_alone, headers) if e])


if __name__ == "__main__":
    unittest.main()
