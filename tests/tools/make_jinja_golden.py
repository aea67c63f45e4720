#!/usr/bin/env python3
"""Make tests/golden/jinja: what transformers' chat template environment says of templates.

    make_jinja_golden.py [FOLDER]

features.json: every line of features.txt (\\n in it is a newline) rendered with the context below.
real.json: with FOLDER of *.jinja (models/templates of llama.cpp): for each template a digest of its bytes and of each
text that it makes of chats.json; null where it refuses. Needs transformers (which runs jinja2); versions are written
along. The clock stands at NOW, in UTC.
"""
import datetime
import glob
import hashlib
import json
import os
import sys

import jinja2
import transformers
from transformers.utils import chat_template_utils

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "jinja")
NOW = 1750000000
CONTEXT = {"messages": [{"role": "system", "content": " be brief "}, {"role": "user", "content": "Hi\n"},
                        {"role": "assistant", "content": "Hello"}],
           "add_generation_prompt": True, "tools": None, "m": {"a": 1}}


def template(text):
    compiled = chat_template_utils._compile_jinja_template(text)
    now = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)
    compiled.environment.globals["strftime_now"] = compiled.globals["strftime_now"] = now.strftime
    return compiled


def render(text, context):
    try:
        return template(text).render(**context)
    except (jinja2.exceptions.TemplateError, TypeError, ValueError, ZeroDivisionError, AttributeError, OverflowError, KeyError,
            IndexError):
        return None


def digest(text):
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:32]


def features():
    with open(os.path.join(HERE, "features.txt"), encoding="utf-8") as f:
        lines = [line.rstrip("\n") for line in f]
    # only outside of the expressions' own escapes: those stand in quotes
    rows = []
    for line in lines:
        text = line.replace("\\n", "\n") if line.startswith("{#") else line
        rows.append({"template": text, "text": render(text, CONTEXT)})
    return {"context": CONTEXT, "now": NOW, "rows": rows}


def real(folder):
    with open(os.path.join(HERE, "chats.json"), encoding="utf-8") as f:
        chats = json.load(f)
    out = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as f:
            text = f.read()
        out[os.path.basename(path)] = {"bytes": digest(text), "texts": [digest(render(text, c)) for c in chats]}
    return {"now": NOW, "templates": out}


def write(name, what):
    what = {"made_by": "transformers %s, jinja2 %s" % (transformers.__version__, jinja2.__version__), **what}
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        json.dump(what, f, indent=1, ensure_ascii=False)
        f.write("\n")


write("features.json", features())
if len(sys.argv) > 1:
    write("real.json", real(sys.argv[1]))
