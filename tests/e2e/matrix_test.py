"""A slice of bench/matrix on the tiny models: any topology to any topology, the same text, drawn at a high temperature
because that says more than the likeliest tokens. TROUPE_TEST_SEED draws another
slice, TROUPE_TEST_FULL=1 takes all of it."""
import os
import random
import sys
import unittest

import company
from company import SLOW, Home

sys.path.insert(0, os.path.join(company.ROOT, "bench"))
import matrix_main  # noqa: E402

SEED = int(os.environ.get("TROUPE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
SAMPLE = 0 if os.environ.get("TROUPE_TEST_FULL") == "1" else 20


class Matrix(unittest.TestCase):
    def slice_of(self, model, seed):
        home = Home()
        self.addCleanup(home.close)
        os.environ["XDG_CACHE_HOME"] = home.cache
        self.addCleanup(os.environ.pop, "XDG_CACHE_HOME")
        matrix = matrix_main.Matrix(company.TROUPE, model, 48, home.runtime, 3, 60 * SLOW)
        print("seed %d (TROUPE_TEST_SEED)" % seed, flush=True)
        for c in matrix_main.choose(SAMPLE, seed):
            with self.subTest(arguments=" ".join(matrix_main.arguments(c))):
                self.assertIsNone(matrix.differs(c))
        home.wait_empty()

    def test_gemma3(self):
        self.slice_of(company.GEMMA, SEED)

    def test_llama(self):
        self.slice_of(company.LLAMA, SEED + 1)

    def test_covers_everything(self):
        every = matrix_main.all_combinations()
        self.assertEqual(len(every), 81 * 9 * 4)
        self.assertEqual(len({c[:6] for c in every}), len(every))
        self.assertEqual({c.prompt for c in every}, set(range(len(matrix_main.PROMPTS))))

    def test_a_difference_is_seen(self):
        """Another identity, an error and a company that never ends are none of them the same text."""
        c = matrix_main.all_combinations()[0]
        other = matrix_main.Matrix(company.TROUPE, company.GEMMA, 48, "/tmp")
        other.truth, other.text = lambda c: b"a", lambda a, p: b"b"
        self.assertIn("not b'a'", other.differs(c))
        other.text = lambda a, p: "exit 70: gone"
        self.assertIn("exit 70", other.differs(c))
        self.assertIn("1 of 1", matrix_main.grid([(c, "wrong")]))
        self.assertNotIn(" of ", matrix_main.grid([(c, None)]))


if __name__ == "__main__":
    unittest.main(verbosity=2)
