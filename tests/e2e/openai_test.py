#!/usr/bin/env python3
"""The real client: the `openai` package against the HTTP door, its types and the classes of its exceptions. The package
comes by pip into a virtual environment in the cache folder, once; skipped where that cannot be had."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import company
from company import PROMPTS
from gateway_company import Gateway, chat_model

PACKAGE = "openai>=1,<4"


def cache():
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "troupe", "openai-client")


def enter():
    """Run again by the interpreter that has the package. The folder is complete once it has its name."""
    home = "%s-%d.%d" % (cache(), *sys.version_info[:2])
    python = os.path.join("bin", "python")
    if sys.prefix == home:
        company.skip("the package in %s cannot be used: remove the folder" % home)
    if not os.path.exists(home):
        os.makedirs(os.path.dirname(home), exist_ok=True)
        new = tempfile.mkdtemp(prefix="openai-client", dir=os.path.dirname(home))
        try:
            for command in ([sys.executable, "-m", "venv", new],
                            [os.path.join(new, python), "-m", "pip", "install", "-q", "--retries", "0", "--timeout", "10", PACKAGE]):
                subprocess.run(command, check=True, capture_output=True, timeout=240)
            os.rename(new, home)
        except (OSError, subprocess.SubprocessError) as e:
            shutil.rmtree(new, ignore_errors=True)
            if not os.path.exists(home):  # else another run was faster
                company.skip("the openai package cannot be had: %s" % e)
    python = os.path.join(home, python)
    os.execv(python, [python, "-B", os.path.abspath(__file__)])


try:
    import openai
except ImportError:
    enter()


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = company.Home()
        cls.addClassCleanup(cls.home.close)
        keys = os.path.join(cls.home.path, "keys")
        with open(keys, "w") as f:
            f.write("secret\n")
        cls.g = Gateway("--set", "server.api_key_file=" + keys, "--served-model-name", "fox",
                        model=chat_model(os.path.join(cls.home.path, "chat.gguf")), home=cls.home)
        cls.addClassCleanup(lambda: cls.g.log.closed or cls.g.close())
        cls.c = cls.client()
        cls.talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "how are you on this fine day?"}]

    @classmethod
    def client(cls, key="secret", port=None):
        return openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % (port or cls.g.port), api_key=key, max_retries=0,
                             timeout=30 * company.SLOW)

    def complete(self, prompt, **how):
        return self.c.completions.create(**{"model": "fox", "prompt": prompt, "max_tokens": 16, "temperature": 0, **how})

    def chat(self, messages, **how):
        return self.c.chat.completions.create(**{"model": "fox", "messages": messages, "max_tokens": 16, "temperature": 0, **how})

    def test_models(self):
        self.assertEqual([m.id for m in self.c.models.list()], ["fox"])
        self.assertEqual(self.c.models.retrieve("fox").owned_by, "troupe")
        with self.assertRaises(openai.NotFoundError) as e:
            self.c.models.retrieve("dog")
        self.assertEqual(e.exception.code, "model_not_found")

    def test_completions(self):
        want = self.g.generate(PROMPTS[0], 16).out.decode()
        answer = self.complete(PROMPTS[0])
        self.assertEqual((answer.object, answer.choices[0].text), ("text_completion", want))
        self.assertEqual((answer.choices[0].finish_reason, answer.usage.completion_tokens), ("length", 16))
        many = self.complete(PROMPTS[:2], n=2, best_of=2, temperature=1, seed=7)
        self.assertEqual([c.index for c in many.choices], [0, 1, 2, 3])
        chunks = list(self.complete(PROMPTS[0], stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.text for k in chunks for c in k.choices), want)
        self.assertEqual(chunks[-1].usage.completion_tokens, 16)
        streamed = [""] * 4
        for k in self.complete(PROMPTS[:2], n=2, temperature=1, seed=7, stream=True):
            streamed[k.choices[0].index] += k.choices[0].text
        self.assertEqual(streamed, [c.text for c in many.choices])

    def test_chat(self):
        answer = self.chat(self.talk)
        message = answer.choices[0].message
        self.assertEqual((answer.object, message.role), ("chat.completion", "assistant"))
        chunks = list(self.chat(self.talk, stream=True))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual("".join(k.choices[0].delta.content or "" for k in chunks), message.content)
        self.assertEqual(chunks[-1].choices[0].finish_reason, "length")
        more = self.chat(self.talk + [message, {"role": "user", "content": "and now?"}],
                         extra_body={"chat_template_kwargs": {"x": 1}})
        self.assertGreater(more.usage.prompt_tokens_details.cached_tokens, 0)
        salted = self.chat(self.talk, extra_body={"cache_salt": "other"})
        self.assertEqual(salted.usage.prompt_tokens_details.cached_tokens, 0)
        self.assertEqual(salted.choices[0].message.content, message.content)

    def test_sampling(self):
        plain = self.complete(PROMPTS[0], logprobs=2, extra_body={"ignore_eos": True}).choices[0]
        self.assertEqual(len(plain.logprobs.tokens), 16)
        self.assertEqual(plain.logprobs.token_logprobs, [t[n] for t, n in zip(plain.logprobs.top_logprobs, plain.logprobs.tokens)])
        for how in ({"logit_bias": {"45": 100}}, {"presence_penalty": 2, "frequency_penalty": 2},
                    {"extra_body": {"repetition_penalty": 4, "ignore_eos": True}}):
            self.assertNotEqual(self.complete(PROMPTS[0], **how).choices[0].text, plain.text)
        first = plain.logprobs.tokens[0]
        answer = self.chat(self.talk, logprobs=True, top_logprobs=3)
        content = answer.choices[0].logprobs.content
        self.assertEqual((len(content), len(content[0].top_logprobs)), (16, 3))
        self.assertEqual(content[0].logprob, content[0].top_logprobs[0].logprob)
        self.assertEqual(bytes(b for t in content for b in t.bytes).decode(errors="replace"), answer.choices[0].message.content)
        chunks = list(self.chat(self.talk, logprobs=True, top_logprobs=3, stream=True))
        self.assertEqual([t for k in chunks for c in k.choices if c.logprobs for t in c.logprobs.content], content)
        echo = self.complete(PROMPTS[0], echo=True, logprobs=1, max_tokens=1).choices[0]
        self.assertIsNone(echo.logprobs.token_logprobs[0])
        self.assertEqual(echo.logprobs.tokens[-1], first)
        best = self.complete("a", n=1, best_of=4, temperature=1, seed=2)
        self.assertEqual((len(best.choices), best.usage.completion_tokens), (1, 64))

    def test_embeddings(self):
        one = self.c.embeddings.create(model="fox", input=PROMPTS[0])  # the client asks for base64
        plain = self.c.embeddings.create(model="fox", input=[PROMPTS[0], "a"], encoding_format="float")
        self.assertEqual((len(plain.data), len(plain.data[0].embedding)), (2, 64))
        self.assertLess(max(abs(a - b) for a, b in zip(one.data[0].embedding, plain.data[0].embedding)), 1e-7)
        self.assertAlmostEqual(sum(v * v for v in one.data[0].embedding), 1, 5)
        self.assertGreater(one.usage.prompt_tokens, 3)

    def test_errors(self):
        for error, param, ask in (
                (openai.BadRequestError, "temperature", lambda: self.complete("a", temperature=-1)),
                (openai.BadRequestError, "n", lambda: self.complete("a", n=17)),
                (openai.BadRequestError, "best_of", lambda: self.complete("a", n=3, best_of=2)),
                (openai.BadRequestError, "logit_bias", lambda: self.complete("a", logit_bias={"1": 101})),
                (openai.BadRequestError, "top_logprobs", lambda: self.chat(self.talk, top_logprobs=2)),
                (openai.BadRequestError, "messages", lambda: self.chat([{"role": "dog", "content": "a"}])),
                (openai.BadRequestError, "messages", lambda: self.chat([])),
                (openai.NotFoundError, "model", lambda: self.complete("a", model="dog")),
                (openai.BadRequestError, "input", lambda: self.c.embeddings.create(model="fox", input=[])),
                (openai.NotFoundError, None, lambda: self.c.moderations.create(input="a"))):
            with self.assertRaises(error) as e:
                ask()
            self.assertEqual(e.exception.param, param)
        with self.assertRaises(openai.AuthenticationError):
            self.client(key="wrong").models.list()
        with self.assertRaises(openai.APIConnectionError):
            self.client(port=1).models.list()

    def test_leaver(self):
        """A stream that is closed early ends its samples."""
        stream = self.complete("a", n=4, max_tokens=200, temperature=1, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        self.g.wait_idle()


if __name__ == "__main__":
    unittest.main()
