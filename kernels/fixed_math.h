/* kernels/fixed_math.h - the scalar numbers every variant reproduces bit for bit: bf16, exp, sigmoid, 8-bit rounding.
 * Why: "same bits in every variant" needs one definition of each elementary function; the SIMD files repeat these
 *      formulas lane by lane, instruction by instruction, and checkk compares them.
 * Rules: only IEEE +, *, fma, /, sqrt and integer operations. tr_fixed_math_max(a, b) returns b when either is NaN or
 *      both are zero, as MAXPS does: operand order is part of the definition. */
#ifndef TR_FIXED_MATH_H
#define TR_FIXED_MATH_H
#include "base/device.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* exp(x) = 2^n * p(r), n = round(x / ln 2), r = x - n ln 2 in [-0.347, 0.347].
 * p(r) = 1 + r + r^2 (c2 + c3 r + ... + c6 r^4): our own minimax fit, relative error 3e-9 before rounding. */
#define TR_FIXED_MATH_LOG2E  0x1.715476p+0f
#define TR_FIXED_MATH_LN2_HI 0x1.62e400p-1f
#define TR_FIXED_MATH_LN2_LO 0x1.7f7d1cp-20f
#define TR_FIXED_MATH_EXP_C2 0x1.fffffcp-2f
#define TR_FIXED_MATH_EXP_C3 0x1.555490p-3f
#define TR_FIXED_MATH_EXP_C4 0x1.5558f4p-5f
#define TR_FIXED_MATH_EXP_C5 0x1.123a6cp-7f
#define TR_FIXED_MATH_EXP_C6 0x1.6a234ep-10f
/* Arguments are clamped to [LO, HI], where n stays in [-126, 127]: results are finite and never denormal by design. */
#define TR_FIXED_MATH_EXP_LO (-87.3f)
#define TR_FIXED_MATH_EXP_HI 88.3f
/* Adding 1.5 * 2^23 rounds |v| < 2^22 to an integer, half to even, kept in the low mantissa bits. */
#define TR_FIXED_MATH_ROUND 0x1.8p23f

/* tanh GELU as x * sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): 2u = x (C0 + C1 x^2). */
#define TR_FIXED_MATH_GELU_C0 1.5957691669464111f
#define TR_FIXED_MATH_GELU_C1 0.07135481387376785f

/* 8-bit quantization: a row whose largest magnitude is below this is all zero (127 / absmax must stay finite). */
#define TR_FIXED_MATH_ABSMAX_MIN 0x1p-100f

static inline TR_DEVICE uint32_t tr_fixed_math_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}
static inline TR_DEVICE float tr_fixed_math_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline TR_DEVICE float tr_fixed_math_from_bf16(uint16_t b) { return tr_fixed_math_float((uint32_t)b << 16); }
static inline TR_DEVICE float tr_fixed_math_load_bf16(const uint8_t *at) {
    uint16_t b;
    memcpy(&b, at, sizeof b);
    return tr_fixed_math_from_bf16(b);
}

/* Round to nearest even; a NaN stays a NaN (made quiet). Integer arithmetic: denormals are kept. */
static inline TR_DEVICE uint16_t tr_fixed_math_to_bf16(float f) {
    uint32_t u = tr_fixed_math_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* An input of a bf16 product: the same, but fp32 denormals are zeros of their sign (what vcvtneps2bf16 gives). */
static inline TR_DEVICE uint16_t tr_fixed_math_bf16_input(float f) {
    uint32_t u = tr_fixed_math_bits(f);
    return (u & 0x7f800000u) == 0 ? (uint16_t)(u >> 16 & 0x8000u) : tr_fixed_math_to_bf16(f);
}

static inline TR_DEVICE float tr_fixed_math_max(float a, float b) { return a > b ? a : b; }
static inline TR_DEVICE float tr_fixed_math_min(float a, float b) { return a < b ? a : b; }

static inline TR_DEVICE float tr_fixed_math_exp(float x) {
    x = tr_fixed_math_min(TR_FIXED_MATH_EXP_HI, tr_fixed_math_max(TR_FIXED_MATH_EXP_LO, x)); /* NaN passes */
    float t = fmaf(x, TR_FIXED_MATH_LOG2E, TR_FIXED_MATH_ROUND);
    float n = t - TR_FIXED_MATH_ROUND;
    float r = fmaf(n, -TR_FIXED_MATH_LN2_HI, x);
    r = fmaf(n, -TR_FIXED_MATH_LN2_LO, r);
    float p = TR_FIXED_MATH_EXP_C6;
    p = fmaf(p, r, TR_FIXED_MATH_EXP_C5);
    p = fmaf(p, r, TR_FIXED_MATH_EXP_C4);
    p = fmaf(p, r, TR_FIXED_MATH_EXP_C3);
    p = fmaf(p, r, TR_FIXED_MATH_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return p * tr_fixed_math_float((tr_fixed_math_bits(t) + 127u) << 23);
}

static inline TR_DEVICE float tr_fixed_math_silu(float x) { return x / (1.0f + tr_fixed_math_exp(-x)); }
static inline TR_DEVICE float tr_fixed_math_gelu(float x) {
    float u2 = x * fmaf(x * x, TR_FIXED_MATH_GELU_C1, TR_FIXED_MATH_GELU_C0);
    return x / (1.0f + tr_fixed_math_exp(-u2));
}

/* Scale of a row rounded to whole steps, of which the largest |x| takes `steps` (compared as integers, so that a NaN
 * wins and shows up in the scale). Returns the multiplier for the values, *scale_out what one step is worth. */
static inline TR_DEVICE float tr_fixed_math_scale_to(float steps, uint32_t absmax_bits, float *scale_out) {
    float a = tr_fixed_math_float(absmax_bits);
    if (a < TR_FIXED_MATH_ABSMAX_MIN) {
        *scale_out = 0.0f;
        return 0.0f;
    }
    *scale_out = a / steps;
    return steps / a;
}
/* round_half_even(x * mul) clamped to [-steps, steps]; NaN gives -steps. steps < 2^22. */
static inline TR_DEVICE int32_t tr_fixed_math_round_to(float steps, float x, float mul) {
    float v = tr_fixed_math_min(tr_fixed_math_max(x * mul, -steps), steps);
    return (int32_t)(tr_fixed_math_bits(v + TR_FIXED_MATH_ROUND) - tr_fixed_math_bits(TR_FIXED_MATH_ROUND));
}
/* The same of x >= 0 that takes no more than the steps of its row: NaN gives 0. */
static inline TR_DEVICE int32_t tr_fixed_math_round_positive(float x, float mul) {
    float v = tr_fixed_math_max(x * mul, 0.0f);
    return (int32_t)(tr_fixed_math_bits(v + TR_FIXED_MATH_ROUND) - tr_fixed_math_bits(TR_FIXED_MATH_ROUND));
}
/* Both for 8 bits. */
static inline TR_DEVICE float tr_fixed_math_quant_scale(uint32_t absmax_bits, float *scale_out) {
    return tr_fixed_math_scale_to(127.0f, absmax_bits, scale_out);
}
static inline TR_DEVICE int32_t tr_fixed_math_quant(float x, float mul) {
    return tr_fixed_math_round_to(127.0f, x, mul);
}
#endif
