"""`troupe top` on a real company: into a pipe, once, on terminals wide and narrow, and its end by Ctrl-C."""
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time
import unittest

import company
from company import Company, wait_until


class Top(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Company(company.GEMMA, "-c", "256", "--unified", "pp=2,prefill=bf16,decode=int8")

    @classmethod
    def tearDownClass(cls):
        cls.c.close()

    def test_once(self):
        run = self.c.home.run("top", "--name", self.c.name, "--once")
        self.assertEqual((run.returncode, run.stderr), (0, b""))
        text = run.stdout.decode()
        self.assertNotIn("\033", text)
        lines = text.splitlines()
        self.assertEqual(lines[0], "e2e: gemma3, 0 running, 0 waiting")
        rows = {line.split()[0]: line.split() for line in lines[lines.index("") + 2:]}
        self.assertEqual(set(rows), set(self.c.actors()))
        for stage in ("unified.0", "unified.1"):
            shares = [float(v) for v in rows[stage][-6:]]
            self.assertAlmostEqual(sum(shares), 100, delta=0.4)
            self.assertGreater(shares[4], 90)  # starvation
        self.assertEqual(len(rows["scheduler"]), 6)

    def test_pipe(self):
        top = self.c.home.popen("top", "--name", self.c.name, stdout=subprocess.PIPE)
        begin = [top.stdout.readline() for _ in range(3)]
        time.sleep(1.5)
        top.send_signal(signal.SIGINT)
        text = b"".join(begin) + top.communicate(timeout=10)[0]
        self.assertEqual(top.returncode, 0)
        self.assertNotIn(b"\033", text)
        self.assertGreaterEqual(text.count(b"e2e: gemma3"), 2)

    def test_terminal(self):
        for columns in (200, 40):
            here, there = pty.openpty()
            fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
            top = self.c.home.popen("top", "--name", self.c.name, stdout=there, stderr=there)
            os.close(there)
            seen = b""

            def has(what):
                nonlocal seen
                seen += os.read(here, 65536)
                return what in seen

            wait_until("a table", 10, lambda: has(b"unified.1") and has(b""))
            top.send_signal(signal.SIGINT)
            self.assertEqual(top.wait(10), 0)
            try:
                while has(b""):
                    pass
            except OSError:
                pass  # the other end is closed
            os.close(here)
            self.assertTrue(seen.rstrip().endswith(b"\033[?25h\033[?1049l"), seen[-80:])  # as it was
            plain = seen
            for code in (b"\033[?1049h", b"\033[?25l", b"\033[H", b"\033[K", b"\033[J", b"\033[?25h", b"\033[?1049l"):
                plain = plain.replace(code, b"")
            self.assertNotIn(b"\033", plain)
            self.assertLessEqual(max(len(line) for line in plain.split(b"\r\n")), columns)

    def test_nobody_there(self):
        run = self.c.home.run("top", "--name", "nobody", "--once")
        self.assertEqual((run.returncode, run.stdout), (69, b""))


if __name__ == "__main__":
    unittest.main()
