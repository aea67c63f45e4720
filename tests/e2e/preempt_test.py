"""Requests that give way to earlier ones, through real processes: pools too small for what is asked, and every text the
same as from pools that hold everything; also when an actor dies meanwhile. All pages are free in the end."""
import os
import signal
import unittest

import company
import prefix_cache_test
from company import Company, Home
from prefix_cache_test import Asker, line, prompt

CACHE = Home()
MODELS = {"gemma3": company.GEMMA, "llama": company.LLAMA}
SPLIT = ["--prefill", "pp=2,dtype=bf16", "--decode", "pp=1,dtype=int8"]
UNIFIED = ["--unified", "pp=1,dtype=bf16"]
CONTEXT = ["-c", "256"]
# One sequence of 256 tokens fits, and half another one.
TIGHT = {("llama", "split"): "350K", ("llama", "unified"): "240K", ("gemma3", "split"): "350K"}


def tearDownModule():
    CACHE.close()
    prefix_cache_test.CACHE.close()


def requests():
    """Short and long prompts, most of them ask for far more than one page; samples of one prompt too."""
    lines = [line(prompt(k, 20 + 15 * (k % 3)), max=150, temp=3, seed=k) for k in range(6)]
    return lines + [line(prompt(9, 40), max=60, temp=3, seed=9, n=3), line(prompt(10, 180), max=3, temp=3)]


ENDS = 6 + 3 + 1


class Tight(unittest.TestCase):
    def company(self, model, shape, *args):
        home = Home(cache=CACHE.cache)
        self.addCleanup(home.close)
        c = Company(MODELS[model], *CONTEXT, *(SPLIT if shape == "split" else UNIFIED), *args, home=home)
        self.addCleanup(c.close)
        a = Asker(c)
        self.addCleanup(a.close)
        return c, a

    def texts(self, a, times=1):
        return [[s["tokens"] for s in samples] for samples in a.ends(ENDS * times)]

    def check(self, model, shape, die=(), args=(), enough=lambda status: status["tokens"] > 100):
        """How many give way depends on when what comes: more is asked until it is enough, if need be."""
        c, a = self.company(model, shape, "--kv-memory", "8M")
        a.send(requests())
        want = self.texts(a)
        self.assertEqual(c.status()["preemptions"]["count"], 0)
        c, a = self.company(model, shape, "--kv-memory", TIGHT[model, shape], *args)
        times = 1 + len(die)
        a.send(requests() * times)
        for actor in die:
            c.kill(actor, signal.SIGKILL)
        self.assertEqual(self.texts(a, times), want * times)
        for _ in range(8):
            c.wait_idle()
            status = c.status()["preemptions"]
            if status["count"] > 2 and enough(status):
                return status
            a.send(requests())
            self.assertEqual(self.texts(a), want)
        self.fail("too few gave way: %s" % status)

    def test_split(self):
        self.check("llama", "split")

    def test_unified(self):
        self.check("llama", "unified")

    def test_sliding_windows(self):
        self.check("gemma3", "split")

    def test_deaths(self):
        self.check("llama", "split", ["scheduler", "decode.0", "resharder"])

    def swaps(self, model, shape, die, args):
        status = self.check(model, shape, die, args, lambda status: status["swapped_in"] > 0)
        self.assertGreater(status["swapped_out"], 0)
        self.assertEqual(status["swap_used"], 0)

    def test_swap_memory(self):
        self.swaps("gemma3", "split", (), ["--set", "scheduler.swap_memory=8M"])

    def test_swap_file_and_deaths(self):
        path = os.path.join(CACHE.cache, "swap")
        args = ["--set", "scheduler.swap_memory=8M", "--set", "scheduler.swap_file=" + path]
        self.swaps("llama", "unified", ["scheduler", "resharder"], args)
        self.doCleanups()
        self.assertEqual(os.path.getsize(path), 0)  # given back at the end

    def test_swap_that_fails(self):
        """What cannot be written is computed again, with one line in the log."""
        args = ["--set", "scheduler.swap_memory=8M", "--set", "scheduler.swap_file=/dev/full"]
        status = self.check("llama", "split", args=args)
        self.assertEqual(status["swapped_out"], 0)

    def test_full_reservation(self):
        c, a = self.company("llama", "split", "--kv-memory", TIGHT["llama", "split"], "--set", "scheduler.reserve=full")
        a.send(requests())
        self.texts(a)
        self.assertEqual(c.status()["preemptions"]["count"], 0)


if __name__ == "__main__":
    unittest.main()
