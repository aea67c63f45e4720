/* Round trip of random messages of every type, bounds, and hostile input. */
#include "base/rng.h"
#include "transport/codec.h"
#include "transport/schema_table.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- random messages ---------------------------------------------------------------------------------------------
 */
typedef struct pool {
    uint8_t *mem;
    size_t used, cap;
} pool;

static void *take(pool *p, size_t n) {
    size_t at = (p->used + 15) & ~(size_t)15;
    assert_true(at + n <= p->cap);
    p->used = at + n;
    return p->mem + at;
}

static tr_str random_text(tr_rng *r, pool *p, uint64_t max) {
    static const char *const pieces[] = {"a", "é", "€", "😀", "\n", "x", " ", "\"", "ß"};
    tr_str s = {take(p, max + 1), 0};
    uint64_t want = tr_rng_below(r, max + 1);
    char *at = (char *)(uintptr_t)s.data;
    for (;;) {
        const char *piece = pieces[tr_rng_below(r, 9)];
        if (s.len + strlen(piece) > want) return s;
        memcpy(at + s.len, piece, strlen(piece));
        s.len += (uint32_t)strlen(piece);
    }
}

static uint64_t random_number(tr_rng *r, uint64_t max) {
    uint64_t n = tr_rng_next(r) >> tr_rng_below(r, 64);
    return tr_rng_below(r, 8) == 0 ? max : n > max ? n % (max + 1) : n;
}

static void fill(tr_rng *r, pool *p, const tr_schema_record *record, void *at);

static void fill_field(tr_rng *r, pool *p, const tr_schema_field *f, uint8_t *at) {
    uint64_t cap = f->bound < 400 ? f->bound : 400;
    switch (f->kind) {
    case TR_SCHEMA_u32: *(uint32_t *)at = (uint32_t)random_number(r, f->bound ? f->bound : UINT32_MAX); break;
    case TR_SCHEMA_u64: *(uint64_t *)at = random_number(r, f->bound ? f->bound : UINT64_MAX - 1); break;
    case TR_SCHEMA_f32: *(float *)at = (float)(tr_rng_unit(r) * (double)f->bound); break;
    case TR_SCHEMA_real: *(float *)at = (float)((2 * tr_rng_unit(r) - 1) * (double)f->bound); break;
    case TR_SCHEMA_str: *(tr_str *)at = random_text(r, p, cap); break;
    case TR_SCHEMA_bin: {
        uint32_t n = (uint32_t)tr_rng_below(r, cap + 1);
        uint8_t *b = take(p, n + 1);
        for (uint32_t i = 0; i < n; i++) b[i] = (uint8_t)tr_rng_next(r);
        *(tr_bin *)at = (tr_bin){b, n};
        break;
    }
    case TR_SCHEMA_u32v: {
        uint32_t n = (uint32_t)tr_rng_below(r, cap + 1), *list = take(p, 4 * (size_t)n + 4);
        for (uint32_t i = 0; i < n; i++) list[i] = (uint32_t)random_number(r, UINT32_MAX);
        *(tr_u32v *)at = (tr_u32v){list, n};
        break;
    }
    case TR_SCHEMA_realv: {
        uint32_t n = (uint32_t)tr_rng_below(r, cap + 1);
        float *list = take(p, 4 * (size_t)n + 4);
        for (uint32_t i = 0; i < n; i++) list[i] = (float)((tr_rng_unit(r) - 0.5) * 1e4);
        *(tr_realv *)at = (tr_realv){list, n};
        break;
    }
    case TR_SCHEMA_strv: {
        uint32_t n = (uint32_t)tr_rng_below(r, cap + 1);
        tr_str *list = take(p, sizeof(tr_str) * (n + 1));
        for (uint32_t i = 0; i < n; i++) list[i] = random_text(r, p, TR_MAX_STOP_BYTES);
        *(tr_strv *)at = (tr_strv){list, n};
        break;
    }
    case TR_SCHEMA_spanv: {
        uint32_t n = (uint32_t)tr_rng_below(r, 9);
        tr_msg_span *list = take(p, sizeof(tr_msg_span) * (n + 1));
        memset(list, 0, sizeof(tr_msg_span) * (n + 1));
        for (uint32_t i = 0; i < n; i++) fill(r, p, tr_schema_table_span(), &list[i]);
        *(tr_spanv *)at = (tr_spanv){list, n};
        break;
    }
    }
}

static void fill(tr_rng *r, pool *p, const tr_schema_record *record, void *at) {
    for (uint32_t i = 0; i < record->n_fields; i++)
        if (tr_rng_below(r, 4) != 0) fill_field(r, p, &record->field[i], (uint8_t *)at + record->field[i].offset);
}

static void same(const tr_schema_record *record, const void *a_, const void *b_) {
    for (uint32_t i = 0; i < record->n_fields; i++) {
        const tr_schema_field *f = &record->field[i];
        const uint8_t *a = (const uint8_t *)a_ + f->offset, *b = (const uint8_t *)b_ + f->offset;
        if (f->kind == TR_SCHEMA_u32 || f->kind == TR_SCHEMA_f32 || f->kind == TR_SCHEMA_real) {
            assert_memory_equal(a, b, 4);
            continue;
        }
        if (f->kind == TR_SCHEMA_u64) {
            assert_memory_equal(a, b, 8);
            continue;
        }
        const tr_bin *x = (const tr_bin *)a, *y = (const tr_bin *)b;
        assert_int_equal(x->len, y->len);
        if (x->len == 0) continue;
        if (f->kind == TR_SCHEMA_strv)
            for (uint32_t k = 0; k < x->len; k++) {
                const tr_str *s = &((const tr_strv *)a)->data[k], *t = &((const tr_strv *)b)->data[k];
                assert_int_equal(s->len, t->len);
                if (s->len) assert_memory_equal(s->data, t->data, s->len);
            }
        else if (f->kind == TR_SCHEMA_spanv)
            for (uint32_t k = 0; k < x->len; k++)
                same(tr_schema_table_span(), &((const tr_spanv *)a)->data[k], &((const tr_spanv *)b)->data[k]);
        else
            assert_memory_equal(x->data, y->data,
                                x->len * (f->kind == TR_SCHEMA_u32v || f->kind == TR_SCHEMA_realv ? 4 : 1));
    }
}

enum { POOL_BYTES = 1 << 18, WIRE_BYTES = 1 << 17 };

static void test_round_trip(void **state) {
    (void)state;
    pool p = {malloc(POOL_BYTES), 0, POOL_BYTES};
    uint8_t *wire = malloc(WIRE_BYTES);
    size_t arena_bytes = tr_codec_arena_bytes(400, 9);
    void *memory = malloc(arena_bytes);
    for (uint64_t seed = 0; seed < 4000; seed++) {
        tr_rng r = {seed};
        p.used = 0;
        const tr_schema_record *record = tr_schema_table_at((uint32_t)(seed % TR_SCHEMA_TABLE_COUNT));
        tr_msg m = {.type = record->type}, back;
        fill(&r, &p, record, &m.as);
        size_t bound = tr_codec_size_bound(&m), len = 0;
        assert_true(bound <= tr_codec_type_bound(m.type, 400, 9));
        assert_true(bound <= WIRE_BYTES);
        assert_int_equal(tr_codec_encode(&m, wire, bound, &len), TR_OK);
        assert_true(len <= bound);
        size_t unused = 77;
        assert_int_equal(tr_codec_encode(&m, wire, len - 1, &unused), TR_EXHAUSTED);
        assert_int_equal(unused, 77);
        assert_int_equal(tr_codec_encode(&m, wire, len, &len), TR_OK);
        tr_codec_arena arena;
        tr_codec_arena_init(&arena, memory, arena_bytes);
        tr_error err = {0};
        /* An exact heap copy, so that a read past the end is caught by the sanitizer. */
        uint8_t *exact = malloc(len);
        memcpy(exact, wire, len);
        if (tr_codec_decode(exact, len, &arena, &back, &err) != TR_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        assert_int_equal(back.type, m.type);
        same(record, &m.as, &back.as);
        /* Every truncation is refused, every flipped byte survived. */
        for (size_t cut = 0; cut < len; cut += 1 + len / 40) {
            tr_codec_arena_reset(&arena);
            uint8_t *shorter = malloc(cut ? cut : 1);
            memcpy(shorter, exact, cut);
            assert_int_equal(tr_codec_decode(shorter, cut, &arena, &back, &err), TR_PROTO);
            free(shorter);
        }
        for (int k = 0; k < 20; k++) {
            exact[tr_rng_below(&r, len)] = (uint8_t)tr_rng_next(&r);
            tr_codec_arena_reset(&arena);
            tr_msg_type type;
            uint64_t id;
            tr_codec_peek(exact, len, &type, &id);
            if (tr_codec_decode(exact, len, &arena, &back, &err) == TR_OK) {
                assert_true(tr_codec_encode(&back, wire, WIRE_BYTES, &unused) == TR_OK);
            }
        }
        free(exact);
    }
    free(memory);
    free(wire);
    free(p.mem);
}

/* ---- single cases ------------------------------------------------------------------------------------------------
 */
static tr_status decode_sized(const char *bytes, size_t len, tr_msg *out, tr_error *err) {
    static uint64_t memory[4096];
    static uint8_t keep[1 << 16];
    tr_codec_arena arena;
    tr_codec_arena_init(&arena, memory, sizeof memory);
    memcpy(keep, bytes, len);
    return tr_codec_decode(keep, len, &arena, out, err);
}
#define DECODE(bytes) decode_sized(bytes, sizeof(bytes) - 1, &m, &err)
#define REFUSED(bytes, word)                                                                                           \
    do {                                                                                                               \
        err.text[0] = 0;                                                                                               \
        assert_int_equal(DECODE(bytes), TR_PROTO);                                                                     \
        if (!strstr(err.text, word)) fail_msg("expected \"%s\" in \"%s\"", word, err.text);                            \
    } while (0)

static void test_accepts(void **state) {
    (void)state;
    tr_msg m;
    tr_error err;
    /* Any integer width, any order, unknown fields (nested and ext) skipped. */
    assert_int_equal(DECODE("\x82\xa2id\xcf\0\0\0\0\0\0\0\x07\xa4type\xa5"
                            "abort"),
                     TR_OK);
    assert_int_equal(m.type, TR_MSG_ABORT);
    assert_int_equal(m.as.abort.id, 7);
    assert_int_equal(DECODE("\x82\xa4type\xa5"
                            "abort\xa2id\xd3\0\0\0\0\0\0\0\x09"),
                     TR_OK);
    assert_int_equal(m.as.abort.id, 9);
    assert_int_equal(DECODE("\x84\xa1x\x92\x81\xa1y\xc0\xd4\x01\x02\xa4type\xa5"
                            "abort\xa1z\xc7\x02\x01\x00\x00\xa2id\xd0\x05"),
                     TR_OK);
    assert_int_equal(m.as.abort.id, 5);
    /* Numbers for f32: double, float, integer. Booleans for flags. */
    assert_int_equal(DECODE("\x84\xa4type\xa3"
                            "add\xabtemperature\xcb\x3f\xe8\0\0\0\0\0\0\xa5top_p\x01\xaaignore_eos\xc3"),
                     TR_OK);
    assert_true(m.as.add.temperature == 0.75f && m.as.add.top_p == 1.0f);
    assert_int_equal(m.as.add.ignore_eos, 1);
    assert_int_equal(m.as.add.max_tokens, 0);
    assert_int_equal(DECODE("\x81\xa4type\xa6status"), TR_OK);
    assert_int_equal(m.type, TR_MSG_STATUS);
}

static void test_refuses(void **state) {
    (void)state;
    tr_msg m = {.type = TR_MSG_PING};
    tr_error err;
    REFUSED("", "map");
    REFUSED("\xc0", "map");
    REFUSED("\x80", "type");
    REFUSED("\x81\xa4type\xa4nope", "no such");
    REFUSED("\x81\xa4type\x05", "type");
    REFUSED("\x82\xa4type\xa5"
            "abort\xa4type\xa5"
            "abort",
            "twice");
    REFUSED("\x83\xa4type\xa5"
            "abort\xa2id\x01\xa2id\x01",
            "twice");
    REFUSED("\x82\xa4type\xa5"
            "abort\xa2id\xff",
            "negative");
    REFUSED("\x82\xa4type\xa5"
            "abort\xa2id\xd0\xff",
            "negative");
    REFUSED("\x82\xa4type\xa5"
            "abort\xa2id\xc0",
            "whole number");
    REFUSED("\x82\xa4type\xa5"
            "abort\xa2id\xc3",
            "whole number");
    REFUSED("\x82\xa4type\xa5"
            "abort\xa2id\xca\0\0\0\0",
            "whole number");
    REFUSED("\x82\xa4type\xa5"
            "abort\x05\x01",
            "keys");
    REFUSED("\x81\xa4type\xa5"
            "abort\x01",
            "follow");
    REFUSED("\x82\xa4type\xa5"
            "drain\xa4stop\x02",
            "more than");
    REFUSED("\x82\xa4type\xa3"
            "add\xa5top_p\xcb\x7f\xf8\0\0\0\0\0\0",
            "finite");
    REFUSED("\x82\xa4type\xa3"
            "add\xa5top_p\xca\x7f\x80\0\0",
            "finite");
    REFUSED("\x82\xa4type\xa3"
            "add\xa5top_p\xca\xbf\x80\0\0",
            "negative");
    REFUSED("\x82\xa4type\xa3"
            "add\xabtemperature\xcc\x65",
            "more than");
    REFUSED("\x82\xa4type\xa3"
            "add\xa6prompt\xa2\xc3\x28",
            "UTF-8");
    REFUSED("\x82\xa4type\xa3"
            "add\xa6prompt\xa3\xed\xa0\x80",
            "UTF-8");
    REFUSED("\x82\xa4type\xa3"
            "add\xa6prompt\xc4\x01"
            "a",
            "text");
    REFUSED("\x82\xa4type\xa3"
            "add\xa6tokens\x91\xcf\0\0\0\x01\0\0\0\0",
            "32-bit");
    REFUSED("\x82\xa4type\xa3"
            "add\xa6tokens\x91\xa1"
            "a",
            "32-bit");
    REFUSED("\x82\xa4type\xa3"
            "add\xaamax_tokens",
            "cut");
    /* Counts far beyond the bytes that follow. */
    REFUSED("\xdf\xff\xff\xff\xff\xa4type\xa3"
            "add",
            "map");
    REFUSED("\x82\xa4type\xa3"
            "add\xa6tokens\xdd\xff\xff\xff\xff",
            "tokens");
    REFUSED("\x82\xa4type\xa3"
            "add\xa6prompt\xdb\xff\xff\xff\xff"
            "a",
            "prompt");
    REFUSED("\x82\xa4type\xa4step\xa5spans\x91\xde\xff\xff", "spans");
    REFUSED("\x82\xa4type\xa4step\xa5spans\x91\x82\xa3rid\x01\xa3rid\x01", "twice");
    REFUSED("\x82\xa1x\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x01\xa4type\xa5"
            "abort",
            "nested");
    assert_int_equal(m.type, TR_MSG_PING); /* outputs only on success */
}

static void test_arena(void **state) {
    (void)state;
    uint32_t tokens[100] = {0};
    tr_msg m = {.type = TR_MSG_ADD, .as.add = {.id = 3, .tokens = {tokens, 100}}}, back;
    uint8_t wire[1024];
    uint64_t memory[16];
    size_t len;
    tr_error err;
    assert_int_equal(tr_codec_encode(&m, wire, sizeof wire, &len), TR_OK);
    tr_codec_arena arena;
    tr_codec_arena_init(&arena, memory, sizeof memory);
    assert_int_equal(tr_codec_decode(wire, len, &arena, &back, &err), TR_EXHAUSTED);
    assert_non_null(strstr(err.text, "add.tokens"));
    assert_int_equal(tr_codec_decode(wire, len, NULL, &back, NULL), TR_EXHAUSTED);
    tr_msg_type type;
    uint64_t id;
    tr_codec_peek(wire, len, &type, &id);
    assert_int_equal(type, TR_MSG_ADD);
    assert_int_equal(id, 3);
    tr_codec_peek("\x83\xa1x\x91\xc0\xa2id\x22\xa4type\x80", 14, &type, &id);
    assert_int_equal(type, TR_MSG_NONE);
    assert_int_equal(id, 0x22);
}

static void test_encode_bounds(void **state) {
    (void)state;
    uint8_t wire[4096];
    size_t len;
    tr_msg m = {.type = TR_MSG_ADD, .as.add = {.temperature = 101}};
    assert_int_equal(tr_codec_encode(&m, wire, sizeof wire, &len), TR_INVALID);
    m.as.add.temperature = NAN;
    assert_int_equal(tr_codec_encode(&m, wire, sizeof wire, &len), TR_INVALID);
    m.as.add.temperature = 0;
    m.as.add.prompt = (tr_str){"\xff", 1};
    assert_int_equal(tr_codec_encode(&m, wire, sizeof wire, &len), TR_INVALID);
    m = (tr_msg){.type = TR_MSG_ERROR, .as.error.text = {(const char *)wire, TR_MAX_ERROR_BYTES + 1}};
    memset(wire, 'a', sizeof wire);
    assert_int_equal(tr_codec_encode(&m, wire, sizeof wire, &len), TR_INVALID);
    m = (tr_msg){.type = (tr_msg_type)999};
    assert_int_equal(tr_codec_encode(&m, wire, sizeof wire, &len), TR_INVALID);
    assert_int_equal(tr_codec_size_bound(&m), 0);
}

static void test_utf8(void **state) {
    (void)state;
    static const char *const bad[] = {"\x80",         "\xc0\xaf",         "\xc1\x80",         "\xe0\x80\x80",
                                      "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
                                      "\xe2\x82",     "12345678\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(tr_codec_utf8_valid(bad[i], strlen(bad[i])));
    assert_true(tr_codec_utf8_valid("", 0));
    assert_true(tr_codec_utf8_valid("abcdefgh\0\xc3\xa9\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80", 21));
}

static void test_log(void **state) {
    (void)state;
    char line[200];
    tr_msg m = {.type = TR_MSG_ADD, .as.add = {.id = 4, .prompt = {"secret", 6}, .temperature = 0.5f}};
    assert_string_equal(tr_codec_log(&m, line, sizeof line), "add id=4 prompt=<6 bytes> temperature=0.5");
    assert_string_equal(tr_codec_log(&m, line, 8), "add id=");
    m.type = (tr_msg_type)1000;
    assert_string_equal(tr_codec_log(&m, line, sizeof line), "unknown type=1000");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_accepts),       cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_arena),      cmocka_unit_test(test_encode_bounds), cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_log)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
