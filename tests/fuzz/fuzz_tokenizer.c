/* Tokenizers. A GGUF image ("GGUF...") is read as a vocabulary, and some texts are encoded with it. Any other input is
 * {u8 choice, text}: a built-in tiny vocabulary and flags by choice, then encode, and stream back. A refusal must carry
 * a one-line reason; byte-level text comes back as it went in. */
#include "base/status.h"
#include "fuzz_target.h"
#include "model/detokenizer.h"
#include "model/gguf.h"
#include "model/tokenizer.h"
#include "model/unicode.h"
#include "tests/tools/gguf_build.h"

#include <stdlib.h>
#include <string.h>

static void put_alphabet(tr_gguf_build *b) {
    unsigned spare = 256;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
        char text[TR_UNICODE_MAX_BYTES];
        tr_gguf_build_text(b, text, tr_unicode_encode(printable ? byte : spare++, text));
    }
}

static void put_texts(tr_gguf_build *b, const char *const *texts, size_t n) {
    for (size_t i = 0; i < n; i++) tr_gguf_build_text(b, texts[i], strlen(texts[i]));
}

static tr_tokenizer *finish(tr_gguf_build *b) {
    tr_gguf *g;
    tr_tokenizer *t;
    tr_error err;
    tr_gguf_build_end(b);
    tr_check(tr_gguf_open_buffer(b->data, b->n, "built-in", &g, &err) == TR_OK);
    tr_check(tr_tokenizer_create(g, &t, &err) == TR_OK);
    tr_gguf_close(&g);
    return t;
}

static tr_tokenizer *make_bpe(const char *pre) {
    static const char *const more[] = {"ab", "abab", "\xc4\xa0\x61", "\xc4\xa0\xc4\xa0",
                                       "11", "aa",   "aaa",          "<|im_end|>"};
    static const char *const merges[] = {"a b", "\xc4\xa0 \xc4\xa0", "\xc4\xa0 a", "a a", "ab ab", "aa a", "1 1"};
    static tr_gguf_build b;
    enum { N_MORE = sizeof more / sizeof *more, N_MERGES = sizeof merges / sizeof *merges };
    const int32_t normal = 1, control = 3;
    tr_gguf_build_begin(&b);
    tr_gguf_build_str(&b, "tokenizer.ggml.model", "gpt2");
    tr_gguf_build_str(&b, "tokenizer.ggml.pre", pre);
    tr_gguf_build_num(&b, "tokenizer.ggml.bos_token_id", 0);
    tr_gguf_build_arr(&b, "tokenizer.ggml.tokens", TR_GGUF_STR, 256 + N_MORE);
    put_alphabet(&b);
    put_texts(&b, more, N_MORE);
    tr_gguf_build_arr(&b, "tokenizer.ggml.token_type", TR_GGUF_I32, 256 + N_MORE);
    for (size_t i = 1; i < 256 + N_MORE; i++) tr_gguf_build_raw(&b, &normal, 4);
    tr_gguf_build_raw(&b, &control, 4);
    tr_gguf_build_arr(&b, "tokenizer.ggml.merges", TR_GGUF_STR, N_MERGES);
    put_texts(&b, merges, N_MERGES);
    return finish(&b);
}

static tr_tokenizer *make_spm(void) {
    static const char *const texts[] = {
        "<unk>", "<s>", "</s>", "\xe2\x96\x81", "a",      "b",      "ab",
        "aa",    "aab", "\n\n", "\n\n\n",       "<0x0A>", "<0x80>", "\xe2\x96\x81\xe2\x96\x81"};
    static const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 1, 1, 4, 4, 6, 6, 4};
    static const float scores[] = {0, 0, 0, -1, -2, -3, -1.5f, -1.5f, -0.5f, 0, 0, 0, 0, 0};
    static tr_gguf_build b;
    enum { N = sizeof texts / sizeof *texts };
    _Static_assert(N == sizeof types / sizeof *types && N == sizeof scores / sizeof *scores, "one row a token");
    tr_gguf_build_begin(&b);
    tr_gguf_build_str(&b, "tokenizer.ggml.model", "llama");
    tr_gguf_build_str(&b, "general.name", "Phi3");
    tr_gguf_build_arr(&b, "tokenizer.ggml.tokens", TR_GGUF_STR, N);
    put_texts(&b, texts, N);
    tr_gguf_build_arr(&b, "tokenizer.ggml.token_type", TR_GGUF_I32, N);
    tr_gguf_build_raw(&b, types, sizeof types);
    tr_gguf_build_arr(&b, "tokenizer.ggml.scores", TR_GGUF_F32, N);
    tr_gguf_build_raw(&b, scores, sizeof scores);
    return finish(&b);
}

/* Encode and stream back; with identity the text must come back. */
static void encode(const tr_tokenizer *t, const char *text, size_t len, unsigned flags, bool identity) {
    size_t cap = tr_tokenizer_bound(len), n = 0, room = tr_detokenizer_bound(t), used = 0;
    uint32_t *ids = malloc(cap * sizeof *ids);
    char *part = malloc(room), tail[TR_DETOKENIZER_TAIL];
    tr_error err;
    tr_check(ids != NULL && part != NULL);
    tr_check(tr_tokenizer_encode(t, text, len, flags, ids, cap, &n, &err) == TR_OK && n <= cap);
    tr_detokenizer d;
    tr_detokenizer_init(&d, t, (flags & TR_TOKENIZE_PARSE_SPECIAL) != 0 ? TR_DETOKENIZE_SPECIAL : 0);
    for (size_t i = 0; i < n; i++) {
        size_t size;
        tr_check(ids[i] < tr_tokenizer_vocab(t));
        tr_check(tr_detokenizer_push(&d, t, ids[i], part, room, &size) == TR_OK);
        tr_check(size <= room && tr_unicode_utf8_valid(part, size));
        if (identity) tr_check(size <= len - used && memcmp(part, text + used, size) == 0);
        used += size;
    }
    size_t rest = tr_detokenizer_flush(&d, tail);
    if (identity) tr_check(used == len && rest == 0);
    free(ids);
    free(part);
}

static void vocabulary(const uint8_t *data, size_t size) {
    static const char text[] = "Hello  world\n\n12 don't \xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80\xff<s></s> \xe2\x96\x81";
    tr_gguf *g;
    tr_tokenizer *t;
    tr_error err = {0};
    if (tr_gguf_open_buffer(data, size, "input", &g, &err) != TR_OK) return;
    tr_status s = tr_tokenizer_create(g, &t, &err);
    if (s != TR_OK) {
        tr_check((s == TR_DATA || s == TR_SYSTEM) && err.status == s);
        tr_check(err.text[0] != 0 && strchr(err.text, '\n') == NULL);
    } else {
        for (unsigned flags = 0; flags < 4; flags++) encode(t, text, sizeof text - 1, flags, false);
        tr_tokenizer_destroy(&t);
    }
    tr_gguf_close(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
    static tr_tokenizer *tiny[5];
    if (tiny[0] == NULL) {
        for (size_t i = 0; i < 4; i++) tiny[i] = make_bpe(names[i]);
        tiny[4] = make_spm();
    }
    if (size >= 4 && memcmp(data, "GGUF", 4) == 0) {
        vocabulary(data, size);
    } else if (size >= 1) {
        const char *text = (const char *)data + 1;
        unsigned which = data[0] % 5u, flags = data[0] / 5u % 4u;
        bool identity = which < 4 && (flags & TR_TOKENIZE_BOS) == 0 && tr_unicode_utf8_valid(text, size - 1);
        encode(tiny[which], text, size - 1, flags, identity);
    }
    return 0;
}
