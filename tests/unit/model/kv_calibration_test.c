/* The calibration file: what was measured comes back as steps, another model's or a damaged one is refused. */
#include "model/kv_calibration.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { LAYERS = 3, HEADS = 2, DIM = 16 };
static const tr_kv_calibration_model model = {0x123456789abcdef0ull, LAYERS, HEADS, DIM};
static char path[256];

static float size_of(uint32_t layer, uint32_t head, uint32_t i, bool value) {
    return i == 5 ? 0.0f : (float)(1 + layer * 50 + head * 20 + i) * (value ? 0.5f : 1.0f);
}

static tr_kv_calibration *made(void) {
    tr_kv_calibration *c = NULL;
    tr_error err = {0};
    assert_int_equal(tr_kv_calibration_create(&model, &c, &err), TR_OK);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t head = 0; head < HEADS; head++)
            for (int token = 0; token < 2; token++) {
                float k[DIM], v[DIM]; /* the larger one is negative and comes first */
                for (uint32_t i = 0; i < DIM; i++) {
                    k[i] = size_of(layer, head, i, false) * (token ? 0.25f : -1.0f);
                    v[i] = size_of(layer, head, i, true) * (token ? 0.25f : -1.0f);
                }
                tr_kv_calibration_add(c, layer, head, k, v);
            }
    return c;
}

static void test_round_trip(void **state) {
    (void)state;
    tr_error err = {0};
    tr_kv_calibration *c = made(), *back = NULL;
    assert_int_equal(tr_kv_calibration_write(c, path, &err), TR_OK);
    assert_int_equal(tr_kv_calibration_open(path, &model, &back, &err), TR_OK);
    assert_int_equal(tr_kv_calibration_crc(back), tr_kv_calibration_crc(c));
    for (uint32_t h = 0; h < LAYERS * HEADS; h++) {
        const tr_kv_head *head = &tr_kv_calibration_heads(back)[h];
        for (uint32_t i = 0; i < DIM; i++) {
            float k = 1.25f * size_of(h / HEADS, h % HEADS, i, false),
                  v = 1.25f * size_of(h / HEADS, h % HEADS, i, true);
            assert_true(head->k_step[i] == k / 127 && head->v_step[i] == v / 127);
            assert_true(head->k_mul[i] == (k > 0 ? 127 / k : 0) && head->v_mul[i] == (v > 0 ? 127 / v : 0));
        }
    }
    tr_kv_calibration_destroy(&back);
    tr_kv_calibration_destroy(&c);
    tr_kv_calibration_destroy(&c);
}

static void refused(const uint8_t *bytes, size_t n, const tr_kv_calibration_model *m, const char *why) {
    tr_error err = {0};
    tr_kv_calibration *c = NULL;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    assert_int_equal(tr_kv_calibration_open(path, m, &c, &err), TR_DATA);
    assert_null(c);
    if (!strstr(err.text, why)) fail_msg("'%s' does not say '%s'", err.text, why);
}

static void test_damaged(void **state) {
    (void)state;
    static uint8_t good[65536], bad[65536];
    tr_error err = {0};
    tr_kv_calibration *c = made();
    assert_int_equal(tr_kv_calibration_write(c, path, &err), TR_OK);
    tr_kv_calibration_destroy(&c);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t n = fread(good, 1, sizeof good, f);
    fclose(f);
    tr_kv_calibration_model other = model;
    other.hash++;
    refused(good, n, &other, "another model");
    other = model, other.n_layers--;
    refused(good, n, &other, "another model");
    for (size_t cut = 1; cut < n; cut += 7) refused(good, n - cut, &model, "");
    for (size_t at = 0; at < n; at++) { /* any byte */
        memcpy(bad, good, n);
        bad[at] ^= 0x40;
        refused(bad, n, &model, "");
    }
    refused(good, n + 0, &other, "");
    assert_int_equal(tr_kv_calibration_open("/nowhere/x", &model, &c, &err), TR_NO_INPUT);
}

static void test_not_finite(void **state) {
    (void)state;
    tr_error err = {0};
    tr_kv_calibration *c = made();
    float k[DIM] = {0}, v[DIM] = {0};
    v[3] = -1.0f / 0.0f;
    tr_kv_calibration_add(c, 0, 0, k, v);
    assert_int_equal(tr_kv_calibration_write(c, path, &err), TR_DATA);
    tr_kv_calibration_destroy(&c);
    c = made();
    assert_int_equal(tr_kv_calibration_write(c, "/nowhere/x", &err), TR_CANNOT_CREATE);
    tr_kv_calibration_destroy(&c);
}

static int set_up(void **state) {
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof path, "%.200s/kv_calibration_test.%ld", tmp ? tmp : "/tmp", (long)getpid());
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    unlink(path);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_damaged),
                                       cmocka_unit_test(test_not_finite)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
