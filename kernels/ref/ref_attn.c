/* Reference of attention. */
#include "kernels/fixed_math.h"
#include "kernels/variants.h"

/* One (row, head) in one split: what of a tile is seen, the weights, and the unmerged result. */
typedef struct split {
    uint32_t first, last; /* positions seen, both included */
    float weight[TR_OPS_ATTN_SPLIT_TOK];
    float max, sum;
    float *out; /* [d] */
} split;

TR_DEVICE static float load_f32(const uint8_t *at) {
    float f;
    memcpy(&f, at, sizeof f);
    return f;
}
TR_DEVICE static const uint8_t *tile_at(tr_kv_format f, const tr_attn_args *a, uint32_t pos) {
    const uint8_t *page = a->pages + (size_t)a->table[pos / a->page_tok] * a->page_bytes;
    return page + pos % a->page_tok / TR_KV_TILE_TOK * tr_kv_tile_bytes(f, a->d);
}

TR_DEVICE static float round_bf16(float x) { return tr_fixed_math_from_bf16(tr_fixed_math_bf16_input(x)); }

/* Scores of the keys seen, to s->weight. Of each pair of dimensions the odd one, then the even one. */
TR_DEVICE static void scores_bf16(const tr_attn_args *a, const float *q, split *s) {
    for (uint32_t pos = s->first; pos <= s->last; pos++) {
        const uint8_t *tile = tile_at(TR_KV_BF16, a, pos);
        float chain = 0.0f;
        for (uint32_t i = 0; i < a->d; i++)
            chain =
                fmaf(round_bf16(q[i ^ 1]), tr_fixed_math_load_bf16(tile + tr_kv_bf16_k(a->d, pos % 16, i ^ 1)), chain);
        s->weight[pos % TR_OPS_ATTN_SPLIT_TOK] = chain * a->scale;
    }
}
TR_DEVICE static float query(tr_kv_format f, const tr_attn_args *a, const float *q, uint32_t i) {
    return f == TR_KV_INT8_STATIC ? q[i] * a->kv->k_step[i] : q[i];
}
/* q times the residual of a token's K; lanes as in every reduction. */
TR_DEVICE static float residual_dot(const tr_attn_args *a, const float *q, const uint8_t *slot) {
    float sum[16] = {0};
    for (uint32_t i = 0; i < a->d; i++) sum[i % 16] = fmaf(q[i], (float)tr_kv_residual_code(slot, i), sum[i % 16]);
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) sum[l] = sum[l] + sum[l + half];
    return sum[0];
}
TR_DEVICE static void scores_int8(tr_kv_format f, const tr_attn_args *a, const float *q, split *s) {
    uint32_t absmax = 0;
    for (uint32_t i = 0; i < a->d; i++) {
        uint32_t bits = tr_fixed_math_bits(query(f, a, q, i)) & 0x7fffffffu;
        if (bits > absmax) absmax = bits;
    }
    float q_scale, mul = tr_fixed_math_scale_to(TR_OPS_ATTN_Q_MAX, absmax, &q_scale);
    float scale = q_scale * a->scale;
    for (uint32_t pos = s->first; pos <= s->last; pos++) {
        const uint8_t *tile = tile_at(f, a, pos);
        int32_t sum = 0;
        for (uint32_t i = 0; i < a->d; i++)
            sum += tr_fixed_math_round_to(TR_OPS_ATTN_Q_MAX, query(f, a, q, i), mul) *
                   (tile[tr_kv_int8_k(a->d, pos % 16, i)] - TR_KV_INT8_K_ZERO);
        float k_scale = f == TR_KV_INT8_STATIC ? 1.0f : load_f32(tile + tr_kv_int8_k_scale(a->d, pos % 16));
        float *score = &s->weight[pos % TR_OPS_ATTN_SPLIT_TOK];
        *score = ((float)sum * k_scale) * scale;
        if (f != TR_KV_INT8_RESIDUAL) continue;
        tr_kv_residual r = tr_kv_residual_of(tile, a->d);
        if (!(r.k >> pos % 16 & 1)) continue;
        const uint8_t *slot = tile + tr_kv_residual_slot(a->d, tr_kv_residual_k_slot(r, pos % 16));
        *score = fmaf(residual_dot(a, q, slot), (k_scale * 0.0625f) * a->scale, *score);
    }
}

/* Scores to weights exp(score - max). Maximum and sum keep 16 lanes, like every reduction. */
TR_DEVICE static void softmax(split *s, tr_kv_format f) {
    float top[16], sum[16] = {0};
    for (int l = 0; l < 16; l++) top[l] = -INFINITY;
    for (uint32_t pos = s->first / 16 * 16; pos <= (s->last | 15); pos++) {
        bool seen = pos >= s->first && pos <= s->last;
        top[pos % 16] = tr_fixed_math_max(top[pos % 16], seen ? s->weight[pos % TR_OPS_ATTN_SPLIT_TOK] : -INFINITY);
    }
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) top[l] = tr_fixed_math_max(top[l], top[l + half]);
    s->max = top[0];
    for (uint32_t pos = s->first; pos <= s->last; pos++) {
        float *w = &s->weight[pos % TR_OPS_ATTN_SPLIT_TOK];
        *w = tr_fixed_math_exp(*w - s->max);
        if (f == TR_KV_BF16) *w = round_bf16(*w);
        sum[pos % 16] = sum[pos % 16] + *w;
    }
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) sum[l] = sum[l] + sum[l + half];
    s->sum = sum[0];
}

/* Of each pair of tokens the odd one, then the even one; one that is not seen beside one that is counts as 0 * 0. */
TR_DEVICE static void values_bf16(const tr_attn_args *a, split *s) {
    for (uint32_t i = 0; i < a->d; i++) {
        s->out[i] = 0.0f;
        for (uint32_t n = s->first / 2 * 2; n <= (s->last | 1); n++) {
            const uint32_t pos = n ^ 1;
            float p = 0.0f, v = 0.0f;
            if (pos >= s->first && pos <= s->last) {
                p = s->weight[pos % TR_OPS_ATTN_SPLIT_TOK];
                v = tr_fixed_math_load_bf16(tile_at(TR_KV_BF16, a, pos) + tr_kv_bf16_v(a->d, pos % 16, i));
            }
            s->out[i] = fmaf(p, v, s->out[i]);
        }
    }
}
/* Residuals of the tokens seen, added to dimension i. */
TR_DEVICE static float residual_values(const tr_attn_args *a, const split *s, uint32_t i, float out) {
    for (uint32_t pos = s->first; pos <= s->last; pos++) {
        const uint8_t *tile = tile_at(TR_KV_INT8_RESIDUAL, a, pos);
        tr_kv_residual r = tr_kv_residual_of(tile, a->d);
        if (!(r.v >> pos % 16 & 1)) continue;
        const uint8_t *slot = tile + tr_kv_residual_slot(a->d, tr_kv_residual_v_slot(r, pos % 16));
        out = fmaf(s->weight[pos % TR_OPS_ATTN_SPLIT_TOK] * 0.0625f, (float)tr_kv_residual_code(slot, i), out);
    }
    return out;
}
TR_DEVICE static void values_int8(tr_kv_format f, const tr_attn_args *a, split *s) {
    uint32_t absmax = 0;
    for (uint32_t pos = s->first; pos <= s->last; pos++) {
        float *w = &s->weight[pos % TR_OPS_ATTN_SPLIT_TOK];
        if (f != TR_KV_INT8_STATIC) *w = *w * load_f32(tile_at(f, a, pos) + tr_kv_int8_v_scale(a->d, pos % 16));
        uint32_t bits = tr_fixed_math_bits(*w) & 0x7fffffffu;
        if (bits > absmax) absmax = bits;
    }
    float scale, mul = tr_fixed_math_scale_to(TR_OPS_ATTN_P_MAX, absmax, &scale);
    for (uint32_t i = 0; i < a->d; i++) {
        int32_t sum = 0;
        for (uint32_t pos = s->first; pos <= s->last; pos++) {
            int32_t p = tr_fixed_math_round_positive(s->weight[pos % TR_OPS_ATTN_SPLIT_TOK], mul);
            sum += p * (int8_t)tile_at(f, a, pos)[tr_kv_int8_v(a->d, pos % 16, i)];
        }
        s->out[i] = (float)sum * scale;
        if (f == TR_KV_INT8_RESIDUAL) s->out[i] = residual_values(a, s, i, s->out[i]);
        if (f == TR_KV_INT8_STATIC) s->out[i] = s->out[i] * a->kv->v_step[i];
    }
}

/* A finished split into what was merged before (the first one is copied). */
TR_DEVICE static void merge(float *out, const float *part, uint32_t d, bool first, float *max, float *sum) {
    if (first) {
        memcpy(out, part, d * sizeof *out);
        *max = part[d];
        *sum = part[d + 1];
        return;
    }
    float top = tr_fixed_math_max(part[d], *max);
    float wa = tr_fixed_math_exp(*max - top), wo = tr_fixed_math_exp(part[d] - top);
    *sum = fmaf(part[d + 1], wo, *sum * wa);
    for (uint32_t i = 0; i < d; i++) out[i] = fmaf(part[i], wo, out[i] * wa);
    *max = top;
}
TR_DEVICE static void divide(float *out, uint32_t d, float sum) {
    float inv = 1.0f / sum;
    for (uint32_t i = 0; i < d; i++) out[i] = out[i] * inv;
}

TR_DEVICE void tr_ref_attn_merge(float *out, const float *parts, size_t n, size_t stride, uint32_t d) {
    float max = 0.0f, sum = 0.0f;
    for (size_t j = 0; j < n; j++) merge(out, parts + j * stride, d, j == 0, &max, &sum);
    divide(out, d, sum);
}

TR_DEVICE static void attend(tr_kv_format f, const tr_attn_args *a, uint32_t row, uint32_t head) {
    const uint32_t pos = a->pos0 + row, d = a->d;
    const uint32_t lo = a->window != 0 && pos + 1 > a->window ? pos + 1 - a->window : 0;
    const float *q = a->q + row * a->ldq + (size_t)head * d;
    float *out = a->out + row * a->ldo + (size_t)head * d, max = 0.0f, sum = 0.0f;
    for (uint32_t n = lo / TR_OPS_ATTN_SPLIT_TOK; n <= pos / TR_OPS_ATTN_SPLIT_TOK; n++) {
        if (a->part && n != a->split) continue;
        const uint32_t begin = n * TR_OPS_ATTN_SPLIT_TOK, end = begin + TR_OPS_ATTN_SPLIT_TOK - 1;
        split s = {.first = lo > begin ? lo : begin, .last = pos < end ? pos : end};
        s.out = a->part ? a->part + head * tr_ops_attn_part_floats(d) : a->scratch;
        if (f == TR_KV_BF16)
            scores_bf16(a, q, &s), softmax(&s, f), values_bf16(a, &s);
        else
            scores_int8(f, a, q, &s), softmax(&s, f), values_int8(f, a, &s);
        s.out[d] = s.max;
        s.out[d + 1] = s.sum;
        if (!a->part) merge(out, s.out, d, n == lo / TR_OPS_ATTN_SPLIT_TOK, &max, &sum);
    }
    if (!a->part) divide(out, d, sum);
}

TR_DEVICE static void attend_all(tr_kv_format f, const tr_attn_args *a) {
    for (uint32_t row = 0; row < a->rows; row++)
        for (uint32_t head = 0; head < a->heads; head++) attend(f, a, row, head);
}

TR_DEVICE void tr_ref_attn_bf16(const tr_attn_args *a) { attend_all(TR_KV_BF16, a); }
TR_DEVICE void tr_ref_attn_int8(const tr_attn_args *a) { attend_all(TR_KV_INT8, a); }
TR_DEVICE void tr_ref_attn_int8_static(const tr_attn_args *a) { attend_all(TR_KV_INT8_STATIC, a); }
TR_DEVICE void tr_ref_attn_int8_residual(const tr_attn_args *a) { attend_all(TR_KV_INT8_RESIDUAL, a); }
