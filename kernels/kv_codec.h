/* kernels/kv_codec.h - one token's K and V into and out of a tile, and attention over tiles, by format: the place where
 * the formats of kernels/kv_page.h meet their operations. head: of the layer and kv head, for the calibrated formats.
 * Numbers: those of kernels/ops.h; what is read back is the same in every kernel set. Threads: reentrant. */
#ifndef TR_KV_CODEC_H
#define TR_KV_CODEC_H
#include "kernels/ops.h"

/* Slot t (0..15) <- k, v [d], K after RoPE and not rotated. tmp: d floats, or k itself, which is then overwritten. */
void tr_kv_codec_store(const tr_ops *ops, tr_kv_format f, uint8_t *tile, uint32_t t, const float *k, const float *v,
                       uint32_t d, const tr_kv_head *head, float *tmp);
/* int8-residual only, after the stores: the residuals of token t, which takes back those of later tokens; for all
 * tokens of a tile that are stored, in order, by one thread. Other formats: nothing. tmp: d floats. */
void tr_kv_codec_correct(const tr_ops *ops, tr_kv_format f, uint8_t *tile, uint32_t t, const float *k, const float *v,
                         uint32_t d, const tr_kv_head *head, float *tmp);
/* k, v [d] <- slot t, as attention sees them, K rotated back. */
void tr_kv_codec_load(const tr_ops *ops, tr_kv_format f, const uint8_t *tile, uint32_t t, float *k, float *v,
                      uint32_t d, const tr_kv_head *head);
void tr_kv_codec_attend(const tr_ops *ops, tr_kv_format f, const tr_attn_args *a);
#endif
