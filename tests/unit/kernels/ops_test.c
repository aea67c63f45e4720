/* Dispatch: order of the tables, names, the TROUPE_CPU mask. */
#include "kernels/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const order[] = {"ref", "avx2", "avx2vnni", "avx512", "avx512vnni", "avx512bf16", "amx"};
enum { SETS = sizeof order / sizeof order[0] };

static void available_starts_with_ref_and_ascends(void **state) {
    (void)state;
    const tr_ops *const *t = tr_ops_available();
    size_t n = 0;
    for (size_t i = 0; i < SETS; i++) {
        if (!t[n] || strcmp(t[n]->name, order[i]) != 0) {
            assert_null(tr_ops_find(order[i]));
            continue;
        }
        assert_ptr_equal(tr_ops_find(order[i]), t[n]);
#define OP(name, ret, args) assert_true(t[n]->name != NULL);
        TR_OPS(OP)
#undef OP
        n++;
    }
    assert_null(t[n]);
    assert_non_null(tr_ops_find("ref"));
    assert_null(tr_ops_find("sse"));
}

/* A set that this CPU runs is taken by its name, also where another one is faster; of those that it does not run the
 * name is an upper bound. */
static void mask_names_a_set_or_bounds_the_choice(void **state) {
    (void)state;
    const tr_ops *ops = NULL;
    size_t runs = 0; /* the highest set below, or at, the name */
    for (size_t i = 0; i < SETS; i++) {
        const tr_ops *named = tr_ops_find(order[i]);
        runs = named ? i : runs;
        assert_int_equal(setenv("TROUPE_CPU", order[i], 1), 0);
        assert_int_equal(tr_ops_select(&ops, NULL), TR_OK);
        if (named) assert_ptr_equal(ops, named);
        size_t chosen = 0;
        while (strcmp(order[chosen], ops->name) != 0) chosen++;
        assert_true(chosen <= runs);
    }
    unsetenv("TROUPE_CPU");
}

/* By the rates that the probe found, whatever they were. */
static void fastest_set_is_taken(void **state) {
    (void)state;
    const tr_ops *best = NULL;
    unsetenv("TROUPE_CPU");
    assert_int_equal(tr_ops_select(&best, NULL), TR_OK);
    if (!tr_ops_available()[1]) {
        assert_string_equal(best->name, "ref");
        return;
    }
    const double *rate = tr_ops_rates();
    assert_true(rate[best->bf16_port] > 0 && rate[best->int8_port] > 0);
    for (const tr_ops *const *t = tr_ops_available(); *t; t++)
        assert_true(rate[best->bf16_port] * rate[best->int8_port] >=
                    0.9 * rate[(*t)->bf16_port] * rate[(*t)->int8_port]);
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
        cmocka_unit_test(mask_names_a_set_or_bounds_the_choice),
        cmocka_unit_test(fastest_set_is_taken),
        cmocka_unit_test(unknown_mask_is_a_configuration_error),
        cmocka_unit_test(thread_init_flushes_denormals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
