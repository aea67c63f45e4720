#!/usr/bin/env python3
"""Compare the tokenizers with llama.cpp, and write tests/golden/tokenizer/ from llama.cpp's answers.

    pip install numpy gguf
    make_tokenizer_golden.py --libllama DIR/libllama.so compare [-n 20000] MODEL.gguf ...
    make_tokenizer_golden.py --libllama DIR/libllama.so golden --vocabs DIR --models DIR
    make_tokenizer_golden.py reduce IN.gguf OUT.gguf [-n 1500]

compare builds tests/tools/tokenizer_batch.c, makes n texts in many scripts from a fixed seed and compares ids with and
without special tokens, BOS, every token's piece and the end-of-generation set; exit 1 on the first differing texts.
golden reduces the vocabularies (llama.cpp's models/ggml-vocab-*.gguf and two models) and stores answers for the reduced
and for the full ones. All answers come from libllama (built from the source distribution of llama-cpp-python 0.3.36).
"""
import argparse
import ctypes
import glob
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BOS, SPECIAL = 1, 2


# ---- the reference -------------------------------------------------------------------------------------------------

class Llama:
    """libllama through a C helper compiled here: the parameter structs change between versions, the header does not."""

    SOURCE = r"""
    #include "llama.h"
    #include <stdlib.h>
    #include <string.h>
    static void quiet(enum ggml_log_level l, const char *t, void *u) { (void)l; (void)t; (void)u; }
    const void *ref_open(const char *path) {
        llama_log_set(quiet, NULL);
        llama_backend_init();
        struct llama_model_params p = llama_model_default_params();
        p.vocab_only = true;
        struct llama_model *m = llama_model_load_from_file(path, p);
        return m ? llama_model_get_vocab(m) : NULL;
    }
    int ref_encode(const void *v, const char *s, int n, int *ids, int cap, int bos, int special) {
        return llama_tokenize(v, s, n, ids, cap, bos, special);
    }
    int ref_count(const void *v) { return llama_vocab_n_tokens(v); }
    int ref_eog(const void *v, int id) { return llama_vocab_is_eog(v, id); }
    int ref_piece(const void *v, int id, char *b, int n, int special) {
        return llama_token_to_piece(v, id, b, n, 0, special);
    }
    int ref_text(const void *v, const int *ids, int n, char *b, int cap) {
        return llama_detokenize(v, ids, n, b, cap, false, false);
    }
    """

    def __init__(self, lib, include):
        work = tempfile.mkdtemp()
        with open(f"{work}/ref.c", "w") as f:
            f.write(self.SOURCE)
        where = os.path.dirname(os.path.abspath(lib))
        subprocess.check_call(["cc", "-shared", "-fPIC", "-o", f"{work}/ref.so", f"{work}/ref.c",
                               *[f"-I{i}" for i in include], f"-L{where}", "-lllama", f"-Wl,-rpath,{where}"])
        self.c = ctypes.CDLL(f"{work}/ref.so")
        self.c.ref_open.restype = ctypes.c_void_p
        for name in ("encode", "count", "eog", "piece", "text"):
            fn = getattr(self.c, "ref_" + name)
            fn.argtypes = {"encode": [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
                                      ctypes.c_int, ctypes.c_int],
                           "count": [ctypes.c_void_p], "eog": [ctypes.c_void_p, ctypes.c_int],
                           "piece": [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
                           "text": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p,
                                    ctypes.c_int]}[name]

    def open(self, path):
        self.v = self.c.ref_open(path.encode())
        if not self.v:
            sys.exit(f"{path}: llama.cpp does not load it")

    def encode(self, text, flags):
        cap = 3 * len(text) + 8
        ids = (ctypes.c_int * cap)()
        n = self.c.ref_encode(self.v, text, len(text), ids, cap, flags & BOS, (flags & SPECIAL) >> 1)
        assert n >= 0
        return list(ids[:n])

    def pieces(self):
        buf = ctypes.create_string_buffer(1 << 16)
        for i in range(self.c.ref_count(self.v)):
            row = [self.c.ref_eog(self.v, i)]
            for special in (0, 1):
                n = self.c.ref_piece(self.v, i, buf, len(buf), special)
                row.append(buf[:n])
            yield tuple(row)


# ---- texts ---------------------------------------------------------------------------------------------------------

RANGES = [(0x20, 0x7e), (0xa0, 0xff), (0x100, 0x24f), (0x250, 0x2af), (0x300, 0x36f), (0x370, 0x3ff), (0x400, 0x4ff),
          (0x530, 0x58f), (0x590, 0x5ff), (0x600, 0x6ff), (0x700, 0x74f), (0x900, 0x97f), (0x980, 0x9ff),
          (0xb80, 0xbff), (0xe00, 0xe7f), (0xf00, 0xfff), (0x1000, 0x109f), (0x10a0, 0x10ff), (0x1100, 0x11ff),
          (0x1200, 0x137f), (0x1780, 0x17ff), (0x1800, 0x18af), (0x1e00, 0x1eff), (0x1f00, 0x1fff), (0x2000, 0x206f),
          (0x2070, 0x209f), (0x20a0, 0x20cf), (0x2100, 0x214f), (0x2150, 0x218f), (0x2190, 0x22ff), (0x2460, 0x24ff),
          (0x2500, 0x27bf), (0x3000, 0x303f), (0x3040, 0x30ff), (0x3100, 0x312f), (0x3400, 0x3480), (0x4e00, 0x9fff),
          (0xac00, 0xd7a3), (0xe000, 0xf8ff), (0xfb00, 0xfdff), (0xfe00, 0xfe0f), (0xfe30, 0xfeff), (0xff00, 0xffef),
          (0xfff0, 0xffff), (0x10000, 0x100ff), (0x10300, 0x1034f), (0x10400, 0x1044f), (0x1d400, 0x1d7ff),
          (0x1f000, 0x1f9ff), (0x1f1e6, 0x1f1ff), (0x20000, 0x20200), (0x2fa00, 0x2fa1f), (0x323b0, 0x323cf),
          (0xe0000, 0xe01ef), (0xf0000, 0xf0010), (0x10fff0, 0x10ffff)]
WORDS = ("the of and to in a is that for it as was with be by on not he his but are from or have an they which one you "
         "were her all she there would their we him been has when who will more no if out so said what up its about "
         "into than them can only other new some could time these two may then do first any my now such like our over "
         "Hello World HTTP server error return void int main include print def class self None True False import "
         "Übergröße naïve façade coöperate Straße Привет мир как дела это просто тест Ελληνικά γλώσσα こんにちは 世界 日本語 "
         "テスト 中文 测试 你好 한국어 안녕하세요 مرحبا بالعالم العربية नमस्ते दुनिया हिन्दी ไทย สวัสดี שלום עולם ქართული Tiếng Việt "
         "don't I'll we're they've he'd I'm it's DON'T I'LL WE'RE THEY'VE HE'D I'M IT'S 's 'T 'Re 'vE 'lL 'M 'd 'x ''s "
         "3.14159 2024-01-31 1,000,000 0x7fff 1e-9 12345678 ½ ² Ⅷ ٣٤٥ १२३ ①② ３４ https://example.org/a?b=c&d=%20e#f "
         "{\"key\": [1, 2, null]} <html> </div> <br/> </s> <s> <unk> <bos> <eos> <end_of_turn> <start_of_turn> "
         "<|im_start|> <|im_end|> <|endoftext|> <|eot_id|> <|user|> <|end|> <|begin_of_text|> <0x0A> [PAD151700] "
         "<unused7> [multimodal] <table> ▁ ▁▁ Ġ Ċ 👍 👨‍👩‍👧 🇩🇪 ❤️ e\u0301 n\u0303 \u200b \u200d \ufeff \u00ad \ufffd -- --- === ### "
         "!!! ?! ... … “quoted” ‘single’ $100 €5 a_b_c camelCase snake_case").split(" ")
BLANKS = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\t", "\r\n", "\r", " \n", "\n ", " \n ", "\u00a0",
          "\u2003", "\u3000", "\u0085", "\v", "\f", "\u2028", "    ", "        ", "\x1c", "\u1680", "\u202f"]


def make_text(r):
    """One text as bytes; r is the only source of randomness."""
    kind, out = r.random(), []
    if kind < 0.40:    # words and blanks
        for _ in range(r.randint(1, 25)):
            out.append(r.choice(WORDS) if r.random() < 0.8 else r.choice(BLANKS))
            if r.random() < 0.75:
                out.append(r.choice(BLANKS) if r.random() < 0.3 else " ")
    elif kind < 0.70:  # one to three scripts
        ranges = r.sample(RANGES, r.randint(1, 3))
        for _ in range(r.randint(1, 60)):
            lo, hi = r.choice(ranges)
            out.append(chr(r.randint(lo, hi)) if r.random() < 0.85 else r.choice(BLANKS))
    elif kind < 0.80:  # runs
        for _ in range(r.randint(1, 6)):
            unit = r.choice([" ", "\n", "\t", "a", "-", "=", ".", "1", "0", "\u0301", "中", "😀", "'", "\r\n", "▁", "ab", "_"])
            out.append(unit * r.choice([1, 2, 3, 5, 8, 17, 33, 70]))
    elif kind < 0.90:  # any code point, unassigned and control ones too
        for _ in range(r.randint(1, 40)):
            point = r.randint(0, 0x10ffff) if r.random() < 0.5 else r.randint(0, 0xff)
            out.append(chr(point) if not 0xd800 <= point < 0xe000 else "\0")
    else:              # characters that the splitters look at
        for _ in range(r.randint(1, 40)):
            out.append(r.choice(list("'stmdrevlSTMDREVL  \n\r\t0123 abÄß.,!?½²٣中\u0301\u00a0ſK")))
    return "".join(out).encode()


BEYOND = re.compile(rb"\xf4[\x90-\xbf][\x80-\xbf]{2}|[\xf5-\xf7][\x80-\xbf]{3}")


def make_broken(r):
    """Not UTF-8: cut characters, stray bytes, surrogates, overlong forms. (Above U+10FFFF llama.cpp ends the process.)"""
    data = bytearray(make_text(r))
    for _ in range(r.randint(1, 4)):
        bad = r.choice([b"\x80", b"\xbf\xbf", b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\xff", b"\xfe", b"\xc0\x80",
                        b"\xed\xa0\x80", b"\xe0\x80\xaf", b"\xf0\x80\x80\x80"])
        at = r.randint(0, len(data))
        data[at:at] = bad
    return make_broken(r) if BEYOND.search(data) else bytes(data)


def make_texts(n, seed):
    r = random.Random(seed)
    fixed = [b"", b" ", b"  ", b"\n", b"\0", b"a\0b", b" a", b"a ", b"\t\n ", *[w.encode() for w in WORDS],
             *[chr(c).encode() for c in range(0x250)]]
    return (fixed + [make_broken(r) if r.random() < 0.05 else make_text(r) for _ in range(n)])[:n]


# ---- ours ----------------------------------------------------------------------------------------------------------

def build_batch():
    exe = os.path.join(tempfile.mkdtemp(), "batch")
    sources = [f"{ROOT}/tests/tools/tokenizer_batch.c"]
    for pattern in ("model/tokenizer*.c", "model/unicode*.c", "model/pretokenize.c", "model/detokenizer.c",
                    "model/gguf*.c", "model/dequant.c", "model/model_config*.c", "model/model_folder.c",
                    "model/json_form.c", "base/status.c", "base/clock.c", "base/log.c", "base/file_map.c"):
        sources += sorted(glob.glob(f"{ROOT}/{pattern}"))
    subprocess.check_call(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", f"-I{ROOT}", "-o", exe, *sources, "-ljansson",
                           "-lxxhash", "-lm", "-lpthread"])
    return exe


def ours(exe, path, jobs):
    data = b"".join(struct.pack("<II", flags, len(text)) + text for text, flags in jobs)
    out = subprocess.run([exe, path], input=data, stdout=subprocess.PIPE, check=True).stdout
    pos = 0
    for _ in jobs:
        n, = struct.unpack_from("<I", out, pos)
        yield list(struct.unpack_from(f"<{n}I", out, pos + 4))
        pos += 4 + 4 * n


def our_pieces(exe, path):
    out = subprocess.run([exe, path, "pieces"], stdout=subprocess.PIPE, check=True).stdout
    pos = 0
    while pos < len(out):
        row = [struct.unpack_from("<I", out, pos)[0]]
        pos += 4
        for _ in range(2):
            n, = struct.unpack_from("<I", out, pos)
            row.append(out[pos + 4:pos + 4 + n])
            pos += 4 + n
        yield tuple(row)


def compare(ref, paths, n, seed):
    exe, bad = build_batch(), 0
    for path in paths:
        ref.open(path)
        r = random.Random(seed)
        jobs = [(t, r.choice([0, 0, BOS, SPECIAL, BOS | SPECIAL])) for t in make_texts(n, seed)]
        differ = 0
        for (text, flags), mine in zip(jobs, ours(exe, path, jobs)):
            want = ref.encode(text, flags)
            if want != mine:
                differ += 1
                if differ <= 5:
                    print(f"DIFFERENT flags {flags} {text!r}\n  llama.cpp {want}\n  here      {mine}")
        pieces = sum(a != b for a, b in zip(ref.pieces(), our_pieces(exe, path)))
        for i, (a, b) in enumerate(zip(ref.pieces(), our_pieces(exe, path))):
            if a != b:
                print(f"DIFFERENT token {i}: llama.cpp {a}, here {b}")
                break
        print(f"{os.path.basename(path)}: {len(jobs)} texts, {differ} differ; pieces and end tokens: {pieces} differ",
              flush=True)
        bad += differ + pieces
    return bad


# ---- golden files --------------------------------------------------------------------------------------------------

def reduce(src, dst, keep):
    """A vocabulary of about keep tokens with the same keys: special and byte tokens and the first merges or best scores."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter
    fields = GGUFReader(src).fields

    def strings(key):
        f = fields[key]
        return [bytes(f.parts[i]) for i in f.data]

    def numbers(key):
        f = fields[key]
        return [f.parts[i][0].item() for i in f.data]

    tokens = strings("tokenizer.ggml.tokens")
    types = numbers("tokenizer.ggml.token_type")
    merges = strings("tokenizer.ggml.merges") if "tokenizer.ggml.merges" in fields else None
    scores = numbers("tokenizer.ggml.scores") if "tokenizer.ggml.scores" in fields else None
    few = [i for i, t in enumerate(types) if t not in (1, 6)]
    chosen = set(few[:60] + few[-20:]) | {i for i, t in enumerate(types) if t == 6}
    ids = [numbers(k)[0] for k in fields if k.startswith("tokenizer.ggml.") and k.endswith("_token_id")]
    chosen |= set(ids)
    names = [w.encode() for w in WORDS]
    chosen |= {i for i, t in enumerate(tokens) if t in names and types[i] != 1}
    if merges is None:
        plain = [i for i, t in enumerate(types) if t == 1]
        plain.sort(key=lambda i: (-scores[i], i))
        single = [i for i in plain if len(tokens[i].decode(errors="replace")) == 1]
        basic = [i for i in single if tokens[i] == "▁".encode() or len(tokens[i]) == 1]
        chosen |= set(plain[:keep]) | set(single[:keep // 2]) | set(basic)
    else:
        index = {t: i for i, t in enumerate(tokens)}
        chosen |= {i for i, t in enumerate(tokens) if types[i] == 1 and len(t.decode()) == 1}
        merges = merges[:keep]
        for m in merges:
            left, right = m[0:1] + m[1:].split(b" ", 1)[0], m[1:].split(b" ", 1)[1]
            chosen |= {index[left], index[right], index[left + right]}
    order = sorted(chosen)
    place = {old: new for new, old in enumerate(order)}
    out = GGUFWriter(dst, strings("general.architecture")[0].decode())
    for key, f in fields.items():
        if key == "general.architecture" or key == "tokenizer.chat_template":
            continue
        if key in ("general.name", "tokenizer.ggml.model", "tokenizer.ggml.pre"):
            out.add_string(key, strings(key)[0].decode())
        elif key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            out.add_uint32(key, place[numbers(key)[0]])
        elif key.startswith("tokenizer.ggml.") and f.types[0] == GGUFValueType.BOOL:
            out.add_bool(key, bool(numbers(key)[0]))
    arch = strings("general.architecture")[0].decode()  # llama.cpp wants these even for a vocabulary
    for key in fields:
        if key.startswith(arch + ".") and len(fields[key].data) == 1 and fields[key].types[0] != GGUFValueType.ARRAY:
            kind = fields[key].types[0]
            if kind == GGUFValueType.STRING:
                out.add_string(key, strings(key)[0].decode())
            else:
                out.add_key_value(key, numbers(key)[0], kind)
    out.add_token_list([tokens[i] for i in order])
    out.add_token_types([types[i] for i in order])
    if merges is None:
        out.add_token_scores([scores[i] for i in order])
    else:
        out.add_token_merges(merges)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    return len(order)


def write_answers(ref, model, dst, texts):
    """Lines "flags hex-of-text id id ..."; a text of no bytes is "-"."""
    ref.open(model)
    with open(dst, "w") as f:
        f.write(f"# llama.cpp's answers for {os.path.basename(model)}: flags (1 BOS, 2 parse special), text in hex, ids\n")
        for text, flags in texts:
            f.write(" ".join([str(flags), text.hex() or "-", *map(str, ref.encode(text, flags))]) + "\n")


def golden(ref, vocabs, models):
    out = f"{ROOT}/tests/golden/tokenizer"
    os.makedirs(out, exist_ok=True)
    full = {n: f"{vocabs}/ggml-vocab-{n}.gguf" for n in ("llama-spm", "phi-3", "llama-bpe", "gpt-2", "qwen2")}
    full |= {n: f"{models}/{n}.gguf" for n in ("gemma3-270m", "smollm2-135m")}
    suite = open(f"{vocabs}/ggml-vocab-gpt-2.gguf.inp", "rb").read().split(b"\n__ggml_vocab_test__\n")
    r = random.Random(7)
    texts = [(t, 0) for t in suite] + [(t, r.choice([0, 0, BOS, SPECIAL, BOS | SPECIAL])) for t in make_texts(2000, 7)[-600:]]
    for name, path in full.items():
        small = f"{out}/{name}-small.gguf"
        n = reduce(path, small, 1200)
        write_answers(ref, small, f"{out}/{name}-small.txt", texts[:len(suite)] + texts[-300:])
        write_answers(ref, path, f"{out}/{name}.txt", texts[:len(suite)] + texts[-200:])
        print(f"{name}: reduced to {n} tokens, {os.path.getsize(small)} bytes")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--libllama", help="libllama.so")
    p.add_argument("--include", action="append", default=[], help="folders of llama.h and ggml.h")
    sub = p.add_subparsers(dest="cmd", required=True)
    c = sub.add_parser("compare")
    c.add_argument("-n", type=int, default=20000)
    c.add_argument("--seed", type=int, default=1)
    c.add_argument("paths", nargs="+")
    g = sub.add_parser("golden")
    g.add_argument("--vocabs", required=True)
    g.add_argument("--models", required=True)
    s = sub.add_parser("reduce")
    s.add_argument("src")
    s.add_argument("dst")
    s.add_argument("-n", type=int, default=1200)
    a = p.parse_args()
    if a.cmd == "reduce":
        print(reduce(a.src, a.dst, a.n))
        return
    ref = Llama(a.libllama, a.include)
    if a.cmd == "compare":
        sys.exit(1 if compare(ref, a.paths, a.n, a.seed) else 0)
    golden(ref, a.vocabs, a.models)


if __name__ == "__main__":
    main()
