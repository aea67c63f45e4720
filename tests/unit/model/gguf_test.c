/* The GGUF reader: every value type, every damaged file of the corpus with its offset, truncation at every byte. */
#include "base/file_map.h"
#include "model/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/model/damaged.h"

#define CORPUS "tests/fuzz/corpus/gguf"

static tr_gguf *open_ok(const char *path) {
    tr_gguf *g = NULL;
    tr_error err = {0};
    if (tr_gguf_open(path, &g, &err) != TR_OK) fail_msg("%s: %s", path, err.text);
    return g;
}

static void test_values(void **state) {
    (void)state;
    tr_gguf *g = open_ok(CORPUS "/ok-base");
    tr_error err = {0};
    uint32_t u = 0;
    float f = 0;
    bool b = false, found = false;
    tr_gguf_text t;
    assert_int_equal(tr_gguf_version(g), 3);
    assert_int_equal(tr_gguf_kv_count(g), 17);
    assert_int_equal(tr_gguf_str(g, "general.architecture", &t, &found, &err), TR_OK);
    assert_true(found && tr_gguf_text_is(t, "llama") && !tr_gguf_text_is(t, "llam"));
    assert_int_equal(tr_gguf_u32(g, "a.u8", &u, NULL, &err), TR_OK);
    assert_int_equal(u, 200);
    assert_int_equal(tr_gguf_u32(g, "a.u32", &u, NULL, &err), TR_OK);
    assert_int_equal(u, 4000000000u);
    assert_int_equal(tr_gguf_f32(g, "a.f32", &f, NULL, &err), TR_OK);
    assert_true(f == 1.5f);
    assert_int_equal(tr_gguf_f32(g, "a.f64", &f, NULL, &err), TR_OK);
    assert_true(f == 2.5f);
    assert_int_equal(tr_gguf_bool(g, "a.bool", &b, NULL, &err), TR_OK);
    assert_true(b);
    u = 77;
    assert_int_equal(tr_gguf_u32(g, "absent", &u, &found, &err), TR_OK);
    assert_true(!found && u == 77);
    tr_gguf_close(&g);
    assert_null(g);
    tr_gguf_close(&g);
}

static void test_wrong_types(void **state) {
    (void)state;
    tr_gguf *g = open_ok(CORPUS "/ok-base");
    tr_error err = {0};
    uint32_t u = 77;
    float f = 77;
    bool b = true;
    tr_gguf_text t = {"keep", 4};
    tr_gguf_arr a = {0};
    assert_int_equal(tr_gguf_u32(g, "a.i8", &u, NULL, &err), TR_DATA); /* negative */
    assert_non_null(strstr(err.text, "a.i8 is -5"));
    assert_int_equal(tr_gguf_u32(g, "a.i64", &u, NULL, &err), TR_DATA);
    assert_int_equal(tr_gguf_u32(g, "a.u64", &u, NULL, &err), TR_DATA); /* too large */
    assert_non_null(strstr(err.text, "9223372036854775808"));
    assert_int_equal(tr_gguf_u32(g, "a.f32", &u, NULL, &err), TR_DATA);
    assert_int_equal(tr_gguf_u32(g, "a.bool", &u, NULL, &err), TR_DATA);
    assert_int_equal(tr_gguf_u32(g, "a.numbers", &u, NULL, &err), TR_DATA);
    assert_int_equal(tr_gguf_f32(g, "a.u8", &f, NULL, &err), TR_DATA);
    assert_int_equal(tr_gguf_f32(g, "a.floats", &f, NULL, &err), TR_DATA);
    assert_int_equal(tr_gguf_bool(g, "a.u8", &b, NULL, &err), TR_DATA);
    assert_int_equal(tr_gguf_str(g, "a.texts", &t, NULL, &err), TR_DATA);
    assert_non_null(strstr(err.text, "key a.texts is an array of string, expected a string"));
    assert_int_equal(tr_gguf_arr_begin(g, "a.texts", TR_GGUF_I32, &a, NULL, &err), TR_DATA);
    assert_int_equal(tr_gguf_arr_begin(g, "a.u8", TR_GGUF_U8, &a, NULL, &err), TR_DATA);
    assert_true(u == 77 && f == 77.0f && b && t.len == 4 && a.count == 0);
    tr_gguf_close(&g);
}

static void test_arrays(void **state) {
    (void)state;
    tr_gguf *g = open_ok(CORPUS "/ok-base");
    tr_error err = {0};
    tr_gguf_arr a;
    tr_gguf_text t;
    static const char *const texts[] = {"one", "", "three"};
    static const int64_t numbers[] = {3, -1, 2};
    static const float floats[] = {0.5f, -0.25f};
    int64_t v;
    float f;
    assert_int_equal(tr_gguf_arr_begin(g, "a.texts", TR_GGUF_STR, &a, NULL, &err), TR_OK);
    for (int i = 0; i < 3; i++) assert_true(tr_gguf_arr_str(&a, &t) && tr_gguf_text_is(t, texts[i]));
    assert_false(tr_gguf_arr_str(&a, &t));
    assert_int_equal(tr_gguf_arr_begin(g, "a.numbers", TR_GGUF_I32, &a, NULL, &err), TR_OK);
    for (int i = 0; i < 3; i++) assert_true(tr_gguf_arr_i64(&a, &v) && v == numbers[i]);
    assert_false(tr_gguf_arr_i64(&a, &v));
    assert_int_equal(tr_gguf_arr_begin(g, "a.floats", TR_GGUF_F32, &a, NULL, &err), TR_OK);
    for (int i = 0; i < 2; i++) assert_true(tr_gguf_arr_f32(&a, &f) && f == floats[i]);
    assert_false(tr_gguf_arr_f32(&a, &f));
    assert_int_equal(tr_gguf_arr_begin(g, "a.none", TR_GGUF_U8, &a, NULL, &err), TR_OK);
    assert_false(tr_gguf_arr_i64(&a, &v));
    tr_gguf_close(&g);
}

static void test_tensors(void **state) {
    (void)state;
    tr_gguf *g = open_ok(CORPUS "/ok-base");
    const tr_gguf_tensor *one = tr_gguf_tensor_find(g, "one.weight"), *two = tr_gguf_tensor_find(g, "two.weight");
    assert_true(one == tr_gguf_tensor_at(g, 0) && two == tr_gguf_tensor_at(g, 1));
    assert_int_equal(one->type, TR_DEQUANT_Q8_0);
    assert_int_equal(one->row_bytes, 34);
    assert_int_equal(one->bytes, 68);
    assert_int_equal(one->dims[1], 2);
    assert_int_equal(one->data[1], 3); /* the generator's pattern */
    assert_int_equal(two->n_dims, 1);
    assert_int_equal(two->bytes, 20);
    assert_int_equal(two->data - one->data, 96);
    assert_null(tr_gguf_tensor_find(g, "one.weigh"));
    assert_null(tr_gguf_tensor_find(g, "one.weights"));
    tr_gguf_close(&g);
}

static void test_valid(void **state) {
    (void)state;
    tr_gguf *g = open_ok(CORPUS "/ok-version2");
    assert_int_equal(tr_gguf_version(g), 2);
    tr_gguf_close(&g);
    g = open_ok(CORPUS "/ok-types");
    assert_int_equal(tr_gguf_tensor_count(g), TR_DEQUANT_TYPE_COUNT);
    tr_gguf_close(&g);
    g = open_ok(CORPUS "/ok-empty");
    assert_null(tr_gguf_find(g, "a"));
    assert_null(tr_gguf_tensor_find(g, "a"));
    tr_gguf_close(&g);
}

static tr_status open_damaged(const char *path, tr_error *err) {
    tr_gguf *g = NULL;
    tr_status s = tr_gguf_open(path, &g, err);
    if (s != TR_OK) assert_null(g);
    tr_gguf_close(&g);
    return s;
}

static void test_damaged(void **state) {
    (void)state;
    assert_true(damaged_check(CORPUS, open_damaged) > 60);
}

/* Every prefix of a valid file is refused, except one that only lost padding behind the last tensor. */
static void test_every_prefix(void **state) {
    (void)state;
    tr_file_map map;
    tr_error err = {0};
    assert_int_equal(tr_file_map_open(CORPUS "/ok-base", &map, &err), TR_OK);
    tr_gguf *g = open_ok(CORPUS "/ok-base");
    const tr_gguf_tensor *last = tr_gguf_tensor_at(g, tr_gguf_tensor_count(g) - 1);
    size_t end = (size_t)(last->data + last->bytes - tr_gguf_tensor_at(g, 0)->data);
    tr_gguf_close(&g);
    size_t data_start = map.size - 128; /* the generator pads 68 + 20 bytes to 96 + 32 */
    for (size_t n = 0; n < map.size; n++) {
        uint8_t *copy = malloc(n ? n : 1); /* exact size, for the address sanitizer */
        memcpy(copy, map.data, n);
        tr_status s = tr_gguf_open_buffer(copy, n, "prefix", &g, &err);
        tr_status want = n >= data_start + end ? TR_OK : TR_DATA;
        if (s != want) fail_msg("prefix of %zu bytes: status %d, expected %d", n, s, want);
        tr_gguf_close(&g);
        free(copy);
    }
    tr_file_map_close(&map);
}

static void test_no_file(void **state) {
    (void)state;
    tr_gguf *g = NULL;
    tr_error err = {0};
    assert_int_equal(tr_gguf_open("tests/no-such-file", &g, &err), TR_NO_INPUT);
    assert_null(g);
}

/* A long path is cut at its front, the reason stays. */
static void test_long_name(void **state) {
    (void)state;
    char name[1000];
    tr_gguf *g = NULL;
    tr_error err = {0};
    memset(name, 'p', sizeof name);
    memcpy(name + sizeof name - 8, "the-end", 8);
    assert_int_equal(tr_gguf_open_buffer("GGML....", 8, name, &g, &err), TR_DATA);
    assert_non_null(strstr(err.text, "the-end: offset 0: not a GGUF file"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),       cmocka_unit_test(test_wrong_types), cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_tensors),      cmocka_unit_test(test_valid),       cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_every_prefix), cmocka_unit_test(test_no_file),     cmocka_unit_test(test_long_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
