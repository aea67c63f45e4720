#include "model/dequant.h"

#include "base/checked.h"
#include "base/numeric.h"
#include "base/status.h"

#include <string.h>

static const tr_dequant_info infos[TR_DEQUANT_TYPE_COUNT] = {
#define X(name, id, elems, bytes) {#name, id, elems, bytes},
    TR_DEQUANT_MAP(X)
#undef X
};

/* Names of all assigned GGUF type numbers, for messages about files that troupe cannot run. */
static const struct {
    uint32_t id;
    const char *name;
} foreign[] = {
    {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
    {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
    {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"},
};

const tr_dequant_info *tr_dequant_describe(tr_dequant_type type) {
    tr_check((unsigned)type < TR_DEQUANT_TYPE_COUNT);
    return &infos[type];
}

bool tr_dequant_from_gguf(uint32_t gguf_id, tr_dequant_type *type_out) {
    for (unsigned t = 0; t < TR_DEQUANT_TYPE_COUNT; t++) {
        if (infos[t].gguf_id != gguf_id) continue;
        *type_out = (tr_dequant_type)t;
        return true;
    }
    return false;
}

const char *tr_dequant_gguf_name(uint32_t gguf_id) {
    tr_dequant_type type;
    if (tr_dequant_from_gguf(gguf_id, &type)) return infos[type].name;
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        if (foreign[i].id == gguf_id) return foreign[i].name;
    return NULL;
}

bool tr_dequant_row_bytes(tr_dequant_type type, uint64_t cols, uint64_t *bytes_out) {
    const tr_dequant_info *info = tr_dequant_describe(type);
    if (cols % info->block_elems != 0) return false;
    return tr_checked_mul(cols / info->block_elems, info->block_bytes, bytes_out);
}

static uint16_t load_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

static uint32_t load_u32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static float load_f16(const uint8_t *p) { return tr_f16_to_f32(load_u16(p)); }

/* One function a type: src is one block, out its elements. Each line rounds as the Python reference does: the scale
 * of a sub-block is a rounded fp32 product, then one multiplication and, for types with a minimum, one addition. */

static void block_F32(const uint8_t *src, float *out) { memcpy(out, src, 4); }
static void block_F16(const uint8_t *src, float *out) { *out = load_f16(src); }
static void block_BF16(const uint8_t *src, float *out) { *out = tr_bf16_to_f32(load_u16(src)); }

/* f16 scale, 16 bytes: low nibbles are elements 0..15, high nibbles 16..31. */
static void block_Q4_0(const uint8_t *src, float *out) {
    float d = load_f16(src);
    const uint8_t *qs = src + 2;
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((qs[i] & 15) - 8);
        out[i + 16] = d * (float)((qs[i] >> 4) - 8);
    }
}

/* f16 scale, f16 minimum, nibbles as in Q4_0. */
static void block_Q4_1(const uint8_t *src, float *out) {
    float d = load_f16(src), m = load_f16(src + 2);
    const uint8_t *qs = src + 4;
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(qs[i] & 15) + m;
        out[i + 16] = d * (float)(qs[i] >> 4) + m;
    }
}

/* f16 scale, 32 fifth bits (bit i belongs to element i), nibbles as in Q4_0. */
static void block_Q5_0(const uint8_t *src, float *out) {
    float d = load_f16(src);
    uint32_t high = load_u32(src + 2);
    const uint8_t *qs = src + 6;
    for (int i = 0; i < 16; i++) {
        int lo = (int)((qs[i] & 15u) | ((high >> i & 1u) << 4));
        int hi = (int)((qs[i] >> 4) | ((high >> (i + 16) & 1u) << 4));
        out[i] = d * (float)(lo - 16);
        out[i + 16] = d * (float)(hi - 16);
    }
}

/* f16 scale, f16 minimum, fifth bits, nibbles. */
static void block_Q5_1(const uint8_t *src, float *out) {
    float d = load_f16(src), m = load_f16(src + 2);
    uint32_t high = load_u32(src + 4);
    const uint8_t *qs = src + 8;
    for (int i = 0; i < 16; i++) {
        uint32_t lo = (qs[i] & 15u) | ((high >> i & 1u) << 4);
        uint32_t hi = (uint32_t)(qs[i] >> 4) | ((high >> (i + 16) & 1u) << 4);
        out[i] = d * (float)lo + m;
        out[i + 16] = d * (float)hi + m;
    }
}

static void block_Q8_0(const uint8_t *src, float *out) {
    float d = load_f16(src);
    for (int i = 0; i < 32; i++) out[i] = (float)(int8_t)src[2 + i] * d;
}

/* The 12 bytes of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minimums. Sub-blocks 0..3 lie in the low six bits
 * of bytes 0..3 and 4..7; sub-blocks 4..7 have their low nibbles in bytes 8..11 and their two top bits above those. */
static void k_scale_min(const uint8_t *s, int sub, uint32_t *scale_out, uint32_t *min_out) {
    if (sub < 4) {
        *scale_out = s[sub] & 63u;
        *min_out = s[sub + 4] & 63u;
    } else {
        *scale_out = (s[sub + 4] & 15u) | ((s[sub - 4] >> 2) & 48u);
        *min_out = (uint32_t)(s[sub + 4] >> 4) | ((s[sub] >> 2) & 48u);
    }
}

/* f16 scale, f16 minimum scale, 12 scale bytes, 128 bytes: sub-blocks of 32, pairs share bytes (low, then high). */
static void block_Q4_K(const uint8_t *src, float *out) {
    float d = load_f16(src), dmin = load_f16(src + 2);
    const uint8_t *scales = src + 4, *qs = src + 16;
    for (int sub = 0; sub < 8; sub++) {
        uint32_t sc, mn;
        k_scale_min(scales, sub, &sc, &mn);
        float ds = d * (float)sc, dm = dmin * (float)mn;
        const uint8_t *q = qs + sub / 2 * 32;
        int shift = sub % 2 * 4;
        for (int i = 0; i < 32; i++) out[sub * 32 + i] = ds * (float)(q[i] >> shift & 15) - dm;
    }
}

/* As Q4_K with 32 bytes of fifth bits before the nibbles: bit `sub` of byte i belongs to element i of that sub-block.
 */
static void block_Q5_K(const uint8_t *src, float *out) {
    float d = load_f16(src), dmin = load_f16(src + 2);
    const uint8_t *scales = src + 4, *qh = src + 16, *qs = src + 48;
    for (int sub = 0; sub < 8; sub++) {
        uint32_t sc, mn;
        k_scale_min(scales, sub, &sc, &mn);
        float ds = d * (float)sc, dm = dmin * (float)mn;
        const uint8_t *q = qs + sub / 2 * 32;
        int shift = sub % 2 * 4;
        for (int i = 0; i < 32; i++) {
            int v = (q[i] >> shift & 15) | ((qh[i] >> sub & 1) << 4);
            out[sub * 32 + i] = ds * (float)v - dm;
        }
    }
}

/* 128 bytes of low nibbles, 64 of top two bits, 16 signed scales (one for 16 elements), f16 scale. Each half of 128
 * elements is four runs of 32: nibble bytes alternate by run, low nibbles for runs 0 and 1, high for 2 and 3. */
static void block_Q6_K(const uint8_t *src, float *out) {
    const uint8_t *ql = src, *qh = src + 128, *scales = src + 192;
    float d = load_f16(src + 208);
    for (int run = 0; run < 8; run++) {
        int half = run / 4, r = run % 4;
        const uint8_t *lo = ql + half * 64 + r % 2 * 32, *hi = qh + half * 32;
        for (int i = 0; i < 32; i++) {
            float ds = d * (float)(int8_t)scales[run * 2 + i / 16];
            int v = (lo[i] >> (r / 2 * 4) & 15) | ((hi[i] >> (r * 2) & 3) << 4);
            out[run * 32 + i] = ds * (float)(v - 32);
        }
    }
}

void tr_dequant_row(tr_dequant_type type, const void *src, size_t cols, float *out) {
    const tr_dequant_info *info = tr_dequant_describe(type);
    tr_check(cols % info->block_elems == 0);
    const uint8_t *p = src;
    size_t n = cols / info->block_elems;
    switch (type) {
#define X(name, id, elems, bytes)                                                                                      \
    case TR_DEQUANT_##name:                                                                                            \
        for (size_t b = 0; b < n; b++) block_##name(p + b * (bytes), out + b * (elems));                               \
        return;
        TR_DEQUANT_MAP(X)
#undef X
    case TR_DEQUANT_TYPE_COUNT: break;
    }
}
