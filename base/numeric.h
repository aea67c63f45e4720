/* base/numeric.h - conversions between the float formats that files, images and pages use.
 * bf16 rounding is to nearest even; NaN stays NaN. fp16 decode is exact. */
#ifndef TR_NUMERIC_H
#define TR_NUMERIC_H
#include "base/device.h"

#include <stdint.h>
#include <string.h>

static inline TR_DEVICE float tr_f32_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline TR_DEVICE uint32_t tr_f32_to_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static inline TR_DEVICE float tr_bf16_to_f32(uint16_t h) { return tr_f32_from_bits((uint32_t)h << 16); }
static inline TR_DEVICE uint16_t tr_f32_to_bf16(float f) {
    uint32_t u = tr_f32_to_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 64u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
static inline TR_DEVICE float tr_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 31u, man = h & 1023u;
    if (exp == 31) return tr_f32_from_bits(sign | 0x7f800000u | (man << 13));
    if (exp != 0) return tr_f32_from_bits(sign | ((exp + 112) << 23) | (man << 13));
    float sub = (float)man * 0x1.0p-24f;
    return sign ? -sub : sub;
}
#endif
