#!/usr/bin/env python3
"""Write the seed corpus of the file loaders: tests/fuzz/corpus/{gguf,safetensors}/* and NAME.expect beside them.

Files named ok-* are valid, bad-* are damaged in one known way. A line of an .expect file is
    file name <TAB> offset that the error must name, or - <TAB> part of the reason
The unit tests check each line, the fuzzers start from the files. No packages needed; the output is the same every run.
"""
import json
import pathlib
import struct
import sys

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
FORMAT = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q", I64: "<q",
          F64: "<d"}
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 12: (256, 144),
          13: (256, 176), 14: (256, 210), 30: (1, 2)}


def text(s):
    raw = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind, v):
    return text(v) if kind == STR else struct.pack(FORMAT[kind], v)


class Gguf:
    """A GGUF file as a list of fields; `at` remembers where each named field starts."""

    def __init__(self, version=3, magic=b"GGUF", n_tensors=None, n_kvs=None):
        self.version, self.magic, self.n_tensors, self.n_kvs = version, magic, n_tensors, n_kvs
        self.kvs, self.tensors, self.at, self.borders = [], [], {}, []
        self.alignment, self.data = 32, None

    def kv(self, key, kind, value, elem=None, count=None):
        self.kvs.append((key, kind, value, elem, count))
        return self

    def tensor(self, name, dims, kind=0, offset=None, n_dims=None, size=None):
        self.tensors.append((name, dims, kind, offset, n_dims, size))
        return self

    def build(self):
        out = bytearray()

        def put(name, raw):
            self.at[name] = len(out)
            self.borders.append(len(out))
            out.extend(raw)

        put("magic", self.magic)
        put("version", struct.pack("<I", self.version))
        put("n_tensors", struct.pack("<Q", len(self.tensors) if self.n_tensors is None else self.n_tensors))
        put("n_kvs", struct.pack("<Q", len(self.kvs) if self.n_kvs is None else self.n_kvs))
        for i, (key, kind, value, elem, count) in enumerate(self.kvs):
            put(f"kv{i}", text(key) if not isinstance(key, tuple) else key[0])
            put(f"kv{i}.type", struct.pack("<I", kind))
            if kind == ARR:
                put(f"kv{i}.elem", struct.pack("<I", elem))
                put(f"kv{i}.count", struct.pack("<Q", len(value) if count is None else count))
            raw = value if isinstance(value, bytes) else None
            if raw is None:
                raw = b"".join(scalar(elem, v) for v in value) if kind == ARR else scalar(kind, value)
            put(f"kv{i}.value", raw)
        data, place = bytearray(), 0
        for i, (name, dims, kind, offset, n_dims, size) in enumerate(self.tensors):
            elems, block = BLOCKS.get(kind, (1, 4))
            count = 1
            for d in dims:
                count *= d
            bytes_ = size if size is not None else count // elems * block
            here = place if offset is None else offset
            put(f"t{i}", text(name))
            put(f"t{i}.n_dims", struct.pack("<I", len(dims) if n_dims is None else n_dims))
            for d, v in enumerate(dims):
                put(f"t{i}.dim{d}", struct.pack("<Q", v))
            put(f"t{i}.type", struct.pack("<I", kind))
            put(f"t{i}.offset", struct.pack("<Q", here))
            data.extend(bytes((i * 7 + k * 3) & 0x3F for k in range(min(bytes_, 4096))))
            data.extend(b"\0" * (-len(data) % self.alignment))
            place = len(data)
        self.borders.append(len(out))
        if self.tensors:
            out.extend(b"\0" * (-len(out) % self.alignment))
            self.at["data"] = len(out)
            out.extend(data if self.data is None else self.data)
        return bytes(out)


def base():
    """A file with every kind of value and two tensors."""
    g = Gguf()
    g.kv("general.architecture", STR, "llama").kv("a.u8", U8, 200).kv("a.i8", I8, -5).kv("a.u16", U16, 60000)
    g.kv("a.i16", I16, -30000).kv("a.u32", U32, 4000000000).kv("a.i32", I32, -7).kv("a.f32", F32, 1.5)
    g.kv("a.bool", BOOL, 1).kv("a.u64", U64, 2**63).kv("a.i64", I64, -2**62).kv("a.f64", F64, 2.5)
    g.kv("a.texts", ARR, ["one", "", "three"], STR).kv("a.numbers", ARR, [3, -1, 2], I32)
    g.kv("a.floats", ARR, [0.5, -0.25], F32).kv("a.flags", ARR, [1, 0, 1], BOOL).kv("a.none", ARR, [], U8)
    g.tensor("one.weight", [32, 2], 8).tensor("two.weight", [5], 0)
    return g


def llama(**changes):
    """A whole llama model of one layer in F32, small enough for a corpus."""
    v = {"hidden": 16, "ffn": 16, "heads": 1, "kv": 1, "dim": 16, "vocab": 4, "layers": 1}
    v.update(changes)
    g = Gguf().kv("general.architecture", STR, "llama").kv("llama.block_count", U32, v["layers"])
    g.kv("llama.embedding_length", U32, v["hidden"]).kv("llama.feed_forward_length", U32, v["ffn"])
    g.kv("llama.context_length", U32, 64).kv("llama.attention.head_count", U32, v["heads"])
    g.kv("llama.attention.head_count_kv", U32, v["kv"]).kv("llama.attention.layer_norm_rms_epsilon", F32, 1e-5)
    g.kv("tokenizer.ggml.tokens", ARR, ["<s>", "</s>", "a", "b"], STR).kv("tokenizer.ggml.bos_token_id", U32, 0)
    g.kv("tokenizer.ggml.eos_token_id", U32, 1)
    h, f, q, k = v["hidden"], v["ffn"], v["heads"] * v["dim"], v["kv"] * v["dim"]
    g.tensor("token_embd.weight", [h, v["vocab"]]).tensor("output_norm.weight", [h])
    for name, dims in (("attn_norm", [h]), ("attn_q", [h, q]), ("attn_k", [h, k]), ("attn_v", [h, k]),
                       ("attn_output", [q, h]), ("ffn_norm", [h]), ("ffn_gate", [h, f]), ("ffn_up", [h, f]),
                       ("ffn_down", [f, h])):
        g.tensor(f"blk.0.{name}.weight", dims, 1 if len(dims) == 2 else 0)
    return g


def gguf_files():
    """Yields name, bytes, offset or None, reason."""
    plain = base()
    raw = plain.build()
    yield "ok-base", raw, None, None
    yield "ok-llama", llama().build(), None, None
    yield "ok-version2", Gguf(version=2).kv("a", U32, 1).tensor("t", [4]).build(), None, None
    yield "ok-empty", Gguf().build(), None, None
    wide = Gguf().kv("general.alignment", U32, 64)
    wide.alignment = 64
    for kind, (elems, _) in BLOCKS.items():
        wide.tensor(f"t{kind}", [elems, 1, 1, 1], kind)
    yield "ok-types", wide.build(), None, None

    fields = ["version", "n_tensors", "n_kvs", "kv0", "kv0.type", "kv0.value", "kv12.type", "kv12.elem", "kv12.count",
              "kv12.value", "t0", "t0.n_dims", "t0.dim0", "t0.dim1", "t0.type", "t0.offset", "t1", "data"]
    for border in [plain.at[f] for f in fields] + [len(raw) - 13]:
        yield f"bad-cut-{border:04d}", raw[:border], None, "file"
    yield "bad-cut-middle-of-key", raw[:plain.at["kv3"] + 10], None, "file"

    def bad(name, g, field, reason):
        blob = g.build()
        return "bad-" + name, blob, None if field is None else g.at[field], reason

    yield bad("magic", Gguf(magic=b"GGML"), "magic", "not a GGUF")
    yield bad("version1", Gguf(version=1).kv("a", U32, 1), "version", "version 1 ")
    yield bad("version4", Gguf(version=4), "version", "version 4 ")
    yield bad("big-endian", Gguf(version=0x03000000), "version", "big-endian version 3 ")
    yield bad("many-kvs", Gguf(n_kvs=100001), "n_kvs", "at most 100000")
    yield bad("huge-kvs", Gguf(n_kvs=2**64 - 1), "n_kvs", "at most")
    yield bad("absent-kvs", Gguf(n_kvs=90000), "n_kvs", "do not fit")
    yield bad("many-tensors", Gguf(n_tensors=65537), "n_tensors", "at most 65536")
    yield bad("huge-tensors", Gguf(n_tensors=2**63), "n_tensors", "at most")
    yield bad("absent-tensors", Gguf(n_tensors=60000), "n_tensors", "do not fit")
    yield bad("key-empty", Gguf().kv("", U32, 1), "kv0", "empty metadata key")
    yield bad("key-control", Gguf().kv((text(b"ab\n"),), U32, 1), None, "byte 0x0a")
    yield bad("key-long", Gguf().kv((struct.pack("<Q", 65536) + b"kkk",), U8, 1), "kv0", "longer than 65535")
    yield bad("key-endless", Gguf().kv((struct.pack("<Q", 2**64 - 1) + b"abcdefghij",), U8, 1), "kv0", "longer than")
    yield bad("key-twice", Gguf().kv("a", U32, 1).kv("b", U8, 1).kv("a", F32, 1), "kv2", "appears twice")
    yield bad("value-type", Gguf().kv("a", 13, b"\0" * 16), "kv0.type", "value type 13 is unknown")
    yield bad("value-type-huge", Gguf().kv("a", 2**32 - 1, b"\0" * 16), "kv0.type", "is unknown")
    yield bad("bool", Gguf().kv("a", BOOL, 2), "kv0.value", "boolean is 2")
    yield bad("bool-in-array", Gguf().kv("a", ARR, [0, 1, 7], BOOL), None, "boolean is 7")
    yield bad("array-of-arrays", Gguf().kv("a", ARR, b"\0" * 24, ARR, 1), "kv0.elem", "arrays of arrays")
    yield bad("array-elem", Gguf().kv("a", ARR, b"\0" * 24, 77, 1), "kv0.elem", "element type 77")
    yield bad("array-overflow", Gguf().kv("a", ARR, b"\0" * 24, U64, 2**62), "kv0.value", "larger than any file")
    yield bad("array-long", Gguf().kv("a", ARR, b"\0" * 24, U8, 2**40), "kv0.value", "cut off")
    yield bad("array-strings-long", Gguf().kv("a", ARR, ["x"] * 3, STR, 2**60), None, "cut off")
    yield bad("string-over-1mib", Gguf().kv("a", STR, struct.pack("<Q", 2**20 + 1) + b"xyz"), "kv0.value",
              "longer than 1048576")
    yield bad("string-in-array", Gguf().kv("a", ARR, text("x") + struct.pack("<Q", 2**63), STR, 2), None, "longer than")
    for value, name in ((0, "zero"), (24, "odd"), (2**21, "big"), (2**31, "huge")):
        yield bad(f"alignment-{name}", Gguf().kv("general.alignment", U32, value).tensor("t", [4]), "kv0",
                  "not a power of two")
    yield bad("alignment-type", Gguf().kv("general.alignment", STR, "32"), "kv0", "expected an integer")
    yield bad("alignment-beyond-end", Gguf().kv("general.alignment", U32, 2**20).tensor("t", [4]), "t0",
              "ends behind the file")
    yield bad("name-empty", Gguf().tensor("", [4]), "t0", "empty tensor name")
    yield bad("name-long", Gguf().tensor("n" * 65, [4]), "t0", "longer than 64")
    yield bad("name-twice", Gguf().tensor("t", [4]).tensor("u", [4]).tensor("t", [4]), "t2", "appears twice")
    yield bad("dims-none", Gguf().tensor("t", []), "t0.n_dims", "0 dimensions")
    yield bad("dims-five", Gguf().tensor("t", [1] * 5), "t0.n_dims", "5 dimensions")
    yield bad("dims-huge", Gguf().tensor("t", [4], n_dims=2**32 - 1), "t0.n_dims", "dimensions")
    yield bad("dim-zero", Gguf().tensor("t", [4, 0], size=16), "t0.dim1", "dimension 1 is 0")
    yield bad("dim-negative", Gguf().tensor("t", [2**64 - 4], size=16), "t0.dim0", "dimension 0 is")
    yield bad("dims-overflow", Gguf().tensor("t", [2**32, 2**32, 16], size=16), "t0", "overflows")
    yield bad("dims-overflow-wraps", Gguf().tensor("t", [2**31, 2**31, 4, 1], size=16), "t0", "overflows")
    yield bad("columns-overflow", Gguf().tensor("t", [2**62], size=16), "t0", "no whole blocks")
    yield bad("columns-partial", Gguf().tensor("t", [100], 12, size=144), "t0", "no whole blocks of Q4_K")
    yield bad("type-foreign", Gguf().tensor("t", [32], 20, size=18), "t0.type", "IQ4_NL")
    yield bad("type-removed", Gguf().tensor("t", [32], 4, size=18), "t0.type", "unknown")
    yield bad("type-huge", Gguf().tensor("t", [32], 2**31, size=18), "t0.type", "unknown")
    yield bad("offset-unaligned", Gguf().tensor("t", [4], offset=8), "t0.offset", "not a multiple of 32")
    yield bad("offset-beyond", Gguf().tensor("t", [4], offset=2**20), "t0", "ends behind the file")
    yield bad("offset-overflow", Gguf().tensor("t", [4], offset=2**64 - 32), "t0", "ends behind the file")
    yield bad("size-beyond", Gguf().tensor("t", [2**40], size=64), "t0", "ends behind the file")
    yield bad("overlap-same", Gguf().tensor("t", [4]).tensor("u", [4], offset=0), None, "overlaps")
    yield bad("overlap-part", Gguf().tensor("t", [32]).tensor("u", [8], offset=96), "t1", "overlaps")


def st_file(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_files():
    good = {"a": entry("F32", [2, 2], 0, 16), "b": entry("BF16", [3], 16, 22), "c": entry("F16", [], 22, 24),
            "__metadata__": {"format": "pt"}}
    data = bytes(range(24))
    raw = st_file(good, data)
    yield "ok-base", raw, None, None
    yield "ok-padded", st_file(json.dumps(good).encode() + b"   ", data), None, None
    yield "ok-empty", st_file({}), None, None
    yield "ok-escapes", st_file(b'{"a\\u0041\\"[[[[":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4), None, None

    for cut in (1, 7, 8, 9, 40, len(raw) - 25, len(raw) - 24, len(raw) - 1):
        yield f"bad-cut-{cut:04d}", raw[:cut], None, ""

    def one(name, e, reason, size=16, offset=8):
        return "bad-" + name, st_file({"t": e}, b"\0" * size), offset, reason

    yield "bad-length-huge", st_file(good, data, length=2**63), 0, "at most 100000000"
    yield "bad-length-beyond", st_file(good, data, length=99999999), 0, "ends behind the file"
    yield "bad-length-zero", st_file(b"", data), 8, "does not start with"
    yield "bad-length-short", st_file(good, data, length=20), None, "bad JSON"
    yield "bad-not-object", st_file(b"[1,2]"), 8, "does not start with"
    yield "bad-json", st_file(b'{"a":nope}'), None, "bad JSON"
    yield "bad-json-trailing", st_file(b'{} {}'), None, "bad JSON"
    yield "bad-json-utf8", st_file(b'{"\xff\xfe":1}'), None, "bad JSON"
    yield "bad-json-deep", st_file(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"), 8 + 5 + 1, "nests in an array"
    yield "bad-json-deep-objects", st_file(b'{"a":' * 5000), 8 + 15, "nests more than three deep"
    yield "bad-json-many-arrays", st_file(b'{"a":[' + b"[]," * 3000 + b"[]]}"), 8 + 6, "nests in an array"
    yield "bad-json-long-array", st_file(b'{"a":[' + b"1," * 5000 + b"1]}"), None, "array of more than four"
    yield "bad-twice", st_file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                               b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4), None, "duplicate"
    yield "bad-key-twice", st_file(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
                                   b"\0" * 4), None, "duplicate"
    yield "bad-metadata", st_file({"__metadata__": [1]}), 8, "__metadata__"
    yield "bad-entry", st_file({"t": 5}), 8, "not an object"
    yield "bad-name-empty", st_file({"": entry("F32", [4], 0, 16)}, b"\0" * 16), 8, "name is empty"
    yield one("entry-lacks", {"dtype": "F32", "shape": [4]}, "lacks one")
    yield one("entry-extra", dict(entry("F32", [4], 0, 16), more=1), "besides")
    yield one("entry-renamed", {"dtype": "F32", "shape": [4], "offsets": [0, 16]}, "data_offsets is missing")
    yield one("dtype-number", entry(7, [4], 0, 16), "dtype is missing or not a string")
    yield one("dtype-foreign", entry("I64", [2], 0, 16), "dtype I64 is not supported")
    yield one("shape-text", entry("F32", "4", 0, 16), "shape is missing")
    yield one("shape-float", entry("F32", [4.0], 0, 16), "not a positive integer")
    yield one("shape-zero", entry("F32", [4, 0], 0, 0), "not a positive integer")
    yield one("shape-negative", entry("F32", [-4], 0, 16), "not a positive integer")
    yield one("shape-overflow", entry("F32", [2**62, 2**62], 0, 16), "overflows")
    yield one("shape-wraps", entry("F32", [2**31, 2**31, 4], 0, 16), "overflows")
    yield one("shape-beyond-int64", entry("F32", [2**64], 0, 16), "bad JSON", offset=None)
    yield one("offsets-three", dict(entry("F32", [4], 0, 16), data_offsets=[0, 8, 16]), "not two integers")
    yield one("offsets-float", entry("F32", [4], 0.0, 16.0), "not two integers")
    yield one("offsets-negative", entry("F32", [4], -16, 0), "negative or reversed")
    yield one("offsets-reversed", entry("F32", [4], 16, 0), "negative or reversed")
    yield one("offsets-beyond", entry("F32", [8], 0, 32), "cut off")
    yield one("offsets-far", entry("F32", [4], 2**62, 2**62 + 16), "cut off")
    yield one("offsets-short", entry("F32", [4], 0, 12), "the shape needs 16")

    def two(name, first, second, size, reason, field):
        header = {"t": first, "u": second}
        return "bad-" + name, st_file(header, b"\0" * size), len(st_file(header)) + field, reason

    yield two("overlap", entry("F32", [4], 0, 16), entry("F32", [4], 8, 24), 24, "overlaps", 8)
    yield two("overlap-same", entry("F32", [4], 0, 16), entry("F32", [4], 0, 16), 16, "overlaps", 0)
    yield two("hole", entry("F32", [4], 0, 16), entry("F32", [4], 20, 36), 36, "unused bytes", 20)
    yield two("hole-first", entry("F32", [4], 4, 20), entry("F32", [4], 20, 36), 36, "unused bytes", 4)
    yield two("trailing", entry("F32", [4], 0, 16), entry("F32", [4], 16, 32), 33, "behind the last tensor", 32)
    yield "bad-trailing-empty", st_file({}, b"\0"), 10, "behind the last tensor"


def write(folder, kind, files):
    place = folder / kind
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    lines = []
    for name, blob, offset, reason in files:
        (place / name).write_bytes(blob)
        if name.startswith("bad-"):
            lines.append(f"{name}\t{'-' if offset is None else offset}\t{reason}\n")
    (folder / f"{kind}.expect").write_text("".join(lines))


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fuzz/corpus")
    write(folder, "gguf", gguf_files())
    write(folder, "safetensors", safetensors_files())


if __name__ == "__main__":
    main()
