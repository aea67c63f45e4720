/* The streaming detokenizer: text -> tokens -> text is the identity, every prefix of the stream is whole UTF-8 and a
 * prefix of the text, broken bytes become U+FFFD, the space rule of the first token. */
#include "base/rng.h"
#include "model/detokenizer.h"
#include "model/unicode.h"
#include "tests/tools/gguf_build.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/model/vocab.h"

#define FFFD "\xef\xbf\xbd"

/* Push all ids; out (large enough) gets the text, its length is returned. Checks every part. */
static size_t stream(const tr_tokenizer *t, unsigned flags, const uint32_t *ids, size_t n, char *out) {
    tr_detokenizer d;
    size_t cap = tr_detokenizer_bound(t), len = 0;
    char *part = malloc(cap);
    tr_detokenizer_init(&d, t, flags);
    for (size_t i = 0; i < n; i++) {
        size_t size = 0;
        assert_int_equal(tr_detokenizer_push(&d, t, ids[i], part, cap, &size), TR_OK);
        assert_true(size <= cap && tr_unicode_utf8_valid(part, size));
        memcpy(out + len, part, size);
        len += size;
    }
    size_t tail = tr_detokenizer_flush(&d, out + len);
    assert_true(tail == 0 || (tail == TR_DETOKENIZER_TAIL && memcmp(out + len, FFFD, 3) == 0));
    assert_int_equal(tr_detokenizer_flush(&d, out + len + tail), 0);
    free(part);
    return len + tail;
}

static size_t random_text(tr_rng *rng, char *text, size_t room) {
    static const uint32_t tops[] = {0x80, 0x80, 0x250, 0x800, 0x3100, 0xa000, 0x20000, TR_UNICODE_LIMIT};
    size_t len = 0;
    while (len + TR_UNICODE_MAX_BYTES <= room && tr_rng_below(rng, 30) > 0) {
        uint32_t point = (uint32_t)tr_rng_below(rng, tops[tr_rng_below(rng, 8)]);
        if ((point >= 0xd800 && point < 0xe000) || point == 0x2581) point = ' '; /* U+2581 comes back as a blank */
        len += tr_unicode_encode(point, text + len);
    }
    return len;
}

static void test_identity(void **state) {
    (void)state;
    static const char *const vocabs[] = {"llama-spm", "phi-3", "llama-bpe", "gpt-2", "qwen2", "gemma3-270m"};
    tr_rng rng = {3};
    for (size_t v = 0; v < sizeof vocabs / sizeof *vocabs; v++) {
        char path[128];
        snprintf(path, sizeof path, GOLDEN "%s-small.gguf", vocabs[v]);
        tr_tokenizer *t = open_vocab(path);
        for (int round = 0; round < 3000; round++) {
            char text[128], out[1024];
            uint32_t ids[512];
            size_t len = random_text(&rng, text, sizeof text), n = 0;
            assert_int_equal(tr_tokenizer_encode(t, text, len, 0, ids, 512, &n, NULL), TR_OK);
            size_t got = stream(t, 0, ids, n, out);
            if (got != len || memcmp(out, text, len) != 0) fail_msg("%s, round %d", vocabs[v], round);
        }
        tr_tokenizer_destroy(&t);
    }
}

/* Any ids at all: whole characters only, and nothing grows past the bound. */
static void test_any_ids(void **state) {
    (void)state;
    static const char *const vocabs[] = {"llama-spm", "smollm2-135m", "gemma3-270m"};
    tr_rng rng = {4};
    for (size_t v = 0; v < sizeof vocabs / sizeof *vocabs; v++) {
        char path[128];
        static char out[1 << 20];
        snprintf(path, sizeof path, GOLDEN "%s-small.gguf", vocabs[v]);
        tr_tokenizer *t = open_vocab(path);
        for (int round = 0; round < 2000; round++) {
            uint32_t ids[64];
            for (size_t i = 0; i < 64; i++) {
                ids[i] = (uint32_t)tr_rng_below(&rng, round % 2 ? 300 : tr_tokenizer_vocab(t));
            }
            size_t len = stream(t, round % 4, ids, 64, out);
            assert_true(tr_unicode_utf8_valid(out, len));
        }
        tr_tokenizer_destroy(&t);
    }
}

/* All byte tokens: id = byte. */
static tr_tokenizer *byte_vocab(bool prefix) {
    static tr_gguf_build b;
    tr_gguf *g = NULL;
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    const int32_t byte = 6, normal = 1, control = 3;
    tr_gguf_build_begin(&b);
    tr_gguf_build_str(&b, "tokenizer.ggml.model", "llama");
    tr_gguf_build_bool(&b, "tokenizer.ggml.add_space_prefix", prefix);
    tr_gguf_build_arr(&b, "tokenizer.ggml.tokens", TR_GGUF_STR, 258);
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        tr_gguf_build_text(&b, text, 6);
    }
    tr_gguf_build_text(&b, "\xe2\x96\x81\xe2\x96\x81x", 7); /* 256 */
    tr_gguf_build_text(&b, "<eos>", 5);                     /* 257 */
    tr_gguf_build_arr(&b, "tokenizer.ggml.token_type", TR_GGUF_I32, 258);
    for (unsigned i = 0; i < 258; i++) tr_gguf_build_raw(&b, i < 256 ? &byte : i == 256 ? &normal : &control, 4);
    tr_gguf_build_arr(&b, "tokenizer.ggml.scores", TR_GGUF_F32, 258);
    for (unsigned i = 0; i < 258; i++) tr_gguf_build_raw(&b, &(float){0}, 4);
    tr_gguf_build_end(&b);
    if (tr_gguf_open_buffer(b.data, b.n, "bytes", &g, &err) != TR_OK) fail_msg("%s", err.text);
    if (tr_tokenizer_create(g, &t, &err) != TR_OK) fail_msg("%s", err.text);
    tr_gguf_close(&g);
    return t;
}

static void test_broken(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"abc", "abc"},
        {"\xc3\xa9", "\xc3\xa9"},
        {"\xc3", FFFD},
        {"\xc3z", FFFD "z"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"\xf0\x9f\x98", FFFD},
        {"\xf0\x9f\x98z", FFFD "z"},
        {"\x80\x80", FFFD FFFD},
        {"\xff", FFFD},
        {"\xed\xa0\x80", FFFD FFFD FFFD},
        {"\xe0\x80", FFFD FFFD},
        {"\xf4\x90", FFFD FFFD},
        {"\xf0\x9f\xc3\xa9", FFFD "\xc3\xa9"},
        {"\xf1\x80\x80\xe1\x80\xc2z", FFFD FFFD FFFD "z"},
    };
    tr_tokenizer *t = byte_vocab(false);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t ids[16];
        char out[64];
        size_t n = strlen(rows[i][0]);
        for (size_t k = 0; k < n; k++) ids[k] = (uint8_t)rows[i][0][k];
        size_t len = stream(t, 0, ids, n, out);
        if (len != strlen(rows[i][1]) || memcmp(out, rows[i][1], len) != 0) fail_msg("row %zu", i);
    }
    tr_tokenizer_destroy(&t);
}

static void test_hold(void **state) {
    (void)state;
    tr_tokenizer *t = byte_vocab(false);
    static const uint8_t smile[] = {0xf0, 0x9f, 0x98, 0x80};
    tr_detokenizer d, copy;
    char out[2048];
    size_t n;
    tr_detokenizer_init(&d, t, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tr_detokenizer_push(&d, t, smile[i], out, sizeof out, &n), TR_OK);
        assert_int_equal(n, 0);
    }
    copy = d;                                                                      /* the state is plain data */
    assert_int_equal(tr_detokenizer_push(&d, t, 257, out, sizeof out, &n), TR_OK); /* control: nothing, keeps holding */
    assert_int_equal(n, 0);
    assert_int_equal(tr_detokenizer_push(&d, t, 9999, out, sizeof out, &n), TR_INVALID);
    assert_int_equal(tr_detokenizer_push(&d, t, smile[3], out, 2, &n), TR_EXHAUSTED);
    assert_int_equal(tr_detokenizer_push(&d, t, smile[3], out, sizeof out, &n), TR_OK);
    assert_int_equal(n, 4);
    assert_memory_equal(out, smile, 4);
    assert_int_equal(tr_detokenizer_flush(&copy, out), 3);
    tr_tokenizer_destroy(&t);
}

static void test_first_space(void **state) {
    (void)state;
    const struct {
        bool prefix;
        unsigned flags;
        uint32_t ids[2];
        const char *text;
    } rows[] = {
        {true, 0, {256, 256}, " x  x"},   /* one blank of the first token goes */
        {true, 0, {257, 256}, "  x"},     /* the first token is EOS: it takes the rule with it */
        {true, 0, {' ', 256}, "  x"},     /* a byte token that is a blank */
        {false, 0, {256, 256}, "  x  x"}, /* no prefix in this vocabulary */
        {true, TR_DETOKENIZE_CONTINUE, {256, 'y'}, "  xy"},
        {true, TR_DETOKENIZE_SPECIAL, {257, 'y'}, "<eos>y"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tr_tokenizer *t = byte_vocab(rows[i].prefix);
        char out[64];
        size_t len = stream(t, rows[i].flags, rows[i].ids, 2, out);
        if (len != strlen(rows[i].text) || memcmp(out, rows[i].text, len) != 0)
            fail_msg("row %zu: %.*s", i, (int)len, out);
        tr_tokenizer_destroy(&t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity), cmocka_unit_test(test_any_ids),     cmocka_unit_test(test_broken),
        cmocka_unit_test(test_hold),     cmocka_unit_test(test_first_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
