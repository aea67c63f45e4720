/* model/pack.h - writes the packed image of a model in one precision (format: model/image_format.h).
 * bf16: weights rounded to nearest even. int8: each output channel rotated along its inputs by an orthonormal
 * block-Hadamard (the largest power of two up to 128 that divides k: QuaRot, Ashkboos et al. 2024), then symmetric int8
 * with one scale (absmax / 127) a channel. int4 (rotated alike) and nf4 (not rotated): codes of 4 bits with a scale for
 * 32 inputs, in the output matrix of 8. All these derive from the same fp32 values of the file. native: the blocks of
 * the file, regrouped (kernels/groups.h); a tensor without blocks is bf16, and a fused one with such a part is bf16 as
 * a whole. Norms stay fp32; the embedding of an int8, int4 or nf4 image is bf16 (it is only looked up). Memory: one
 * block of 16 rows a thread. Threads: starts n_threads of its own. */
#ifndef TR_PACK_H
#define TR_PACK_H
#include "base/status.h"
#include "model/image.h"
#include "model/model_file.h"

/* done and total in bytes of the image; called by one thread now and then. */
typedef void (*tr_pack_progress)(void *arg, uint64_t done, uint64_t total);

/* precision: that of an image (tr_precision_image). Bytes of the image file. TR_DATA: a shape that the kernels cannot
 * take (names the tensor). */
tr_status tr_pack_bytes(const tr_model_file *mf, tr_precision precision, uint64_t *bytes_out, tr_error *err);
/* Write into fd (empty, writable, read back by mapping). TR_CANNOT_CREATE: no room (need and have); TR_DATA: a weight
 * is not a finite number. */
tr_status tr_pack_image(const tr_model_file *mf, tr_precision precision, uint64_t model_hash, int fd,
                        uint32_t n_threads, tr_pack_progress progress, void *progress_arg, tr_error *err);
#endif
