#include "model/pack_groups.h"

#include "base/numeric.h"
#include "base/status.h"
#include "kernels/fixed_math.h"

#include <math.h>
#include <string.h>

bool tr_pack_groups_format(tr_dequant_type type, tr_groups_format *format_out) {
    switch (type) {
#define SAME(name)                                                                                                     \
    case TR_DEQUANT_##name: *format_out = TR_GROUPS_##name; return true;
        SAME(Q4_0)
        SAME(Q4_1)
        SAME(Q5_0)
        SAME(Q5_1)
        SAME(Q8_0)
        SAME(Q4_K)
        SAME(Q5_K)
        SAME(Q6_K)
#undef SAME
    default: return false;
    }
}

/* ---- blocks of files (layouts: model/dequant.c) ---- */

typedef struct channel {
    tr_groups_format format;
    uint8_t *block;
    size_t k, channel;
} channel;

static uint16_t load_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static void put_f16(const channel *c, size_t at, int level, const uint8_t *from) {
    tr_groups_put_f16(c->format, c->block, c->channel, at, level, load_u16(from));
}
static void put_codes(const channel *c, size_t unit, const uint8_t codes[TR_GROUPS_UNIT]) {
    tr_groups_put_codes(c->format, c->block, c->k, c->channel, unit, codes);
}

/* Block b of one level: d, [minimum], [fifth bits], codes. */
static void copy_flat(const channel *c, size_t b, const uint8_t *src) {
    const tr_groups_info *f = tr_groups_describe(c->format);
    uint8_t codes[TR_GROUPS_UNIT];
    uint32_t high = 0;
    put_f16(c, b, 0, src), src += 2;
    if (f->min) put_f16(c, b, 1, src), src += 2;
    if (f->bits == 5) memcpy(&high, src, 4), src += 4;
    for (size_t i = 0; i < 32; i++) {
        uint32_t code = f->bits == 8 ? src[i] ^ 128u : src[i % 16] >> (i / 16 * 4) & 15u;
        if (f->bits == 5) code |= (high >> i & 1u) << 4;
        codes[i] = (uint8_t)code;
    }
    put_codes(c, b, codes);
}

/* Q4_K, Q5_K: d, dmin, 12 bytes of scales and minimums, [32 bytes of fifth bits], 128 bytes of nibbles. */
static void copy_k45(const channel *c, size_t b, const uint8_t *src) {
    const bool five = c->format == TR_GROUPS_Q5_K;
    uint8_t codes[TR_GROUPS_UNIT];
    const uint8_t *s = src + 4, *high = src + 16, *low = src + (five ? 48 : 16);
    put_f16(c, b, 0, src);
    put_f16(c, b, 1, src + 2);
    for (size_t sub = 0; sub < 8; sub++) {
        uint32_t scale = sub < 4 ? s[sub] & 63u : (s[sub + 4] & 15u) | (s[sub - 4] >> 2 & 48u);
        uint32_t min = sub < 4 ? s[sub + 4] & 63u : (uint32_t)s[sub + 4] >> 4 | (s[sub] >> 2 & 48u);
        tr_groups_put_u8(c->format, c->block, c->channel, b * 8 + sub, 0, (uint8_t)scale);
        tr_groups_put_u8(c->format, c->block, c->channel, b * 8 + sub, 1, (uint8_t)min);
        for (size_t i = 0; i < 32; i++) {
            uint32_t code = low[sub / 2 * 32 + i] >> (sub % 2 * 4) & 15u;
            if (five) code |= (high[i] >> sub & 1u) << 4;
            codes[i] = (uint8_t)code;
        }
        put_codes(c, b * 8 + sub, codes);
    }
}

/* Q6_K: 128 bytes of low nibbles, 64 of top bits, 16 signed scales, d. */
static void copy_k6(const channel *c, size_t b, const uint8_t *src) {
    const uint8_t *low = src, *high = src + 128, *s = src + 192;
    put_f16(c, b, 0, src + 208);
    for (size_t g = 0; g < 16; g++) tr_groups_put_u8(c->format, c->block, c->channel, b * 16 + g, 0, s[g]);
    for (size_t run = 0; run < 8; run++) {
        const size_t half = run / 4, r = run % 4;
        uint8_t codes[TR_GROUPS_UNIT];
        for (size_t i = 0; i < 32; i++) {
            uint32_t code = low[half * 64 + r % 2 * 32 + i] >> (r / 2 * 4) & 15u;
            codes[i] = (uint8_t)(code | (high[half * 32 + i] >> (r * 2) & 3u) << 4);
        }
        put_codes(c, b * 8 + run, codes);
    }
}

void tr_pack_groups_copy(tr_dequant_type type, const uint8_t *row, size_t k, uint8_t *block, size_t channel_index) {
    const tr_dequant_info *info = tr_dequant_describe(type);
    channel c = {.block = block, .k = k, .channel = channel_index};
    tr_check(tr_pack_groups_format(type, &c.format));
    for (size_t b = 0; b < k / info->block_elems; b++) {
        const uint8_t *src = row + b * info->block_bytes;
        if (c.format == TR_GROUPS_Q6_K)
            copy_k6(&c, b, src);
        else if (tr_groups_describe(c.format)->levels == 2)
            copy_k45(&c, b, src);
        else
            copy_flat(&c, b, src);
    }
}

/* ---- codes of our own ---- */

/* Nearest fp16, ties to even; at most 65504 in magnitude. */
static uint16_t to_f16(float v) {
    uint32_t sign = tr_f32_to_bits(v) >> 16 & 0x8000u;
    float a = fminf(fabsf(v), 65504.0f);
    if (a < 0x1p-14f) return (uint16_t)(sign | (uint32_t)lrintf(a * 0x1p24f)); /* denormal, or the first normal one */
    uint32_t u = tr_f32_to_bits(a);
    u += 0xfffu + (u >> 13 & 1u);
    return (uint16_t)(sign | ((u >> 13) - (112u << 10)));
}

/* Codes of a group under scale d (a number that fp16 has); returns the square error. */
static float codes_q4(const float *x, float d, uint8_t codes[32]) {
    float sum = 0, by = d != 0 ? 1.0f / d : 0.0f;
    for (size_t i = 0; i < 32; i++) {
        float v = x[i] * by;
        v = v < -8.0f ? -8.0f : v > 7.0f ? 7.0f : v;
        v = v + TR_FIXED_MATH_ROUND - TR_FIXED_MATH_ROUND;
        codes[i] = (uint8_t)((int32_t)v + 8);
        sum += (x[i] - d * v) * (x[i] - d * v);
    }
    return sum;
}

/* The nearest value of the table is found by counting the middles between values that lie below. */
static float codes_nf4(const float *x, float d, uint8_t codes[32]) {
    float sum = 0, by = d != 0 ? 1.0f / d : 0.0f;
    int32_t below[32] = {0};
    for (int m = 0; m < 15; m++) {
        const float middle = 0.5f * (float)((int)tr_groups_nf4[m] + tr_groups_nf4[m + 1] - 256);
        for (size_t i = 0; i < 32; i++) below[i] += x[i] * by > middle;
    }
    for (size_t i = 0; i < 32; i++) {
        float e = x[i] - d * (float)((int32_t)tr_groups_nf4[below[i]] - 128);
        codes[i] = (uint8_t)below[i];
        sum += e * e;
    }
    return sum;
}

static float codes_q8(const float *x, float d, uint8_t codes[32]) {
    float sum = 0, by = d != 0 ? 1.0f / d : 0.0f;
    for (size_t i = 0; i < 32; i++) {
        int32_t v = tr_fixed_math_quant(x[i], by);
        codes[i] = (uint8_t)(v + 128);
        sum += (x[i] - d * (float)v) * (x[i] - d * (float)v);
    }
    return sum;
}

/* Largest scale that a format needs for a group whose number of largest magnitude is `most`. Q4_0: that one gets the
 * code -8, which has no opposite. */
static const struct {
    float (*codes)(const float *x, float d, uint8_t codes[32]);
    float step;
    int tries; /* the largest number exactly, then cut by 1/20 more each time */
} rounding[TR_GROUPS_FORMATS] = {[TR_GROUPS_Q4_0] = {codes_q4, -1.0f / 8.0f, 9},
                                 [TR_GROUPS_Q8_0] = {codes_q8, 1.0f / 127.0f, 1},
                                 [TR_GROUPS_NF4] = {codes_nf4, 1.0f / 127.0f, 4}};

void tr_pack_groups_round(tr_groups_format format, const float *row, size_t k, uint8_t *block, size_t channel_index) {
    const channel c = {.format = format, .block = block, .k = k, .channel = channel_index};
    for (size_t g = 0; g < k / 32; g++) {
        const float *x = row + g * 32;
        uint8_t codes[2][TR_GROUPS_UNIT]; /* the best so far, and of this try */
        float most = 0;
        for (size_t i = 0; i < 32; i++) most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
        uint16_t best = 0;
        float least = INFINITY;
        for (int t = 0; t < rounding[format].tries; t++) {
            uint16_t d = to_f16(most * rounding[format].step * (1.0f - 0.05f * (float)t));
            float e = rounding[format].codes(x, tr_f16_to_f32(d), codes[1]);
            if (!(e < least)) continue;
            best = d, least = e;
            memcpy(codes[0], codes[1], sizeof codes[0]);
        }
        tr_groups_put_f16(format, block, channel_index, g, 0, best);
        put_codes(&c, g, codes[0]);
    }
}
