"""After READY nothing on the path of a step touches the heap, and a stage makes no system call but the futex: counted in
the real actors by a library that is loaded into them (step_path.c)."""
import os
import signal
import struct
import tempfile
import unittest

import company
from company import PROMPTS, Company, Home

LIBRARY = os.environ.get("STEP_PATH_LIBRARY")
MODELS = {"gemma3": company.GEMMA, "llama": company.LLAMA}
TOPOLOGIES = {
    "unified": ["--unified", "pp=1,prefill=bf16,decode=int8"],
    "split": ["--prefill", "pp=2,dtype=bf16", "--decode", "pp=3,dtype=int8"],
    "ranks": ["--prefill", "pp=1,tp=2,dtype=bf16", "--decode", "pp=2,tp=2,dtype=int8"],
    "one precision": ["--unified", "pp=2,prefill=int8,decode=int8"],
}
MODES = [(), ("--temp", "1.5", "--seed", "3"), ("--temp", "0.8", "--top-k", "20", "--top-p", "0.9", "--seed", "3")]
NO_HEAP = ("scheduler", "resharder")  # the frontend speaks ZeroMQ, which allocates


class Record:
    def __init__(self, folder, name):
        with open(os.path.join(folder, name), "rb") as f:
            self.armed, self.filtered, self.call, self.heap = struct.unpack("4I", f.read(16))


class StepPath(unittest.TestCase):
    def run_armed(self, model, args):
        records = tempfile.TemporaryDirectory(prefix="tr", dir="/tmp")
        self.addCleanup(records.cleanup)
        home = Home()
        self.addCleanup(home.close)
        home.env.update(LD_PRELOAD=LIBRARY, STEP_PATH_RECORDS=records.name)
        with Company(model, "-c", "512", *args, home=home) as c:
            pids = {name: a["pid"] for name, a in c.actors().items() if name not in ("supervisor", "frontend")}
            for pid in pids.values():
                os.kill(pid, signal.SIGUSR1)
            for name in pids:
                company.wait_until(name + " is armed", 5, lambda: Record(records.name, name).armed)
            for mode in MODES:
                for text in c.generate_all(PROMPTS, 64, "--ignore-eos", *mode):
                    self.assertEqual(text.code, 0, repr(text))
            for name, pid in pids.items():
                r = Record(records.name, name)
                if r.filtered == 2:
                    company.skip("this system takes no filter of system calls")
                self.assertEqual(r.filtered, 1 if "." in name else 0, name)
                self.assertEqual(r.call, 0, "%s made the system call %d" % (name, r.call - 1))
                if "." in name or name in NO_HEAP:
                    self.assertEqual(r.heap, 0, "%s called the heap" % name)
                self.assertEqual(c.pid(name), pid, name + " did not live through it")

    def test_counts(self):
        for model, path in MODELS.items():
            for topology, args in TOPOLOGIES.items():
                with self.subTest(model=model, topology=topology):
                    self.run_armed(path, args)


if __name__ == "__main__":
    if not LIBRARY:
        company.skip("the sanitizers bring a heap of their own")
    unittest.main()
