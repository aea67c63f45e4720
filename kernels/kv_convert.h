/* kernels/kv_convert.h - tokens from a tile of one format into a tile of another: the arithmetic of a hand-off.
 * Whole tiles are streamed past the caches: tr_kv_convert_fence comes before anything that tells another thread of
 * them. bf16 -> int8 is the hot case (an operation with variants); the others are plain loops over kernels/kv_page.h.
 * Same format: the stored bytes, exactly. int8 -> bf16: dequantized, K rotated back, rounded. */
#ifndef TR_KV_CONVERT_H
#define TR_KV_CONVERT_H
#include "kernels/ops.h"

/* Tokens [src_t0, src_t0 + n) of src become [dst_t0, dst_t0 + n) of dst; both runs stay inside their tile. next: the
 * tile that will be read next (a hint), or NULL. tmp: d floats. */
void tr_kv_convert(const tr_ops *ops, tr_kv_format dst_format, uint8_t *dst, uint32_t dst_t0, tr_kv_format src_format,
                   const uint8_t *src, uint32_t src_t0, uint32_t n, uint32_t d, const uint8_t *next, float *tmp);
/* A run of tokens over consecutive tiles on both sides: the first is token t0 (0..15) of the first tiles. Whole tiles
 * of one format are one copy, past the caches. next: tile that the next run begins with (a hint), or NULL. */
void tr_kv_convert_run(const tr_ops *ops, tr_kv_format dst_format, uint8_t *dst, tr_kv_format src_format,
                       const uint8_t *src, uint32_t t0, uint32_t n, uint32_t d, const uint8_t *next, float *tmp);
void tr_kv_convert_fence(void);
/* Bytes that n tokens of one head take in a format (K, V and scales). */
static inline uint64_t tr_kv_convert_bytes(tr_kv_format f, uint32_t n, uint32_t d) {
    return (uint64_t)n * (f == TR_KV_BF16 ? 4u * d : 2u * d + 8u);
}
#endif
