/* Loads: what is drawn has the mean, spread and order that were asked for. */
#include "actors/cli/load.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { N = 20000 };

static double of_output(const tr_load *l, size_t i) { return l->request[i].output; }
static double of_gap(const tr_load *l, size_t i) {
    return i == 0 ? 0 : (double)(l->request[i].at_ns - l->request[i - 1].at_ns) / 1e9;
}

static void moments(const tr_load *l, double (*value)(const tr_load *, size_t), double *mean, double *deviation) {
    double sum = 0, squares = 0;
    for (size_t i = 1; i < l->n; i++) {
        sum += value(l, i);
        squares += value(l, i) * value(l, i);
    }
    *mean = sum / (double)(l->n - 1);
    *deviation = sqrt(squares / (double)(l->n - 1) - *mean * *mean);
}

static tr_load make(tr_load_want want) {
    tr_load l;
    tr_error err;
    want.n = N;
    want.prompt = 100;
    want.prompt_max = want.output_max = 1000000;
    if (tr_load_random(&want, &l, &err) != TR_OK) fail_msg("%s", err.text);
    return l;
}

static void lengths(void **state) {
    (void)state;
    static const struct {
        tr_load_lengths lengths;
        double spread, deviation;
    } row[] = {{TR_LOAD_UNIFORM, 0, 0},
               {TR_LOAD_UNIFORM, 0.6, 600 / 1.7320508},
               {TR_LOAD_NORMAL, 0.2, 200},
               {TR_LOAD_LOGNORMAL, 0.5, 500}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        double mean, deviation;
        tr_load l = make((tr_load_want){.output = 1000, .lengths = row[i].lengths, .spread = row[i].spread});
        moments(&l, of_output, &mean, &deviation);
        assert_true(fabs(mean - 1000) < 20);
        assert_true(fabs(deviation - row[i].deviation) < 25);
        assert_int_equal(l.request[N - 1].prompt > 0, 1);
        tr_load_free(&l);
    }
}

/* Gaps of a gamma distribution: deviation over mean is 1 / sqrt(shape). */
static void arrivals(void **state) {
    (void)state;
    static const double shape[] = {0, 1, 0.25, 4};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        const double expected = 1 / sqrt(shape[i] > 0 ? shape[i] : 1);
        double mean, deviation;
        tr_load l = make((tr_load_want){.output = 10, .rate = 50, .burstiness = shape[i], .seed = 3});
        moments(&l, of_gap, &mean, &deviation);
        assert_true(fabs(mean * 50 - 1) < 0.06);
        assert_true(fabs(deviation / mean / expected - 1) < 0.06);
        tr_load_free(&l);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(lengths), cmocka_unit_test(arrivals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
