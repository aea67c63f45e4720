"""What the documents say is so: their commands run, their links lead somewhere, the options, keys, variables, commands, files
and exit codes that they name exist, every file in configs/ is described and can be planned.

A ```sh block is run when the line before it is `<!-- test -->`; any other needs `<!-- not run: REASON -->` there. Blocks run
in a folder that looks like the source tree: the real scripts, with the build and the installation of packages left out;
scripts/test, which runs this, does nothing there. Models are the real
ones where scripts/fetch-model has stored them, else the tiny ones of the tests, with contexts (-c) cut to theirs: then only
the commands are proved, not the texts."""
import glob
import os
import re
import shutil
import signal
import subprocess
import tempfile
import textwrap
import unittest

import company
from company import ROOT, TROUPE, Home

BLOCK_SECONDS = 240
TINY = {"gemma3-270m": company.GEMMA, "smollm2-135m": company.LLAMA}
DOCUMENTS = sorted(glob.glob(os.path.join(ROOT, "*.md")) + glob.glob(os.path.join(ROOT, "docs", "*.md")))
FOREIGN = {"--cap-add", "--shm-size", "--unixsocket", "--maxmemory", "--maxmemory-policy"}  # options of programs that are not ours
RUN, NOT_RUN = "<!-- test -->", re.compile(r"<!-- not run: \S.* -->$")


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def name_of(path):
    return os.path.relpath(path, ROOT)


def blocks(text, language):
    """[(number of the fence's line, the last line before it that is not empty, code)]"""
    found, lines, i = [], text.split("\n"), 0
    while i < len(lines):
        if not lines[i].startswith("```"):
            i += 1
            continue
        end = i + 1
        while end < len(lines) and not lines[end].startswith("```"):
            end += 1
        if lines[i][3:].strip() == language:
            before = [s for s in lines[:i] if s.strip()]
            found.append((i + 1, before[-1].strip() if before else "", "\n".join(lines[i + 1:end]) + "\n"))
        i = end + 1
    return found


def without_blocks(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def code_words(text):
    """What stands in backticks or in blocks: [text of the span or block]."""
    return re.findall(r"^```[^\n]*\n(.*?)^```$", text, re.M | re.S) + re.findall(r"`([^`\n]+)`", without_blocks(text))


def anchors(text):
    """Names that links into a document may use, as code hosts make them."""
    heads = re.findall(r"^#{1,6} +(.*?) *$", without_blocks(text), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


def broken_links(path, text):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(text)):
        if re.match(r"https://", target):
            continue
        file, _, anchor = target.partition("#")
        whole = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        if not os.path.exists(whole):
            broken.append(target)
        elif anchor and anchor not in anchors(read(whole) if file else text):
            broken.append(target)
    return broken


class Blocks(unittest.TestCase):
    """The marked ones are run as they stand."""

    @classmethod
    def setUpClass(cls):
        cls.cache = Home()  # weights are packed once for all blocks

    @classmethod
    def tearDownClass(cls):
        cls.cache.close()

    def scratch(self):
        """A tree and a runtime folder of its own for one block."""
        self.home = Home(cache=self.cache.cache)
        self.addCleanup(self.home.close)
        self.tree = os.path.join(self.home.path, "troupe")
        self.bin = os.path.join(self.home.path, "bin")
        os.makedirs(os.path.join(self.tree, "build"))
        os.makedirs(self.bin)
        os.symlink(TROUPE, os.path.join(self.tree, "build", "troupe"))
        for folder in ("configs", "docs", "tests"):
            os.symlink(os.path.join(ROOT, folder), os.path.join(self.tree, folder))
        shutil.copytree(os.path.join(ROOT, "scripts"), os.path.join(self.tree, "scripts"))
        self.script("scripts/deps", "#!/bin/sh\n")
        self.script("scripts/test", "#!/bin/sh\n")
        self.tool("cmake", "#!/bin/sh\n")  # build/troupe is there
        self.models()

    def script(self, name, text):
        path = os.path.join(self.tree, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(textwrap.dedent(text))
        os.chmod(path, 0o755)

    def tool(self, name, text):
        self.script(os.path.join(self.bin, name), text)

    def models(self):
        """Stored models under their names in a cache of our own, and a fetch-model that only finds them."""
        base = os.environ.get("XDG_CACHE_HOME", "")
        base = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
        folder, self.tiny = os.path.join(self.home.cache, "troupe", "models"), False
        os.makedirs(folder, exist_ok=True)
        for name, tiny in TINY.items():
            stored, link = os.path.join(base, "troupe", "models", name + ".gguf"), os.path.join(folder, name + ".gguf")
            use = stored if os.path.exists(stored) else tiny
            self.tiny |= use == tiny
            if os.path.lexists(link):
                continue
            if use == tiny:
                print("%s is not stored here: a tiny model stands in" % name)
            os.symlink(use, link)
        self.script("scripts/fetch-model", """\
            #!/bin/sh
            [ -e "%s/$1.gguf" ] || { echo "fetch-model: no $1" >&2; exit 66; }
            echo "%s/$1.gguf"
            """ % (folder, folder))

    def run_block(self, where, code):
        env = dict(self.home.env, PATH=self.bin + ":" + os.environ["PATH"])
        if self.tiny:
            code = re.sub(r" -c \d+", " -c 512", code)
        self.script("block", code)
        with tempfile.TemporaryFile() as said:
            shell = subprocess.Popen(["sh", "-eu", "block"], cwd=self.tree, env=env, stdin=subprocess.DEVNULL,
                                     stdout=said, stderr=said, start_new_session=True)
            try:
                status = shell.wait(BLOCK_SECONDS * company.SLOW)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                status = "none: it ran too long"
            said.seek(0)
            text = said.read().decode(errors="replace")
        self.assertEqual(status, 0, "%s: exit %s\n%s\n%s" % (where, status, code, text[-4000:]))

    def test_marked_blocks(self):
        ran = 0
        for path in DOCUMENTS:
            for line, mark, code in blocks(read(path), "sh"):
                where = "%s:%d" % (name_of(path), line)
                with self.subTest(where):
                    if mark != RUN:
                        self.assertRegex(mark, NOT_RUN, where + ": neither run nor said why not")
                        continue
                    if "redis-server" in code and not shutil.which("redis-server"):
                        print("%s: left out, redis-server is not installed: scripts/deps --test" % where)
                        continue
                    ran += 1
                    self.scratch()
                    self.run_block(where, code)
                    self.home.wait_empty(10)
        self.assertGreater(ran, 2, "no blocks found")


class Names(unittest.TestCase):
    """What the documents name exists."""

    @classmethod
    def setUpClass(cls):
        cls.options = read("docs/options.md")
        cls.help = subprocess.run([TROUPE, "--help"], capture_output=True, text=True, check=True).stdout
        ours = glob.glob(os.path.join(ROOT, "scripts", "*")) + glob.glob(os.path.join(ROOT, "tests", "tools", "*.py"))
        ours += [os.path.join(ROOT, f) for f in ("actors/cli/main.c", "actors/supervisor/supervisor.c", "bench/peers_main.py", "bench/itl", "bench/kv-store",
                                                 "tests/kernels/checkk.c", "tests/sim/sim_main.c")]
        cls.others = "\n".join(read(f) for f in ours if os.path.isfile(f))

    def each(self, find, known, what):
        for path in DOCUMENTS:
            for words in code_words(read(path)):
                for name in find(words):
                    with self.subTest("%s: %s" % (name_of(path), name)):
                        self.assertTrue(known(name), "%s: no such %s: %s" % (name_of(path), what, name))

    def test_links(self):
        for path in DOCUMENTS:
            self.assertEqual(broken_links(path, read(path)), [], name_of(path))

    def test_options(self):
        flags = set(re.findall(r"--[a-z][a-z-]*", self.options)) | {"--version", "--help"}
        self.assertGreater(len(flags), 30)
        self.each(lambda w: re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", w),
                  lambda n: n in flags or n in FOREIGN or re.search(re.escape(n) + r"(?![\w-])", self.others), "option")

    def test_keys(self):
        keys = set(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` ", self.options, re.M))
        sections = "|".join({k.split(".")[0] for k in keys})
        self.assertGreater(len(keys), 30)
        self.each(lambda w: re.findall(r"(?<![\w./-])(?:%s)\.[a-z_]+(?![\w.])" % sections, w),
                  lambda n: n in keys or os.path.splitext(n)[1] in (".h", ".c"), "key")

    def test_variables(self):
        known = set(re.findall(r"TROUPE_[A-Z_]+", self.options + self.others + read("tests/e2e/company.py") +
                               read("CMakeLists.txt") + read("tests/e2e/topologies_test.py")))
        self.each(lambda w: re.findall(r"\bTROUPE_[A-Z][A-Z_]+[A-Z]", w), lambda n: n in known, "variable")

    def test_commands(self):
        commands = set(re.findall(r"^  troupe ([a-z]+)", self.help, re.M))
        self.assertGreater(len(commands), 8)
        self.each(lambda w: re.findall(r"(?:^|\s|/)troupe ([a-z]+)", w), lambda n: n in commands, "command")

    def test_files(self):
        """Paths of the source tree, as far as they can be told from other words; also as seen from tests/."""
        tops = [d for d in os.listdir(ROOT) if os.path.isdir(os.path.join(ROOT, d)) and d[0] not in "._" and
                not d.startswith("build")]
        path = re.compile(r"(?<![\w./~$-])(?:%s)/[\w./-]*" % "|".join(tops))
        self.each(lambda w: [] if "\n" in w else path.findall(w),
                  lambda n: n.endswith("/troupe") or any(os.path.exists(os.path.join(ROOT, at, n + suffix))
                                                         for at in ("", "tests") for suffix in ("", ".c")), "file")

    def test_exit_codes(self):
        told = dict(re.findall(r"(\d+) ([a-z ]+)", self.help.split("Exit codes:")[1].replace("\n", " ")))
        self.assertGreater(len(told), 6)
        table = re.search(r"## Exit codes\n(.*?)\n## ", read("docs/operations.md"), re.S).group(1)
        self.assertEqual(set(re.findall(r"^\| (\d+) \|", table, re.M)), set(told) | {"0"})


class Configs(unittest.TestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.close)

    def plan(self, file, *more, **env):
        self.home.env.update(env)
        run = self.home.run("plan", "-f", file, "--model", company.GEMMA, *more)
        self.assertEqual(run.returncode, 0, "%s: %s" % (file, run.stderr.decode(errors="replace")))
        return run.stdout.decode()

    def test_files(self):
        files = sorted(glob.glob(os.path.join(ROOT, "configs", "*")))
        text = read("docs/topology.md")
        self.assertGreater(len(files), 4)
        for path in files:
            with self.subTest(name_of(path)):
                self.assertTrue(path.endswith(".yaml"), path)
                self.assertIn("`%s`" % os.path.basename(path)[:-5], text, "not described in docs/topology.md")
                self.plan(path, "--verify")

    def test_described_machine(self):
        out = self.plan("configs/two-numa.yaml", HWLOC_SYNTHETIC="node:2 core:4 pu:1")
        self.assertIn("numa 1", out)
        self.assertNotIn("stages share cores", out)

    def test_examples(self):
        """YAML blocks are whole topologies; layers are for a model of another depth."""
        n = 0
        for path in DOCUMENTS:
            for line, _, code in blocks(read(path), "yaml"):
                n += 1
                file = os.path.join(self.home.path, "example.yaml")
                with open(file, "w", encoding="utf-8") as f:
                    f.write(code)
                with self.subTest("%s:%d" % (name_of(path), line)):
                    self.plan(file, "--set", "decode.layers=auto")
        self.assertGreater(n, 0)


class Itself(unittest.TestCase):
    """The checks can fail."""

    def test_blocks(self):
        text = "a\n<!-- test -->\n\n```sh\nfalse\n```\n```c\nint x;\n```\n```sh\ntrue\n```\n"
        self.assertEqual(blocks(text, "sh"), [(4, RUN, "false\n"), (10, "```", "true\n")])
        self.assertNotRegex("```", NOT_RUN)

    def test_links(self):
        path = os.path.join(ROOT, "README.md")
        self.assertEqual(broken_links(path, "# A b\n[x](docs/none.md) [y](#a-b) [z](#c) [u](https://x.y)"),
                         ["docs/none.md", "#c"])

    def test_words(self):
        self.assertEqual(code_words("x `--a b`\n```sh\n--c\n```\n"), ["--c\n", "--a b"])


if __name__ == "__main__":
    unittest.main()
