"""Companies with an HTTP door, and a tiny model that has a chat template."""
import http.client
import json
import re
import struct

import company
from company import SLOW, Company, wait_until

ARGS = ("-c", "256", "--port", "0")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('there is no role ' + m.role) }}{% endif %}"
    "{% if m.role == 'system' and not loop.first %}{{ raise_exception('system comes first') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }};{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}")


def chat_model(path, model=company.GEMMA):
    """A copy of a GGUF with CHAT_TEMPLATE as its first key. The key takes a multiple of the alignment, so that the
    tensors behind it are where they were."""
    with open(model, "rb") as f:
        data = f.read()
    magic, version, tensors, keys = struct.unpack_from("<4sIQQ", data)
    assert magic == b"GGUF" and b"tokenizer.chat_template" not in data and b"general.alignment" not in data
    name = b"tokenizer.chat_template"
    fixed = 8 + len(name) + 4 + 8 + len(CHAT_TEMPLATE) + len("{##}")
    text = CHAT_TEMPLATE + "{#" + " " * (-fixed % 32) + "#}"
    key = struct.pack("<Q%dsIQ" % len(name), len(name), name, 8, len(text)) + text.encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<4sIQQ", magic, version, tensors, keys + 1) + key + data[24:])
    return path


class Gateway(Company):
    def __init__(self, *args, model=company.GEMMA, **how):
        super().__init__(model, *ARGS, *args, **how)
        self.port = int(re.search(r"HTTP at http://127\.0\.0\.1:(\d+)/v1", wait_until(
            "the line with the port", 10, lambda: "HTTP at" in self.messages() and self.messages())).group(1))

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30 * SLOW)

    def ask(self, method, path, body=None, headers=None):
        """(status, headers, JSON or text)"""
        c = self.connect()
        c.request(method, path, json.dumps(body) if isinstance(body, (dict, list)) else body, headers or {})
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, r.headers, json.loads(data) if "json" in r.headers["content-type"] else data.decode()

    def complete(self, **body):
        status, _, answer = self.ask("POST", "/v1/completions", {"temperature": 0, "max_tokens": 16, **body})
        assert status == 200, answer
        return answer

    def events(self, path, body):
        """The data lines of a stream, [DONE] left out."""
        c = self.connect()
        c.request("POST", path, json.dumps({"stream": True, "temperature": 0, **body}))
        r = c.getresponse()
        text = r.read().decode()
        c.close()
        assert r.status == 200 and r.headers["content-type"] == "text/event-stream", text
        lines = [e[6:] for e in text.split("\n\n") if e.startswith("data: ")]
        assert lines[-1] == "[DONE]", text
        return [json.loads(e) for e in lines[:-1]]
