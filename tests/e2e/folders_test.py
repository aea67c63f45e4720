"""Models as Hugging Face folders: a text, a chat and ids as transformers gives them (tests/golden/folders, made by
tests/tools/make_tiny_folders.py), links as in its cache; and folders that are wrong: one line that names the file and what is
wrong with it, from run, serve and plan alike."""
import json
import os
import shutil
import unittest

import company
from company import ROOT, Home
from gateway_company import Gateway

FOLDERS = os.path.join(ROOT, "tests/golden/folders")
QWEN3, MISTRAL, LLAMA3 = (os.path.join(FOLDERS, n) for n in ("qwen3", "mistral", "llama3"))
EXACT = ("--unified", "dtype=bf16")  # the answer does not hang on rounding; int8 might
SHARD = "model-00002-of-00004.safetensors"
INDEX = "model.safetensors.index.json"

with open(os.path.join(QWEN3, "chat.json"), encoding="utf-8") as file:
    CHAT = json.load(file)


class Folders(unittest.TestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.close)

    def out(self, *args, stdin=b""):
        run = self.home.run(*args, stdin=stdin)
        self.assertEqual(run.returncode, 0, run.stderr.decode(errors="replace"))
        return run.stdout

    def copy(self, model=QWEN3):
        folder = os.path.join(self.home.path, "model")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(model, folder)
        return folder


class Right(Folders):
    def test_run(self):
        for path in (QWEN3, QWEN3 + "/", os.path.join(QWEN3, INDEX)):
            text = self.out("run", path, *EXACT, "-q", "-n", "8", "--special", CHAT["text"])
            self.assertEqual(text.decode(), CHAT["answer_text"])

    def test_tokenize(self):
        out = self.out("tokenize", QWEN3, "--special", "--json", "--text", "-", stdin=CHAT["text"].encode())
        self.assertEqual(json.loads(out), CHAT["ids"])

    def test_serve(self):
        """The chat template lies in a file of its own. Transformers takes control tokens in what users write for real
        ones, the gateway never does: they are left out here."""
        def harmless(text):
            return text.replace("12 <|im_end|>?", "12?")
        messages = [{**m, "content": harmless(m["content"])} for m in CHAT["messages"]]
        self.assertNotEqual(messages, CHAT["messages"])
        expected = self.out("run", QWEN3, *EXACT, "-q", "-n", "8", "--special", harmless(CHAT["text"])).decode()
        c = Gateway(*EXACT, model=QWEN3, home=self.home)
        self.addCleanup(c.close)
        status, _, answer = c.ask("POST", "/v1/chat/completions",
                                  {"messages": messages, "temperature": 0, "max_tokens": 8})
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["choices"][0]["message"]["content"], expected)
        _, _, models = c.ask("GET", "/v1/models")
        self.assertEqual(models["data"][0]["id"], "qwen3")
        c.stop()

    def test_links(self):
        """Hugging Face caches: the files of a snapshot are links to blobs without names, a folder may be one too."""
        for model, weights in ((QWEN3, SHARD), (LLAMA3, "model.safetensors")):
            folder = self.copy(model)
            blob = os.path.join(self.home.path, "5d41402abc")
            os.rename(os.path.join(folder, weights), blob)
            os.symlink("../5d41402abc", os.path.join(folder, weights))
            link = os.path.join(self.home.path, "link")
            if not os.path.islink(link):
                os.symlink("model", link)
            self.out("plan", link)
        folder = self.copy()
        os.rename(os.path.join(folder, "tokenizer.json"), os.path.join(self.home.path, "blob"))
        os.symlink("../blob", os.path.join(folder, "tokenizer.json"))
        text = self.out("run", link, *EXACT, "-q", "-n", "8", "--special", CHAT["text"])
        self.assertEqual(text.decode(), CHAT["answer_text"])


class Wrong(Folders):
    def refused(self, code, path, *words, commands=("run", "serve", "plan")):
        for command in commands:
            run = self.home.run(command, path, *(["x"] if command == "run" else []))
            err = run.stderr.decode(errors="replace")
            self.assertEqual((run.returncode, run.stdout), (code, b""), err)
            self.assertEqual(err.count("\n"), 1, err)
            self.assertTrue(err.startswith("troupe: "), err)
            for word in words:
                self.assertIn(word, err)
        self.home.wait_empty()

    def edited(self, name, *change):
        folder = self.copy()
        with open(os.path.join(folder, name), "r+", encoding="utf-8") as f:
            text = f.read()
            self.assertIn(change[0], text)
            f.seek(0)
            f.truncate()
            f.write(text.replace(*change))
        return folder

    def without(self, name):
        folder = self.copy()
        os.remove(os.path.join(folder, name))
        return folder

    def test_no_folder_of_a_model(self):
        self.refused(66, "/etc", "no model.safetensors in /etc", "name a .gguf or .safetensors file, or a folder")
        self.refused(66, self.without("config.json"), "config.json")
        self.refused(65, os.path.join(QWEN3, "config.json"), "config.json", "not a GGUF file")

    def test_tokenizer(self):
        """Ids can be served without one; a text can not be run."""
        folder = self.without("tokenizer.json")
        self.refused(69, folder, "tokenizer.json: no such file", "token ids only", commands=("run",))
        self.out("plan", folder)
        folder = self.edited("tokenizer.json", '"BPE"', '"Unigram"')
        self.refused(65, folder, "tokenizer.json", "Unigram", commands=("run",))

    def test_shards(self):
        folder = self.without(SHARD)
        self.refused(66, folder, SHARD + ": no such file, and the index names it")
        os.symlink("nowhere", os.path.join(folder, SHARD))
        self.refused(66, folder, SHARD)
        os.remove(os.path.join(folder, SHARD))
        os.mkfifo(os.path.join(folder, SHARD))
        self.refused(65, folder, SHARD, "not a regular file", commands=("plan",))
        self.refused(65, os.path.join(QWEN3, SHARD), "is missing", "one shard of a model: name its folder", commands=("plan",))

    def test_sizes_of_shards(self):
        path = os.path.join(self.copy(), SHARD)
        os.truncate(path, os.path.getsize(path) - 10)
        self.refused(65, os.path.dirname(path), SHARD, "cut off or damaged")
        with open(os.path.join(self.copy(), SHARD), "ab") as f:
            f.write(b"four")
        self.refused(65, os.path.dirname(path), SHARD, "4 bytes behind the last tensor", commands=("plan",))
        shutil.copy(os.path.join(QWEN3, SHARD.replace("2", "3", 1)), os.path.join(self.copy(), SHARD))
        self.refused(65, os.path.dirname(path), SHARD, "is in this shard, the index has it in", commands=("plan",))

    def test_names_in_the_index(self):
        for name in ("../" + SHARD, os.path.join(QWEN3, SHARD), "./" + SHARD):
            folder = self.edited(INDEX, SHARD, name)
            self.refused(65, folder, INDEX, "weight_map", "not the plain name", commands=("plan",))

    def test_architectures(self):
        for name in ("Qwen2ForCausalLM", "MixtralForCausalLM", "Gemma3ForConditionalGeneration"):
            self.refused(65, self.edited("config.json", "Qwen3ForCausalLM", name), "config.json: key architectures", name,
                         "Qwen3ForCausalLM", commands=("plan",))
        for key, old, new in (("attention_bias", "false", "true"), ("use_sliding_window", "false", "true"),
                              ("hidden_act", '"silu"', '"gelu"'), ("rope_type", '"default"', '"yarn"'),
                              ("num_hidden_layers", "2", "3000")):
            folder = self.edited("config.json", '"%s": %s' % (key, old), '"%s": %s' % (key, new))
            self.refused(65, folder, "config.json: key " + key, commands=("plan",))
        folder = self.edited("config.json", '"num_hidden_layers": 2', '"num_hidden_layers": 1')
        self.refused(65, folder, "layer_types", "one entry a layer", commands=("plan",))


if __name__ == "__main__":
    unittest.main()
