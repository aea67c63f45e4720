"""The vocabulary of a GGUF file as the tokenizer.json and tokenizer_config.json of a Hugging Face folder.

The sections around the model (normalizer, pre_tokenizer, post_processor, decoder) are those that the families' published
files have; a GGUF names the family. SentencePiece vocabularies have no merge list: it is made from the scores, as
transformers' converter does. Needs: gguf.
"""
SPLIT = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}%s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
         "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def byte_level(add_prefix_space, use_regex):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


def split(digits):
    regex = {"type": "Split", "pattern": {"Regex": SPLIT % digits}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [regex, byte_level(False, False)]}


PRE = {  # tokenizer.ggml.pre -> (normalizer, pre_tokenizer, ignore_merges)
    "gpt-2": (None, byte_level(False, True), False),
    "smollm": (None, {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                                                            byte_level(False, True)]}, False),
    "llama-bpe": (None, split("{1,3}"), True),
    "qwen2": ({"type": "NFC"}, split(""), False),
}


class Vocabulary:
    def __init__(self, reader):
        self.fields = reader.fields
        self.tokens = [bytes(t).decode() for t in self.list("tokens")]
        self.types = [int(t[0]) for t in self.list("token_type")]
        self.scores = [float(s[0]) for s in self.list("scores")]

    def list(self, key):
        f = self.fields.get("tokenizer.ggml." + key)
        return [] if f is None else [f.parts[i] for i in f.data]

    def get(self, key, default=None):
        f = self.fields.get("tokenizer.ggml." + key)
        return default if f is None else f.contents()


def merges_of_scores(vocab, scores):
    """[left, right] of all pairs that make a token, best score first; ties as SentencePieceExtractor breaks them."""
    out = []
    for piece, score in scores.items():
        local = [(piece[:i], piece[i:], score) for i in range(1, len(piece))
                 if piece[:i] in vocab and piece[i:] in vocab]
        out += sorted(local, key=lambda x: (vocab[x[0]], vocab[x[1]]))
    out.sort(key=lambda x: (x[2], len(x[0]), len(x[1])), reverse=True)
    return [[left, right] for left, right, _ in out]


def added(i, text, special, rstrip):
    return {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": rstrip, "normalized": False,
            "special": special}


def template(bos, i):
    first = [{"SpecialToken": {"id": bos, "type_id": 0}}] if bos is not None else []
    single = first + [{"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single,
            "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [i], "tokens": [bos]}} if bos is not None else {}}


def pieces(v):
    """SentencePiece: (vocab, model, normalizer, pre_tokenizer, decoder)."""
    texts = [t.replace(" ", "▁") if k == USER else t for t, k in zip(v.tokens, v.types)]
    vocab = {t: i for i, t in enumerate(texts)}
    scores = {t: 0.0 if k == USER else s for t, k, s in zip(texts, v.types, v.scores) if k in (NORMAL, USER)}
    blank = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    decoder = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
               {"type": "Fuse"}]
    pre, normalizer = None, blank
    if v.get("add_space_prefix", True):
        normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, blank]}
        decoder.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    else:
        pre = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    model = {"type": "BPE", "dropout": None, "unk_token": texts[v.get("unknown_token_id", 0)],
             "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
             "ignore_merges": False, "vocab": vocab, "merges": merges_of_scores(vocab, scores)}
    return texts, model, normalizer, pre, {"type": "Sequence", "decoders": decoder}


def bytes_(v, pairs):
    normalizer, pre, ignore = PRE[v.get("pre")]
    merges = [bytes(m).decode() for m in v.list("merges")]
    if pairs:
        merges = [[m[0] + m[1:].split(" ", 1)[0], m[1:].split(" ", 1)[1]] for m in merges]
    last = max(i for i, k in enumerate(v.types) if k == NORMAL)  # tokens behind it are added, those before it are in
    vocab = {t: i for i, t in enumerate(v.tokens[:last + 1])}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
             "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": ignore,
             "vocab": vocab, "merges": merges}
    return v.tokens, model, normalizer, pre, byte_level(True, True)


def convert(reader, pairs=True, rstrip=False):
    """(tokenizer.json, tokenizer_config.json) as dicts. pairs: merges as lists, the newer spelling. rstrip: special tokens
    but the first three take the white space behind them, as Phi-3's do."""
    v = Vocabulary(reader)
    spm = v.get("model") == "llama"
    texts, model, normalizer, pre, decoder = pieces(v) if spm else bytes_(v, pairs)
    bos, eos = v.get("bos_token_id"), v.get("eos_token_id")
    add_bos = v.get("add_bos_token", spm or v.get("pre") == "llama-bpe")
    post = template(texts[bos], bos) if add_bos else None
    if not spm:
        post = {"type": "Sequence", "processors": [byte_level(True, False), post]} if post else byte_level(True, False)
    special = (CONTROL, UNKNOWN, UNUSED)
    extra = [added(i, t, k in special, rstrip and i > 2)
             for i, (t, k) in enumerate(zip(texts, v.types)) if k in special + (USER,) and t]
    config = {"bos_token": None if bos is None else texts[bos], "eos_token": None if eos is None else texts[eos],
              "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1000000000000000019884624838656}
    chat = reader.fields.get("tokenizer.chat_template")
    if chat is not None:
        config["chat_template"] = chat.contents()
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": extra, "normalizer": normalizer,
            "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model}, config
