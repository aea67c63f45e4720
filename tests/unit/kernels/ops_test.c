/* Dispatch: order of the tables, names, the TROUPE_CPU mask. */
#include "kernels/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void available_starts_with_ref_and_ascends(void **state) {
    (void)state;
    static const char *const order[] = {"ref", "avx2", "avx512", "avx512vnni", "amx"};
    const tr_ops *const *t = tr_ops_available();
    size_t n = 0;
    for (; t[n]; n++) {
        assert_true(n < sizeof order / sizeof order[0]);
        assert_string_equal(t[n]->name, order[n]);
        assert_ptr_equal(tr_ops_find(order[n]), t[n]);
#define OP(name, ret, args) assert_true(t[n]->name != NULL);
        TR_OPS(OP)
#undef OP
    }
    assert_true(n >= 1);
    for (; n < sizeof order / sizeof order[0]; n++) assert_null(tr_ops_find(order[n]));
    assert_null(tr_ops_find("sse"));
}

static void mask_is_an_upper_bound(void **state) {
    (void)state;
    const tr_ops *ops = NULL, *best = NULL;
    unsetenv("TROUPE_CPU");
    assert_int_equal(tr_ops_select(&best, NULL), TR_OK);
    const tr_ops *const *t = tr_ops_available();
    while (t[1]) t++;
    assert_ptr_equal(best, *t);
    assert_int_equal(setenv("TROUPE_CPU", "ref", 1), 0);
    assert_int_equal(tr_ops_select(&ops, NULL), TR_OK);
    assert_string_equal(ops->name, "ref");
    assert_int_equal(setenv("TROUPE_CPU", "amx", 1), 0);
    assert_int_equal(tr_ops_select(&ops, NULL), TR_OK);
    assert_ptr_equal(ops, best);
    unsetenv("TROUPE_CPU");
}

static void unknown_mask_is_a_configuration_error(void **state) {
    (void)state;
    tr_error err = {0};
    const tr_ops *ops = NULL;
    assert_int_equal(setenv("TROUPE_CPU", "avx9000", 1), 0);
    assert_int_equal(tr_ops_select(&ops, &err), TR_CONFIG);
    assert_null(ops);
    assert_non_null(strstr(err.text, "avx9000"));
    assert_non_null(strstr(err.text, "use ref, avx2"));
    unsetenv("TROUPE_CPU");
}

static void thread_init_flushes_denormals(void **state) {
    (void)state;
    tr_ops_thread_init();
    volatile float tiny = 0x1p-126f, half = 0.5f;
    float product = tiny * half;
    assert_true(product == 0.0f && memcmp(&product, &(float){0.0f}, sizeof product) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(available_starts_with_ref_and_ascends),
        cmocka_unit_test(mask_is_an_upper_bound),
        cmocka_unit_test(unknown_mask_is_a_configuration_error),
        cmocka_unit_test(thread_init_flushes_denormals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
