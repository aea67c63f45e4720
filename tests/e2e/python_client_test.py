#!/usr/bin/env python3
"""The Python client (client/python): its rules on frames made by hand, and both clients on a real company, with deaths."""
import asyncio
import os
import re
import sys
import threading
import time
import unittest

import company
from company import GEMMA, PROMPTS, ROOT, Company, wait_until

try:
    import msgpack
    import zmq  # noqa: F401
except ImportError:
    import package_venv
    package_venv.enter(__file__, "python-client", ["pyzmq>=24", "msgpack>=1"])
sys.path.insert(0, os.path.join(ROOT, "client", "python"))
import troupe  # noqa: E402
from troupe import session  # noqa: E402


class Rules(unittest.TestCase):
    """Session: what goes out and what comes of what comes in."""

    def setUp(self):
        self.s = session.Session(0.0)

    def sent(self):
        out = [msgpack.unpackb(f) for f in self.s.out]
        self.s.out.clear()
        return out

    def told(self, now=0.0, **m):
        return self.s.receive([msgpack.packb(m)], now)

    def welcome(self, number=7, **more):
        return self.told(type="welcome", major=1, minor=0, model="m", company=number, **more)

    def test_parameters_are_those_of_the_message(self):
        with open(os.path.join(ROOT, "docs", "messages.md"), encoding="utf-8") as f:
            add = re.search(r"^## add .*?(?=^## )", f.read(), re.M | re.S).group(0)
        fields = set(re.findall(r"^\| (\w+) \|", add, re.M)) - {"field", "id", "prompt", "tokens", "logits"}
        self.assertEqual(fields, session.PARAMETERS)

    def test_requests_wait_for_the_welcome(self):
        id = self.s.add("x", {"max_tokens": 3})
        self.assertEqual([m["type"] for m in self.sent()], ["hello"])
        self.assertEqual(self.welcome()[0].what.model, "m")
        self.assertEqual(self.sent(), [{"type": "add", "id": id, "max_tokens": 3, "prompt": "x"}])

    def test_added_again_after_a_restart_and_repeats_are_cut(self):
        self.welcome()
        id = self.s.add("x", {})
        self.sent()
        e, = self.told(type="text", id=id, tokens=[1, 2], text=b"ab")
        self.assertEqual((e.what.text, e.what.tokens, e.last), ("ab", [1, 2], False))
        self.welcome()  # answers no hello: a new frontend
        self.assertEqual([m["type"] for m in self.sent()], ["hello"])
        self.welcome()
        self.assertEqual([m["type"] for m in self.sent()], ["add"])
        e, = self.told(type="text", id=id, tokens=[1, 2, 3], text=b"abc", finish=2, total_ns=5 * 10**8)
        self.assertEqual((e.what.text, e.what.tokens, e.what.index, e.what.finish, e.last), ("c", [3], 2, "length", True))
        self.assertEqual((e.what.figures.generated_tokens, e.what.figures.total), (3, 0.5))
        self.assertEqual(self.told(type="text", id=id, tokens=[1], text=b"a"), [])

    def test_a_gap_ends_the_request(self):
        self.welcome()
        id = self.s.add("x", {})
        e, = self.told(type="text", id=id, index=1, tokens=[1])
        self.assertIsInstance(e.what, troupe.Failed)
        self.assertEqual(self.sent()[-1], {"type": "abort", "id": id})

    def test_samples_end_one_by_one(self):
        self.welcome()
        id = self.s.add("x", {"n": 3})
        ends = [self.told(type="text", id=id, sample=k, tokens=[k], finish=1)[0].last for k in (2, 0)]
        error, = self.told(type="error", id=id, sample=16, code=70, text="no")
        self.assertEqual((ends, error.last, error.what.code), ([False, False], True, 70))

    def test_another_company_has_lost_the_requests(self):
        self.welcome()
        id = self.s.add("x", {})
        e, = self.welcome(number=8)
        self.assertEqual((e.id, type(e.what)), (id, troupe.Lost))

    def test_silence_ends_them(self):
        self.welcome()
        id = self.s.add("x", {})
        self.assertEqual(self.s.tick(29.0), [])
        e, = self.s.tick(31.0)
        self.assertEqual((e.id, type(e.what)), (id, troupe.Lost))

    def test_other_protocols_and_rubbish(self):
        self.assertEqual(self.s.receive([b"\xc1"], 0.0), [])
        self.assertEqual(self.s.receive([msgpack.packb([1])], 0.0), [])
        e, = self.told(type="welcome", major=2)
        self.assertIsInstance(e.what, troupe.Unavailable)

    def test_log_probabilities_belong_to_the_last_tokens(self):
        self.welcome()
        id = self.s.add("x", {"logprobs": 2, "priority": -1})
        self.assertEqual(self.sent()[-1]["priority"], 0xffffffff)
        e, = self.told(type="text", id=id, tokens=[5, 6], logprob_ids=[6, 7], logprobs=[-0.5, -1.0])
        self.assertEqual(e.what.logprobs, [None, [(6, -0.5), (7, -1.0)]])
        e, = self.told(type="text", id=id, tokens=[5, 6, 8], logprob_ids=[6, 7, 8, 7], logprobs=[-0.5, -1.0, -0.1, -3.0])
        self.assertEqual((e.what.tokens, e.what.logprobs), ([8], [[(8, -0.1), (7, -3.0)]]))
        e, = self.told(type="text", id=id, finish=1)
        self.assertEqual(e.what.logprobs, [])

    def test_unknown_parameters(self):
        self.assertRaises(TypeError, self.s.add, "x", {"max_token": 3})
        self.assertRaises(ValueError, self.s.add, "x", {"n": 17})


class Real(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Company(GEMMA, "-c", "256", "--prefill", "pp=2", "--decode", "pp=2")
        cls.addClassCleanup(cls.c.close)
        cls.endpoint = "ipc://%s/troupe/e2e/api" % cls.c.home.runtime
        cls.texts = [cls.c.generate(p, 48, "--ignore-eos").out.decode() for p in PROMPTS]

    def test_text_pieces_and_samples(self):
        with troupe.Client(self.endpoint) as c:
            self.assertEqual((c.info.context, c.info.vocab > 0), (256, True))
            result = c.generate(PROMPTS[0], max_tokens=48, ignore_eos=True)
            pieces = list(c.stream(PROMPTS[0], max_tokens=48, ignore_eos=True))
            samples = c.samples(PROMPTS[0], max_tokens=48, ignore_eos=True, n=3, temperature=1.0, seed=5)
            told = c.generate(PROMPTS[0], max_tokens=48, ignore_eos=True, logprobs=3)
            biased = c.generate(PROMPTS[0], max_tokens=4, bias_tokens=[40], bias=[100.0])
        self.assertEqual((result.text, result.finish, len(result.tokens)), (self.texts[0], "length", 48))
        self.assertEqual(([lp[0][0] for lp in told.logprobs], told.text), (result.tokens, result.text))
        self.assertTrue(all(lp[0] == lp[1] and lp[1][1] >= lp[2][1] for lp in told.logprobs))
        self.assertEqual((biased.tokens, biased.logprobs), ([40] * 4, None))
        self.assertEqual("".join(p.text for p in pieces), result.text)
        self.assertGreater(len(pieces), 1)
        self.assertGreater(result.figures.total, result.figures.first_token)
        self.assertEqual([s.sample for s in samples], [0, 1, 2])
        self.assertEqual(len({s.text for s in samples}), 3)

    def test_by_name(self):
        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = self.c.home.runtime
        try:
            with troupe.Client("e2e") as c:
                self.assertTrue(c.status()["ready"])
            self.assertRaisesRegex(troupe.Unavailable, "no company named other", troupe.Client, "other")
        finally:
            os.environ.pop("XDG_RUNTIME_DIR") if before is None else os.environ.update(XDG_RUNTIME_DIR=before)

    def test_refusals_harm_nobody(self):
        with troupe.Client(self.endpoint) as c:
            for bad, code in ((dict(max_tokens=10**9), 65), (dict(temperature=-1.0), 65)):
                with self.assertRaises(troupe.Failed) as e:
                    c.generate("x", **bad)
                self.assertEqual(e.exception.code, code)
            self.assertEqual(c.generate(PROMPTS[1], max_tokens=48, ignore_eos=True).text, self.texts[1])
        self.assertRaisesRegex(troupe.Unavailable, "nobody answers", troupe.Client, "ipc:///tmp/no-such-socket",
                               connect_seconds=0.2)

    def test_threads_share_a_client_through_a_restart(self):
        got = [None] * len(PROMPTS)
        with troupe.Client(self.endpoint) as c:
            def ask(i):
                got[i] = c.generate(PROMPTS[i], max_tokens=48, ignore_eos=True).text

            threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(PROMPTS))]
            for t in threads:
                t.start()
            self.c.kill("frontend")
            for t in threads:
                t.join()
        self.assertEqual(got, self.texts)

    def test_leaving_an_iterator_aborts(self):
        with troupe.Client(self.endpoint) as c:
            for _ in c.stream(PROMPTS[0], max_tokens=200, ignore_eos=True):
                break
            wait_until("the request is gone", 5, lambda: c.status()["requests"] == {"running": 0, "waiting": 0})
        self.c.wait_idle()

    def test_async(self):
        async def run():
            async with troupe.AsyncClient(self.endpoint) as c:
                results = await asyncio.gather(*(c.generate(p, max_tokens=48, ignore_eos=True) for p in PROMPTS))
                task = asyncio.create_task(c.generate(PROMPTS[0], max_tokens=200, ignore_eos=True))
                await asyncio.sleep(0.05)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                begin = time.monotonic()
                while (await c.status())["requests"]["running"] and time.monotonic() < begin + 5 * company.SLOW:
                    await asyncio.sleep(0.01)
                with self.assertRaises(troupe.Failed):
                    await c.generate("x", max_tokens=10**9)
                return [r.text for r in results]

        self.assertEqual(asyncio.run(run()), self.texts)
        self.c.wait_idle()


class End(unittest.TestCase):
    def test_a_company_that_ends_tells_its_clients(self):
        with Company(GEMMA, "-c", "256") as c:
            client = troupe.Client("ipc://%s/troupe/e2e/api" % c.home.runtime)
            pieces = client.stream(PROMPTS[0], max_tokens=240, ignore_eos=True)
            next(pieces)
            client.drain(stop=True)
            text = "".join(p.text for p in pieces)  # an open stream is finished
            self.assertTrue(text)
            self.assertEqual(c.serve.wait(10 * company.SLOW), 0)
            client.close()
            client.close()
            self.assertRaises(troupe.Unavailable, client.status)


if __name__ == "__main__":
    unittest.main(verbosity=2)
