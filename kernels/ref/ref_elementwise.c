/* Reference of the operations on one vector: norm, rotation, 8-bit rounding, RoPE, activations, embedding, argmax. */
#include "kernels/fixed_math.h"
#include "kernels/variants.h"

/* Element i belongs to lane i % 16; the lanes fold as (l, l+8), (l, l+4), (l, l+2), (l, l+1). */
TR_DEVICE static float fold_sum(float lane[16]) {
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] = lane[l] + lane[l + half];
    return lane[0];
}

TR_DEVICE void tr_ref_rmsnorm(float *y, const float *x, const float *w, size_t n, float eps) {
    float lane[16] = {0};
    for (size_t i = 0; i < n; i++) lane[i % 16] = fmaf(x[i], x[i], lane[i % 16]);
    float r = 1.0f / sqrtf(fold_sum(lane) / (float)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = (x[i] * r) * w[i];
}

/* Butterflies of span 1, 2, 4 ... block / 2, then one multiplication by 1 / sqrt(block). */
TR_DEVICE void tr_ref_hadamard(float *x, size_t n, size_t block) {
    if (block <= 1) return;
    float norm = 1.0f / sqrtf((float)block);
    for (size_t b = 0; b < n; b += block) {
        for (size_t span = 1; span < block; span *= 2)
            for (size_t i = 0; i < block; i++)
                if (!(i & span)) {
                    float lo = x[b + i], hi = x[b + i + span];
                    x[b + i] = lo + hi;
                    x[b + i + span] = lo - hi;
                }
        for (size_t i = 0; i < block; i++) x[b + i] *= norm;
    }
}

TR_DEVICE static uint32_t absmax_bits(const float *x, size_t n) {
    uint32_t best = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t u = tr_fixed_math_bits(x[i]) & 0x7fffffffu;
        if (u > best) best = u;
    }
    return best;
}

TR_DEVICE void tr_ref_quant_u8(uint8_t *q, float *scale, const float *x, float *tmp, size_t n, size_t block) {
    if (tmp != x) memcpy(tmp, x, n * sizeof *x);
    tr_ref_hadamard(tmp, n, block);
    float mul = tr_fixed_math_quant_scale(absmax_bits(tmp, n), scale);
    for (size_t i = 0; i < n; i++) q[i] = (uint8_t)(128 + tr_fixed_math_quant(tmp[i], mul));
}

TR_DEVICE void tr_ref_quant_u16(uint8_t *q, size_t ld, float *scale, const float *x, float *tmp, size_t n,
                                size_t block) {
    if (tmp != x) memcpy(tmp, x, n * sizeof *x);
    tr_ref_hadamard(tmp, n, block);
    float mul = tr_fixed_math_scale_to(32767.0f, absmax_bits(tmp, n), scale);
    for (size_t i = 0; i < n; i++) {
        uint32_t v = (uint32_t)(32768 + tr_fixed_math_round_to(32767.0f, tmp[i], mul));
        q[i] = (uint8_t)(v >> 8);
        q[ld + i] = (uint8_t)v;
    }
}

TR_DEVICE void tr_ref_quant_groups(uint8_t *q, const float *x, float *tmp, size_t n, size_t block) {
    if (tmp != x) memcpy(tmp, x, n * sizeof *x);
    tr_ref_hadamard(tmp, n, block);
    for (size_t g = 0; g < n / 32; g++) {
        float *scale = tr_groups_x_scale(q, n) + g;
        int32_t minus[2] = {0, 0}; /* of the two halves */
        float mul = tr_fixed_math_quant_scale(absmax_bits(tmp + 32 * g, 32), scale);
        for (size_t i = 0; i < 32; i++) {
            int32_t v = tr_fixed_math_quant(tmp[32 * g + i], mul);
            q[32 * g + i] = (uint8_t)v;
            minus[i / 16] -= v;
        }
        memcpy(tr_groups_x_minus16(q, n) + 2 * g, minus, sizeof minus);
        tr_groups_x_minus32(q, n)[g] = minus[0] + minus[1];
        tr_groups_x_scaled_sum(q, n)[g] = *scale * (float)-(minus[0] + minus[1]);
    }
}

TR_DEVICE void tr_ref_rope(float *x, const float *cs, size_t d) {
    const float *cosine = cs, *sine = cs + d / 2;
    for (size_t i = 0; i < d / 2; i++) {
        float a = x[i], b = x[i + d / 2];
        x[i] = fmaf(a, cosine[i], -(b * sine[i]));
        x[i + d / 2] = fmaf(b, cosine[i], a * sine[i]);
    }
}

TR_DEVICE void tr_ref_add(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = y[i] + x[i];
}

TR_DEVICE void tr_ref_gelu_mul(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = tr_fixed_math_gelu(gate[i]) * up[i];
}

TR_DEVICE void tr_ref_silu_mul(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = tr_fixed_math_silu(gate[i]) * up[i];
}

TR_DEVICE void tr_ref_embed_packed(float *y, const uint16_t *w, size_t k, size_t row, float scale) {
    const uint16_t *block = w + row / 16 * 16 * k;
    for (size_t i = 0; i < k; i++) y[i] = tr_fixed_math_from_bf16(block[(i / 2 * 16 + row % 16) * 2 + i % 2]) * scale;
}

TR_DEVICE void tr_ref_embed_rows(float *y, const uint16_t *w, size_t k, size_t row, float scale) {
    for (size_t i = 0; i < k; i++) y[i] = tr_fixed_math_from_bf16(w[row * k + i]) * scale;
}

TR_DEVICE size_t tr_ref_argmax(const float *x, size_t n, float *max_out) {
    float best = -INFINITY;
    size_t at = 0;
    bool found = false;
    for (size_t i = 0; i < n; i++)
        if (x[i] > best) {
            best = x[i];
            at = i;
            found = true;
        }
    *max_out = found ? x[at] : -INFINITY;
    return at;
}

TR_DEVICE size_t tr_ref_at_least(const float *x, size_t n, float least, uint32_t *index) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++)
        if (!(x[i] < least)) index[found++] = (uint32_t)i;
    return found;
}
