/* Reference of the KV tile writers. */
#include "kernels/fixed_math.h"
#include "kernels/variants.h"

TR_DEVICE void tr_ref_kv_store_bf16(uint8_t *tile, uint32_t t, const float *k, const float *v, uint32_t d) {
    for (uint32_t i = 0; i < d; i++) {
        uint16_t kb = tr_fixed_math_to_bf16(k[i]), vb = tr_fixed_math_to_bf16(v[i]);
        memcpy(tile + tr_kv_bf16_k(d, t, i), &kb, sizeof kb);
        memcpy(tile + tr_kv_bf16_v(d, t, i), &vb, sizeof vb);
    }
}

/* Multiplier for the values; the scale of one step goes into the tile. */
TR_DEVICE static float token_scale(uint8_t *scale_at, const float *x, uint32_t d) {
    uint32_t best = 0;
    for (uint32_t i = 0; i < d; i++) {
        uint32_t u = tr_fixed_math_bits(x[i]) & 0x7fffffffu;
        if (u > best) best = u;
    }
    float scale, mul = tr_fixed_math_quant_scale(best, &scale);
    memcpy(scale_at, &scale, sizeof scale);
    return mul;
}

TR_DEVICE void tr_ref_kv_store_int8(uint8_t *tile, uint32_t t, const float *k, const float *v, uint32_t d, float *tmp) {
    if (tmp != k) memcpy(tmp, k, d * sizeof *k);
    tr_ref_hadamard(tmp, d, tr_kv_rotation(d));
    float mul = token_scale(tile + tr_kv_int8_k_scale(d, t), tmp, d);
    for (uint32_t i = 0; i < d; i++)
        tile[tr_kv_int8_k(d, t, i)] = (uint8_t)(tr_fixed_math_quant(tmp[i], mul) + TR_KV_INT8_K_ZERO);
    mul = token_scale(tile + tr_kv_int8_v_scale(d, t), v, d);
    for (uint32_t i = 0; i < d; i++) tile[tr_kv_int8_v(d, t, i)] = (uint8_t)tr_fixed_math_quant(v[i], mul);
}

TR_DEVICE void tr_ref_kv_store_int8_static(uint8_t *tile, uint32_t t, const float *k, const float *v, uint32_t d,
                                           float *tmp, const tr_kv_head *head) {
    if (tmp != k) memcpy(tmp, k, d * sizeof *k);
    tr_ref_hadamard(tmp, d, tr_kv_rotation(d));
    for (uint32_t i = 0; i < d; i++) {
        tile[tr_kv_int8_k(d, t, i)] = (uint8_t)(tr_fixed_math_quant(tmp[i], head->k_mul[i]) + TR_KV_INT8_K_ZERO);
        tile[tr_kv_int8_v(d, t, i)] = (uint8_t)tr_fixed_math_quant(v[i], head->v_mul[i]);
    }
}

TR_DEVICE void tr_ref_kv_convert_bf16_int8(uint8_t *dst, uint32_t dst_t0, const uint8_t *src, uint32_t src_t0,
                                           uint32_t n, uint32_t d, const uint8_t *next, float *tmp) {
    (void)next;
    for (uint32_t j = 0; j < n; j++) {
        uint32_t to = dst_t0 + j, from = src_t0 + j;
        for (uint32_t i = 0; i < d; i++) tmp[i] = tr_fixed_math_load_bf16(src + tr_kv_bf16_k(d, from, i));
        tr_ref_hadamard(tmp, d, tr_kv_rotation(d));
        float mul = token_scale(dst + tr_kv_int8_k_scale(d, to), tmp, d);
        for (uint32_t i = 0; i < d; i++)
            dst[tr_kv_int8_k(d, to, i)] = (uint8_t)(tr_fixed_math_quant(tmp[i], mul) + TR_KV_INT8_K_ZERO);
        for (uint32_t i = 0; i < d; i++) tmp[i] = tr_fixed_math_load_bf16(src + tr_kv_bf16_v(d, from, i));
        mul = token_scale(dst + tr_kv_int8_v_scale(d, to), tmp, d);
        for (uint32_t i = 0; i < d; i++) dst[tr_kv_int8_v(d, to, i)] = (uint8_t)tr_fixed_math_quant(tmp[i], mul);
    }
}
