/* stages/linear.h - one matrix multiplication y = x W^T of a layer, for every kind of packed weights.
 * Two steps: rows are made ready once for the kind (rounded, rotated, quantized: prepare), then each worker multiplies
 * all rows by its share of the output channels (matmul). What a prepared row looks like is between these two.
 * Numbers: those of kernels/ops.h; they depend neither on the number of rows nor on the shares.
 * Threads: prepare of different rows, matmul of different shares at once. No heap after init. */
#ifndef TR_LINEAR_H
#define TR_LINEAR_H
#include "base/status.h"
#include "kernels/ops.h"
#include "model/image.h"

#include <stdint.h>

/* Rows that are ready for a matmul; one at a time, overwritten by the next matmul's. */
typedef struct tr_linear_rows {
    uint8_t *x;   /* [tr_linear_rows_bytes] */
    float *scale; /* int8: [rows] */
    bool a16;     /* int8 weights meet activations of 16 bits, in two planes */
} tr_linear_rows;

/* Bytes of x. */
uint64_t tr_linear_rows_bytes(uint32_t rows, uint32_t k_max);
/* Memory of its own for `rows` rows of up to k_max inputs. TR_UNAVAILABLE without memory; fini is safe then. */
tr_status tr_linear_rows_init(tr_linear_rows *r, uint32_t rows, uint32_t k_max, bool a16);
void tr_linear_rows_fini(tr_linear_rows *r);

/* Make row `row` ready for w. in: [w->k]; tmp: [w->k] scratch. */
void tr_linear_prepare(const tr_ops *ops, const tr_image_tensor *w, tr_linear_rows *to, uint32_t row, const float *in,
                       float *tmp);
/* Whether rows for w may be made ready piece by piece: no number of a row depends on the others. */
bool tr_linear_by_pieces(const tr_image_tensor *w);
/* Elements [k0, k0 + k) of a row, both multiples of 32. in: these [k]. */
void tr_linear_prepare_piece(const tr_ops *ops, const tr_image_tensor *w, tr_linear_rows *to, uint32_t row, uint32_t k0,
                             uint32_t k, const float *in);
/* y[rows, 16 * blocks] of the channels from 16 * block0 on. y: row stride ldy. panel: tr_ops_panel_floats(w->k) floats
 * of this worker. */
void tr_linear_matmul(const tr_ops *ops, const tr_image_tensor *w, const tr_linear_rows *x, uint32_t rows, float *y,
                      uint32_t ldy, float *panel, uint32_t block0, uint32_t blocks);
#endif
