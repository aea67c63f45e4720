#include "stages/linear.h"

#include "base/checked.h"

#include <stdlib.h>

tr_status tr_linear_rows_init(tr_linear_rows *r, uint32_t rows, uint32_t k_max) {
    r->x = aligned_alloc(64, tr_align_up((size_t)rows * k_max * sizeof(float), 64));
    r->scale = aligned_alloc(64, tr_align_up((size_t)rows * sizeof(float), 64));
    return r->x && r->scale ? TR_OK : TR_UNAVAILABLE;
}

void tr_linear_rows_fini(tr_linear_rows *r) {
    free(r->x);
    free(r->scale);
    *r = (tr_linear_rows){0};
}

void tr_linear_prepare(const tr_ops *ops, const tr_image_tensor *w, tr_linear_rows *to, uint32_t row, const float *in,
                       float *tmp) {
    if (w->kind == TR_IMAGE_INT8_PACK || w->kind == TR_IMAGE_INT8_PLANES)
        ops->quant_u8(to->x + (size_t)row * w->k, &to->scale[row], in, tmp, w->k, w->rotation);
    else
        ops->bf16_row(to->x + (size_t)row * w->k * sizeof *in, in, w->k);
}

/* Weights in planes: a few blocks at a time back to packed int8, which then lie in the cache. */
static void planes_matmul(const tr_ops *ops, const tr_image_tensor *w, const tr_linear_rows *x, uint32_t rows, float *y,
                          uint32_t ldy, int8_t *panel, uint32_t block0, uint32_t blocks) {
    enum { AT_ONCE = 4 };
    const size_t bytes = (size_t)TR_OPS_BLOCK_N * w->k;
    for (uint32_t b = block0; b < block0 + blocks; b += AT_ONCE) {
        const uint32_t n = block0 + blocks - b < AT_ONCE ? block0 + blocks - b : AT_ONCE;
        const size_t channel = (size_t)b * TR_OPS_BLOCK_N;
        for (uint32_t i = 0; i < n; i++) ops->planes_unpack(panel + i * bytes, &w->planes, b + i);
        ops->gemm_i8(&(tr_gemm_i8_args){.x = x->x,
                                        .x_scale = x->scale,
                                        .w = panel,
                                        .comp = w->comp + channel,
                                        .w_scale = w->scale + channel,
                                        .y = y + channel,
                                        .rows = rows,
                                        .k = w->k,
                                        .ldx = w->k,
                                        .ldy = ldy,
                                        .blocks = n});
    }
}

void tr_linear_matmul(const tr_ops *ops, const tr_image_tensor *w, const tr_linear_rows *x, uint32_t rows, float *y,
                      uint32_t ldy, float *panel, uint32_t block0, uint32_t blocks) {
    if (w->kind == TR_IMAGE_INT8_PACK) {
        tr_gemm_i8_args a = {.x = x->x,
                             .x_scale = x->scale,
                             .w = w->data,
                             .comp = w->comp,
                             .w_scale = w->scale,
                             .y = y,
                             .rows = rows,
                             .k = w->k,
                             .ldx = w->k,
                             .ldy = ldy,
                             .block0 = block0,
                             .blocks = blocks};
        ops->gemm_i8(&a);
    } else if (w->kind == TR_IMAGE_INT8_PLANES) {
        planes_matmul(ops, w, x, rows, y, ldy, (int8_t *)panel, block0, blocks);
    } else {
        tr_gemm_bf16_args a = {.x = x->x,
                               .w = w->data,
                               .y = y,
                               .panel = panel,
                               .rows = rows,
                               .k = w->k,
                               .ldx = w->k * sizeof(float),
                               .ldy = ldy,
                               .block0 = block0,
                               .blocks = blocks};
        ops->gemm_bf16(&a);
    }
}
