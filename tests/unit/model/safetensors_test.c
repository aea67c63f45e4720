/* The safetensors reader: values, every damaged file of the corpus with its offset, truncation at every byte. */
#include "base/file_map.h"
#include "model/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/model/damaged.h"

#define CORPUS "tests/fuzz/corpus/safetensors"

static tr_safetensors *open_ok(const char *path) {
    tr_safetensors *st = NULL;
    tr_error err = {0};
    if (tr_safetensors_open(path, &st, &err) != TR_OK) fail_msg("%s: %s", path, err.text);
    return st;
}

static void test_values(void **state) {
    (void)state;
    tr_safetensors *st = open_ok(CORPUS "/ok-base");
    assert_int_equal(tr_safetensors_count(st), 3); /* __metadata__ is no tensor */
    const tr_safetensors_tensor *a = tr_safetensors_find(st, "a"), *b = tr_safetensors_find(st, "b"),
                                *c = tr_safetensors_find(st, "c");
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    assert_int_equal(a->type, TR_DEQUANT_F32);
    assert_int_equal(a->n_dims, 2);
    assert_int_equal(a->dims[0], 2);
    assert_int_equal(a->dims[1], 2);
    assert_int_equal(a->bytes, 16);
    assert_int_equal(a->data[0], 0);
    assert_int_equal(b->type, TR_DEQUANT_BF16);
    assert_int_equal(b->data[0], 16);
    assert_int_equal(c->type, TR_DEQUANT_F16);
    assert_int_equal(c->n_dims, 0);
    assert_int_equal(c->bytes, 2);
    assert_int_equal(c->data[1], 23);
    assert_null(tr_safetensors_find(st, "__metadata__"));
    assert_null(tr_safetensors_find(st, "d"));
    tr_safetensors_close(&st);
    assert_null(st);
    tr_safetensors_close(&st);
}

static void test_valid(void **state) {
    (void)state;
    tr_safetensors *st = open_ok(CORPUS "/ok-padded");
    assert_int_equal(tr_safetensors_count(st), 3);
    tr_safetensors_close(&st);
    st = open_ok(CORPUS "/ok-empty");
    assert_int_equal(tr_safetensors_count(st), 0);
    assert_null(tr_safetensors_find(st, "a"));
    tr_safetensors_close(&st);
    st = open_ok(CORPUS "/ok-escapes"); /* brackets and quotes inside a name are no structure */
    assert_non_null(tr_safetensors_find(st, "aA\"[[[["));
    tr_safetensors_close(&st);
}

static tr_status open_damaged(const char *path, tr_error *err) {
    tr_safetensors *st = NULL;
    tr_status s = tr_safetensors_open(path, &st, err);
    if (s != TR_OK) assert_null(st);
    tr_safetensors_close(&st);
    return s;
}

static void test_damaged(void **state) {
    (void)state;
    assert_true(damaged_check(CORPUS, open_damaged) > 40);
}

/* The format covers its file exactly, so every proper prefix is an error. */
static void test_every_prefix(void **state) {
    (void)state;
    tr_file_map map;
    tr_error err = {0};
    assert_int_equal(tr_file_map_open(CORPUS "/ok-base", &map, &err), TR_OK);
    for (size_t n = 0; n <= map.size; n++) {
        tr_safetensors *st = NULL;
        uint8_t *copy = malloc(n ? n : 1); /* exact size, for the address sanitizer */
        memcpy(copy, map.data, n);
        tr_status s = tr_safetensors_open_buffer(copy, n, "prefix", &st, &err);
        if (s != (n == map.size ? TR_OK : TR_DATA)) fail_msg("prefix of %zu bytes: status %d", n, s);
        tr_safetensors_close(&st);
        free(copy);
    }
    tr_file_map_close(&map);
}

static void test_no_file(void **state) {
    (void)state;
    tr_safetensors *st = NULL;
    tr_error err = {0};
    assert_int_equal(tr_safetensors_open("tests/no-such-file", &st, &err), TR_NO_INPUT);
    assert_null(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),       cmocka_unit_test(test_valid),   cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_every_prefix), cmocka_unit_test(test_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
