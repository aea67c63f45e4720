"""troupe chat and run --chat: turns by piped stdin and in a terminal; the text is that of the chat template, sampled as asked;
the conversation goes on after an interrupt, forgets by /reset, and ends by /quit, the end of the input, or SIGTERM."""
import os
import pty
import re
import signal
import struct
import subprocess
import unittest

import company
from company import SLOW, wait_until
from gateway_company import Gateway, chat_model

ARGS = ("-c", "256", "--ignore-eos", "-n", "12", "--temp", "0")


def longer(path, model):
    """A copy of a GGUF that was made for a long context, so that an answer lasts."""
    with open(model, "rb") as f:
        data = f.read()
    at = data.index(b"context_length") + len("context_length")
    with open(path, "wb") as f:
        f.write(data[:at] + struct.pack("<II", 4, 1 << 16) + data[at + 8:])
    return path


class Chat(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = company.Home()
        cls.addClassCleanup(cls.home.close)
        cls.model = chat_model(os.path.join(cls.home.path, "chat.gguf"))
        cls.long = longer(os.path.join(cls.home.path, "long.gguf"), cls.model)
        g = Gateway(model=cls.model, home=cls.home)
        try:  # what the same turns give over HTTP
            def ask(*talk):
                messages = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(talk)]
                return g.ask("POST", "/v1/chat/completions", {"messages": messages, "temperature": 0, "max_tokens": 12,
                                                              "ignore_eos": True})[2]["choices"][0]["message"]["content"]
            cls.one = ask("the quick brown fox")
            cls.two = ask("the quick brown fox", cls.one, "and then?")
            cls.system = g.ask("POST", "/v1/chat/completions", {
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "and then?"}],
                "temperature": 0, "max_tokens": 12, "ignore_eos": True})[2]["choices"][0]["message"]["content"]
            cls.alone = ask("and then?")
        finally:
            g.close()

    def chat(self, text, *args, command=("chat",)):
        return self.home.run(*command, self.model, *ARGS, *args, stdin=text.encode())

    def test_turns(self):
        for command in (("chat",), ("run", "--chat")):
            run = self.chat("the quick brown fox\n\nand then?", command=command)
            self.assertEqual((run.returncode, run.stdout.decode()), (0, "%s\n%s\n" % (self.one, self.two)), run.stderr)
            cached = [int(n) for n in re.findall(r"\((\d+) from the prefix cache\)", run.stderr.decode())]
            self.assertEqual((len(cached), cached[0]), (2, 0))
            self.assertGreater(cached[1], 0)  # the first turn is not computed again

    def test_words(self):
        run = self.chat("the quick brown fox\n/reset\nand then?\n/quit\nnever said\n", "-q")
        self.assertEqual((run.returncode, run.stdout.decode(), run.stderr), (0, "%s\n%s\n" % (self.one, self.alone), b""))
        run = self.chat("and then?\n/reset\nand then?\n", "-q", "--system", "be brief")
        self.assertEqual((run.returncode, run.stdout.decode()), (0, 2 * (self.system + "\n")), run.stderr)
        self.assertEqual(self.chat("").returncode, 0)

    def test_what_does_not_fit(self):
        run = self.chat("a " * 400 + "\n" + "the quick brown fox\n" + "\xff\n", "-q")
        self.assertEqual((run.returncode, run.stdout.decode().split("\n")[0]), (0, self.one), run.stderr)
        self.assertIn(b"do not fit the context", run.stderr)
        run = self.home.run("chat", self.model, *ARGS, "-q", stdin=b"\xff\xfe\nthe quick brown fox\n")
        self.assertEqual((run.returncode, run.stdout.decode()), (0, self.one + "\n"))
        self.assertIn(b"not UTF-8", run.stderr)
        run = self.chat("\n".join("turn %d is here" % i for i in range(16)) + "\n", "-q")
        self.assertEqual((run.returncode, run.stdout.count(b"\n") >= 16), (0, True), run.stderr)
        self.assertIn(b"the oldest turns are forgotten", run.stderr)

    def test_refusals(self):
        run = self.home.run("chat", company.GEMMA, stdin=b"")
        self.assertEqual(run.returncode, 65, run.stderr)
        self.assertIn(b"no chat template", run.stderr)
        self.assertEqual(self.home.run("chat", self.model, "hello", stdin=b"").returncode, 64)
        self.assertEqual(self.home.run("generate", "--chat", "hello", stdin=b"").returncode, 64)

    def test_interrupts(self):
        """In a terminal Ctrl-C ends an answer, then a line, and the conversation goes on; Ctrl-D ends it."""
        main, other = pty.openpty()
        p = self.home.popen("chat", self.long, "-c", "60000", "--ignore-eos", "-n", "50000", "--temp", "0", stdin=other,
                            stdout=subprocess.PIPE, stderr=other, start_new_session=True)
        os.close(other)
        seen = bytearray()
        os.set_blocking(main, False)

        def says(what):
            try:
                seen.extend(os.read(main, 65536))
            except (BlockingIOError, OSError):
                pass
            return what in seen

        os.set_blocking(p.stdout.fileno(), False)
        answers = bytearray()

        def answered():
            answers.extend(p.stdout.read() or b"")
            return len(answers) > 8

        wait_until("the prompt", 30, lambda: says(b"> "))
        for n in (1, 2):
            os.write(main, b"the quick brown fox\n")
            answers.clear()
            wait_until("an answer", 30, answered)
            p.send_signal(signal.SIGINT)
            wait_until("its end", 30, lambda: says(b"TTFT") and seen.count(b"TTFT") == n)
            self.assertIsNone(p.poll())
        before = seen.count(b"> ")
        p.send_signal(signal.SIGINT)
        wait_until("another prompt", 30, lambda: says(b"> ") and seen.count(b"> ") > before)
        os.write(main, b"\x04")
        self.assertEqual(p.wait(30 * SLOW), 0)
        os.close(main)
        p.stdout.close()

    def test_terminated(self):
        p = self.home.popen("chat", self.long, "-c", "60000", "--ignore-eos", "-n", "50000", stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        p.stdin.write(b"the quick brown fox\n")
        p.stdin.flush()
        self.assertTrue(p.stdout.read(8))
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=30 * SLOW)
        self.assertEqual(p.returncode, 130)


if __name__ == "__main__":
    unittest.main()
