"""troupe bench serve: what it counts on a server whose times are known, however its bytes are cut, and a real company."""
import json
import os
import socket
import tempfile
import threading
import time
import unittest

from company import Home
from gateway_company import Gateway

GAP = 0.03


def event(**body):
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Server(threading.Thread):
    """Answers each request with one text every GAP seconds. framing: chunked, close, or pieces (chunks that cut lines)."""

    def __init__(self, framing="chunked", status=200):
        super().__init__(daemon=True)
        self.framing, self.status, self.bodies = framing, status, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def read(self, c):
        data = b""
        while b"\r\n\r\n" not in data:
            data += c.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length")), 0)
        while len(body) < length:
            body += c.recv(65536)
        return head.split()[1].decode(), body

    def serve(self, c):
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with c:
            path, body = self.read(c)
            if path == "/v1/models":
                answer = b'{"data":[{"id":"fake"}]}'
                c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
                return
            self.bodies.append(json.loads(body))
            if self.status != 200:
                c.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 8\r\n\r\n{\"no\":1}" % self.status)
                return
            self.stream(c, self.bodies[-1]["max_tokens"])

    def stream(self, c, n):
        close = self.framing == "close"
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%s\r\n" %
                  (b"" if close else b"Transfer-Encoding: chunked\r\n"))
        for i in range(n):
            time.sleep(GAP)
            data = event(choices=[{"text": "w"}])
            if self.framing == "pieces":
                c.sendall(chunk(data[:7]) + chunk(data[7:]))
            else:
                c.sendall(data if close else chunk(data))
        data = event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": n}) + b"data: [DONE]\n\n"
        c.sendall(data if close else chunk(data) + b"0\r\n\r\n")


class BenchServe(unittest.TestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.close)

    def bench(self, url, *args, code=0):
        run = self.home.run("bench", "serve", "--url", url, "-o", "json", *args)
        self.assertEqual(run.returncode, code, run.stderr.decode())
        return json.loads(run.stdout) if run.stdout else None, run.stderr.decode()

    def test_times_of_a_known_server(self):
        for framing in ("chunked", "close", "pieces"):
            server = Server(framing)
            r, _ = self.bench(server.url, "--num-prompts", "4", "-p", "12", "-n", "5", "--goodput", "itl:100000")
            self.assertEqual((r["requests"], r["completed"], r["good"], r["output_tokens"]), (4, 4, 4, 20), framing)
            for name, least in (("ttft_ms", GAP), ("itl_ms", GAP), ("tpot_ms", GAP), ("e2el_ms", 5 * GAP)):
                self.assertGreaterEqual(r[name]["p50"], 990 * least, (framing, name, r))
            self.assertAlmostEqual(r["itl_ms"]["mean"], r["tpot_ms"]["mean"], delta=0.01)  # each text is one token
            self.assertGreaterEqual(r["e2el_ms"]["mean"], r["ttft_ms"]["mean"] + 4 * r["itl_ms"]["mean"] - 0.01)
            self.assertEqual({len(b["prompt"].split()) for b in server.bodies}, {12})
            self.assertEqual(len({b["prompt"] for b in server.bodies}), 4)
            server.listener.close()

    def test_limits_rates_and_concurrency(self):
        server = Server()
        r, _ = self.bench(server.url, "--num-prompts", "3", "-n", "2", "--max-concurrency", "1", "--goodput", "itl:1")
        self.assertEqual(r["good"], 0)
        self.assertGreaterEqual(r["seconds"], 3 * 2 * GAP)
        r, _ = self.bench(server.url, "--num-prompts", "20", "-n", "1", "--request-rate", "40")
        self.assertGreater(r["seconds"], 0.15)

    def test_traces(self):
        server = Server()
        with tempfile.TemporaryDirectory() as folder:
            csv, jsonl = os.path.join(folder, "a.csv"), os.path.join(folder, "b.jsonl")
            with open(csv, "w") as f:
                f.write("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,20,2\n2023-11-16 18:15:46.9,40,4\n")
            with open(jsonl, "w") as f:
                for ids in ([1, 2], [1, 3]):
                    f.write(json.dumps(dict(timestamp=0, input_length=600, output_length=1, hash_ids=ids)) + "\n")
            r, _ = self.bench(server.url, "--trace", csv, "--length-scale", "0.5")
            self.assertEqual(sorted((len(b["prompt"].split()), b["max_tokens"]) for b in server.bodies), [(10, 1), (20, 2)])
            self.assertGreaterEqual(r["seconds"], 0.4)
            server.bodies.clear()
            self.bench(server.url, "--trace", jsonl)
            a, b = (x["prompt"].split() for x in server.bodies)
            self.assertEqual((a[:512] == b[:512], a[512:] == b[512:]), (True, False))
            with open(csv, "a") as f:
                f.write("rubbish\n")
            _, err = self.bench(server.url, "--trace", csv, code=65)
            self.assertIn("a.csv:4: not a request", err)

    def test_failures_are_said(self):
        r, err = self.bench(Server(status=503).url, "--num-prompts", "2", code=69)
        self.assertEqual((r["completed"], r["requests"]), (0, 2))
        self.assertIn('2 of 2 requests failed; the first: {"no":1}', err)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        for url, code, words in (("http://127.0.0.1:%d" % port, 69, "refused"), ("https://x", 64, "no TLS"),
                                 ("http://", 64, "not http://")):
            r, err = self.bench(url, "--num-prompts", "1", code=code)
            self.assertIsNone(r)
            self.assertIn(words, err)

    def test_a_real_company(self):
        with Gateway(home=self.home) as g:
            r, _ = self.bench("http://127.0.0.1:%d" % g.port, "--num-prompts", "12", "-p", "24", "-n", "16",
                              "--length-spread", "0.5")
            self.assertEqual((r["completed"], r["requests"]), (12, 12))
            self.assertGreater(r["output_tok_s"], 0)
            g.wait_idle()


if __name__ == "__main__":
    unittest.main()
