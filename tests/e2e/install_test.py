"""What `cmake --install` lays down is complete: the program runs from there, and a client in C compiles and links with
pkg-config alone and gets the same text as `troupe generate`."""
import os
import shlex
import subprocess
import unittest

import company
from company import GEMMA, PROMPTS, Company, Home

CC = shlex.split(os.environ.get("TROUPE_CC", "cc"))  # with the sanitizers of the build, where it has some
BUILD = os.path.dirname(company.TROUPE)
SOURCE = os.path.join(company.ROOT, "tests/e2e/install_client.c")


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = Home()
        cls.addClassCleanup(cls.home.close)
        cls.prefix = os.path.join(cls.home.path, "inst")
        cls.call(["cmake", "--install", BUILD, "--prefix", cls.prefix])
        found = [where for where, _, files in os.walk(cls.prefix) if "troupe-client.pc" in files]
        assert len(found) == 1, "troupe-client.pc is in %s" % found
        cls.env = dict(os.environ, PKG_CONFIG_PATH=found[0])

    @classmethod
    def call(cls, args, **how):
        run = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True, **how)
        assert run.returncode == 0, "%s: exit %d\n%s%s" % (shlex.join(args), run.returncode, run.stdout, run.stderr)
        return run.stdout

    def flags(self, *which):
        return shlex.split(self.call(["pkg-config", *which, "troupe-client"], env=self.env))

    def test_program_says_the_version_of_the_library(self):
        version = self.call([os.path.join(self.prefix, "bin/troupe"), "--version"])
        self.assertIn(self.call(["pkg-config", "--modversion", "troupe-client"], env=self.env).strip(), version)

    def test_headers_come_alone(self):
        """Each installed header compiles with only the installed folder to look in."""
        headers = [os.path.join(where, f) for where, _, files in os.walk(os.path.join(self.prefix, "include"))
                   for f in files]
        self.assertTrue(headers)
        for header in headers:
            self.call([*CC, "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *self.flags("--cflags"), "-x",
                       "c", header], cwd=self.home.path)

    def test_client_in_c(self):
        program = os.path.join(self.home.path, "client")
        self.call([*CC, "-std=c11", "-Wall", "-Wextra", "-Werror", *self.flags("--cflags"), SOURCE, "-o", program,
                   *self.flags("--libs")], cwd=self.home.path)
        with Company(GEMMA, "-c", "256", home=self.home, name="inst") as c:
            endpoint = "ipc://%s/troupe/inst/api" % self.home.runtime
            text = self.call([program, endpoint, PROMPTS[0], "24"], timeout=60 * company.SLOW)
            self.assertEqual(text.encode(), c.generate(PROMPTS[0], 24).out)
            self.assertTrue(text)
            wrong = subprocess.run([program, endpoint, "", "0"], capture_output=True, text=True)
            self.assertEqual(wrong.returncode, 1, wrong)
            self.assertEqual(len(wrong.stderr.strip().split("\n")), 1, wrong)
            c.stop()


if __name__ == "__main__":
    unittest.main()
