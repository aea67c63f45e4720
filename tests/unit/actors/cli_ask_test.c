/* The figures of the closing table. */
#include "actors/cli/cli_ask.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static tr_cli_figures of(uint64_t *gaps, uint32_t n) {
    tr_cli_figures f = {0};
    tr_cli_answer a = {.gap_ns = gaps, .n_gaps = n};
    assert_true(tr_cli_ask_figures(&a, &f));
    return f;
}

static void test_nothing_to_tell(void **state) {
    (void)state;
    tr_cli_figures f;
    uint64_t zeros[2] = {0, 0};
    tr_cli_answer none = {.n_tokens = 1}, at_once = {.n_tokens = 3, .gap_ns = zeros, .n_gaps = 2};
    assert_false(tr_cli_ask_figures(&none, &f)); /* no token or one: no time between */
    assert_false(tr_cli_ask_figures(&at_once, &f));
}

static void test_nearest_rank(void **state) {
    (void)state;
    uint64_t two[2] = {5990000, 670000}, hundred[100], more[101];
    tr_cli_figures f = of(two, 2);
    assert_float_equal(f.p50_ms, 0.67, 1e-9);
    assert_float_equal(f.p99_ms, 5.99, 1e-9);
    assert_float_equal(f.mean_ms, 3.33, 1e-9);
    assert_float_equal(f.tok_s, 2 / 0.00666, 1e-6);
    assert_int_equal(two[0], 5990000); /* in the order in which they came */
    f = of(two, 1);
    assert_float_equal(f.p50_ms, 5.99, 1e-9);
    assert_float_equal(f.p99_ms, 5.99, 1e-9);
    for (uint32_t i = 0; i < 101; i++) more[i] = (101 - i) * 1000000ull;
    for (uint32_t i = 0; i < 100; i++) hundred[i] = (uint64_t)((i * 37) % 100 + 1) * 1000000;
    f = of(hundred, 100); /* 1..100 ms */
    assert_float_equal(f.p50_ms, 50, 1e-9);
    assert_float_equal(f.p99_ms, 99, 1e-9);
    f = of(more, 101); /* 1..101 ms */
    assert_float_equal(f.p50_ms, 51, 1e-9);
    assert_float_equal(f.p99_ms, 100, 1e-9);
    uint64_t three[3] = {3000000, 1000000, 2000000};
    f = of(three, 3);
    assert_float_equal(f.p50_ms, 2, 1e-9);
    assert_float_equal(f.p99_ms, 3, 1e-9);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_to_tell), cmocka_unit_test(test_nearest_rank)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
