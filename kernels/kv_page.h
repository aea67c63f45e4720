/* kernels/kv_page.h - byte layout of a KV page.
 * A page holds page_tok tokens (16, 32 or 64) of one layer and one kv head, as page_tok / 16 tiles one after another.
 * A tile is what attention kernels work on: 16 tokens, K then V (then scales), d = head_dim, a multiple of 16:
 *   TR_KV_BF16: K bf16 [d/2][16 tok][2]   V bf16 [8][d][2 tok]    (pairs: one 64-byte line feeds 16 lanes twice)
 *   TR_KV_INT8: K u8   [d/4][16 tok][4]   V s8   [4][d][4 tok]   k_scale f32[16]   v_scale f32[16]
 *   TR_KV_INT8_STATIC: K and V alike, no scales
 *   TR_KV_INT8_RESIDUAL: as TR_KV_INT8, then u16 k_mask   u16 v_mask   4-bit residuals [slots][d]   to a multiple of 64
 * Value of an int8 element: (K - 128) * scale, V * scale; the scale is the token's, or (static) the channel's of this
 * layer and kv head from a calibration (tr_kv_head), where larger values are cut off. K is offset because byte dot
 * products take one unsigned and one signed side, and a query has a sign while a softmax weight has none.
 * K of the int8 formats is stored rotated: block-Hadamard, orthonormal, block tr_kv_rotation(d), applied after RoPE; a
 * query must be rotated alike before it meets it (scores are unchanged).
 * A residual is what rounding to 8 bits left of a vector (K or V of a token), in 16ths of its scale: element i is
 * (code + residual / 16) * scale, the residual - 8..7 - plus 8 in the low half of byte i / 2 for even i, the high half
 * for odd ones. Vectors whose scale, and so whose error, is beyond the bound of tr_kv_head get one as long as the tile
 * has slots, in order of position, K before V; the masks say which (bit t: token t). Whoever writes token t takes the
 * slots of later tokens back, so slots depend on nothing but the tokens before, and tokens are written in order. Tokens
 * of a tile that were never written hold unspecified bytes: readers must mask by position. */
#ifndef TR_KV_PAGE_H
#define TR_KV_PAGE_H
#include "base/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TR_KV_TILE_TOK = 16,
    TR_KV_PAGE_TOK_MAX = 64,
    TR_KV_INT8_K_ZERO = 128,
    TR_KV_HEAD_DIM_MAX = 1024,
    TR_KV_RESIDUAL_SLOTS_MAX = 3
};

/* X(NAME, name of the option, bytes of a number, scales of tokens in the tile, K rotated, reads a calibration) */
#define TR_KV_FORMATS(X)                                                                                               \
    X(BF16, "bf16", 2, 0, 0, 0)                                                                                        \
    X(INT8, "int8", 1, 1, 1, 0)                                                                                        \
    X(INT8_STATIC, "int8-static", 1, 0, 1, 1)                                                                          \
    X(INT8_RESIDUAL, "int8-residual", 1, 1, 1, 1)

typedef enum tr_kv_format {
    TR_KV_NONE,
#define X(NAME, ...) TR_KV_##NAME,
    TR_KV_FORMATS(X)
#undef X
        TR_KV_FORMAT_END
} tr_kv_format;

typedef struct tr_kv_info {
    const char *name;
    uint32_t number_bytes; /* of one element of K or V */
    bool scales, rotated, calibrated;
} tr_kv_info;

/* What is known of a format; NULL for a number that names none. */
static inline TR_DEVICE const tr_kv_info *tr_kv_describe(tr_kv_format f) {
    static const tr_kv_info info[TR_KV_FORMAT_END] = {{NULL, 0, 0, 0, 0},
#define X(NAME, name, bytes, scales, rotated, calibrated) {name, bytes, scales, rotated, calibrated},
                                                      TR_KV_FORMATS(X)
#undef X
    };
    return f > TR_KV_NONE && f < TR_KV_FORMAT_END ? &info[f] : NULL;
}
static inline TR_DEVICE const char *tr_kv_format_name(tr_kv_format f) { return tr_kv_describe(f)->name; }

/* What the calibrated formats know of one layer and kv head beside the page; K as it is stored, so rotated. */
typedef struct tr_kv_head {
    const float *k_step, *v_step; /* [head_dim] what a step of a channel is worth, 0 where it is always 0 */
    const float *k_mul, *v_mul;   /* [head_dim] 1 / step, or 0 */
    float k_bound, v_bound;       /* int8-residual: a token whose scale is beyond is corrected */
} tr_kv_head;

/* Residuals of a tile: a line or two, and what they hold. */
static inline TR_DEVICE size_t tr_kv_residual_bytes(uint32_t head_dim) { return (4 + head_dim / 2 + 63) / 64 * 64; }
static inline TR_DEVICE uint32_t tr_kv_residual_slots(uint32_t head_dim) {
    uint32_t n = (uint32_t)(tr_kv_residual_bytes(head_dim) - 4) / (head_dim / 2);
    return n < TR_KV_RESIDUAL_SLOTS_MAX ? n : TR_KV_RESIDUAL_SLOTS_MAX;
}
static inline TR_DEVICE size_t tr_kv_tile_bytes(tr_kv_format f, uint32_t head_dim) {
    const tr_kv_info *i = tr_kv_describe(f);
    return 2u * (size_t)TR_KV_TILE_TOK * (head_dim * i->number_bytes + (i->scales ? sizeof(float) : 0)) +
           (f == TR_KV_INT8_RESIDUAL ? tr_kv_residual_bytes(head_dim) : 0);
}
static inline TR_DEVICE size_t tr_kv_page_bytes(tr_kv_format f, uint32_t head_dim, uint32_t page_tok) {
    return tr_kv_tile_bytes(f, head_dim) * (page_tok / TR_KV_TILE_TOK);
}
/* Block of the rotation: the largest power of two up to 64 that divides head_dim. */
static inline TR_DEVICE uint32_t tr_kv_rotation(uint32_t head_dim) {
    uint32_t b = head_dim & (~head_dim + 1u);
    return b > 64 ? 64 : b;
}
/* Byte offsets inside a tile. t: token 0..15, i: dimension 0..d-1. */
static inline TR_DEVICE size_t tr_kv_bf16_k(uint32_t d, uint32_t t, uint32_t i) {
    (void)d;
    return 2 * (((size_t)(i / 2) * 16 + t) * 2 + i % 2);
}
static inline TR_DEVICE size_t tr_kv_bf16_v(uint32_t d, uint32_t t, uint32_t i) {
    return 2 * ((size_t)16 * d + ((size_t)(t / 2) * d + i) * 2 + t % 2);
}
static inline TR_DEVICE size_t tr_kv_int8_k(uint32_t d, uint32_t t, uint32_t i) {
    (void)d;
    return ((size_t)(i / 4) * 16 + t) * 4 + i % 4;
}
static inline TR_DEVICE size_t tr_kv_int8_v(uint32_t d, uint32_t t, uint32_t i) {
    return (size_t)16 * d + ((size_t)(t / 4) * d + i) * 4 + t % 4;
}
static inline TR_DEVICE size_t tr_kv_int8_k_scale(uint32_t d, uint32_t t) { return (size_t)32 * d + 4 * t; }
static inline TR_DEVICE size_t tr_kv_int8_v_scale(uint32_t d, uint32_t t) { return (size_t)32 * d + 64 + 4 * t; }
/* Residuals of an int8-residual tile. */
static inline TR_DEVICE size_t tr_kv_residual_masks(uint32_t d) {
    return (size_t)32 * d + 128;
} /* u16 of K, u16 of V */
static inline TR_DEVICE size_t tr_kv_residual_slot(uint32_t d, uint32_t slot) {
    return tr_kv_residual_masks(d) + 4 + (size_t)slot * (d / 2);
}
typedef struct tr_kv_residual {
    uint16_t k, v; /* masks */
} tr_kv_residual;
static inline TR_DEVICE tr_kv_residual tr_kv_residual_of(const uint8_t *tile, uint32_t d) {
    tr_kv_residual r;
    __builtin_memcpy(&r, tile + tr_kv_residual_masks(d), sizeof r);
    return r;
}
/* Slot of a token's K or V whose bit is set. */
static inline TR_DEVICE uint32_t tr_kv_residual_k_slot(tr_kv_residual r, uint32_t t) {
    const uint32_t before = (1u << t) - 1;
    return (uint32_t)__builtin_popcount(r.k & before) + (uint32_t)__builtin_popcount(r.v & before);
}
static inline TR_DEVICE uint32_t tr_kv_residual_v_slot(tr_kv_residual r, uint32_t t) {
    return tr_kv_residual_k_slot(r, t) + (r.k >> t & 1u);
}
static inline TR_DEVICE int32_t tr_kv_residual_code(const uint8_t *slot, uint32_t i) {
    return (int32_t)(slot[i / 2] >> i % 2 * 4 & 15) - 8;
}
#endif
