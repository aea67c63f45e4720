#!/usr/bin/env python3
"""Chat templates of real models: the text of each for each conversation of tests/golden/jinja/chats.json is, byte for
byte, what transformers' apply_chat_template makes (digests in real.json; tests/tools/make_jinja_golden.py). The
templates come from the source package that bench/peers builds llama.cpp from; TROUPE_TEMPLATES names another folder."""
import hashlib
import json
import os
import subprocess
import sys

import company

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "golden", "jinja")
# transformers refuses to write a generator as JSON; here it is a list like any other
MORE_LENIENT = {("llama-cpp-deepseek-r1.jinja", 4), ("llama-cpp-deepseek-r1.jinja", 5), ("llama-cpp-deepseek-r1.jinja", 6)}
LEAST = 30


def folder():
    given = os.environ.get("TROUPE_TEMPLATES")
    if given:
        return given
    sys.path.insert(0, os.path.join(HERE, "..", "..", "bench"))
    import peers_base
    import peers_llama
    try:
        return os.path.join(peers_llama.get_source(peers_base.cache_dir()), "models", "templates")
    except (peers_base.Fail, OSError) as e:
        company.skip("the source package with the templates cannot be had: %s" % e)


def digest(data):
    return hashlib.sha256(data).hexdigest()[:32]


def main():
    where = folder()
    tool = os.environ["TROUPE_JINJA"]
    with open(os.path.join(GOLDEN, "real.json"), encoding="utf-8") as f:
        golden = json.load(f)
    with open(os.path.join(GOLDEN, "chats.json"), encoding="utf-8") as f:
        chats = "".join(json.dumps(c, ensure_ascii=False) + "\n" for c in json.load(f))
    bad, seen, texts = [], 0, 0
    for name, want in golden["templates"].items():
        path = os.path.join(where, name)
        if not os.path.exists(path):
            continue
        with open(path, "rb") as f:
            if digest(f.read()) != want["bytes"]:
                continue  # another version of it
        out = subprocess.run([tool, path, str(golden["now"])], input=chats, capture_output=True, text=True,
                             encoding="utf-8", env={**os.environ, "TZ": "UTC"}, timeout=60)
        answers = [json.loads(line) for line in out.stdout.splitlines()]
        if out.returncode != 0 or len(answers) != len(want["texts"]):
            bad.append("%s: exit %d, %d answers" % (name, out.returncode, len(answers)))
            continue
        seen += 1
        for i, (answer, text) in enumerate(zip(answers, want["texts"])):
            got = digest(answer["text"].encode()) if "text" in answer else None
            texts += text is not None
            if got != text and not (text is None and (name, i) in MORE_LENIENT):
                bad.append("%s, conversation %d: %s" % (name, i, str(answer)[:300]))
    print("%d templates, %d texts as in transformers, %d differ" % (seen, texts - len(bad), len(bad)))
    print("\n".join(bad))
    if seen < LEAST:
        sys.exit("only %d of the templates are those of the digests, %d are wanted" % (seen, LEAST))
    sys.exit(1 if bad else 0)


main()
