/* kernels/groups.h - weights in groups with scales: one container for the block formats of GGUF files and for 4-bit
 * formats of our own. A weight is scale * (code - offset) + min: an unsigned code of 4, 5, 6 or 8 bits for each weight
 * (a table may stand between: NF4), scale and min for 32 inputs (16: Q6_K) of one output channel. Every weight is
 * exactly that of the file that the codes come from.
 * A block is 16 output channels of a matrix [n, k], and begins at a multiple of 64 bytes. Rows beyond n have codes and
 * scales 0.
 *   scales   one level:  for every 32 inputs f16 d[16] (then f16 min[16]); scale = d
 *            two levels: for every 256 inputs f16 d[16] (then f16 dmin[16]), then for every group u8 s[16] (then u8
 *                        m[16]; Q6_K: s signed); scale = d * s, min = -(dmin * m), both exact in fp32
 *            rounded up to 64 bytes
 *   codes    for every 32 inputs eight lines of 64 codes, line l = 16 channels x inputs 4l..4l+3, as four runs of 64
 *            bytes: low nibbles of line r in the low, of line r + 4 in the high half of run r's bytes.
 *            5 bits: 64 bytes more, bit l belongs to the fifth bit of line l; 6 bits: 128 bytes more, bits 2i and 2i+1
 *            of the first (last) 64 belong to line i (i + 4). 8 bits: the eight lines as they are
 * Activations of such a matmul are quantized in groups of 32; tr_groups_x_* say how a row of them lies in memory.
 * Threads: pure functions. */
#ifndef TR_GROUPS_H
#define TR_GROUPS_H
#include "base/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(name, bits of a code, log2 of the offset (0: none), inputs of a scale, levels of scales, min, through a table) */
#define TR_GROUPS_MAP(X)                                                                                               \
    X(Q4_0, 4, 3, 32, 1, false, false)                                                                                 \
    X(Q4_1, 4, 0, 32, 1, true, false)                                                                                  \
    X(Q5_0, 5, 4, 32, 1, false, false)                                                                                 \
    X(Q5_1, 5, 0, 32, 1, true, false)                                                                                  \
    X(Q8_0, 8, 7, 32, 1, false, false)                                                                                 \
    X(Q4_K, 4, 0, 32, 2, true, false)                                                                                  \
    X(Q5_K, 5, 0, 32, 2, true, false)                                                                                  \
    X(Q6_K, 6, 5, 16, 2, false, false)                                                                                 \
    X(NF4, 4, 7, 32, 1, false, true)

typedef enum tr_groups_format {
#define X(name, bits, shift, group, levels, min, table) TR_GROUPS_##name,
    TR_GROUPS_MAP(X)
#undef X
        TR_GROUPS_FORMATS
} tr_groups_format;

typedef struct tr_groups_info {
    const char *name;
    uint8_t bits, shift, group, levels;
    bool min, table;
} tr_groups_info;

enum { TR_GROUPS_UNIT = 32, TR_GROUPS_SUPER = 256 }; /* inputs that the codes, and two levels of scales, come in */

/* Facts of a format below TR_GROUPS_FORMATS; static storage. */
TR_DEVICE const tr_groups_info *tr_groups_describe(tr_groups_format format);
/* Can a row have k inputs? */
TR_DEVICE bool tr_groups_takes(tr_groups_format format, size_t k);
/* Bytes of the scales of a block, of its codes of 32 inputs, and of the whole block. */
TR_DEVICE size_t tr_groups_scale_bytes(tr_groups_format format, size_t k);
TR_DEVICE size_t tr_groups_unit_bytes(tr_groups_format format);
TR_DEVICE size_t tr_groups_block_bytes(tr_groups_format format, size_t k);

/* NF4 (Dettmers et al. 2023) in steps of 1/127, plus 128: what the codes stand for. */
extern TR_DEVICE const uint8_t tr_groups_nf4[16];

/* One channel (0..15) of a block: effective codes (after the table) of the inputs [32 * unit, 32 * unit + 32), scale
 * and min of a group. */
TR_DEVICE void tr_groups_codes(tr_groups_format format, const uint8_t *block, size_t k, size_t channel, size_t unit,
                               uint8_t codes[TR_GROUPS_UNIT]);
TR_DEVICE float tr_groups_scale(tr_groups_format format, const uint8_t *block, size_t channel, size_t group);
TR_DEVICE float tr_groups_min(tr_groups_format format, const uint8_t *block, size_t channel, size_t group);
/* A channel's row as fp32, times `by`. w: the whole matrix. */
TR_DEVICE void tr_groups_row(tr_groups_format format, const uint8_t *w, size_t k, size_t row, float by, float *out);

/* Writers for the packer; the block starts as zeros. codes: as stored (before the table). level: 0 d, 1 dmin or min. */
TR_DEVICE void tr_groups_put_codes(tr_groups_format format, uint8_t *block, size_t k, size_t channel, size_t unit,
                                   const uint8_t codes[TR_GROUPS_UNIT]); /* of the inputs [32 * unit, 32 * unit + 32) */
TR_DEVICE void tr_groups_put_f16(tr_groups_format format, uint8_t *block, size_t channel, size_t at, int level,
                                 uint16_t value); /* at: index of 32 (one level) or 256 inputs */
TR_DEVICE void tr_groups_put_u8(tr_groups_format format, uint8_t *block, size_t channel, size_t group, int level,
                                uint8_t value);

/* A row of activations: s8 q[k]; f32 scale[k/32]; f32 scale * sum of q [k/32]; s32 -(sum of q) [k/32]; the same for
 * every 16 inputs [k/16]. Rows are a multiple of 64 bytes apart. */
static inline TR_DEVICE size_t tr_groups_x_bytes(size_t k) { return (k + k / 8 * 5 + 63) & ~(size_t)63; }
static inline TR_DEVICE float *tr_groups_x_scale(const uint8_t *x, size_t k) {
    return (float *)(void *)(uintptr_t)(x + k);
}
static inline TR_DEVICE float *tr_groups_x_scaled_sum(const uint8_t *x, size_t k) {
    return tr_groups_x_scale(x, k) + k / 32;
}
static inline TR_DEVICE int32_t *tr_groups_x_minus32(const uint8_t *x, size_t k) {
    return (int32_t *)(void *)(uintptr_t)(x + k + k / 4);
}
static inline TR_DEVICE int32_t *tr_groups_x_minus16(const uint8_t *x, size_t k) {
    return tr_groups_x_minus32(x, k) + k / 32;
}
#endif
