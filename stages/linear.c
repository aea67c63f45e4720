#include "stages/linear.h"

#include "base/checked.h"

#include <stdlib.h>

enum { ROW_GAP = 64 }; /* bytes between bf16 rows: rows a power of two apart would meet in few sets of the cache */

static size_t bf16_stride(const tr_ops *ops, const tr_image_tensor *w) {
    return w->k * tr_ops_bf16_row_bytes(ops) + ROW_GAP;
}

uint64_t tr_linear_rows_bytes(uint32_t rows, uint32_t k_max) {
    return (uint64_t)rows * (k_max * sizeof(float) + ROW_GAP);
}

tr_status tr_linear_rows_init(tr_linear_rows *r, uint32_t rows, uint32_t k_max, bool a16) {
    r->x = aligned_alloc(64, tr_align_up(tr_linear_rows_bytes(rows, k_max), 64));
    r->scale = aligned_alloc(64, tr_align_up((size_t)rows * sizeof(float), 64));
    r->a16 = a16;
    return r->x && r->scale ? TR_OK : TR_UNAVAILABLE;
}

void tr_linear_rows_fini(tr_linear_rows *r) {
    free(r->x);
    free(r->scale);
    *r = (tr_linear_rows){0};
}

void tr_linear_prepare(const tr_ops *ops, const tr_image_tensor *w, tr_linear_rows *to, uint32_t row, const float *in,
                       float *tmp) {
    const size_t k = w->k;
    if (w->kind == TR_IMAGE_GROUPS)
        ops->quant_groups(to->x + row * tr_groups_x_bytes(k), in, tmp, k, w->rotation);
    else if (tr_linear_by_pieces(w))
        ops->bf16_row(to->x + row * bf16_stride(ops, w), in, k);
    else if (to->a16)
        ops->quant_u16(to->x + row * 2 * k, k, &to->scale[row], in, tmp, k, w->rotation);
    else
        ops->quant_u8(to->x + row * k, &to->scale[row], in, tmp, k, w->rotation);
}

bool tr_linear_by_pieces(const tr_image_tensor *w) {
    return w->kind != TR_IMAGE_GROUPS && w->kind != TR_IMAGE_INT8_PACK && w->kind != TR_IMAGE_INT8_PLANES;
}

void tr_linear_prepare_piece(const tr_ops *ops, const tr_image_tensor *w, tr_linear_rows *to, uint32_t row, uint32_t k0,
                             uint32_t k, const float *in) {
    ops->bf16_row(to->x + row * bf16_stride(ops, w) + k0 * tr_ops_bf16_row_bytes(ops), in, k);
}

/* The share falls into the parts that it touches. */
static void matmul_groups(const tr_ops *ops, const tr_image_tensor *w, const tr_linear_rows *x, uint32_t rows, float *y,
                          uint32_t ldy, float *panel, uint32_t block0, uint32_t blocks) {
    uint32_t at = 0; /* first block of the part */
    for (uint32_t i = 0; i < w->n_parts; i++) {
        const uint32_t end = at + (w->part[i].n + 15) / 16;
        const uint32_t lo = block0 > at ? block0 : at, hi = block0 + blocks < end ? block0 + blocks : end;
        if (lo < hi) {
            tr_gemm_groups_args a = {.x = x->x,
                                     .w = w->part[i].data + (lo - at) * tr_groups_block_bytes(w->part[i].format, w->k),
                                     .y = y + (size_t)(lo - block0) * 16,
                                     .panel = panel,
                                     .format = w->part[i].format,
                                     .rows = rows,
                                     .k = w->k,
                                     .ldx = tr_groups_x_bytes(w->k),
                                     .ldy = ldy,
                                     .blocks = hi - lo};
            ops->gemm_groups(&a);
        }
        at = end;
    }
}

/* data: blocks from block0 on. */
static void matmul_int8(const tr_ops *ops, const tr_image_tensor *w, const int8_t *data, const tr_linear_rows *x,
                        uint32_t rows, float *y, uint32_t ldy, uint32_t block0, uint32_t blocks) {
    const size_t channel = (size_t)block0 * TR_OPS_BLOCK_N;
    tr_gemm_i8_args a = {.x = x->x,
                         .x_scale = x->scale,
                         .w = data,
                         .comp = w->comp + channel,
                         .w_scale = w->scale + channel,
                         .y = y,
                         .rows = rows,
                         .k = w->k,
                         .ldx = w->k,
                         .ldy = ldy,
                         .blocks = blocks};
    (x->a16 ? ops->gemm_i8a16 : ops->gemm_i8)(&a);
}

/* Weights in planes: a few blocks at a time back to packed int8, which then lie in the cache. */
static void matmul_planes(const tr_ops *ops, const tr_image_tensor *w, const tr_linear_rows *x, uint32_t rows, float *y,
                          uint32_t ldy, int8_t *panel, uint32_t block0, uint32_t blocks) {
    enum { AT_ONCE = 4 };
    const size_t bytes = (size_t)TR_OPS_BLOCK_N * w->k;
    for (uint32_t b = block0; b < block0 + blocks; b += AT_ONCE) {
        const uint32_t n = block0 + blocks - b < AT_ONCE ? block0 + blocks - b : AT_ONCE;
        for (uint32_t i = 0; i < n; i++) ops->planes_unpack(panel + i * bytes, &w->planes, b + i);
        matmul_int8(ops, w, panel, x, rows, y + (size_t)(b - block0) * TR_OPS_BLOCK_N, ldy, b, n);
    }
}

void tr_linear_matmul(const tr_ops *ops, const tr_image_tensor *w, const tr_linear_rows *x, uint32_t rows, float *y,
                      uint32_t ldy, float *panel, uint32_t block0, uint32_t blocks) {
    if (w->kind == TR_IMAGE_GROUPS) {
        matmul_groups(ops, w, x, rows, y, ldy, panel, block0, blocks);
    } else if (w->kind == TR_IMAGE_INT8_PLANES) {
        matmul_planes(ops, w, x, rows, y, ldy, (int8_t *)panel, block0, blocks);
    } else if (w->kind == TR_IMAGE_INT8_PACK) {
        const int8_t *data = (const int8_t *)w->data + (size_t)block0 * TR_OPS_BLOCK_N * w->k;
        matmul_int8(ops, w, data, x, rows, y, ldy, block0, blocks);
    } else {
        tr_gemm_bf16_args a = {.x = x->x,
                               .w = (const uint16_t *)w->data + (size_t)block0 * TR_OPS_BLOCK_N * w->k,
                               .y = y,
                               .panel = panel,
                               .rows = rows,
                               .k = w->k,
                               .ldx = bf16_stride(ops, w),
                               .ldy = ldy,
                               .blocks = blocks};
        ops->gemm_bf16(&a);
    }
}
