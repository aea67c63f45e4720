/* model/image.h - packed weight image: what the kernels read, made once by the packer, mapped shared by every stage.
 * One file for each (model content, precision): header, tensor index, tensors at 4096-byte borders. Written to a
 * temporary name and renamed; the name carries the content hash of the model, the precision and TR_IMAGE_VERSION. The
 * file is of our own making but lies in a cache folder: it is validated on open (magic, version, every offset, every
 * shape against the config in it) and a bad one is TR_DATA, which the caller answers by packing again. Owns: the
 * mapping. Threads: immutable after open. */
#ifndef TR_IMAGE_H
#define TR_IMAGE_H
#include "base/file_map.h"
#include "base/status.h"
#include "kernels/groups.h"
#include "kernels/planes.h"
#include "model/model_config.h"
#include "model/precision.h"

#include <stddef.h>
#include <stdint.h>

enum { TR_IMAGE_VERSION = 2, TR_IMAGE_PARTS_MAX = 3 };

/* Matrices are [n outputs, k inputs]; QKV = rows of Q, K, V one after another; GATE_UP = gate rows, then up rows. */
/* clang-format off */
#define TR_IMAGE_ROLES(X)                                                                                              \
    X(EMBED) /* for look-up: the HEAD itself in bf16 and native images when tied, else bf16 rows */                    \
    X(HEAD)                                                                                                            \
    X(OUTPUT_NORM) X(ATTN_NORM) X(QKV) X(Q_NORM) X(K_NORM) X(O)                                                        \
    X(ATTN_POST_NORM) X(FFN_NORM) X(GATE_UP) X(DOWN) X(FFN_POST_NORM) X(ROPE_FREQS)
/* clang-format on */
typedef enum tr_image_role {
#define X(name) TR_IMAGE_##name,
    TR_IMAGE_ROLES(X)
#undef X
        TR_IMAGE_ROLE_COUNT
} tr_image_role;

typedef enum tr_image_kind {
    TR_IMAGE_F32,         /* vector f32 [k] */
    TR_IMAGE_BF16_PACK,   /* kernels/ops.h packing */
    TR_IMAGE_INT8_PACK,   /* with comp and scale; rotated along k by blocks of `rotation` */
    TR_IMAGE_BF16_ROWS,   /* row-major [n, k] */
    TR_IMAGE_INT8_PLANES, /* the head of an int8 image: the same weights, in the planes of kernels/planes.h */
    TR_IMAGE_GROUPS       /* kernels/groups.h; rows in parts, each of a format of its own */
} tr_image_kind;

typedef struct tr_image_part {
    tr_groups_format format;
    uint32_t n; /* rows; a multiple of 16 but in the last part */
    const uint8_t *data;
} tr_image_part;

typedef struct tr_image_tensor {
    tr_image_kind kind;
    uint32_t n, k;       /* real outputs and inputs */
    uint32_t rotation;   /* block of the Hadamard on k that activations need first; 1: none */
    const void *data;    /* valid until the image is closed; GROUPS: that of the first part */
    const int32_t *comp; /* int8 only */
    const float *scale;  /* int8 only */
    tr_planes planes;    /* INT8_PLANES only; data is the upper plane */
    uint32_t n_parts;    /* GROUPS only */
    tr_image_part part[TR_IMAGE_PARTS_MAX];
} tr_image_tensor;

typedef struct tr_image tr_image;

tr_status tr_image_open(const char *path, tr_image **image_out, tr_error *err);
void tr_image_close(tr_image **image);
const tr_model_config *tr_image_config(const tr_image *image);
tr_precision tr_image_precision(const tr_image *image);
/* Content hash of the model file that the image was made from (the weights part of a numeric identity). */
uint64_t tr_image_model_hash(const tr_image *image);
/* Weights that one decode step reads: every tensor once but the table of embeddings, of which it reads a row. */
uint64_t tr_image_step_bytes(const tr_image *image);
/* NULL when the model has no such tensor. layer is ignored for EMBED, HEAD, OUTPUT_NORM and ROPE_FREQS. */
const tr_image_tensor *tr_image_get(const tr_image *image, tr_image_role role, uint32_t layer);
#endif
