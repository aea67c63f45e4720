"""The time of real stages: all of it is booked, and under what it was."""
import time
import unittest

import company
from company import PROMPTS, Company

KINDS = {"compute", "communication", "fill_drain", "imbalance", "starvation", "kv_wait"}
ROUNDING_NS = 5_000_000  # between two readings of a status, on a busy machine


class Ledger(unittest.TestCase):
    def shares(self, c, work):
        """What each stage's time between two looks went to, in shares of it; all of it is booked."""
        before = c.status()
        result = work()
        after = c.status()
        wall = after["clock_ns"] - before["clock_ns"]
        shares = {}
        for old, new in zip(before["actors"], after["actors"]):
            self.assertEqual("ledger_ns" in new, new["name"].split(".")[0] in ("prefill", "decode", "unified"))
            if "ledger_ns" not in new:
                continue
            self.assertEqual(set(new["ledger_ns"]), KINDS)
            spent = {k: new["ledger_ns"][k] - old["ledger_ns"][k] for k in KINDS}
            self.assertTrue(all(v >= 0 for v in spent.values()), spent)
            self.assertAlmostEqual(sum(spent.values()), wall, delta=0.01 * wall + ROUNDING_NS)
            shares[new["name"]] = {k: v / wall for k, v in spent.items()}
        return shares, result

    def generate(self, c, n=150):
        texts = c.generate_all(PROMPTS[:4], n, "--ignore-eos")
        for t in texts:
            self.assertEqual(t.code, 0, repr(t))

    def test_two_stages(self):
        with Company(company.GEMMA, "-c", "512", "--unified", "pp=2,prefill=bf16,decode=int8") as c:
            idle, _ = self.shares(c, lambda: time.sleep(0.5))
            for name, share in idle.items():
                self.assertGreater(share["starvation"], 0.95, name)
            busy, _ = self.shares(c, lambda: self.generate(c))
            for name, share in busy.items():
                for kind in ("compute", "communication", "fill_drain", "starvation"):
                    self.assertGreater(share[kind], 0, name + " " + kind)

    def test_a_death_is_booked_too(self):
        with Company(company.LLAMA, "-c", "512", "--prefill", "pp=1,dtype=bf16", "--decode", "pp=2,dtype=int8") as c:
            self.generate(c, 20)

            def die():
                pid = c.kill("decode.1")
                company.wait_until("a new life", 10, lambda: c.pid("decode.1") != pid)
                self.generate(c, 20)

            shares, _ = self.shares(c, die)
            self.assertGreater(shares["decode.1"]["fill_drain"], 0)
            self.assertGreater(shares["decode.0"]["starvation"] + shares["decode.0"]["kv_wait"], 0)


if __name__ == "__main__":
    unittest.main()
