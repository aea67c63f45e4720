"""The real models in a few topologies and deaths: what topologies_test.py and kill_test.py show on tiny ones."""
import os
import unittest

import company
import kill_test
import topologies_test
from topologies_test import PAIR, split, unified

NAMES = ("gemma3-270m", "smollm2-135m")
MODELS = {n: p for n, p in ((n, company.real_model(n)) for n in NAMES) if p}


class Topologies(topologies_test.Same):
    def test_same_numbers(self):
        for model in MODELS:
            for args in (split(1, 1), split(2, 3), split(3, 1) + ["--chunk", "16"], unified(2),
                         split(2, 2) + ["--set", "transport.local=zmq"],
                         split(1, 2, extra=(",tp=2", ",tp=2"))):
                with self.subTest(model=model, args=args):
                    self.texts(model, PAIR, args)
            for path, args in (("prefill", split(1, 1)), ("prefill", split(3, 1) + ["--chunk", "64"]),
                               ("handoff", split(1, 1)), ("handoff", split(2, 3)), ("handoff", unified(3)),
                               ("handoff", split(2, 1, extra=(",tp=2", ",tp=3"))),
                               ("decode", split(1, 1)), ("decode", split(1, 3))):
                with self.subTest(model=model, path=path, args=args):
                    self.logits(model, PAIR, args, path)
            native = "dtype=native", "dtype=native"
            for args in (split(1, 1, native), split(2, 2, native) + ["--chunk", "64"]):
                with self.subTest(model=model, args=args):
                    self.logits(model, native, args, "handoff")


class Deaths(kill_test.Death):
    def test_each_stage(self):
        for model in MODELS.values():
            kill_test.MODEL = model
            c = self.start(*kill_test.SPLIT)
            for stage in c.stages():
                with self.subTest(model=model, stage=stage):
                    self.same_texts(self.kill_under_streams(c, stage), "%s killed" % stage)
            c.wait_idle()
            c.stop()


def setUpModule():
    topologies_test.MODELS = MODELS
    topologies_test.N, kill_test.N = 24, 40
    topologies_test.setUpModule()


def tearDownModule():
    topologies_test.tearDownModule()


if __name__ == "__main__":
    if len(MODELS) < len(NAMES):
        company.skip("no %s: not cached, and cannot be fetched" % " and ".join(n for n in NAMES if n not in MODELS))
    unittest.main(verbosity=2)
