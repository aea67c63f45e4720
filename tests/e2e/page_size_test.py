"""bench/page-size: the figures of the reference distribution, files, and what it chooses."""
import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.dom.minidom

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join(ROOT, "bench", "page-size")


def run(*args):
    return subprocess.run([sys.executable, "-B", TOOL, *args], capture_output=True, text=True)


def result(*args):
    return json.loads(run("--json", *args).stdout)


class PageSize(unittest.TestCase):
    def test_reference(self):
        got = result()
        waste = {r["page"]: r["waste"] for r in got["rows"]}
        self.assertEqual(sorted(waste), [8, 16, 24, 32, 48, 64, 96, 128])
        self.assertLessEqual(waste[16], 0.04)
        self.assertGreater(waste[32], waste[16])
        self.assertEqual(got["chosen"], 16)
        self.assertEqual(result()["rows"], got["rows"])
        self.assertNotEqual(result("--seed", "2")["rows"], got["rows"])

    def test_files(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "lengths")
            forms = {"100\n28\n": (), "a,in,out\nx,60,40\ny,20,8\n": ("--columns", "in,out"),
                     '{"in": 60, "out": 40}\n{"in": 20, "out": 8}\n': ("--columns", "in,out")}
            for text, columns in forms.items():
                with open(path, "w") as f:
                    f.write(text)
                got = result("--lengths", path, *columns)
                self.assertEqual(got["sequences"], 2)
                self.assertAlmostEqual(got["rows"][1]["waste"], 16 / 144)  # 7 pages and 2
            self.assertIn("no column", run("--lengths", path, "--columns", "in,none").stderr)
            picture = os.path.join(d, "x.svg")
            self.assertEqual(run("--lengths", path, "--columns", "in,out", "--svg", picture).returncode, 0)
            xml.dom.minidom.parse(picture)

    def test_long_sequences_may_choose_more(self):
        """Where a page costs more than idle slots, larger ones win: one layer of one small head, long texts."""
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "lengths")
            with open(path, "w") as f:
                f.write("100000\n" * 10)
            self.assertGreater(result("--lengths", path, "--layers", "1", "--head-dim", "16")["chosen"], 16)


if __name__ == "__main__":
    unittest.main()
