/* kernels/kv_page.h - byte layout of a KV page.
 * A page holds page_tok tokens (16, 32 or 64) of one layer and one kv head, as page_tok / 16 tiles one after another.
 * A tile is what attention kernels work on: 16 tokens, K then V (then scales), d = head_dim, a multiple of 16:
 *   TR_KV_BF16: K bf16 [d/2][16 tok][2]   V bf16 [8][d][2 tok]    (pairs: one 64-byte line feeds 16 lanes twice)
 *   TR_KV_INT8: K u8   [d/4][16 tok][4]   V s8   [4][d][4 tok]   k_scale f32[16]   v_scale f32[16]
 *   TR_KV_INT8_STATIC: K and V alike, no scales
 * Value of an int8 element: (K - 128) * scale, V * scale; the scale is the token's, or (static) the channel's of this
 * layer and kv head from a calibration (tr_kv_head), where larger values are cut off. K is offset because byte dot
 * products take one unsigned and one signed side, and a query has a sign while a softmax weight has none.
 * K of the int8 formats is stored rotated: block-Hadamard, orthonormal, block tr_kv_rotation(d), applied after RoPE; a
 * query must be rotated alike before it meets it (scores are unchanged).
 * Tokens of a tile that were never written hold unspecified bytes: readers must mask by position. */
#ifndef TR_KV_PAGE_H
#define TR_KV_PAGE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TR_KV_TILE_TOK = 16, TR_KV_PAGE_TOK_MAX = 64, TR_KV_INT8_K_ZERO = 128, TR_KV_HEAD_DIM_MAX = 1024 };

/* X(NAME, name of the option, bytes of a number, scales of tokens in the tile, K rotated, reads a calibration) */
#define TR_KV_FORMATS(X)                                                                                               \
    X(BF16, "bf16", 2, 0, 0, 0)                                                                                        \
    X(INT8, "int8", 1, 1, 1, 0)                                                                                        \
    X(INT8_STATIC, "int8-static", 1, 0, 1, 1)

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
static inline const tr_kv_info *tr_kv_describe(tr_kv_format f) {
    static const tr_kv_info info[TR_KV_FORMAT_END] = {
#define X(NAME, name, bytes, scales, rotated, calibrated) [TR_KV_##NAME] = {name, bytes, scales, rotated, calibrated},
        TR_KV_FORMATS(X)
#undef X
    };
    return f > TR_KV_NONE && f < TR_KV_FORMAT_END ? &info[f] : NULL;
}
static inline const char *tr_kv_format_name(tr_kv_format f) { return tr_kv_describe(f)->name; }

/* What the calibrated formats know of one layer and kv head beside the page; K as it is stored, so rotated. */
typedef struct tr_kv_head {
    const float *k_step, *v_step; /* [head_dim] what a step of a channel is worth, 0 where it is always 0 */
    const float *k_mul, *v_mul;   /* [head_dim] 1 / step, or 0 */
} tr_kv_head;

static inline size_t tr_kv_tile_bytes(tr_kv_format f, uint32_t head_dim) {
    const tr_kv_info *i = tr_kv_describe(f);
    return 2u * (size_t)TR_KV_TILE_TOK * (head_dim * i->number_bytes + (i->scales ? sizeof(float) : 0));
}
static inline size_t tr_kv_page_bytes(tr_kv_format f, uint32_t head_dim, uint32_t page_tok) {
    return tr_kv_tile_bytes(f, head_dim) * (page_tok / TR_KV_TILE_TOK);
}
/* Block of the rotation: the largest power of two up to 64 that divides head_dim. */
static inline uint32_t tr_kv_rotation(uint32_t head_dim) {
    uint32_t b = head_dim & (~head_dim + 1u);
    return b > 64 ? 64 : b;
}
/* Byte offsets inside a tile. t: token 0..15, i: dimension 0..d-1. */
static inline size_t tr_kv_bf16_k(uint32_t d, uint32_t t, uint32_t i) {
    (void)d;
    return 2 * (((size_t)(i / 2) * 16 + t) * 2 + i % 2);
}
static inline size_t tr_kv_bf16_v(uint32_t d, uint32_t t, uint32_t i) {
    return 2 * ((size_t)16 * d + ((size_t)(t / 2) * d + i) * 2 + t % 2);
}
static inline size_t tr_kv_int8_k(uint32_t d, uint32_t t, uint32_t i) {
    (void)d;
    return ((size_t)(i / 4) * 16 + t) * 4 + i % 4;
}
static inline size_t tr_kv_int8_v(uint32_t d, uint32_t t, uint32_t i) {
    return (size_t)16 * d + ((size_t)(t / 4) * d + i) * 4 + t % 4;
}
static inline size_t tr_kv_int8_k_scale(uint32_t d, uint32_t t) { return (size_t)32 * d + 4 * t; }
static inline size_t tr_kv_int8_v_scale(uint32_t d, uint32_t t) { return (size_t)32 * d + 64 + 4 * t; }
#endif
