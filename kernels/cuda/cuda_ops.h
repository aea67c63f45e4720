/* kernels/cuda/cuda_ops.h - the operations of kernels/ops.h on a device, for many rows at once, queued on a stream.
 * NEVER RUN ON A DEVICE SO FAR: it compiles and links. `checkk --variant cuda` is the first thing to run on one.
 * Numbers: a kernel runs the scalar reference itself (kernels/ref, compiled for the device without contraction, with
 *   denormals flushed), a thread for each row, block of 16 channels, or head and split: the bits of every other kernel
 *   set, but slow. Faster kernels take their places one by one and are judged by checkk.
 * Memory: every pointer, also those in the argument structs, is one that the device can read; the structs go by value.
 *   Layouts, alignment and strides as in ops.h. tmp: scratch of n (d) floats a row.
 * Errors: of launches and kernels alike, told by the next tr_cuda_memory_wait.
 * Threads: any; work on one stream runs in order. */
#ifndef TR_CUDA_OPS_H
#define TR_CUDA_OPS_H
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st *tr_cuda_stream; /* of the CUDA runtime; NULL: its default one */

typedef struct tr_cuda_rows {
    float *data;
    size_t ld;
} tr_cuda_rows;

/* Tiles of a pool into which rows go: row r to slot t[r] of the tile at tiles + offset[r]. */
typedef struct tr_cuda_tiles {
    uint8_t *tiles;
    const size_t *offset;
    const uint32_t *t;
} tr_cuda_tiles;

/* OP(name, (arguments)); in brackets what a thread computes */
#define TR_CUDA_OPS(OP)                                                                                                \
    /* [row] */                                                                                                        \
    OP(rmsnorm, (tr_cuda_stream s, tr_cuda_rows y, tr_cuda_rows x, const float *w, size_t rows, size_t n, float eps))  \
    OP(bf16_row, (tr_cuda_stream s, void *to, size_t row_bytes, tr_cuda_rows x, size_t rows, size_t k))                \
    OP(hadamard, (tr_cuda_stream s, tr_cuda_rows x, size_t rows, size_t n, size_t block))                              \
    OP(quant_u8, (tr_cuda_stream s, uint8_t * q, size_t ldq, float *scale, tr_cuda_rows x, tr_cuda_rows tmp,           \
                  size_t rows, size_t n, size_t block))                                                                \
    /* a row is two planes, ldq bytes each */                                                                          \
    OP(quant_u16, (tr_cuda_stream s, uint8_t * q, size_t ldq, float *scale, tr_cuda_rows x, tr_cuda_rows tmp,          \
                   size_t rows, size_t n, size_t block))                                                               \
    OP(quant_groups, (tr_cuda_stream s, uint8_t * q, size_t ldq, tr_cuda_rows x, tr_cuda_rows tmp, size_t rows,        \
                      size_t n, size_t block))                                                                         \
    OP(embed_packed, (tr_cuda_stream s, tr_cuda_rows y, const uint16_t *w, size_t k, const uint32_t *token,            \
                      size_t rows, float scale))                                                                       \
    OP(embed_rows, (tr_cuda_stream s, tr_cuda_rows y, const uint16_t *w, size_t k, const uint32_t *token, size_t rows, \
                    float scale))                                                                                      \
    OP(argmax, (tr_cuda_stream s, size_t * index, float *max, tr_cuda_rows x, size_t rows, size_t n))                  \
    OP(at_least, (tr_cuda_stream s, size_t * count, uint32_t * index, size_t ld, tr_cuda_rows x, size_t rows,          \
                  size_t n, float least))                                                                              \
    /* [row, block]; panel is not used */                                                                              \
    OP(gemm_bf16, (tr_cuda_stream s, tr_gemm_bf16_args a))                                                             \
    OP(gemm_i8, (tr_cuda_stream s, tr_gemm_i8_args a))                                                                 \
    OP(gemm_i8a16, (tr_cuda_stream s, tr_gemm_i8a16_args a))                                                           \
    OP(gemm_groups, (tr_cuda_stream s, tr_gemm_groups_args a))                                                         \
    /* a.w lies on the host: w takes its place */                                                                      \
    OP(planes_bound, (tr_cuda_stream s, tr_planes_args a, tr_planes w))                                                \
    /* [output]: y[i] of channel n[i] */                                                                               \
    OP(planes_output, (tr_cuda_stream s, float *y, tr_planes w, tr_planes_query q, const uint32_t *n,                  \
                       const int32_t *coarse, size_t count))                                                           \
    /* [block] */                                                                                                      \
    OP(planes_unpack, (tr_cuda_stream s, int8_t * out, tr_planes w, size_t block0, size_t blocks))                     \
    /* [row, head]; cs: of each row */                                                                                 \
    OP(rope, (tr_cuda_stream s, tr_cuda_rows x, tr_cuda_rows cs, size_t rows, size_t heads, size_t d))                 \
    /* [element] */                                                                                                    \
    OP(add, (tr_cuda_stream s, float *y, const float *x, size_t n))                                                    \
    OP(gelu_mul, (tr_cuda_stream s, float *y, const float *gate, const float *up, size_t n))                           \
    OP(silu_mul, (tr_cuda_stream s, float *y, const float *gate, const float *up, size_t n))                           \
    /* [row] */                                                                                                        \
    OP(kv_store_bf16, (tr_cuda_stream s, tr_cuda_tiles to, tr_cuda_rows k, tr_cuda_rows v, size_t rows, uint32_t d))   \
    OP(kv_store_int8, (tr_cuda_stream s, tr_cuda_tiles to, tr_cuda_rows k, tr_cuda_rows v, size_t rows, uint32_t d,    \
                       tr_cuda_rows tmp))                                                                              \
    OP(kv_store_int8_static, (tr_cuda_stream s, tr_cuda_tiles to, tr_cuda_rows k, tr_cuda_rows v, size_t rows,         \
                              uint32_t d, tr_cuda_rows tmp, tr_kv_head head))                                          \
    /* [token] of one tile */                                                                                          \
    OP(kv_convert_bf16_int8, (tr_cuda_stream s, uint8_t * dst, uint32_t dst_t0, const uint8_t *src, uint32_t src_t0,   \
                              uint32_t n, uint32_t d, tr_cuda_rows tmp))                                               \
    /* [row, head, split], then [row, head] for the merge. parts: rows * heads * tr_cuda_ops_attn_splits() *           \
     * tr_ops_attn_part_floats(d) floats; a.part, a.scratch and a.kv are not used, head takes the place of a.kv */     \
    OP(attn, (tr_cuda_stream s, tr_kv_format format, tr_attn_args a, tr_kv_head head, float *parts))

#define OP(name, args) void tr_cuda_ops_##name args;
TR_CUDA_OPS(OP)
#undef OP

/* Splits that the rows of a call touch, counted from the first that any of them sees. */
static inline TR_HOST_AND_DEVICE uint32_t tr_cuda_ops_attn_first_split(uint32_t pos0, uint32_t window) {
    return (window != 0 && pos0 + 1 > window ? pos0 + 1 - window : 0) / TR_OPS_ATTN_SPLIT_TOK;
}
static inline TR_HOST_AND_DEVICE uint32_t tr_cuda_ops_attn_splits(uint32_t pos0, uint32_t rows, uint32_t window) {
    return (pos0 + rows - 1) / TR_OPS_ATTN_SPLIT_TOK + 1 - tr_cuda_ops_attn_first_split(pos0, window);
}

#ifdef __cplusplus
}
#endif
#endif
