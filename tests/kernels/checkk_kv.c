/* checkk: writers of KV tiles. */
#include "kernels/kv_codec.h"
#include "kernels/kv_convert.h"
#include "tests/kernels/checkk.h"

#include <math.h>
#include <string.h>

static uint32_t any_d(checkk *c) { return checkk_below(c, 16) ? 16 * checkk_between(c, 1, 16) : 320; }

static void store(checkk *c) {
    uint32_t d = any_d(c), t = checkk_below(c, 16);
    checkk_kind kind = (checkk_kind)checkk_below(c, CHECKK_KINDS);
    checkk_begin(c, "kv_store", "d=%u t=%u kind=%d", d, t, (int)kind);
    float *k = checkk_floats(c, d, kind), *v = checkk_floats(c, d, kind);
    float *tmp_want = checkk_buffer(c, d * 4), *tmp_got = checkk_buffer(c, d * 4);
    size_t bytes = tr_kv_tile_bytes(TR_KV_BF16, d);
    uint8_t *want = checkk_buffer(c, bytes), *got = checkk_buffer(c, bytes);
    c->ref->kv_store_bf16(want, t, k, v, d);
    c->ops->kv_store_bf16(got, t, k, v, d);
    checkk_same_bytes(c, "bf16 tile", got, want, bytes);
    bytes = tr_kv_tile_bytes(TR_KV_INT8, d);
    uint8_t *want8 = checkk_buffer(c, bytes), *got8 = checkk_buffer(c, bytes);
    c->ref->kv_store_int8(want8, t, k, v, d, tmp_want);
    c->ops->kv_store_int8(got8, t, k, v, d, tmp_got);
    if (kind == CHECKK_HOSTILE) { /* a scale may be a NaN of another payload */
        float a[2], b[2];
        memcpy(&a[0], want8 + tr_kv_int8_k_scale(d, t), 4), memcpy(&a[1], want8 + tr_kv_int8_v_scale(d, t), 4);
        memcpy(&b[0], got8 + tr_kv_int8_k_scale(d, t), 4), memcpy(&b[1], got8 + tr_kv_int8_v_scale(d, t), 4);
        checkk_same_floats(c, "scales", b, a, 2);
        checkk_same_bytes(c, "int8 values", got8, want8, 32 * (size_t)d);
    } else {
        checkk_same_bytes(c, "int8 tile", got8, want8, bytes);
    }
    float scale;
    memcpy(&scale, got8 + tr_kv_int8_v_scale(d, t), 4);
    for (uint32_t i = 0; i < d && kind == CHECKK_PLAIN; i++)
        checkk_near(c, "V", (double)scale * (int8_t)got8[tr_kv_int8_v(d, t, i)], (double)v[i], 0.501 * (double)scale);
    checkk_end_case(c);
}

tr_kv_head *checkk_kv_head(checkk *c, uint32_t d) {
    tr_kv_head *head = checkk_buffer(c, sizeof *head);
    float *step = checkk_buffer(c, 4 * (size_t)d * sizeof(float)), *mul = step + 2 * d;
    for (uint32_t i = 0; i < 2 * d; i++) {
        step[i] = checkk_below(c, 32) ? (float)checkk_between(c, 1, 256) / 16384 : 0.0f;
        mul[i] = step[i] > 0 ? 1.0f / step[i] : 0.0f;
    }
    *head = (tr_kv_head){.k_step = step,
                         .v_step = step + d,
                         .k_mul = mul,
                         .v_mul = mul + d,
                         .k_bound = checkk_below(c, 2) ? 0.0f : 0.0077f,
                         .v_bound = checkk_below(c, 2) ? 0.0f : 0.0077f};
    return head;
}

/* By channel: values beyond 127 steps are cut off. */
static void store_static(checkk *c) {
    uint32_t d = any_d(c), t = checkk_below(c, 16);
    checkk_kind kind = (checkk_kind)checkk_below(c, CHECKK_KINDS);
    checkk_begin(c, "kv_store_int8_static", "d=%u t=%u kind=%d", d, t, (int)kind);
    const tr_kv_head *head = checkk_kv_head(c, d);
    float *k = checkk_floats(c, d, kind), *v = checkk_floats(c, d, kind), *tmp = checkk_buffer(c, d * 4);
    size_t bytes = tr_kv_tile_bytes(TR_KV_INT8_STATIC, d);
    uint8_t *want = checkk_buffer(c, bytes), *got = checkk_buffer(c, bytes);
    c->ref->kv_store_int8_static(want, t, k, v, d, tmp, head);
    c->ops->kv_store_int8_static(got, t, k, v, d, tmp, head);
    checkk_same_bytes(c, "tile", got, want, bytes);
    for (uint32_t i = 0; i < d && kind == CHECKK_PLAIN; i++) {
        double step = (double)head->v_step[i], most = 127 * step, v_cut = fmin(fmax((double)v[i], -most), most);
        checkk_near(c, "V", step * (int8_t)got[tr_kv_int8_v(d, t, i)], v_cut, 0.501 * step);
    }
    checkk_end_case(c);
}

static void store_by(tr_kv_format f, checkk *c, uint8_t *tile, uint32_t t, float *k, float *v, uint32_t d,
                     const tr_kv_head *head) {
    float *tmp = checkk_buffer(c, d * 4);
    checkk_fill(c, k, d, CHECKK_PLAIN);
    checkk_fill(c, v, d, CHECKK_PLAIN);
    tr_kv_codec_store(c->ref, f, tile, t, k, v, d, head, tmp);
    tr_kv_codec_correct(c->ref, f, tile, t, k, v, d, head, tmp);
}

/* Every pair of formats, token by token, against what the definition says: the bytes of the same format, else what
 * attention sees of the source, stored. */
static void convert_any(checkk *c) {
    const uint32_t d = 16 * checkk_between(c, 1, 5), n = checkk_between(c, 1, 4), at = checkk_below(c, 17 - n);
    const tr_kv_format src_f = (tr_kv_format)checkk_between(c, TR_KV_NONE + 1, TR_KV_FORMAT_END - 1);
    const tr_kv_format dst_f = (tr_kv_format)checkk_between(c, TR_KV_NONE + 1, TR_KV_FORMAT_END - 1);
    const uint32_t from = dst_f == TR_KV_INT8_RESIDUAL ? 0 : at, end = at + n; /* that one is always written whole */
    checkk_begin(c, "kv_convert", "%s to %s d=%u n=%u at=%u", tr_kv_format_name(src_f), tr_kv_format_name(dst_f), d, n,
                 at);
    const tr_kv_head *head = checkk_kv_head(c, d);
    const size_t bytes = tr_kv_tile_bytes(dst_f, d);
    uint8_t *src = checkk_buffer(c, tr_kv_tile_bytes(src_f, d)), *got = checkk_buffer(c, bytes);
    uint8_t *want = checkk_buffer(c, bytes);
    float *k = checkk_buffer(c, d * 4), *v = checkk_buffer(c, d * 4), *tmp = checkk_buffer(c, d * 4);
    float *k2 = checkk_buffer(c, d * 4), *v2 = checkk_buffer(c, d * 4);
    for (uint32_t t = src_f == TR_KV_INT8_RESIDUAL ? 0 : from; t < end; t++) store_by(src_f, c, src, t, k, v, d, head);
    tr_kv_convert(c->ops, dst_f, got, at, src_f, src, at, n, d, head, NULL, tmp);
    for (uint32_t t = from; t < end; t++) {
        tr_kv_codec_load(c->ref, src_f, src, t, k, v, d, head);
        if (src_f != dst_f) {
            tr_kv_codec_store(c->ref, dst_f, want, t, k, v, d, head, tmp);
            tr_kv_codec_correct(c->ref, dst_f, want, t, k, v, d, head, tmp);
            continue;
        }
        tr_kv_codec_load(c->ref, dst_f, got, t, k2, v2, d, head);
        checkk_same_floats(c, "K of the same format", k2, k, d);
        checkk_same_floats(c, "V of the same format", v2, v, d);
    }
    if (src_f != dst_f) checkk_same_bytes(c, "tile", got, want, bytes);
    checkk_end_case(c);
}

/* Tiles in which a scale may be a NaN, of any payload. */
static void same_int8_tile(checkk *c, const char *what, const uint8_t *got, const uint8_t *want, uint32_t d) {
    float a[32], b[32];
    memcpy(a, got + tr_kv_int8_k_scale(d, 0), sizeof a);
    memcpy(b, want + tr_kv_int8_k_scale(d, 0), sizeof b);
    checkk_same_floats(c, what, a, b, 32);
    checkk_same_bytes(c, what, got, want, 32 * (size_t)d);
}

static void convert(checkk *c) {
    uint32_t d = any_d(c), n = checkk_below(c, 2) ? 16 : checkk_between(c, 1, 15);
    uint32_t from = checkk_below(c, 17 - n), to = checkk_below(c, 17 - n);
    checkk_kind kind = (checkk_kind)checkk_below(c, CHECKK_KINDS);
    checkk_begin(c, "kv_convert", "d=%u n=%u from=%u to=%u kind=%d", d, n, from, to, (int)kind);
    size_t src_bytes = tr_kv_tile_bytes(TR_KV_BF16, d), dst_bytes = tr_kv_tile_bytes(TR_KV_INT8, d);
    uint8_t *src = checkk_buffer(c, src_bytes), *want = checkk_buffer(c, dst_bytes), *got = checkk_buffer(c, dst_bytes);
    uint8_t *stored = checkk_buffer(c, dst_bytes);
    float *k = checkk_buffer(c, d * 4), *v = checkk_buffer(c, d * 4), *tmp = checkk_buffer(c, d * 4);
    for (uint32_t j = 0; j < n; j++) { /* bf16 values, so that storing them as int8 must give the same tile */
        uint16_t *raw = (uint16_t *)(void *)tmp;
        for (int which = 0; which < 2; which++) {
            checkk_fill_bf16(c, raw, d, kind);
            for (uint32_t i = d; i-- > 0;) {
                uint32_t u = (uint32_t)raw[i] << 16;
                memcpy(which ? v + i : k + i, &u, 4);
            }
        }
        c->ref->kv_store_bf16(src, from + j, k, v, d);
        c->ref->kv_store_int8(stored, to + j, k, v, d, tmp);
    }
    c->ref->kv_convert_bf16_int8(want, to, src, from, n, d, NULL, tmp);
    c->ops->kv_convert_bf16_int8(got, to, src, from, n, d, checkk_below(c, 2) ? src : NULL, tmp);
    same_int8_tile(c, "tile", got, want, d);
    same_int8_tile(c, "tile against kv_store_int8", got, stored, d);
    checkk_end_case(c);
}

void checkk_kv(checkk *c) {
    for (unsigned i = 0; i < 3 * c->effort; i++) {
        store(c);
        store_static(c);
        convert(c);
        convert_any(c);
    }
}
