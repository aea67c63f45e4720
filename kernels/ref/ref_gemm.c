/* Reference of the two matmuls. The inner loop runs over the 16 channels of a block: 16 independent chains. */
#include "kernels/fixed_math.h"
#include "kernels/variants.h"

void tr_ref_bf16_row(void *row, const float *x, size_t k) {
    float *to = row;
    for (size_t i = 0; i < k; i++) to[i] = tr_fixed_math_from_bf16(tr_fixed_math_to_bf16(x[i]));
}

void tr_ref_gemm_bf16(const tr_gemm_bf16_args *a) {
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

void tr_ref_gemm_i8(const tr_gemm_i8_args *a) {
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
