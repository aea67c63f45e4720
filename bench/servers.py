"""Servers under a benchmark: troupe serve and llama-server, each a context that is up when entered and gone when left."""
import os
import signal
import socket
import subprocess
import time
import urllib.request

from peers_base import Fail
from peers_llama import requantize


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, name, command):
        self.name, self.command, self.process = name, command, None

    def __enter__(self):
        self.port = free_port()
        self.url = "http://127.0.0.1:%d" % self.port
        self.process = subprocess.Popen([*self.command, "--port", str(self.port)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=1) as r:
                    if r.status == 200:
                        return self
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise Fail(69, "%s does not come up" % self.name)
            time.sleep(0.1)

    def __exit__(self, *ignored):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def troupe_server(name, troupe, model, threads, context, options):
    return Server(name, [troupe, "serve", model, "--name", "bench-%d" % os.getpid(), "-t", str(threads), "-c", str(context),
                         *options])


def llama_server(llama, model, threads, slots, context):
    """On the Q8_0 form of the model, KV in q8_0, a slot of `context` tokens for each request."""
    return Server("llama-server", [
        os.path.join(llama, "llama-server"), "-m", requantize(llama, model, "Q8_0"), "-np", str(slots), "-c",
        str(slots * context), "-t", str(threads), "-tb", str(threads), "-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0", "-b", "2048",
        "-ub", "512", "--no-webui"])
