#include "kernels/kv_convert.h"

#include "kernels/kv_codec.h"

#include <emmintrin.h>
#include <string.h>

static void copy_bf16(uint8_t *dst, uint32_t td, const uint8_t *src, uint32_t ts, uint32_t d) {
    for (uint32_t i = 0; i < d; i++) {
        memcpy(dst + tr_kv_bf16_k(d, td, i), src + tr_kv_bf16_k(d, ts, i), 2);
        memcpy(dst + tr_kv_bf16_v(d, td, i), src + tr_kv_bf16_v(d, ts, i), 2);
    }
}

static void copy_int8(tr_kv_format f, uint8_t *dst, uint32_t td, const uint8_t *src, uint32_t ts, uint32_t d) {
    for (uint32_t i = 0; i < d; i++) {
        dst[tr_kv_int8_k(d, td, i)] = src[tr_kv_int8_k(d, ts, i)];
        dst[tr_kv_int8_v(d, td, i)] = src[tr_kv_int8_v(d, ts, i)];
    }
    if (!tr_kv_describe(f)->scales) return;
    memcpy(dst + tr_kv_int8_k_scale(d, td), src + tr_kv_int8_k_scale(d, ts), 4);
    memcpy(dst + tr_kv_int8_v_scale(d, td), src + tr_kv_int8_v_scale(d, ts), 4);
}

/* Slots and bits of tokens up to t: in order the slots are those of the source. */
static void copy_residual(uint8_t *dst, const uint8_t *src, uint32_t t, uint32_t d) {
    tr_kv_residual r = tr_kv_residual_of(src, d);
    const uint16_t upto = (uint16_t)((2u << t) - 1);
    r.k &= upto, r.v &= upto;
    memcpy(dst + tr_kv_residual_masks(d), &r, sizeof r);
    memcpy(dst + tr_kv_residual_slot(d, 0), src + tr_kv_residual_slot(d, 0), tr_kv_residual_slots(d) * (size_t)(d / 2));
}

static void store(const tr_ops *ops, tr_kv_format f, uint8_t *tile, uint32_t t, const float *k, const float *v,
                  uint32_t d, const tr_kv_head *head) {
    float tmp[TR_KV_HEAD_DIM_MAX] __attribute__((aligned(64)));
    tr_kv_codec_store(ops, f, tile, t, k, v, d, head, tmp);
    tr_kv_codec_correct(ops, f, tile, t, k, v, d, head, tmp);
}

void tr_kv_convert(const tr_ops *ops, tr_kv_format dst_format, uint8_t *dst, uint32_t dst_t0, tr_kv_format src_format,
                   const uint8_t *src, uint32_t src_t0, uint32_t n, uint32_t d, const tr_kv_head *head,
                   const uint8_t *next, float *tmp) {
    if (src_format == TR_KV_BF16 && dst_format == TR_KV_INT8) {
        ops->kv_convert_bf16_int8(dst, dst_t0, src, src_t0, n, d, next, tmp);
        return;
    }
    if (dst_format == TR_KV_INT8_RESIDUAL) n += dst_t0, src_t0 -= dst_t0, dst_t0 = 0; /* slots follow from the start */
    float v[TR_KV_HEAD_DIM_MAX] __attribute__((aligned(64)));
    for (uint32_t t = 0; t < n; t++) {
        if (src_format == dst_format && src_format == TR_KV_BF16) {
            copy_bf16(dst, dst_t0 + t, src, src_t0 + t, d);
        } else if (src_format == dst_format) {
            copy_int8(src_format, dst, dst_t0 + t, src, src_t0 + t, d);
            if (dst_format == TR_KV_INT8_RESIDUAL) copy_residual(dst, src, src_t0 + t, d);
        } else {
            tr_kv_codec_load(ops, src_format, src, src_t0 + t, tmp, v, d, head);
            store(ops, dst_format, dst, dst_t0 + t, tmp, v, d, head);
        }
    }
}

/* Whole lines, streamed, while as many of what comes next are fetched. */
static void copy_lines(uint8_t *dst, const uint8_t *src, size_t bytes, const uint8_t *next) {
    for (size_t at = 0; at < bytes; at += 64) {
        const __m128i *from = (const __m128i *)(const void *)(src + at);
        __m128i *to = (__m128i *)(void *)(dst + at);
        if (next) _mm_prefetch((const char *)next + at, _MM_HINT_T1);
        __m128i a = _mm_load_si128(from), b = _mm_load_si128(from + 1);
        __m128i c = _mm_load_si128(from + 2), e = _mm_load_si128(from + 3);
        _mm_stream_si128(to, a);
        _mm_stream_si128(to + 1, b);
        _mm_stream_si128(to + 2, c);
        _mm_stream_si128(to + 3, e);
    }
}

void tr_kv_convert_run(const tr_ops *ops, tr_kv_format dst_format, uint8_t *dst, tr_kv_format src_format,
                       const uint8_t *src, uint32_t t0, uint32_t n, uint32_t d, const tr_kv_head *head,
                       const uint8_t *next, float *tmp) {
    const size_t dst_bytes = tr_kv_tile_bytes(dst_format, d), src_bytes = tr_kv_tile_bytes(src_format, d);
    while (n > 0) {
        uint32_t take = n < TR_KV_TILE_TOK - t0 ? n : TR_KV_TILE_TOK - t0;
        const uint8_t *then = n > take ? src + src_bytes : next;
        if (take == TR_KV_TILE_TOK && src_format == dst_format)
            copy_lines(dst, src, dst_bytes, then);
        else
            tr_kv_convert(ops, dst_format, dst, t0, src_format, src, t0, take, d, head, then, tmp);
        dst += dst_bytes;
        src += src_bytes;
        n -= take;
        t0 = 0;
    }
}

void tr_kv_convert_fence(void) { _mm_sfence(); }
