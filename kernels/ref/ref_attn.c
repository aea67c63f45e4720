/* Reference of attention and of the KV tile writers. */
#include "kernels/fixed_math.h"
#include "kernels/variants.h"

/* ---- writing tiles ---- */

void tr_ref_kv_store_bf16(uint8_t *tile, uint32_t t, const float *k, const float *v, uint32_t d) {
    for (uint32_t i = 0; i < d; i++) {
        uint16_t kb = tr_fixed_math_to_bf16(k[i]), vb = tr_fixed_math_to_bf16(v[i]);
        memcpy(tile + tr_kv_bf16_k(d, t, i), &kb, sizeof kb);
        memcpy(tile + tr_kv_bf16_v(d, t, i), &vb, sizeof vb);
    }
}

/* Multiplier for the values; the scale of one step goes into the tile. */
static float token_scale(uint8_t *scale_at, const float *x, uint32_t d) {
    uint32_t best = 0;
    for (uint32_t i = 0; i < d; i++) {
        uint32_t u = tr_fixed_math_bits(x[i]) & 0x7fffffffu;
        if (u > best) best = u;
    }
    float scale, mul = tr_fixed_math_quant_scale(best, &scale);
    memcpy(scale_at, &scale, sizeof scale);
    return mul;
}

void tr_ref_kv_store_int8(uint8_t *tile, uint32_t t, const float *k, const float *v, uint32_t d, float *tmp) {
    if (tmp != k) memcpy(tmp, k, d * sizeof *k);
    tr_ref_hadamard(tmp, d, tr_kv_rotation(d));
    float mul = token_scale(tile + tr_kv_int8_k_scale(d, t), tmp, d);
    for (uint32_t i = 0; i < d; i++) tile[tr_kv_int8_k(d, t, i)] = (uint8_t)tr_fixed_math_quant(tmp[i], mul);
    mul = token_scale(tile + tr_kv_int8_v_scale(d, t), v, d);
    for (uint32_t i = 0; i < d; i++) tile[tr_kv_int8_v(d, t, i)] = (uint8_t)tr_fixed_math_quant(v[i], mul);
}

static float load_bf16(const uint8_t *at) {
    uint16_t b;
    memcpy(&b, at, sizeof b);
    return tr_fixed_math_from_bf16(b);
}
static float load_f32(const uint8_t *at) {
    float f;
    memcpy(&f, at, sizeof f);
    return f;
}

void tr_ref_kv_convert_bf16_int8(uint8_t *dst, uint32_t dst_t0, const uint8_t *src, uint32_t src_t0, uint32_t n,
                                 uint32_t d, float *tmp) {
    for (uint32_t j = 0; j < n; j++) {
        uint32_t to = dst_t0 + j, from = src_t0 + j;
        for (uint32_t i = 0; i < d; i++) tmp[i] = load_bf16(src + tr_kv_bf16_k(d, from, i));
        tr_ref_hadamard(tmp, d, tr_kv_rotation(d));
        float mul = token_scale(dst + tr_kv_int8_k_scale(d, to), tmp, d);
        for (uint32_t i = 0; i < d; i++) dst[tr_kv_int8_k(d, to, i)] = (uint8_t)tr_fixed_math_quant(tmp[i], mul);
        for (uint32_t i = 0; i < d; i++) tmp[i] = load_bf16(src + tr_kv_bf16_v(d, from, i));
        mul = token_scale(dst + tr_kv_int8_v_scale(d, to), tmp, d);
        for (uint32_t i = 0; i < d; i++) dst[tr_kv_int8_v(d, to, i)] = (uint8_t)tr_fixed_math_quant(tmp[i], mul);
    }
}

/* ---- attention: K and V are reached through these two, everything else is common to the formats ---- */

typedef struct head_state {
    float max, sum;
    float *out; /* [d] */
} head_state;

static const uint8_t *tile_at(tr_kv_format f, const tr_attn_args *a, uint32_t pos) {
    const uint8_t *page = a->pages + (size_t)a->table[pos / a->page_tok] * a->page_bytes;
    return page + pos % a->page_tok / TR_KV_TILE_TOK * tr_kv_tile_bytes(f, a->d);
}
static float key(tr_kv_format f, const uint8_t *tile, uint32_t d, uint32_t t, uint32_t i) {
    if (f == TR_KV_BF16) return load_bf16(tile + tr_kv_bf16_k(d, t, i));
    return (float)(int8_t)tile[tr_kv_int8_k(d, t, i)];
}
static float value(tr_kv_format f, const uint8_t *tile, uint32_t d, uint32_t t, uint32_t i) {
    if (f == TR_KV_BF16) return load_bf16(tile + tr_kv_bf16_v(d, t, i));
    return (float)(int8_t)tile[tr_kv_int8_v(d, t, i)];
}

/* Scores of the visible tokens [t0, t1) of one tile into score[16]; the others get -inf. */
static void tile_scores(tr_kv_format f, const tr_attn_args *a, const float *q, const uint8_t *tile, uint32_t t0,
                        uint32_t t1, float score[16]) {
    float acc[16] = {0};
    for (uint32_t i = 0; i < a->d; i++)
        for (uint32_t t = t0; t < t1; t++) acc[t] = fmaf(q[i], key(f, tile, a->d, t, i), acc[t]);
    for (uint32_t t = 0; t < 16; t++) {
        if (f == TR_KV_INT8 && t >= t0 && t < t1) acc[t] = acc[t] * load_f32(tile + tr_kv_int8_k_scale(a->d, t));
        score[t] = t >= t0 && t < t1 ? acc[t] * a->scale : -INFINITY;
    }
}

/* One tile into the running state: the maximum moves up, what was summed so far shrinks by exp(old - new). A masked
 * token has weight 0 in the sum, and its value is not read at all. */
static void tile_update(tr_kv_format f, const tr_attn_args *a, const float *q, const uint8_t *tile, uint32_t t0,
                        uint32_t t1, head_state *s) {
    float score[16], top[16], p[16];
    tile_scores(f, a, q, tile, t0, t1, score);
    memcpy(top, score, sizeof top);
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) top[l] = tr_fixed_math_max(top[l], top[l + half]);
    float max = tr_fixed_math_max(top[0], s->max);
    float shrink = tr_fixed_math_exp(s->max - max);
    for (uint32_t t = 0; t < 16; t++) p[t] = t >= t0 && t < t1 ? tr_fixed_math_exp(score[t] - max) : 0.0f;
    float fold[16];
    memcpy(fold, p, sizeof fold);
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) fold[l] = fold[l] + fold[l + half];
    s->max = max;
    s->sum = s->sum * shrink + fold[0];
    for (uint32_t t = t0; t < t1 && f == TR_KV_INT8; t++) p[t] = p[t] * load_f32(tile + tr_kv_int8_v_scale(a->d, t));
    for (uint32_t i = 0; i < a->d; i++) s->out[i] = s->out[i] * shrink;
    for (uint32_t t = t0; t < t1; t++)
        for (uint32_t i = 0; i < a->d; i++) s->out[i] = fmaf(p[t], value(f, tile, a->d, t, i), s->out[i]);
}

/* all <- all merged with one later split. */
static void merge(head_state *all, const head_state *one, uint32_t d) {
    float max = tr_fixed_math_max(one->max, all->max);
    float wa = tr_fixed_math_exp(all->max - max), wo = tr_fixed_math_exp(one->max - max);
    all->sum = fmaf(one->sum, wo, all->sum * wa);
    for (uint32_t i = 0; i < d; i++) all->out[i] = fmaf(one->out[i], wo, all->out[i] * wa);
    all->max = max;
}

static void attend(tr_kv_format f, const tr_attn_args *a, uint32_t row, uint32_t head) {
    uint32_t pos = a->pos0 + row, d = a->d;
    uint32_t lo = a->window != 0 && pos + 1 > a->window ? pos + 1 - a->window : 0;
    const float *q = a->q + row * a->ldq + (size_t)head * d;
    head_state all = {.out = a->out + row * a->ldo + (size_t)head * d}, one = {.out = a->scratch};
    for (uint32_t tile = lo / 16 * 16; tile <= pos; tile += 16) {
        bool first = tile == lo / 16 * 16;
        if (first || tile % TR_OPS_ATTN_SPLIT_TOK == 0) {
            one.max = -INFINITY;
            one.sum = 0.0f;
            memset(one.out, 0, d * sizeof *one.out);
        }
        uint32_t t0 = lo > tile ? lo - tile : 0, t1 = pos - tile < 15 ? pos - tile + 1 : 16;
        tile_update(f, a, q, tile_at(f, a, tile), t0, t1, &one);
        if (pos - tile < 16 || (tile + 16) % TR_OPS_ATTN_SPLIT_TOK == 0) {
            if (tile / TR_OPS_ATTN_SPLIT_TOK == lo / TR_OPS_ATTN_SPLIT_TOK) {
                all.max = one.max;
                all.sum = one.sum;
                memcpy(all.out, one.out, d * sizeof *one.out);
            } else {
                merge(&all, &one, d);
            }
        }
    }
    float inv = 1.0f / all.sum;
    for (uint32_t i = 0; i < d; i++) all.out[i] = all.out[i] * inv;
}

static void attend_all(tr_kv_format f, const tr_attn_args *a) {
    for (uint32_t row = 0; row < a->rows; row++)
        for (uint32_t head = 0; head < a->heads; head++) attend(f, a, row, head);
}

void tr_ref_attn_bf16(const tr_attn_args *a) { attend_all(TR_KV_BF16, a); }
void tr_ref_attn_int8(const tr_attn_args *a) { attend_all(TR_KV_INT8, a); }
