/* The file of a saved sequence: what is written is read; every flipped bit, every cut and every wild header is refused.
 * With KV_FILE_CORPUS=DIR it writes the seeds of the fuzz target there. */
#include "kv/kv_file.h"

#include "base/crc32c.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void put32(uint8_t *at, uint32_t v) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(v >> 8 * i);
}

static tr_kv_file example(tr_kv_format format) {
    tr_kv_file f = {.identity = {0x1122334455667788, 2, 1, {1, 2}, {TR_KV_BF16, TR_KV_INT8}},
                    .format = format,
                    .n_layers = 3,
                    .n_kv_heads = 2,
                    .head_dim = 16,
                    .n_groups = 2,
                    .window = {0, 20},
                    .layer_group = {1, 0, 1},
                    .n_tokens = 41,
                    .n_prefill = 33,
                    .n_kv = 40,
                    .tok_min = {0, 21},
                    .temperature = 0.5f,
                    .top_p = 0.9f,
                    .top_k = 40,
                    .seed = 7};
    return f;
}

static uint8_t *build(const tr_kv_file *f, size_t *bytes_out) {
    const size_t bytes = (size_t)tr_kv_file_bytes(f),
                 tile_bytes = tr_kv_tile_bytes((tr_kv_format)f->format, f->head_dim);
    uint8_t *data = calloc(1, bytes), *at = data + tr_kv_file_head_bytes(f);
    assert_non_null(data);
    tr_kv_file_encode(f, data);
    for (uint32_t i = 0; i < f->n_tokens; i++) put32(data + TR_KV_FILE_HEADER + 4 * i, 100 + i);
    tr_kv_file_walk w;
    tr_kv_file_tile tile;
    tr_kv_file_walk_init(&w, f);
    for (uint64_t n = 0; tr_kv_file_walk_next(&w, &tile); n++, at += tile_bytes + 8) {
        for (size_t i = 0; i < tile_bytes; i++) at[i] = (uint8_t)(tr_rng_mix(n) >> i % 8 * 8);
        put32(at + tile_bytes, tr_crc32c(0, at, tile_bytes));
    }
    put32(at, tr_crc32c(0, data, (size_t)(at - data)));
    put32(at + 4, TR_KV_FILE_END);
    assert_ptr_equal(at + 8, data + bytes);
    *bytes_out = bytes;
    return data;
}

static void reads_what_was_written(void **state) {
    (void)state;
    for (uint32_t format = TR_KV_BF16; format <= TR_KV_INT8; format++) {
        tr_kv_file f = example((tr_kv_format)format), got;
        tr_error err;
        size_t bytes;
        uint8_t *data = build(&f, &bytes);
        assert_int_equal(tr_kv_file_check(data, bytes, &got, &err), TR_OK);
        assert_int_equal(got.identity.model_hash, f.identity.model_hash);
        assert_int_equal(got.n_kv, f.n_kv);
        assert_int_equal(got.tok_min[1], 21);
        assert_true(got.temperature == f.temperature && got.top_p == f.top_p && got.seed == f.seed);
        assert_memory_equal(got.layer_group, f.layer_group, 3);
        free(data);
    }
}

/* Group 0: layer 1, tiles 0, 16, 32; group 1: layers 0 and 2, tiles 16 (from 21) and 32. */
static void tiles_in_order(void **state) {
    (void)state;
    tr_kv_file f = example(TR_KV_INT8);
    static const uint32_t want[][6] = {{0, 1, 0, 0, 0, 16},  {0, 1, 0, 16, 0, 16}, {0, 1, 0, 32, 0, 8},
                                       {0, 1, 1, 0, 0, 16},  {0, 1, 1, 16, 0, 16}, {0, 1, 1, 32, 0, 8},
                                       {1, 0, 0, 16, 5, 11}, {1, 0, 0, 32, 0, 8},  {1, 0, 1, 16, 5, 11},
                                       {1, 0, 1, 32, 0, 8},  {1, 2, 0, 16, 5, 11}};
    tr_kv_file_walk w;
    tr_kv_file_tile t;
    tr_kv_file_walk_init(&w, &f);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_true(tr_kv_file_walk_next(&w, &t));
        const uint32_t got[6] = {t.group, t.layer, t.kv_head, t.pos, t.t0, t.n};
        assert_memory_equal(got, want[i], sizeof got);
    }
    for (int i = 0; i < 3; i++) assert_true(tr_kv_file_walk_next(&w, &t));
    assert_false(tr_kv_file_walk_next(&w, &t));
}

static void damage_is_found(void **state) {
    (void)state;
    tr_kv_file f = example(TR_KV_INT8), got;
    tr_error err = {0};
    size_t bytes;
    uint8_t *data = build(&f, &bytes);
    for (size_t i = 0; i < bytes; i++) {
        data[i] ^= (uint8_t)(1u << i % 8);
        assert_int_equal(tr_kv_file_check(data, bytes, &got, &err), TR_DATA);
        assert_true(err.text[0]);
        data[i] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t cut = 0; cut < bytes; cut += 7) {
        uint8_t *copy = malloc(cut + 1); /* so that a read beyond is seen by the sanitizer */
        memcpy(copy, data, cut);
        assert_int_equal(tr_kv_file_check(copy, cut, &got, &err), TR_DATA);
        free(copy);
    }
    free(data);
}

/* Headers whose CRC is right and whose numbers are not. */
static void wild_headers(void **state) {
    (void)state;
    tr_rng r = {3};
    tr_error err;
    for (int i = 0; i < 200000; i++) {
        tr_kv_file f = example(TR_KV_BF16), got;
        uint32_t *field[] = {&f.format, &f.n_layers,  &f.n_kv_heads, &f.head_dim,   &f.n_groups,  &f.n_tokens,
                             &f.n_kv,   &f.n_prefill, &f.tok_min[0], &f.tok_min[1], &f.window[0], &f.window[1]};
        static const uint32_t values[] = {0,   1,    2,    3,      16,     127,        128,
                                          129, 1024, 1040, 131072, 131073, 0x7fffffff, UINT32_MAX};
        for (uint64_t n = 1 + tr_rng_below(&r, 3); n > 0; n--)
            *field[tr_rng_below(&r, sizeof field / sizeof *field)] = values[tr_rng_below(&r, 14)];
        if (tr_rng_below(&r, 4) == 0) f.layer_group[tr_rng_below(&r, 3)] = (uint8_t)tr_rng_below(&r, 256);
        uint8_t header[TR_KV_FILE_HEADER] = {0};
        uint64_t bytes = tr_kv_file_bytes(&f);
        if (bytes == 0) { /* out of bounds: the encoder would not know how large it is */
            assert_int_equal(tr_kv_file_decode(header, 1000, &got, &err), TR_DATA);
            continue;
        }
        tr_kv_file_encode(&f, header);
        assert_int_equal(tr_kv_file_decode(header, bytes, &got, &err), TR_OK);
        assert_int_equal(tr_kv_file_decode(header, bytes - 1, &got, &err), TR_DATA);
        assert_int_equal(tr_kv_file_decode(header, bytes + 8, &got, &err), TR_DATA);
    }
}

static void shapes(void **state) {
    (void)state;
    tr_kv_model m = {.n_layers = 3, .n_kv_heads = 2, .head_dim = 16, .window = 20, .layer_is_global = {0, 1, 0}};
    tr_kv_layout l;
    tr_error err;
    assert_int_equal(tr_kv_layout_init(&l, &m, TR_KV_INT8, 32, 1, 64, (const uint32_t[]){9, 9}, &err), TR_OK);
    tr_kv_file f = example(TR_KV_BF16), g = {0};
    assert_null(tr_kv_file_differs(&f, &l));
    tr_kv_file_shape(&g, &l);
    assert_null(tr_kv_file_differs(&g, &l));
    assert_int_equal(g.format, TR_KV_INT8);
    f.window[1] = 21;
    assert_string_equal(tr_kv_file_differs(&f, &l), "window");
    f = example(TR_KV_BF16);
    f.layer_group[0] = 0;
    assert_string_equal(tr_kv_file_differs(&f, &l), "layers of a group");
}

static void write_seeds(const char *folder) {
    for (uint32_t format = TR_KV_BF16; format <= TR_KV_INT8; format++) {
        tr_kv_file f = example((tr_kv_format)format);
        char path[512];
        size_t bytes;
        uint8_t *data = build(&f, &bytes);
        for (int damaged = 0; damaged < 3; damaged++) {
            if (damaged) data[damaged == 1 ? 60 : bytes - 30] ^= 4;
            snprintf(path, sizeof path, "%s/%s-%d", folder, tr_kv_format_name((tr_kv_format)format), damaged);
            FILE *file = fopen(path, "wb");
            if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file)) exit(1);
        }
        free(data);
    }
}

int main(void) {
    if (getenv("KV_FILE_CORPUS")) write_seeds(getenv("KV_FILE_CORPUS"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(reads_what_was_written), cmocka_unit_test(tiles_in_order),
                                       cmocka_unit_test(damage_is_found), cmocka_unit_test(wild_headers),
                                       cmocka_unit_test(shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
