"""Death: kill -9 of every actor of a real company while streams run.
TROUPE_TEST_KILLS (100), TROUPE_TEST_MODEL (a model file; the tiny one without it) and TROUPE_TEST_SEED choose a longer
or larger run of the kill storm."""
import os
import random
import signal
import subprocess
import time
import unittest

import company
from company import PROMPTS, SLOW, Company, Home, wait_until

MODEL = os.environ.get("TROUPE_TEST_MODEL", company.GEMMA)
KILLS = int(os.environ.get("TROUPE_TEST_KILLS", "100"))
SEED = int(os.environ.get("TROUPE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
N = int(os.environ.get("TROUPE_TEST_TOKENS", "300"))
SPLIT = ("-c", "512", "--prefill", "pp=2", "--decode", "pp=3")
UNIFIED = ("-c", "512", "--unified", "pp=3")
RANKS = ("-c", "512", "--prefill", "pp=1,tp=2", "--decode", "pp=2,tp=2")
REPLACEMENT = "\ufffd".encode()
CRASH = signal.SIGABRT  # unlike SIGSEGV, no sanitizer takes it for a finding of its own
HOW = ("--temp", "1", "--seed", "3", "--ignore-eos")


class Death(unittest.TestCase):
    """A company with 8 texts as they come undisturbed."""

    def start(self, *args):
        self.home = Home()
        self.addCleanup(self.home.close)
        c = Company(MODEL, *args, home=self.home)
        self.addCleanup(lambda: c.log.closed or c.close())
        self.truth = {}
        for prompt, text in zip(PROMPTS, c.generate_all(PROMPTS, N, *HOW)):
            self.assertEqual(text.code, 0, text)
            self.assertGreater(len(text.out), N // 4)
            self.truth[prompt] = text.out
        return c

    def kill_under_streams(self, c, actor, sig=signal.SIGKILL):
        """All prompts at once, the actor killed while most of them run: tried until that is so."""
        for _ in range(10):
            pid = c.pid(actor)
            streams = [c.stream(p, N, *HOW) for p in PROMPTS]
            wait_until("first texts", 30, lambda: sum(s.size() > 0 for s in streams) >= 3, 0)
            os.kill(pid, sig)
            if sum(s.process.poll() is None for s in streams) >= 4:
                return streams
            self.same_texts(streams, "too late for %s" % actor)
        self.fail("the streams end too early: raise TROUPE_TEST_TOKENS")

    def same_text(self, prompt, stream, what):
        text = stream.wait()
        self.assertEqual(text.code, 0, "%s: %s" % (what, text))
        self.assertEqual(text.out, self.truth[prompt], what)

    def same_texts(self, streams, what):
        for prompt, stream in zip(PROMPTS, streams):
            self.same_text(prompt, stream, what)

    def text_or_error(self, prompt, stream, what):
        """Its text (0), or a part of it and one error line (1)."""
        text = stream.wait()
        if text.code == 0:
            self.assertEqual(text.out, self.truth[prompt], what)
            return 0
        self.assertIn(text.code, (69, 70), "%s: %s" % (what, text))
        self.assertEqual(text.err.count("troupe: "), 1, "%s: %s" % (what, text))
        self.assertTrue(self.truth[prompt].startswith(text.out.rstrip(REPLACEMENT)), "%s: %s" % (what, text))
        return 1

    def texts_or_errors(self, streams, what):
        return sum(self.text_or_error(p, s, what) for p, s in zip(PROMPTS, streams))


class Stages(Death):
    def kill_each(self, *args):
        c = self.start(*args)
        for stage in c.stages():
            with self.subTest(stage=stage):
                before = c.actors()[stage]["incarnation"]
                streams = self.kill_under_streams(c, stage)
                self.same_texts(streams, "%s killed" % stage)
                wait_until("%s is back" % stage, 5, lambda: c.actors()[stage]["incarnation"] > before)
        c.wait_idle()
        c.stop()
        self.home.wait_empty()

    def test_each_stage_of_two_pipelines(self):
        self.kill_each(*SPLIT)

    def test_each_stage_of_one_pipeline(self):
        self.kill_each(*UNIFIED)

    def test_each_rank_of_two_pipelines(self):
        self.kill_each(*RANKS)

    def test_each_rank_of_one_pipeline_over_zeromq(self):
        self.kill_each("-c", "512", "--unified", "pp=2,tp=2", "--set", "transport.local=zmq")

    def test_each_stage_over_zeromq(self):
        self.kill_each(*SPLIT, "--set", "transport.local=zmq")

    def test_all_stages_at_once(self):
        c = self.start(*SPLIT)
        pids = [c.actors()[s]["pid"] for s in c.stages()[:-1]]
        streams = self.kill_under_streams(c, c.stages()[-1])
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.same_texts(streams, "all stages killed")
        c.wait_idle()
        c.stop()

    def test_prefill_killed_in_the_prompt(self):
        c = self.start(*SPLIT, "--chunk", "16")
        streams = [c.stream(p, N, *HOW) for p in PROMPTS]
        for _ in range(3):
            c.kill("prefill.1")
        self.same_texts(streams, "prefill killed under prompts")
        c.wait_idle()
        c.stop()

    def test_a_hanging_stage_is_replaced(self):
        c = self.start(*SPLIT)
        before, pid = c.actors()["decode.1"]["incarnation"], c.pid("decode.1")
        streams = self.kill_under_streams(c, "decode.1", signal.SIGSTOP)
        wait_until("decode.1 is replaced", 30, lambda: c.actors()["decode.1"]["incarnation"] > before, 0.2)
        self.same_texts(streams, "decode.1 stopped")
        self.assertNotIn(pid, self.home.processes())
        c.wait_idle()
        c.stop()

    def test_a_hanging_rank_is_replaced(self):
        """It alone: the one that waits for it in the step does not hang."""
        c = self.start("-c", "512", "--unified", "pp=1,tp=2")
        streams = self.kill_under_streams(c, "unified.0.1", signal.SIGSTOP)
        wait_until("unified.0.1 is replaced", 30, lambda: c.actors()["unified.0.1"]["incarnation"] > 1, 0.2)
        self.same_texts(streams, "unified.0.1 stopped")
        self.assertEqual([c.actors()[s]["incarnation"] for s in c.stages()], [1, 2])
        c.wait_idle()
        c.stop()


class Storm(Death):
    """Kills at random moments under 8 streams that are started again and again."""

    def storm(self, c, victims, errors_allowed=False):
        print("seed %d (TROUPE_TEST_SEED)" % SEED, flush=True)
        rng = random.Random(SEED)
        supervisor = c.pid("supervisor")
        files = len(os.listdir("/proc/%d/fd" % supervisor))
        live, ended, errors, kills, pause = [], 0, 0, 0, 0.0
        limit = time.monotonic() + max(60, KILLS) * SLOW
        while kills < KILLS or live:
            for prompt, stream in [pair for pair in live if pair[1].process.poll() is not None]:
                live.remove((prompt, stream))
                ended += 1
                if errors_allowed:
                    errors += self.text_or_error(prompt, stream, "after %d kills" % kills)
                else:
                    self.same_text(prompt, stream, "after %d kills" % kills)
            while kills < KILLS and len(live) < 8:
                prompt = rng.choice(PROMPTS)
                live.append((prompt, c.stream(prompt, N, *HOW)))
            if kills < KILLS and time.monotonic() >= pause:
                kills += self.kill_one(supervisor, rng.choice(victims))
                pause = time.monotonic() + rng.uniform(0, 0.4)
            self.assertLess(time.monotonic(), limit, "%d kills, %d texts, %d open: %s\n%s" % (
                kills, ended, len(live), c.try_status(), c.messages()[-4000:]))
            time.sleep(0.005)
        wait_until("all are back", 5, lambda: all(a["pid"] for a in c.actors().values()))
        restarts = sum(a["incarnation"] - 1 for a in c.actors().values())
        print("%d kills, %d restarts, %d texts as undisturbed, %d errors" % (kills, restarts, ended - errors, errors),
              flush=True)
        self.assertEqual(restarts, kills)
        self.assertGreaterEqual(ended - errors, 8)
        c.wait_idle(15)
        self.assertEqual(len(os.listdir("/proc/%d/fd" % supervisor)), files)
        c.stop()
        self.home.wait_empty()

    def kill_one(self, supervisor, actor):
        """1 when that actor lived. Found by its command line: a status would have to wait for the frontend."""
        for pid, line in self.home.processes().items():
            if line.endswith("--actor " + actor):
                os.kill(pid, signal.SIGKILL)
                return 1
        return 0

    def test_random_stages_die(self):
        """No request lost, doubled or changed."""
        c = self.start(*SPLIT)
        self.storm(c, c.stages())

    def test_random_stages_die_over_zeromq(self):
        c = self.start(*SPLIT, "--set", "transport.local=zmq")
        self.storm(c, c.stages())

    def test_random_ranks_die(self):
        c = self.start(*RANKS)
        self.storm(c, c.stages())

    def test_random_actors_die(self):
        """Each request ends in its text or in one error."""
        c = self.start(*SPLIT)
        self.storm(c, [a for a in c.actors() if a != "supervisor"], errors_allowed=True)


class Others(Death):
    def killed(self, actor, *args):
        c = self.start(*args)
        for _ in range(3):
            n_processes = len(self.home.processes())
            before = c.actors()[actor]["incarnation"]
            streams = self.kill_under_streams(c, actor)
            killed = time.monotonic()
            wait_until("%s is back" % actor, 5, lambda: (c.try_status() or {"ready": False})["ready"] and
                       c.actors()[actor]["incarnation"] > before and all(a["pid"] for a in c.actors().values()))
            back = time.monotonic() - killed
            again = c.generate(PROMPTS[0], 8)
            self.assertEqual(again.code, 0, again)
            errors = self.texts_or_errors(streams, "%s killed" % actor)
            print("%s: ready again after %.2f s, %d of 8 requests ended in an error" % (actor, back, errors), flush=True)
            c.wait_idle(15)
            self.assertEqual(len(self.home.processes()), n_processes)
        c.stop()
        self.home.wait_empty()

    def test_scheduler(self):
        self.killed("scheduler", *SPLIT)

    def test_scheduler_of_one_pipeline(self):
        self.killed("scheduler", *UNIFIED)

    def test_scheduler_over_zeromq(self):
        self.killed("scheduler", *SPLIT, "--set", "transport.local=zmq")

    def test_resharder(self):
        self.killed("resharder", *SPLIT)

    def test_frontend(self):
        self.killed("frontend", *SPLIT)

    def test_frontend_over_zeromq(self):
        self.killed("frontend", *SPLIT, "--set", "transport.local=zmq")

    def test_drain_survives_the_frontend(self):
        """Nothing new is accepted by its next life either, what was open ends, and then the company."""
        c = self.start(*SPLIT)
        frontend, stage = c.pid("frontend"), c.pid("decode.0")
        streams = [c.stream(p, N, *HOW) for p in PROMPTS]
        wait_until("some text", 30, lambda: any(s.size() > 0 for s in streams), 0)
        os.kill(stage, signal.SIGSTOP)  # no stream ends before the kill
        self.assertEqual(self.home.run("drain", "--and-stop", "--name", c.name).returncode, 0)
        os.kill(frontend, signal.SIGKILL)
        os.kill(stage, signal.SIGCONT)
        for prompt, s in zip(PROMPTS, streams):
            text = s.wait()
            self.assertIn((text.code, text.out if text.code == 0 else b""), ((0, self.truth[prompt]), (69, b"")), text)
        self.assertEqual(c.serve.wait(20 * SLOW), 0)
        c.close()
        self.home.wait_empty()

    def test_supervisor(self):
        c = self.start(*SPLIT)
        streams = self.kill_under_streams(c, "supervisor")
        clients = {s.process.pid for s in streams}
        wait_until("all actors are gone", 1, lambda: not set(self.home.processes()) - clients)
        self.assertNotEqual(c.serve.wait(1 * SLOW), 0)
        for s in streams:
            s.process.kill()
            s.wait()
        self.home.wait_empty()
        again = Company(MODEL, *SPLIT, home=self.home)  # the name is free again
        self.assertEqual(again.generate(PROMPTS[0], N, *HOW).out, self.truth[PROMPTS[0]])
        again.stop()

    def test_supervisor_whose_parent_died_at_once(self):
        """Before the supervisor could ask to be told of its parent's death: the pipe to it says so."""
        read, write = os.pipe()
        os.close(read)
        got = subprocess.run([company.TROUPE, "--supervisor", str(write)], pass_fds=[write], capture_output=True,
                             timeout=10 * SLOW, check=False)
        os.close(write)
        self.assertNotEqual(got.returncode, 0)
        self.assertIn(b"the command that started this company is gone", got.stderr)

    def test_an_actor_that_always_crashes(self):
        """Five crashes without any work between: the company gives up, says who it was, and nothing is left."""
        for actor in ("decode.1", "scheduler", "resharder", "frontend"):
            home = Home()
            self.addCleanup(home.close)
            c = Company(MODEL, *SPLIT, home=home)
            crashes, seen = 0, set()
            end = time.monotonic() + 20 * SLOW
            while c.serve.poll() is None and time.monotonic() < end:
                for pid, line in home.processes().items():
                    if line.endswith("--actor " + actor) and pid not in seen:
                        seen.add(pid)
                        crashes += 1
                        os.kill(pid, CRASH)
                time.sleep(0.002)
            self.assertEqual(c.serve.poll(), 70, "%s crashed %d times: %s" % (actor, crashes, c.messages()[-2000:]))
            self.assertGreaterEqual(crashes, 4)
            self.assertLessEqual(crashes, 8)
            self.assertIn(actor, c.messages())
            home.wait_empty()
            c.close()

    def test_a_crash_is_survived(self):
        """One crash a stage, with work between: the texts go on."""
        c = self.start(*SPLIT)
        for stage in c.stages():
            self.same_texts(self.kill_under_streams(c, stage, CRASH), "%s crashed" % stage)
        c.wait_idle()
        c.stop()

    def test_serve_itself(self):
        c = self.start(*SPLIT)
        clients = {s.process.pid: s for s in [c.stream(p, N, *HOW) for p in PROMPTS]}
        time.sleep(0.05)
        c.serve.kill()
        c.serve.wait()
        wait_until("all actors are gone", 1, lambda: not set(self.home.processes()) - set(clients))
        for s in clients.values():
            s.process.kill()
            s.wait()

    def test_during_start(self):
        """Whatever dies while the company starts: it comes up, or it ends with an error and nothing is left."""
        rng = random.Random(SEED)
        home = Home()
        self.addCleanup(home.close)
        for i in range(6):
            c = Company(MODEL, *SPLIT, home=home, wait=False)
            time.sleep(rng.uniform(0.0, 0.3))
            actors = [p for p, line in home.processes().items() if "--actor" in line]
            if actors:
                try:
                    os.kill(rng.choice(actors), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                c.wait_ready(20)
                text = c.generate(PROMPTS[0], 8)
                self.assertEqual(text.code, 0, text)
                c.stop()
            except AssertionError:
                if c.serve.poll() is None:
                    raise
                self.assertIn(c.serve.returncode, (69, 70), c.messages())
                c.close()
            home.wait_empty()


class Clients(Death):
    def test_interrupted_run(self):
        home = Home()
        self.addCleanup(home.close)
        out = open(os.path.join(home.path, "out"), "w+b")
        self.addCleanup(out.close)
        run = home.popen("run", MODEL, *SPLIT, "-n", "480", *HOW, PROMPTS[0], stdin=subprocess.DEVNULL, stdout=out,
                         stderr=subprocess.PIPE)
        wait_until("some text", 30, lambda: os.fstat(out.fileno()).st_size > 0)
        run.send_signal(signal.SIGINT)
        begin = time.monotonic()
        err = run.communicate(timeout=5 * SLOW)[1].decode(errors="replace")
        home.wait_empty(1)
        self.assertLess(time.monotonic() - begin, 1 * SLOW)
        self.assertEqual(run.returncode, 130, err)
        self.assertIn("decode.2", err)  # the table
        self.assertEqual(os.listdir(home.runtime + "/troupe"), [])

    def test_a_client_that_goes_away(self):
        c = self.start(*SPLIT)
        for sig, seconds in ((signal.SIGINT, 2), (signal.SIGKILL, 15)):
            streams = [c.stream(p, N, *HOW) for p in PROMPTS]
            wait_until("some text", 30, lambda: sum(s.size() > 0 for s in streams) >= 3, 0)
            self.assertGreater(sum(s.process.poll() is None for s in streams), 0)
            for s in streams:
                s.process.send_signal(sig)
            for prompt, s in zip(PROMPTS, streams):
                text = s.wait()
                if sig == signal.SIGINT:
                    if text.code == -sig and not text.out:
                        continue  # it had hardly begun
                    self.assertIn(text.code, (0, 130), text)
                    # The half of a character that was held back comes out as replacement characters.
                    self.assertTrue(self.truth[prompt].startswith(text.out.rstrip(REPLACEMENT)), text)
            c.wait_idle(seconds)
        self.assertEqual(c.generate(PROMPTS[1], N, *HOW).out, self.truth[PROMPTS[1]])
        c.stop()

    def test_a_client_that_sleeps(self):
        """It pings no more: after ten seconds it is gone, and the others have not noticed."""
        c = self.start(*SPLIT)
        sleeper = c.stream(PROMPTS[0], N, *HOW)
        wait_until("some text", 30, lambda: sleeper.size() > 0, 0)
        sleeper.process.send_signal(signal.SIGSTOP)
        self.assertIsNone(sleeper.process.poll())
        self.assertEqual(c.generate(PROMPTS[1], N, *HOW).out, self.truth[PROMPTS[1]])
        c.wait_idle(15)
        sleeper.process.kill()
        c.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)
