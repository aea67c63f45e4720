/* Angles and frequencies against libm. */
#include "stages/rope.h"

#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void check(float angle) {
    float c, s;
    tr_rope_angle(angle, &c, &s);
    double want_c = cos((double)angle), want_s = sin((double)angle);
    /* half a unit of the fp32 result, and 3e-9 */
    if (fabs((double)c - want_c) > 3.3e-8 || fabs((double)s - want_s) > 3.3e-8)
        fail_msg("angle %a: cos %a sin %a, not %a %a", (double)angle, (double)c, (double)s, want_c, want_s);
}

static void angles(void **state) {
    (void)state;
    tr_rng rng = {1};
    uint32_t equal = 0, n = 400000;
    for (uint32_t i = 0; i < n; i++) {
        float range[] = {1, 100, 10000, 0x1p20f, 0x1p25f}, a = range[i % 5] * (float)tr_rng_unit(&rng), c, s;
        check(a), check(-a);
        tr_rope_angle(a, &c, &s);
        equal += c == (float)cos((double)a) && s == (float)sin((double)a);
    }
    assert_true(equal > n * 99 / 100); /* the rounded results are libm's but for a few ties */
    for (int k = -3000; k <= 3000; k++) check((float)(k * M_PI_4));
    check(0), check(-0.0f), check(0x1p25f), check(1e-30f);
}

static void frequencies(void **state) {
    (void)state;
    static const float bases[] = {1, 10000, 100000, 500000, 1e6f, 1e12f};
    static const uint32_t dims[] = {16, 32, 64, 96, 128, 256, 512};
    float got[256];
    for (int b = 0; b < 6; b++)
        for (int d = 0; d < 7; d++) {
            tr_model_config c = {.head_dim = dims[d],
                                 .rope_base_global = bases[b],
                                 .rope_base_local = bases[5 - b],
                                 .rope_scale_linear = 8,
                                 .has_rope_freq_factors = d % 2};
            for (uint32_t i = 0; i < dims[d] / 2; i++) c.rope_freq_factors[i] = 1 + (float)i / 7;
            for (int global = 0; global < 2; global++) {
                tr_rope_frequencies(&c, global, got);
                for (uint32_t i = 0; i < dims[d] / 2; i++) {
                    double want = pow((double)bases[global ? b : 5 - b], -2.0 * i / dims[d]);
                    if (global) want /= 8 * (d % 2 ? (double)c.rope_freq_factors[i] : 1);
                    if (fabs((double)got[i] / want - 1) > 6e-8)
                        fail_msg("base %g d %u i %u: %g, not %g", (double)bases[b], dims[d], i, (double)got[i], want);
                }
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(angles), cmocka_unit_test(frequencies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
