#include "stages/rope.h"

#include <stdint.h>

/* base^(-1/n) by Newton's iteration for r^n = 1 / base; 1 <= base <= 1e12, n <= 256. From above the root it descends
 * monotonically, so it ends when it stops falling. */
static double root_of_inverse(double base, uint32_t n) {
    double r = 1.0;
    for (int i = 0; i < 100000; i++) {
        double power = 1.0; /* r^(n - 1) */
        for (uint32_t k = 1; k < n; k++) power *= r;
        double next = r - (r * power - 1.0 / base) / (n * power);
        if (!(next < r)) break;
        r = next;
    }
    return r;
}

void tr_rope_frequencies(const tr_model_config *c, bool global, float *inv_freq_out) {
    const uint32_t half = c->head_dim / 2;
    double step = root_of_inverse((double)(global ? c->rope_base_global : c->rope_base_local), half), freq = 1.0;
    for (uint32_t i = 0; i < half; i++, freq *= step) {
        double scaled = freq;
        if (global) scaled /= (double)c->rope_scale_linear;
        if (global && c->has_rope_freq_factors) scaled /= (double)c->rope_freq_factors[i];
        inv_freq_out[i] = (float)scaled;
    }
}

/* pi/2 in three parts of 33, 33 and 53 bits: k times each of the first two is exact for k < 2^20, and off by less than
 * 3e-9 in all up to 2^25 (Cody and Waite 1980). */
#define HALF_PI_1 0x1.921fb544p+0
#define HALF_PI_2 0x1.0b4611a6p-34
#define HALF_PI_3 0x1.3198a2e037073p-69

void tr_rope_angle(float angle, float *cos_out, float *sin_out) {
    const double x = (double)angle, round = 0x1.8p52;
    double k = (x * 0.63661977236758134308 + round) - round; /* nearest integer to x / (pi/2) */
    double r = ((x - k * HALF_PI_1) - k * HALF_PI_2) - k * HALF_PI_3, z = r * r;
    /* Taylor on [-pi/4, pi/4]: the first term left out is below 1e-13. */
    double s =
        r * (1 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800))))));
    double c =
        1 + z * (-0.5 +
                 z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z * (1.0 / 479001600))))));
    switch ((int64_t)k & 3) {
    case 0: *cos_out = (float)c, *sin_out = (float)s; break;
    case 1: *cos_out = (float)-s, *sin_out = (float)c; break;
    case 2: *cos_out = (float)-c, *sin_out = (float)-s; break;
    default: *cos_out = (float)s, *sin_out = (float)-c; break;
    }
}
