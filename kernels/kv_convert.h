/* kernels/kv_convert.h - tokens from a tile of one format into a tile of another: the arithmetic of a hand-off.
 * Same format: the stored bytes, exactly. bf16 -> int8: an operation with variants, the hot case. Every other pair goes
 * through fp32: what attention sees of the source (kernels/kv_codec.h) is stored as if it had just been computed.
 * int8-residual as the destination is written from the start of the tile, whatever dst_t0: the source holds it all.
 * Whole tiles are streamed past the caches: tr_kv_convert_fence comes before anything that tells another thread of
 * them. */
#ifndef TR_KV_CONVERT_H
#define TR_KV_CONVERT_H
#include "kernels/ops.h"

/* Tokens [src_t0, src_t0 + n) of src become [dst_t0, dst_t0 + n) of dst; both runs stay inside their tile. head: of
 * this layer and kv head where one of the formats is calibrated. next: the tile that will be read next (a hint), or
 * NULL. tmp: d floats. */
void tr_kv_convert(const tr_ops *ops, tr_kv_format dst_format, uint8_t *dst, uint32_t dst_t0, tr_kv_format src_format,
                   const uint8_t *src, uint32_t src_t0, uint32_t n, uint32_t d, const tr_kv_head *head,
                   const uint8_t *next, float *tmp);
/* A run of tokens over consecutive tiles on both sides: the first is token t0 (0..15) of the first tiles. Whole tiles
 * of one format are one copy, past the caches. next: tile that the next run begins with (a hint), or NULL. */
void tr_kv_convert_run(const tr_ops *ops, tr_kv_format dst_format, uint8_t *dst, tr_kv_format src_format,
                       const uint8_t *src, uint32_t t0, uint32_t n, uint32_t d, const tr_kv_head *head,
                       const uint8_t *next, float *tmp);
void tr_kv_convert_fence(void);
/* Bytes that n tokens of one head take in a format (K, V and scales). */
static inline uint64_t tr_kv_convert_bytes(tr_kv_format f, uint32_t n, uint32_t d) {
    return n * (uint64_t)tr_kv_tile_bytes(f, d) / TR_KV_TILE_TOK; /* residuals shared evenly */
}
#endif
