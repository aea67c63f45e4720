/* dequant against golden vectors made with the `gguf` Python package (tests/tools/make_dequant_golden.py), bit for bit.
 */
#include "base/file_map.h"
#include "model/dequant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void compare_type(tr_dequant_type type) {
    const tr_dequant_info *info = tr_dequant_describe(type);
    char path[128];
    tr_file_map map;
    tr_error err = {0};
    snprintf(path, sizeof path, "tests/golden/dequant/%s.bin", info->name);
    if (tr_file_map_open(path, &map, &err) != TR_OK) fail_msg("%s", err.text);
    uint32_t blocks;
    memcpy(&blocks, map.data, 4);
    size_t elems = (size_t)blocks * info->block_elems, bytes = (size_t)blocks * info->block_bytes;
    assert_true(blocks >= 16);
    assert_int_equal(map.size, 4 + bytes + elems * 4);
    float *got = malloc(elems * 4);
    assert_non_null(got);
    tr_dequant_row(type, map.data + 4, elems, got);
    for (size_t i = 0; i < elems; i++) {
        uint32_t want_bits, got_bits;
        memcpy(&want_bits, map.data + 4 + bytes + i * 4, 4);
        memcpy(&got_bits, got + i, 4);
        if (got_bits != want_bits) fail_msg("%s element %zu: 0x%08x, expected 0x%08x", path, i, got_bits, want_bits);
    }
    free(got);
    tr_file_map_close(&map);
}

static void test_golden(void **state) {
    (void)state;
    for (int t = 0; t < TR_DEQUANT_TYPE_COUNT; t++) compare_type((tr_dequant_type)t);
}

/* Blocks that start at an odd address give the same numbers (safetensors promise no alignment). */
static void test_unaligned(void **state) {
    (void)state;
    for (int t = 0; t < TR_DEQUANT_TYPE_COUNT; t++) {
        const tr_dequant_info *info = tr_dequant_describe((tr_dequant_type)t);
        uint8_t aligned[256], shifted[257];
        float a[256], b[256];
        for (size_t i = 0; i < info->block_bytes; i++) aligned[i] = (uint8_t)(i * 37 + 11) & 0x3f;
        memcpy(shifted + 1, aligned, info->block_bytes);
        tr_dequant_row((tr_dequant_type)t, aligned, info->block_elems, a);
        tr_dequant_row((tr_dequant_type)t, shifted + 1, info->block_elems, b);
        assert_memory_equal(a, b, info->block_elems * sizeof(float));
    }
}

/* Writes exactly cols floats. */
static void test_canary(void **state) {
    (void)state;
    for (int t = 0; t < TR_DEQUANT_TYPE_COUNT; t++) {
        const tr_dequant_info *info = tr_dequant_describe((tr_dequant_type)t);
        uint8_t src[2 * 256] = {0};
        float out[2 * 256 + 1];
        size_t n = 2 * (size_t)info->block_elems;
        for (size_t i = 0; i <= n; i++) out[i] = 12345.0f;
        tr_dequant_row((tr_dequant_type)t, src, n, out);
        for (size_t i = 0; i < n; i++)
            if (out[i] != 0.0f) fail_msg("%s element %zu is %g, expected 0", info->name, i, (double)out[i]);
        assert_true(out[n] == 12345.0f);
    }
}

static void test_row_bytes(void **state) {
    (void)state;
    uint64_t bytes = 7;
    assert_true(tr_dequant_row_bytes(TR_DEQUANT_Q4_K, 512, &bytes));
    assert_int_equal(bytes, 288);
    assert_false(tr_dequant_row_bytes(TR_DEQUANT_Q4_K, 500, &bytes));
    assert_false(tr_dequant_row_bytes(TR_DEQUANT_F32, UINT64_MAX / 2, &bytes));
    assert_int_equal(bytes, 288);
}

static void test_types(void **state) {
    (void)state;
    tr_dequant_type type;
    assert_true(tr_dequant_from_gguf(14, &type));
    assert_int_equal(type, TR_DEQUANT_Q6_K);
    assert_false(tr_dequant_from_gguf(23, &type));
    assert_false(tr_dequant_from_gguf(4, &type)); /* a number that was taken out of the format */
    assert_string_equal(tr_dequant_gguf_name(23), "IQ4_XS");
    assert_string_equal(tr_dequant_gguf_name(12), "Q4_K");
    assert_null(tr_dequant_gguf_name(4));
    assert_null(tr_dequant_gguf_name(9999));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),    cmocka_unit_test(test_unaligned), cmocka_unit_test(test_canary),
        cmocka_unit_test(test_row_bytes), cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
