"""Same numbers in every topology: texts and logits of one precision pair do not depend on pipelines, chunk size, pages,
transport, cores, or on what else is running. Greedy texts say that the likeliest token is the same; texts drawn at a high
temperature and logits compared bit for bit say that everything is."""
import hashlib
import itertools
import os
import unittest

import company
from company import PROMPTS, Company, Home

N = 48
MODELS = {"gemma3": company.GEMMA, "llama": company.LLAMA}
DRAWN = ("--temp", "3", "--seed", "7", "--ignore-eos")
CACHE = Home()  # packed images are made once for all tests here
PAIR = "dtype=bf16,kv=bf16", "dtype=int8,kv=int8"
FULL = os.environ.get("TROUPE_TEST_FULL") == "1"


TEXT = os.path.join(CACHE.path, "text")


def setUpModule():
    with open("tests/golden/texts/german.txt", encoding="utf-8") as f:
        text = f.read()[:360]  # the context of the tiny models holds 512 tokens, about a byte each
    with open(TEXT, "w", encoding="utf-8") as f:
        f.write(text)


def tearDownModule():
    CACHE.close()


def split(prefill, decode, pair=PAIR, extra=("", "")):
    return ["--prefill", "pp=%d,%s%s" % (prefill, pair[0], extra[0]), "--decode",
            "pp=%d,%s%s" % (decode, pair[1], extra[1])]


def unified(pp):
    return ["--unified", "pp=%d,prefill=bf16,decode=int8" % pp]


class Same(unittest.TestCase):
    """Texts and logits of a company against those of the first one asked for the same precision pair."""

    known = {}

    def check(self, key, got, what):
        first = Same.known.setdefault(key, (got, what))
        self.assertEqual(got, first[0], "\n%s differs from %s" % (what, first[1]))

    def texts(self, model, pair, args, crowd=True):
        what = "%s %s" % (model, " ".join(args))
        home = Home(cache=CACHE.cache)
        self.addCleanup(home.close)
        with Company(MODELS[model], "-c", "512", *args, home=home) as c:
            def ask(mode, how, prompts):
                texts = c.generate_all(prompts, N, *mode)
                for prompt, text in zip(prompts, texts):
                    self.assertEqual(text.code, 0, "%s %s: %s" % (what, how, text))
                    self.assertGreaterEqual(len(text.out), N // 2 if mode else 1)
                    self.check((model, pair, mode, prompt), text.out, "%s, %s" % (what, how))

            for mode in ((), DRAWN):
                for prompt in PROMPTS[1:3]:
                    ask(mode, "alone", [prompt])
                if crowd:
                    ask(mode, "among 8", PROMPTS)
            c.wait_idle()
            c.stop()
        home.wait_empty()

    def logits(self, model, pair, args, path):
        what = "%s %s --path %s" % (model, " ".join(args), path)
        out = os.path.join(CACHE.path, "logits.npy")
        run = CACHE.run("eval", MODELS[model], *args, "--text", TEXT, "--path", path, "--logits", out,
                        "--json")
        self.assertEqual(run.returncode, 0, "%s: %s" % (what, run.stderr.decode(errors="replace")))
        with open(out, "rb") as f:
            data = f.read()
        os.unlink(out)
        self.assertGreater(len(data), 100 * 288 * 4)
        self.check((model, pair, "logits", path), hashlib.sha256(data).hexdigest() + " of %d bytes" % len(data), what)
        self.check((model, pair, "eval", path), run.stdout, what)


class Pipelines(Same):
    def test_every_depth(self):
        for model in MODELS:
            for prefill, decode in itertools.product((1, 2, 3), (1, 2, 3)):
                with self.subTest(model=model, prefill=prefill, decode=decode):
                    self.texts(model, PAIR, split(prefill, decode), crowd=prefill != decode or prefill == 2)

    def test_unified(self):
        for model, pp in itertools.product(MODELS, (1, 2, 3)):
            with self.subTest(model=model, pp=pp):
                self.texts(model, PAIR, unified(pp))

    def test_ranks(self):
        """Tensor parallel: on both sides, on one only, more ranks than kv heads or cores, over ZeroMQ."""
        two = lambda p, d: ["--prefill", p + "," + PAIR[0], "--decode", d + "," + PAIR[1]]
        for model, args in (("gemma3", two("pp=2,tp=2", "pp=1,tp=3")), ("llama", two("pp=1,tp=3", "pp=2,tp=2")),
                            ("gemma3", two("pp=1", "pp=1,tp=2")), ("llama", two("pp=2,tp=2", "pp=1")),
                            ("gemma3", two("pp=2,tp=2", "pp=1,tp=2") + ["--set", "transport.local=zmq"]),
                            ("llama", ["--unified", "pp=1,tp=4,prefill=bf16,decode=int8"])):
            with self.subTest(model=model, args=args):
                self.texts(model, PAIR, args, crowd=all(x not in str(args) for x in ("tp=3", "tp=4")))
                self.logits(model, PAIR, args, "handoff")

    def test_uneven_layers(self):
        self.texts("gemma3", PAIR, split(3, 3, extra=(",layers=1:5:1", ",layers=3:1:3")))

    def test_logits(self):
        shapes = [(1, 1), (2, 3), (3, 2)] if not FULL else itertools.product((1, 2, 3), (1, 2, 3))
        shapes = [split(*s) for s in shapes] + [unified(1), unified(3)]
        for model, path, args in itertools.product(MODELS, ("prefill", "decode", "handoff"), shapes):
            with self.subTest(model=model, path=path, args=args):
                self.logits(model, PAIR, args, path)


class Settings(Same):
    def test_chunks(self):
        for model, chunk in itertools.product(MODELS, (16, 64, 512)):
            with self.subTest(model=model, chunk=chunk):
                self.texts(model, PAIR, split(2, 2) + ["--chunk", str(chunk)])
                self.logits(model, PAIR, split(1, 2) + ["--chunk", str(chunk)], "handoff")

    def test_odd_chunk(self):
        self.texts("gemma3", PAIR, split(2, 1) + ["--chunk", "7"])
        self.texts("gemma3", PAIR, unified(2) + ["--chunk", "1"], crowd=False)

    def test_transport(self):
        for model, args in itertools.product(MODELS, (split(2, 3), unified(2))):
            with self.subTest(model=model, args=args):
                self.texts(model, PAIR, args + ["--set", "transport.local=zmq"])
        self.logits("gemma3", PAIR, split(2, 2) + ["--set", "transport.local=zmq"], "handoff")

    def test_pages(self):
        for a, b in ((16, 32), (32, 16), (64, 16), (32, 64), (64, 64)):
            with self.subTest(prefill=a, decode=b):
                self.texts("gemma3", PAIR, split(2, 2, extra=(",page=%d" % a, ",page=%d" % b)))
                self.logits("llama", PAIR, split(1, 1, extra=(",page=%d" % a, ",page=%d" % b)), "handoff")

    def test_batches_and_cores(self):
        for more in (["--set", "scheduler.max_batch=1"], ["--set", "scheduler.max_batch=3"],
                     ["--set", "scheduler.cores=shared"], ["-t", "1"], ["-t", "2"]):
            with self.subTest(more=more):
                self.texts("gemma3", PAIR, split(2, 3) + more)

    def test_kernels_do_not_choose_by_rows(self):
        """Among one's own copies: eight times the same prompt in the same batches."""
        home = Home(cache=CACHE.cache)
        self.addCleanup(home.close)
        with Company(company.GEMMA, "-c", "512", *split(1, 2), home=home) as c:
            alone = c.generate(PROMPTS[2], N, *DRAWN)
            for text in c.generate_all([PROMPTS[2]] * 8, N, *DRAWN):
                self.assertEqual((text.code, text.out), (0, alone.out), text)
            c.stop()


class Precisions(Same):
    def test_pairs(self):
        for pair in itertools.product(("dtype=bf16,kv=bf16", "dtype=int8,kv=int8", "dtype=bf16,kv=int8",
                                       "dtype=int8,kv=bf16"), repeat=2):
            if pair == PAIR:
                continue
            with self.subTest(pair=pair):
                for prefill, decode in ((1, 1), (2, 3)):
                    self.texts("gemma3", pair, split(prefill, decode, pair), crowd=prefill > 1)

    def test_other_precisions(self):
        """Those that are not in every pair above; blocks: a file whose tensors have every block type."""
        MODELS["blocks"] = "tests/golden/tiny/blocks.gguf"
        self.addCleanup(MODELS.pop, "blocks")
        for model, pair in (("blocks", ("dtype=native", "dtype=native")), ("blocks", ("dtype=bf16", "dtype=native")),
                            ("gemma3", ("dtype=int8", "dtype=int8a16")), ("llama", ("dtype=int4", "dtype=nf4"))):
            with self.subTest(model=model, pair=pair):
                for prefill, decode, more in ((1, 1, []), (2, 2, ["--chunk", "16"]), (1, 2, ["-t", "1"])):
                    self.texts(model, pair, split(prefill, decode, pair) + more, crowd=decode > 1)
                    self.logits(model, pair, split(prefill, decode, pair) + more, "handoff")

    def test_pairs_differ(self):
        """Other precisions give other logits: the comparisons above would see a mix-up."""
        seen = {}
        for pair in (PAIR, (PAIR[0], PAIR[0]), (PAIR[1], PAIR[1]), ("dtype=bf16,kv=int8", PAIR[1]),
                     *((PAIR[0], "dtype=" + t) for t in ("int8a16", "int4", "nf4"))):
            self.logits("gemma3", pair, split(1, 1, pair), "handoff")
            got = Same.known[("gemma3", pair, "logits", "handoff")][0]
            self.assertNotIn(got, seen, "%s has the logits of %s" % (pair, seen.get(got)))
            seen[got] = pair


if __name__ == "__main__":
    unittest.main(verbosity=2)
