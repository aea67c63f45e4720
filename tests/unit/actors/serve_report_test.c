/* Figures of a serving benchmark, from requests whose times are known. */
#include "actors/cli/serve_report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { MS = 1000000 };

static float gaps[100];

/* Request k of 10: TTFT 10 (k + 1) ms, eleven tokens, k + 1 ms apart. */
static void make(tr_serve_report_seen *seen) {
    for (uint32_t k = 0; k < 10; k++) {
        for (uint32_t g = 0; g < 10; g++) gaps[10 * k + g] = (float)(k + 1);
        seen[k] = (tr_serve_report_seen){.ok = true,
                                         .start_ns = 1000 * MS,
                                         .first_ns = (1000 + 10 * (k + 1)) * MS,
                                         .last_ns = (1000 + 20 * (k + 1)) * MS,
                                         .end_ns = (1000 + 20 * (k + 1)) * MS,
                                         .prompt_tokens = 5,
                                         .output_tokens = 11,
                                         .n_gaps = 10,
                                         .gap_ms = gaps + 10 * k};
    }
}

static void figures(void **state) {
    (void)state;
    tr_serve_report_seen seen[11];
    tr_serve_report_limits none = {0};
    tr_serve_report r;
    tr_error err;
    make(seen);
    seen[10] = (tr_serve_report_seen){.ok = false, .start_ns = 900ull * MS, .end_ns = 901ull * MS};
    assert_int_equal(tr_serve_report_make(seen, 11, &none, &r, &err), TR_OK);
    assert_int_equal(r.requests, 11);
    assert_int_equal(r.ok, 10);
    assert_int_equal(r.good, 10);
    assert_float_equal(r.seconds, 0.3, 1e-9); /* the failed one belongs to the time */
    assert_float_equal(r.output_tokens, 110, 0);
    assert_float_equal(r.time[TR_SERVE_TTFT].mean, 55, 1e-6);
    assert_float_equal(r.time[TR_SERVE_TTFT].p50, 60, 1e-6);
    assert_float_equal(r.time[TR_SERVE_TTFT].max, 100, 1e-6);
    assert_float_equal(r.time[TR_SERVE_TPOT].mean, 5.5, 1e-6);
    assert_int_equal(r.time[TR_SERVE_ITL].n, 100);
    assert_float_equal(r.time[TR_SERVE_ITL].mean, 5.5, 1e-6);
    assert_float_equal(r.time[TR_SERVE_ITL].p99, 10, 1e-6);
    assert_float_equal(r.time[TR_SERVE_E2EL].p90, 200, 1e-6);
}

static void goodput(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t good;
    } row[] = {{"ttft:50", 5},       {"itl:3", 3},  {"tpot:4", 4}, {"e2el:40", 2},
               {"ttft:50,itl:3", 3}, {"ttft:9", 0}, {"", 10}};
    tr_serve_report_seen seen[10];
    tr_error err;
    make(seen);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        tr_serve_report_limits limits;
        tr_serve_report r;
        assert_int_equal(tr_serve_report_limits_parse(row[i].text, &limits, &err), TR_OK);
        assert_int_equal(tr_serve_report_make(seen, 10, &limits, &r, &err), TR_OK);
        assert_int_equal(r.good, row[i].good);
    }
}

static void bad_limits(void **state) {
    (void)state;
    static const char *const text[] = {"ttft", "ttft:",      "ttft:x", "ttft:-1", "ttft:5;",
                                       "x:5",  "ttft:5,itl", "ttft:0", ":5"};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        tr_serve_report_limits limits;
        tr_error err;
        assert_int_equal(tr_serve_report_limits_parse(text[i], &limits, &err), TR_USAGE);
        assert_non_null(strstr(err.text, "--goodput"));
    }
}

static void nothing(void **state) {
    (void)state;
    tr_serve_report_limits none = {0};
    tr_serve_report r;
    tr_error err;
    assert_int_equal(tr_serve_report_make(NULL, 0, &none, &r, &err), TR_OK);
    assert_float_equal(r.seconds, 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(figures), cmocka_unit_test(goodput),
                                       cmocka_unit_test(bad_limits), cmocka_unit_test(nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
