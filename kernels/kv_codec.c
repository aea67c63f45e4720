#include "kernels/kv_codec.h"

#include "base/numeric.h"

#include <string.h>

void tr_kv_codec_store(const tr_ops *ops, tr_kv_format f, uint8_t *tile, uint32_t t, const float *k, const float *v,
                       uint32_t d, const tr_kv_head *head, float *tmp) {
    switch (f) {
    case TR_KV_INT8: ops->kv_store_int8(tile, t, k, v, d, tmp); break;
    case TR_KV_INT8_STATIC: ops->kv_store_int8_static(tile, t, k, v, d, tmp, head); break;
    default: ops->kv_store_bf16(tile, t, k, v, d); break;
    }
}

void tr_kv_codec_attend(const tr_ops *ops, tr_kv_format f, const tr_attn_args *a) {
    switch (f) {
    case TR_KV_INT8: ops->attn_int8(a); break;
    case TR_KV_INT8_STATIC: ops->attn_int8_static(a); break;
    default: ops->attn_bf16(a); break;
    }
}

static float load_bf16(const uint8_t *at) {
    uint16_t b;
    memcpy(&b, at, sizeof b);
    return tr_bf16_to_f32(b);
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
    ops->hadamard(k, d, tr_kv_rotation(d)); /* its own inverse */
}
