"""A sequence saved by one company goes on in another of any shape with the text of an uninterrupted run; damaged and
foreign files cost time, not text; nothing outside of the folder can be named."""
import os
import struct
import unittest

import company
from company import Company, Home

PROMPT = "Ein Dorf am Rand der Welt, in dem die Uhren rueckwaerts gehen, und niemand wundert sich mehr darueber. "
ASK = ("--ignore-eos", "--temp", "0.8", "--seed", "11", "-q")
TWO = ["--prefill", "pp=2,dtype=bf16,kv=bf16", "--decode", "pp=1,dtype=int8,kv=int8"]
SHAPES = [["--prefill", "pp=1,dtype=bf16,kv=bf16", "--decode", "pp=3,dtype=int8,kv=int8,page=64"],
          ["--prefill", "pp=1,dtype=bf16,kv=bf16", "--decode", "pp=2,tp=2,dtype=int8,kv=int8,page=32"],
          ["--unified", "pp=2,prefill=bf16,decode=int8"]]
FIRST, REST = 40, 45  # past the sliding window of the tiny Gemma


class Saved(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cache = Home()
        cls.addClassCleanup(cls.cache.close)

    def setUp(self):
        self.home = Home(cache=self.cache.cache)
        self.addCleanup(self.home.close)

    def path(self, name):
        return os.path.join(self.home.path, name)

    def run_(self, model, *args):
        got = self.home.run("run", model, *ASK, *args)
        self.assertEqual(got.returncode, 0, got.stderr.decode(errors="replace"))
        return got.stdout, got.stderr.decode(errors="replace")

    def save(self, model, shape, name="a.kv"):
        whole = self.run_(model, *shape, "-n", str(FIRST + REST), PROMPT)[0].rstrip(b"\n")
        first, said = self.run_(model, *shape, "-n", str(FIRST), "--save", self.path(name), PROMPT)
        self.assertEqual(said, "")
        self.assertEqual([n for n in os.listdir(self.home.path) if "part" in n], [])
        return whole, first.rstrip(b"\n")

    def rest(self, model, shape, name="a.kv", *more):
        got, said = self.run_(model, *shape, "-n", str(REST), "--restore", self.path(name), *more)
        return got.rstrip(b"\n"), said

    def test_goes_on_in_any_shape(self):
        for model in (company.GEMMA, company.LLAMA):
            whole, first = self.save(model, TWO)
            for shape in [TWO] + SHAPES:
                with self.subTest(model=model, shape=shape):
                    got, said = self.rest(model, shape)
                    self.assertEqual((first + got, said), (whole, ""))

    def test_one_pool(self):
        shape = ["--unified", "pp=1,dtype=bf16,kv=bf16"]
        whole, first = self.save(company.GEMMA, shape)
        got, said = self.rest(company.GEMMA, ["--unified", "pp=3,dtype=bf16,kv=bf16,page=64"])
        self.assertEqual((first + got, said), (whole, ""))

    def test_says_what_differs(self):
        whole, first = self.save(company.LLAMA, TWO)
        got, said = self.rest(company.LLAMA, ["--prefill", "pp=1,dtype=bf16,kv=bf16", "--decode",
                                              "pp=1,dtype=int8,kv=bf16"])
        self.assertIn("converted to another format", said)
        self.assertGreater(len(got), 10)
        said = self.rest(company.LLAMA, ["--unified", "pp=1,dtype=bf16,kv=int8"])[1]
        self.assertIn("other precisions", said)
        self.assertEqual(said.count("\n"), 1)

    def test_damage_costs_time_only(self):
        whole, first = self.save(company.LLAMA, TWO)
        with open(self.path("a.kv"), "rb") as f:
            good = f.read()
        for at in (len(good) // 2, len(good) - 3):
            with self.subTest(at=at):
                with open(self.path("b.kv"), "wb") as f:
                    f.write(good[:at] + bytes([good[at] ^ 16]) + good[at + 1:])
                got, said = self.rest(company.LLAMA, TWO, "b.kv")
                self.assertEqual(first + got, whole)
                self.assertIn("computed anew", said)
                self.assertIn("damaged", said)
        for bad in (b"", good[:100], good[:-8], b"\0" * 400, good[:8] + struct.pack("<I", 99) + good[12:]):
            with self.subTest(bytes=len(bad)):
                with open(self.path("c.kv"), "wb") as f:
                    f.write(bad)
                got = self.home.run("run", company.LLAMA, *TWO, *ASK, "--restore", self.path("c.kv"))
                self.assertEqual((got.returncode, got.stdout, got.stderr.count(b"\n")), (65, b"", 1))

    def test_another_model(self):
        self.save(company.LLAMA, TWO)
        got, said = self.rest(company.GEMMA, TWO)
        self.assertIn("another model", said)

    def test_running_company(self):
        folder = os.path.join(self.home.path, "saved")
        os.mkdir(folder)
        whole = self.run_(company.GEMMA, *TWO, "-n", str(FIRST + REST), PROMPT)[0].rstrip(b"\n")
        with Company(company.GEMMA, "-c", "512", *TWO, "--set", "handoff.save_dir=" + folder, home=self.home) as c:
            first = self.home.run("generate", "--name", c.name, *ASK, "-n", str(FIRST), "--save", folder + "/x", PROMPT)
            second = self.home.run("generate", "--name", c.name, *ASK, "-n", str(REST), "--restore", folder + "/x")
            self.assertEqual((first.returncode, second.returncode), (0, 0), first.stderr + second.stderr)
            self.assertEqual(first.stdout.rstrip(b"\n") + second.stdout.rstrip(b"\n"), whole)
            self.assertEqual(os.listdir(folder), ["x"])
            bad = self.home.run("generate", "--name", c.name, *ASK, "--save", folder + "/a b", PROMPT)
            self.assertEqual(bad.returncode, 64, bad.stderr)
            os.chmod(folder, 0o500)
            if os.geteuid() != 0:
                kept = self.home.run("generate", "--name", c.name, *ASK, "-n", "5", "--save", folder + "/y", PROMPT)
                self.assertEqual(kept.returncode, 0)
                self.assertIn(b"not saved", kept.stderr)
            os.chmod(folder, 0o700)
            c.wait_idle()
            c.stop()

    def test_no_folder(self):
        with Company(company.LLAMA, "-c", "256", *TWO, home=self.home) as c:
            got = self.home.run("generate", "--name", c.name, *ASK, "--save", self.path("x"), PROMPT)
            self.assertEqual(got.returncode, 69, got.stderr)
            self.assertIn(b"handoff.save_dir", got.stderr)
            c.stop()


if __name__ == "__main__":
    unittest.main()
