#include "kernels/groups.h"

#include "base/numeric.h"
#include "base/status.h"

static TR_DEVICE const tr_groups_info infos[TR_GROUPS_FORMATS] = {
#define X(name, bits, shift, group, levels, min, table) {#name, bits, shift, group, levels, min, table},
    TR_GROUPS_MAP(X)
#undef X
};

TR_DEVICE const uint8_t tr_groups_nf4[16] = {1, 40, 61, 78, 92, 105, 116, 128, 138, 148, 159, 171, 184, 199, 220, 255};

TR_DEVICE const tr_groups_info *tr_groups_describe(tr_groups_format format) {
    tr_check((unsigned)format < TR_GROUPS_FORMATS);
    return &infos[format];
}

TR_DEVICE bool tr_groups_takes(tr_groups_format format, size_t k) {
    return k % (tr_groups_describe(format)->levels == 2 ? TR_GROUPS_SUPER : TR_GROUPS_UNIT) == 0;
}

/* ---- where things lie ---- */

/* Bytes of the f16 numbers of one run of inputs, and of its whole scales. */
TR_DEVICE static size_t top_bytes(const tr_groups_info *f) { return f->min ? 64 : 32; }
TR_DEVICE static size_t run_bytes(const tr_groups_info *f) {
    return top_bytes(f) + (f->levels == 2 ? TR_GROUPS_SUPER / f->group * (f->min ? 32u : 16u) : 0);
}
TR_DEVICE static size_t run_inputs(const tr_groups_info *f) {
    return f->levels == 2 ? TR_GROUPS_SUPER : TR_GROUPS_UNIT;
}

TR_DEVICE size_t tr_groups_scale_bytes(tr_groups_format format, size_t k) {
    const tr_groups_info *f = tr_groups_describe(format);
    return (k / run_inputs(f) * run_bytes(f) + 63) & ~(size_t)63;
}
TR_DEVICE size_t tr_groups_unit_bytes(tr_groups_format format) { return tr_groups_describe(format)->bits * (size_t)64; }
TR_DEVICE size_t tr_groups_block_bytes(tr_groups_format format, size_t k) {
    return tr_groups_scale_bytes(format, k) + k / TR_GROUPS_UNIT * tr_groups_unit_bytes(format);
}

TR_DEVICE static size_t f16_at(const tr_groups_info *f, size_t channel, size_t run, int level) {
    return run * run_bytes(f) + (size_t)level * 32 + channel * 2;
}
TR_DEVICE static size_t u8_at(const tr_groups_info *f, size_t channel, size_t group, int level) {
    size_t in_run = TR_GROUPS_SUPER / f->group;
    return group / in_run * run_bytes(f) + top_bytes(f) + group % in_run * (f->min ? 32 : 16) + (size_t)level * 16 +
           channel;
}

/* ---- reading ---- */

TR_DEVICE static float f16(const tr_groups_info *f, const uint8_t *block, size_t channel, size_t run, int level) {
    const uint8_t *p = block + f16_at(f, channel, run, level);
    return tr_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

TR_DEVICE float tr_groups_scale(tr_groups_format format, const uint8_t *block, size_t channel, size_t group) {
    const tr_groups_info *f = tr_groups_describe(format);
    if (f->levels == 1) return f16(f, block, channel, group, 0);
    uint8_t s = block[u8_at(f, channel, group, 0)];
    return f16(f, block, channel, group * f->group / TR_GROUPS_SUPER, 0) * (f->min ? (float)s : (float)(int8_t)s);
}

TR_DEVICE float tr_groups_min(tr_groups_format format, const uint8_t *block, size_t channel, size_t group) {
    const tr_groups_info *f = tr_groups_describe(format);
    if (!f->min) return 0.0f;
    if (f->levels == 1) return f16(f, block, channel, group, 1);
    return -(f16(f, block, channel, group * f->group / TR_GROUPS_SUPER, 1) * (float)block[u8_at(f, channel, group, 1)]);
}

/* A channel's 32 effective codes of a unit. */
TR_DEVICE static void unit_codes(const tr_groups_info *f, const uint8_t *from, uint8_t codes[TR_GROUPS_UNIT]) {
    for (size_t i = 0; i < TR_GROUPS_UNIT; i++) {
        const size_t line = i / 4, byte = i % 4;
        uint32_t code = f->bits == 8 ? from[line * 64 + byte] : from[line % 4 * 64 + byte] >> (line / 4 * 4) & 15u;
        if (f->bits == 5) code |= (from[256 + byte] >> line & 1u) << 4;
        if (f->bits == 6) code |= (from[256 + line / 4 * 64 + byte] >> (line % 4 * 2) & 3u) << 4;
        codes[i] = (uint8_t)(f->table ? tr_groups_nf4[code] : code);
    }
}

TR_DEVICE void tr_groups_codes(tr_groups_format format, const uint8_t *block, size_t k, size_t channel, size_t unit,
                               uint8_t codes[TR_GROUPS_UNIT]) {
    unit_codes(tr_groups_describe(format),
               block + tr_groups_scale_bytes(format, k) + unit * tr_groups_unit_bytes(format) + channel * 4, codes);
}

TR_DEVICE void tr_groups_row(tr_groups_format format, const uint8_t *w, size_t k, size_t row, float by, float *out) {
    const tr_groups_info *f = tr_groups_describe(format);
    const uint8_t *block = w + row / 16 * tr_groups_block_bytes(format, k);
    const uint8_t *from = block + tr_groups_scale_bytes(format, k) + row % 16 * 4;
    const int32_t offset = f->shift ? 1 << f->shift : 0;
    for (size_t u = 0; u < k / TR_GROUPS_UNIT; u++, from += tr_groups_unit_bytes(format)) {
        uint8_t codes[TR_GROUPS_UNIT];
        unit_codes(f, from, codes);
        for (size_t i = 0; i < TR_GROUPS_UNIT; i += f->group) {
            const size_t group = (u * TR_GROUPS_UNIT + i) / f->group;
            const float scale = tr_groups_scale(format, block, row % 16, group);
            const float min = tr_groups_min(format, block, row % 16, group);
            for (size_t j = i; j < i + f->group; j++) {
                float v = scale * (float)((int32_t)codes[j] - offset);
                out[u * TR_GROUPS_UNIT + j] = (f->min ? v + min : v) * by;
            }
        }
    }
}

/* ---- writing ---- */

TR_DEVICE void tr_groups_put_codes(tr_groups_format format, uint8_t *block, size_t k, size_t channel, size_t unit,
                                   const uint8_t codes[TR_GROUPS_UNIT]) {
    const uint32_t bits = tr_groups_describe(format)->bits;
    uint8_t *to = block + tr_groups_scale_bytes(format, k) + unit * tr_groups_unit_bytes(format) + channel * 4;
    for (size_t i = 0; i < TR_GROUPS_UNIT; i++) {
        const size_t line = i / 4, byte = i % 4;
        if (bits == 8) {
            to[line * 64 + byte] = codes[i];
            continue;
        }
        to[line % 4 * 64 + byte] |= (uint8_t)((codes[i] & 15u) << (line / 4 * 4));
        if (bits == 5) to[256 + byte] |= (uint8_t)((codes[i] >> 4 & 1u) << line);
        if (bits == 6) to[256 + line / 4 * 64 + byte] |= (uint8_t)((codes[i] >> 4 & 3u) << (line % 4 * 2));
    }
}

TR_DEVICE void tr_groups_put_f16(tr_groups_format format, uint8_t *block, size_t channel, size_t at, int level,
                                 uint16_t value) {
    uint8_t *p = block + f16_at(tr_groups_describe(format), channel, at, level);
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

TR_DEVICE void tr_groups_put_u8(tr_groups_format format, uint8_t *block, size_t channel, size_t group, int level,
                                uint8_t value) {
    block[u8_at(tr_groups_describe(format), channel, group, level)] = value;
}
