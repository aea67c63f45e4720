#include "kernels/kv_codec.h"

#include "base/numeric.h"
#include "kernels/fixed_math.h"

#include <string.h>

void tr_kv_codec_store(const tr_ops *ops, tr_kv_format f, uint8_t *tile, uint32_t t, const float *k, const float *v,
                       uint32_t d, const tr_kv_head *head, float *tmp) {
    switch (f) {
    case TR_KV_INT8:
    case TR_KV_INT8_RESIDUAL: ops->kv_store_int8(tile, t, k, v, d, tmp); break;
    case TR_KV_INT8_STATIC: ops->kv_store_int8_static(tile, t, k, v, d, tmp, head); break;
    default: ops->kv_store_bf16(tile, t, k, v, d); break;
    }
}

void tr_kv_codec_attend(const tr_ops *ops, tr_kv_format f, const tr_attn_args *a) {
    switch (f) {
    case TR_KV_INT8: ops->attn_int8(a); break;
    case TR_KV_INT8_STATIC: ops->attn_int8_static(a); break;
    case TR_KV_INT8_RESIDUAL: ops->attn_int8_residual(a); break;
    default: ops->attn_bf16(a); break;
    }
}

/* What the stored code has left of x, in 16ths of a step. */
static uint8_t left_of(float x, float mul, int32_t stored) {
    const int32_t left = tr_fixed_math_round_to(8.0f, x * mul - (float)stored, 16.0f);
    return (uint8_t)((left > 7 ? 7 : left) + 8);
}
static void put_code(uint8_t *slot, uint32_t i, uint8_t code) {
    slot[i / 2] = (uint8_t)(i % 2 ? slot[i / 2] | code << 4 : code);
}

void tr_kv_codec_correct(const tr_ops *ops, tr_kv_format f, uint8_t *tile, uint32_t t, const float *k, const float *v,
                         uint32_t d, const tr_kv_head *head, float *tmp) {
    if (f != TR_KV_INT8_RESIDUAL) return;
    const uint16_t before = (uint16_t)((1u << t) - 1), bit = (uint16_t)(1u << t);
    tr_kv_residual r = tr_kv_residual_of(tile, d);
    float k_scale, v_scale;
    memcpy(&k_scale, tile + tr_kv_int8_k_scale(d, t), sizeof k_scale);
    memcpy(&v_scale, tile + tr_kv_int8_v_scale(d, t), sizeof v_scale);
    r.k &= before, r.v &= before;
    if (k_scale > head->k_bound && tr_kv_residual_k_slot(r, t) < tr_kv_residual_slots(d)) {
        memcpy(tmp, k, d * sizeof *k);
        ops->hadamard(tmp, d, tr_kv_rotation(d));
        uint8_t *slot = tile + tr_kv_residual_slot(d, tr_kv_residual_k_slot(r, t));
        for (uint32_t i = 0; i < d; i++)
            put_code(slot, i, left_of(tmp[i], 1.0f / k_scale, tile[tr_kv_int8_k(d, t, i)] - TR_KV_INT8_K_ZERO));
        r.k |= bit;
    }
    if (v_scale > head->v_bound && tr_kv_residual_v_slot(r, t) < tr_kv_residual_slots(d)) {
        uint8_t *slot = tile + tr_kv_residual_slot(d, tr_kv_residual_v_slot(r, t));
        for (uint32_t i = 0; i < d; i++)
            put_code(slot, i, left_of(v[i], 1.0f / v_scale, (int8_t)tile[tr_kv_int8_v(d, t, i)]));
        r.v |= bit;
    }
    memcpy(tile + tr_kv_residual_masks(d), &r, sizeof r);
}

static float load_bf16(const uint8_t *at) {
    uint16_t b;
    memcpy(&b, at, sizeof b);
    return tr_bf16_to_f32(b);
}

static void add_residuals(const uint8_t *tile, uint32_t t, float *k, float *v, uint32_t d, float k_step, float v_step) {
    const tr_kv_residual r = tr_kv_residual_of(tile, d);
    const uint8_t *k_slot = tile + tr_kv_residual_slot(d, tr_kv_residual_k_slot(r, t));
    const uint8_t *v_slot = tile + tr_kv_residual_slot(d, tr_kv_residual_v_slot(r, t));
    for (uint32_t i = 0; i < d; i++) {
        if (r.k >> t & 1) k[i] += (float)tr_kv_residual_code(k_slot, i) * k_step;
        if (r.v >> t & 1) v[i] += (float)tr_kv_residual_code(v_slot, i) * v_step;
    }
}

void tr_kv_codec_load(const tr_ops *ops, tr_kv_format f, const uint8_t *tile, uint32_t t, float *k, float *v,
                      uint32_t d, const tr_kv_head *head) {
    if (f == TR_KV_BF16) {
        for (uint32_t i = 0; i < d; i++) {
            k[i] = load_bf16(tile + tr_kv_bf16_k(d, t, i));
            v[i] = load_bf16(tile + tr_kv_bf16_v(d, t, i));
        }
        return;
    }
    const bool by_token = tr_kv_describe(f)->scales;
    float k_scale = 0, v_scale = 0;
    if (by_token) {
        memcpy(&k_scale, tile + tr_kv_int8_k_scale(d, t), sizeof k_scale);
        memcpy(&v_scale, tile + tr_kv_int8_v_scale(d, t), sizeof v_scale);
    }
    for (uint32_t i = 0; i < d; i++) {
        k[i] = (float)(tile[tr_kv_int8_k(d, t, i)] - TR_KV_INT8_K_ZERO) * (by_token ? k_scale : head->k_step[i]);
        v[i] = (float)(int8_t)tile[tr_kv_int8_v(d, t, i)] * (by_token ? v_scale : head->v_step[i]);
    }
    if (f == TR_KV_INT8_RESIDUAL) add_residuals(tile, t, k, v, d, k_scale * 0.0625f, v_scale * 0.0625f);
    ops->hadamard(k, d, tr_kv_rotation(d)); /* its own inverse */
}
