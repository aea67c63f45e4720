"""What a stranger's machine does to a company: several of them, names in use, folders left by a crash, a cache that
cannot be written."""
import os
import shutil
import signal
import socket
import subprocess
import unittest

import company
from company import GEMMA, LLAMA, PROMPTS, Company, Home, wait_until

SMALL = ("-c", "256")


class Stranger(unittest.TestCase):
    def home(self, **how):
        home = Home(**how)
        self.addCleanup(home.close)
        return home

    def start(self, home, *args, **how):
        c = Company(how.pop("model", GEMMA), *SMALL, *args, home=home, **how)
        self.addCleanup(lambda: c.log.closed or c.close())
        return c

    def fails(self, run, code, *words):
        err = run.stderr.decode(errors="replace")
        self.assertEqual(run.returncode, code, err)
        self.assertEqual(run.stdout, b"")
        self.assertEqual(len(err.strip().split("\n")), 1, err)
        self.assertTrue(err.startswith("troupe: "), err)
        for word in words:
            self.assertIn(word, err)


class Neighbours(Stranger):
    def test_two_companies_at_once(self):
        home = self.home()
        a, b = self.start(home, name="a"), self.start(home, name="b", model=LLAMA)
        alone = a.generate(PROMPTS[0], 32), b.generate(PROMPTS[0], 32)
        streams = [c.stream(PROMPTS[0], 32) for c in (a, b) * 4]
        for i, s in enumerate(streams):
            text = s.wait()
            self.assertEqual((text.code, text.out), (0, alone[i % 2].out), text)
        self.assertNotEqual(alone[0].out, alone[1].out)
        a.stop()
        self.assertEqual(b.generate(PROMPTS[0], 32).out, alone[1].out)
        b.stop()
        home.wait_empty()

    def test_runs_beside_each_other(self):
        """run takes a name of its own each time."""
        home = self.home()
        runs = [home.popen("run", GEMMA, "-q", "-n", "16", PROMPTS[0], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
        texts = [r.communicate(timeout=60 * company.SLOW) + (r.returncode,) for r in runs]
        for out, err, code in texts:
            self.assertEqual((code, out), (0, texts[0][0]), err)
        home.wait_empty()

    def test_name_in_use(self):
        home = self.home()
        c = self.start(home)
        self.fails(home.run("serve", GEMMA, *SMALL, "--name", "e2e"), 69, "e2e", "running")
        self.fails(home.run("run", GEMMA, "--name", "e2e", "x"), 69, "e2e", "running")
        self.assertEqual(c.generate(PROMPTS[0], 4).code, 0)
        c.stop()
        self.start(home).stop()  # free again

    def test_port_in_use(self):
        """One line, also where the library that listens has more to say."""
        home = self.home()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port = str(s.getsockname()[1])
            self.fails(home.run("serve", GEMMA, *SMALL, "--port", port), 69, port, "taken")
        home.wait_empty()

    def test_nobody_of_that_name(self):
        home = self.home()
        for words in (["status"], ["stop"], ["drain"]):
            self.fails(home.run(*words, "--name", "ghost"), 69, "ghost")


class Quickstart(Stranger):
    def test_words_without_quotes(self):
        """Refused before anything is fetched or built."""
        for words in (["Once", "upon"], ["-n", "5"], ["Once", "upon", "-n", "5"]):
            run = subprocess.run([os.path.join(company.ROOT, "scripts", "quickstart"), *words], capture_output=True, text=True)
            self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (64, "", 1), run.stderr)
            self.assertIn("in quotes", run.stderr)


class LeftBehind(Stranger):
    def test_everything_was_killed(self):
        home = self.home()
        c = self.start(home)
        text = c.generate(PROMPTS[0], 16).out
        for pid in [c.serve.pid] + list(home.processes()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it went with its parent
        c.serve.wait()
        home.wait_empty()
        self.assertTrue(os.listdir(home.runtime + "/troupe/e2e"), "no stale folder: this test shows nothing")
        self.fails(home.run("status", "--name", "e2e"), 69, "e2e")
        again = self.start(home)
        self.assertEqual(again.generate(PROMPTS[0], 16).out, text)
        again.stop()
        self.assertEqual(os.listdir(home.runtime + "/troupe"), [])

    def test_nothing_in_shared_memory_or_tmp(self):
        home = self.home()
        before = set(os.listdir("/dev/shm")), set(os.listdir("/tmp"))
        c = self.start(home)
        c.generate(PROMPTS[0], 8)
        c.stop()
        self.assertEqual(set(os.listdir("/dev/shm")) - before[0], set())
        self.assertEqual([n for n in set(os.listdir("/tmp")) - before[1] if "troupe" in n], [])


class Cache(Stranger):
    def answer(self, home):
        run = home.run("run", GEMMA, "-q", "-n", "16", PROMPTS[0])
        self.assertEqual(run.returncode, 0, run.stderr.decode(errors="replace"))
        home.wait_empty()
        return run.stdout, run.stderr.decode(errors="replace")

    def test_second_start_packs_nothing(self):
        home = self.home()
        first = self.answer(home)[0]
        files = {}
        for folder, _, names in os.walk(home.cache):
            for n in names:
                path = os.path.join(folder, n)
                files[path] = (os.stat(path).st_ino, os.stat(path).st_mtime_ns)
        self.assertTrue(files)
        self.assertEqual(self.answer(home)[0], first)
        for path, mark in files.items():
            self.assertEqual((os.stat(path).st_ino, os.stat(path).st_mtime_ns), mark, path)

    def test_damaged_image_is_made_again(self):
        home = self.home()
        first = self.answer(home)[0]
        for folder, _, names in os.walk(home.cache):
            for n in names:
                path = os.path.join(folder, n)
                if os.path.getsize(path) > 4096:
                    os.truncate(path, os.path.getsize(path) // 2)
        self.assertEqual(self.answer(home)[0], first)

    def test_cache_is_a_file(self):
        home = self.home()
        truth = self.answer(home)[0]
        shutil.rmtree(home.cache)
        with open(home.cache, "w") as f:
            f.write("no folder")
        out, err = self.answer(home)
        self.assertEqual(out, truth)
        self.assertIn("cache", err)

    def mounted(self, options):
        """A cache folder on a file system of its own."""
        home = self.home()
        truth = self.answer(home)[0]
        shutil.rmtree(home.cache)
        os.mkdir(home.cache)
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", home.cache],
                                               capture_output=True).returncode != 0:
            self.skipTest("mounting a small file system needs root and the right to mount")
        self.addCleanup(subprocess.run, ["umount", "-l", home.cache], capture_output=True)
        return home, truth

    def test_full_disk(self):
        home, truth = self.mounted("size=64k")
        with open(os.path.join(home.cache, "filler"), "wb") as f:
            try:
                f.write(bytes(1 << 20))
                f.flush()
            except OSError:
                pass
        out, err = self.answer(home)
        self.assertEqual(out, truth)
        self.assertIn("cache", err)

    def test_read_only_folder(self):
        home, truth = self.mounted("size=1m,ro")
        out, err = self.answer(home)
        self.assertEqual(out, truth)
        self.assertIn("cache", err)


class Runtime(Stranger):
    def test_folder_name_too_long_for_sockets(self):
        home = self.home()
        long = os.path.join(home.path, "x" * 100)
        os.mkdir(long, 0o700)
        home.env["XDG_RUNTIME_DIR"] = long
        self.fails(home.run("run", GEMMA, "-n", "1", "x"), 78, "too long")

    def test_without_runtime_dir(self):
        home = self.home()
        del home.env["XDG_RUNTIME_DIR"]
        home.env["TMPDIR"] = home.path
        run = home.run("run", GEMMA, "-q", "-n", "4", "x")
        self.assertEqual(run.returncode, 0, run.stderr)
        mode = os.stat(os.path.join(home.path, "troupe-%d" % os.geteuid())).st_mode & 0o777
        self.assertEqual(mode, 0o700)

    def test_few_descriptors(self):
        home = self.home()
        run = subprocess.run(["bash", "-c", 'ulimit -Sn 64; exec "$@"', "-", company.TROUPE, "run", GEMMA, "-q", "-n",
                              "4", "x"], env=home.env, cwd=company.ROOT, capture_output=True, timeout=60)
        self.assertEqual(run.returncode, 0, run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
