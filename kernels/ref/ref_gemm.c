/* Reference of the matmuls. The inner loop runs over the 16 channels of a block: 16 independent chains. */
#include "kernels/fixed_math.h"
#include "kernels/variants.h"

TR_DEVICE void tr_ref_bf16_row(void *row, const float *x, size_t k) {
    float *to = (float *)row;
    for (size_t i = 0; i < k; i++) to[i] = tr_fixed_math_from_bf16(tr_fixed_math_bf16_input(x[i]));
}

TR_DEVICE void tr_ref_gemm_bf16(const tr_gemm_bf16_args *a) {
    for (size_t b = a->block0; b < a->block0 + a->blocks; b++)
        for (size_t m = 0; m < a->rows; m++) {
            const uint16_t *w = a->w + b * 16 * a->k;
            const float *x = (const float *)a->x + m * (a->ldx / sizeof *x);
            float acc[16] = {0};
            for (size_t k = 0; k < a->k; k += 2, w += 32)
                for (size_t c = 0; c < 16; c++) {
                    acc[c] = fmaf(x[k + 1], tr_fixed_math_from_bf16(w[2 * c + 1]), acc[c]);
                    acc[c] = fmaf(x[k], tr_fixed_math_from_bf16(w[2 * c]), acc[c]);
                }
            memcpy(a->y + m * a->ldy + b * 16, acc, sizeof acc);
        }
}

TR_DEVICE void tr_ref_gemm_i8(const tr_gemm_i8_args *a) {
    for (size_t b = a->block0; b < a->block0 + a->blocks; b++)
        for (size_t m = 0; m < a->rows; m++) {
            const int8_t *w = a->w + b * 16 * a->k;
            const uint8_t *x = a->x + m * a->ldx;
            for (size_t c = 0; c < 16; c++) {
                int32_t sum = a->comp[b * 16 + c];
                for (size_t k = 0; k < a->k; k++) sum += (int32_t)x[k] * w[(k / 4 * 16 + c) * 4 + k % 4];
                a->y[m * a->ldy + b * 16 + c] = ((float)sum * a->w_scale[b * 16 + c]) * a->x_scale[m];
            }
        }
}

TR_DEVICE void tr_ref_gemm_i8a16(const tr_gemm_i8a16_args *a) {
    for (size_t b = a->block0; b < a->block0 + a->blocks; b++)
        for (size_t m = 0; m < a->rows; m++) {
            const int8_t *w = a->w + b * 16 * a->k;
            const uint8_t *hi = a->x + 2 * m * a->ldx, *lo = hi + a->ldx;
            for (size_t c = 0; c < 16; c++) {
                int32_t sum_hi = a->comp[b * 16 + c], sum_lo = 0;
                for (size_t k = 0; k < a->k; k++) {
                    sum_hi += (int32_t)hi[k] * w[(k / 4 * 16 + c) * 4 + k % 4];
                    sum_lo += (int32_t)lo[k] * w[(k / 4 * 16 + c) * 4 + k % 4];
                }
                float sum = fmaf((float)sum_hi, 256.0f, (float)sum_lo);
                a->y[m * a->ldy + b * 16 + c] = (sum * a->w_scale[b * 16 + c]) * a->x_scale[m];
            }
        }
}

TR_DEVICE static float groups_channel(const tr_gemm_groups_args *a, const uint8_t *x, const uint8_t *block, size_t c) {
    const tr_groups_info *f = tr_groups_describe(a->format);
    const int32_t offset = f->shift ? 1 << f->shift : 0;
    float y = 0.0f;
    for (size_t u = 0; u < a->k / TR_GROUPS_UNIT; u++) {
        const float x_scale = tr_groups_x_scale(x, a->k)[u], x_total = tr_groups_x_scaled_sum(x, a->k)[u];
        uint8_t codes[TR_GROUPS_UNIT];
        tr_groups_codes(a->format, block, a->k, c, u, codes);
        for (size_t first = 0; first < TR_GROUPS_UNIT; first += f->group) {
            const size_t g = (u * TR_GROUPS_UNIT + first) / f->group;
            int32_t sum = 0;
            for (size_t i = first; i < first + f->group; i++)
                sum += (int8_t)x[u * TR_GROUPS_UNIT + i] * ((int32_t)codes[i] - offset);
            y = fmaf((float)sum, tr_groups_scale(a->format, block, c, g) * x_scale, y);
            if (f->min) y = fmaf(tr_groups_min(a->format, block, c, g), x_total, y);
        }
    }
    return y;
}

TR_DEVICE void tr_ref_gemm_groups(const tr_gemm_groups_args *a) {
    const size_t block_bytes = tr_groups_block_bytes(a->format, a->k);
    for (size_t b = a->block0; b < a->block0 + a->blocks; b++)
        for (size_t m = 0; m < a->rows; m++)
            for (size_t c = 0; c < 16; c++)
                a->y[m * a->ldy + b * 16 + c] = groups_channel(a, a->x + m * a->ldx, a->w + b * block_bytes, c);
}
