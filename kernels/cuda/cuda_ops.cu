/* The kernels: who computes what, and the scalar reference compiled for the device. NEVER RUN ON A DEVICE SO FAR.
 * A C++ compiler takes this file as well (TR_CUDA_ON_HOST): kernels are loops then, over the library's reference, and
 * checkk proves the division of the work without a device. */
#ifdef TR_CUDA_ON_HOST
#define __device__
extern "C" {
#include "kernels/variants.h"
}
#else
#include <cuda_runtime.h>
#define tr_groups_nf4 cuda_groups_nf4 /* a variable keeps its name in C++: the library has one of its own */
#endif
#include "kernels/cuda/cuda_ops.h"

#ifndef TR_CUDA_ON_HOST
#include "base/status.h"
/* On the device a broken invariant ends the kernel. */
#undef tr_check
#define tr_check(cond) ((cond) ? (void)0 : __trap())
/* With the names of C++, so that they are not those of the library. */
#include "kernels/groups.c"
#include "kernels/ref/ref_attn.c"
#include "kernels/ref/ref_elementwise.c"
#include "kernels/ref/ref_gemm.c"
#include "kernels/ref/ref_kv.c"
#include "kernels/ref/ref_planes.c"
#endif

namespace {

/* work(i) for every i below n, each by a thread. Errors of launches stay with the runtime until somebody waits. */
#ifdef TR_CUDA_ON_HOST
template <typename Work> void launch(tr_cuda_stream, size_t n, Work work) {
    for (size_t i = n; i > 0; i--) work(i - 1);
}
#else
constexpr unsigned THREADS = 128;
constexpr size_t BLOCKS_MAX = 1 << 20; /* more are taken in turns */

template <typename Work> __global__ void each(size_t n, Work work) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) work(i);
}

template <typename Work> void launch(tr_cuda_stream s, size_t n, Work work) {
    if (n == 0) return;
    const size_t blocks = (n + THREADS - 1) / THREADS;
    each<<<(unsigned)(blocks < BLOCKS_MAX ? blocks : BLOCKS_MAX), THREADS, 0, s>>>(n, work);
}
#endif

__device__ float *at(tr_cuda_rows r, size_t row) { return r.data + row * r.ld; }
__device__ uint8_t *at(const tr_cuda_tiles &t, size_t row) { return t.tiles + t.offset[row]; }

/* One row and one block of a matmul. */
template <typename Args> __device__ Args part_of(const Args &a, size_t i) {
    Args one = a;
    const size_t row = i / a.blocks;
    one.x = (decltype(one.x))((const uint8_t *)a.x + row * a.ldx);
    one.y = a.y + row * a.ldy;
    one.rows = 1;
    one.block0 = a.block0 + i % a.blocks;
    one.blocks = 1;
    return one;
}

} // namespace

/* ---- rows ---- */

void tr_cuda_ops_rmsnorm(tr_cuda_stream s, tr_cuda_rows y, tr_cuda_rows x, const float *w, size_t rows, size_t n,
                         float eps) {
    launch(s, rows, [=] __device__(size_t r) { tr_ref_rmsnorm(at(y, r), at(x, r), w, n, eps); });
}
void tr_cuda_ops_bf16_row(tr_cuda_stream s, void *to, size_t row_bytes, tr_cuda_rows x, size_t rows, size_t k) {
    launch(s, rows, [=] __device__(size_t r) { tr_ref_bf16_row((uint8_t *)to + r * row_bytes, at(x, r), k); });
}
void tr_cuda_ops_hadamard(tr_cuda_stream s, tr_cuda_rows x, size_t rows, size_t n, size_t block) {
    launch(s, rows, [=] __device__(size_t r) { tr_ref_hadamard(at(x, r), n, block); });
}
void tr_cuda_ops_quant_u8(tr_cuda_stream s, uint8_t *q, size_t ldq, float *scale, tr_cuda_rows x, tr_cuda_rows tmp,
                          size_t rows, size_t n, size_t block) {
    launch(s, rows,
           [=] __device__(size_t r) { tr_ref_quant_u8(q + r * ldq, scale + r, at(x, r), at(tmp, r), n, block); });
}
void tr_cuda_ops_quant_u16(tr_cuda_stream s, uint8_t *q, size_t ldq, float *scale, tr_cuda_rows x, tr_cuda_rows tmp,
                           size_t rows, size_t n, size_t block) {
    launch(s, rows, [=] __device__(size_t r) {
        tr_ref_quant_u16(q + 2 * r * ldq, ldq, scale + r, at(x, r), at(tmp, r), n, block);
    });
}
void tr_cuda_ops_quant_groups(tr_cuda_stream s, uint8_t *q, size_t ldq, tr_cuda_rows x, tr_cuda_rows tmp, size_t rows,
                              size_t n, size_t block) {
    launch(s, rows, [=] __device__(size_t r) { tr_ref_quant_groups(q + r * ldq, at(x, r), at(tmp, r), n, block); });
}
void tr_cuda_ops_embed_packed(tr_cuda_stream s, tr_cuda_rows y, const uint16_t *w, size_t k, const uint32_t *token,
                              size_t rows, float scale) {
    launch(s, rows, [=] __device__(size_t r) { tr_ref_embed_packed(at(y, r), w, k, token[r], scale); });
}
void tr_cuda_ops_embed_rows(tr_cuda_stream s, tr_cuda_rows y, const uint16_t *w, size_t k, const uint32_t *token,
                            size_t rows, float scale) {
    launch(s, rows, [=] __device__(size_t r) { tr_ref_embed_rows(at(y, r), w, k, token[r], scale); });
}
void tr_cuda_ops_argmax(tr_cuda_stream s, size_t *index, float *max, tr_cuda_rows x, size_t rows, size_t n) {
    launch(s, rows, [=] __device__(size_t r) { index[r] = tr_ref_argmax(at(x, r), n, max + r); });
}
void tr_cuda_ops_at_least(tr_cuda_stream s, size_t *count, uint32_t *index, size_t ld, tr_cuda_rows x, size_t rows,
                          size_t n, float least) {
    launch(s, rows, [=] __device__(size_t r) { count[r] = tr_ref_at_least(at(x, r), n, least, index + r * ld); });
}

/* ---- rows and blocks of 16 channels ---- */

void tr_cuda_ops_gemm_bf16(tr_cuda_stream s, tr_gemm_bf16_args a) {
    launch(s, a.rows * a.blocks, [=] __device__(size_t i) {
        const tr_gemm_bf16_args one = part_of(a, i);
        tr_ref_gemm_bf16(&one);
    });
}
void tr_cuda_ops_gemm_i8(tr_cuda_stream s, tr_gemm_i8_args a) {
    launch(s, a.rows * a.blocks, [=] __device__(size_t i) {
        tr_gemm_i8_args one = part_of(a, i);
        one.x_scale = a.x_scale + i / a.blocks;
        tr_ref_gemm_i8(&one);
    });
}
void tr_cuda_ops_gemm_i8a16(tr_cuda_stream s, tr_gemm_i8a16_args a) {
    launch(s, a.rows * a.blocks, [=] __device__(size_t i) {
        tr_gemm_i8a16_args one = part_of(a, i);
        one.x = a.x + i / a.blocks * 2 * a.ldx;
        one.x_scale = a.x_scale + i / a.blocks;
        tr_ref_gemm_i8a16(&one);
    });
}
void tr_cuda_ops_gemm_groups(tr_cuda_stream s, tr_gemm_groups_args a) {
    launch(s, a.rows * a.blocks, [=] __device__(size_t i) {
        const tr_gemm_groups_args one = part_of(a, i);
        tr_ref_gemm_groups(&one);
    });
}
void tr_cuda_ops_planes_bound(tr_cuda_stream s, tr_planes_args a, tr_planes w) {
    launch(s, a.rows * a.blocks, [=] __device__(size_t i) {
        const size_t row = i / a.blocks, block = i % a.blocks, to = row * a.ld + 16 * block;
        tr_planes_args one = a;
        one.w = &w;
        one.query = a.query + row;
        one.bound = a.bound + to;
        one.coarse = a.coarse + to;
        one.rows = one.blocks = 1;
        one.block0 = a.block0 + block;
        tr_ref_planes_bound(&one);
    });
}
void tr_cuda_ops_planes_output(tr_cuda_stream s, float *y, tr_planes w, tr_planes_query q, const uint32_t *n,
                               const int32_t *coarse, size_t count) {
    launch(s, count, [=] __device__(size_t i) { y[i] = tr_ref_planes_output(&w, &q, n[i], coarse[i]); });
}
void tr_cuda_ops_planes_unpack(tr_cuda_stream s, int8_t *out, tr_planes w, size_t block0, size_t blocks) {
    launch(s, blocks, [=] __device__(size_t i) { tr_ref_planes_unpack(out + i * 16 * w.k, &w, block0 + i); });
}

/* ---- heads and elements ---- */

void tr_cuda_ops_rope(tr_cuda_stream s, tr_cuda_rows x, tr_cuda_rows cs, size_t rows, size_t heads, size_t d) {
    launch(s, rows * heads,
           [=] __device__(size_t i) { tr_ref_rope(at(x, i / heads) + i % heads * d, at(cs, i / heads), d); });
}
void tr_cuda_ops_add(tr_cuda_stream s, float *y, const float *x, size_t n) {
    launch(s, n, [=] __device__(size_t i) { tr_ref_add(y + i, x + i, 1); });
}
void tr_cuda_ops_gelu_mul(tr_cuda_stream s, float *y, const float *gate, const float *up, size_t n) {
    launch(s, n, [=] __device__(size_t i) { tr_ref_gelu_mul(y + i, gate + i, up + i, 1); });
}
void tr_cuda_ops_silu_mul(tr_cuda_stream s, float *y, const float *gate, const float *up, size_t n) {
    launch(s, n, [=] __device__(size_t i) { tr_ref_silu_mul(y + i, gate + i, up + i, 1); });
}

/* ---- KV pages ---- */

void tr_cuda_ops_kv_store_bf16(tr_cuda_stream s, tr_cuda_tiles to, tr_cuda_rows k, tr_cuda_rows v, size_t rows,
                               uint32_t d) {
    launch(s, rows, [=] __device__(size_t r) { tr_ref_kv_store_bf16(at(to, r), to.t[r], at(k, r), at(v, r), d); });
}
void tr_cuda_ops_kv_store_int8(tr_cuda_stream s, tr_cuda_tiles to, tr_cuda_rows k, tr_cuda_rows v, size_t rows,
                               uint32_t d, tr_cuda_rows tmp) {
    launch(s, rows,
           [=] __device__(size_t r) { tr_ref_kv_store_int8(at(to, r), to.t[r], at(k, r), at(v, r), d, at(tmp, r)); });
}
void tr_cuda_ops_kv_store_int8_static(tr_cuda_stream s, tr_cuda_tiles to, tr_cuda_rows k, tr_cuda_rows v, size_t rows,
                                      uint32_t d, tr_cuda_rows tmp, tr_kv_head head) {
    launch(s, rows, [=] __device__(size_t r) {
        tr_ref_kv_store_int8_static(at(to, r), to.t[r], at(k, r), at(v, r), d, at(tmp, r), &head);
    });
}
void tr_cuda_ops_kv_convert_bf16_int8(tr_cuda_stream s, uint8_t *dst, uint32_t dst_t0, const uint8_t *src,
                                      uint32_t src_t0, uint32_t n, uint32_t d, tr_cuda_rows tmp) {
    launch(s, n, [=] __device__(size_t i) {
        tr_ref_kv_convert_bf16_int8(dst, dst_t0 + (uint32_t)i, src, src_t0 + (uint32_t)i, 1, d, NULL, at(tmp, i));
    });
}

/* ---- attention ---- */

namespace {

/* One head of one row. */
__device__ tr_attn_args attn_one(const tr_attn_args &a, const tr_kv_head *head, uint32_t row, uint32_t h) {
    tr_attn_args one = a;
    one.q = a.q + row * a.ldq + (size_t)h * a.d;
    one.out = a.out + row * a.ldo + (size_t)h * a.d;
    one.rows = one.heads = 1;
    one.pos0 = a.pos0 + row;
    one.kv = head;
    one.part = NULL;
    return one;
}

} // namespace

void tr_cuda_ops_attn(tr_cuda_stream s, tr_kv_format format, tr_attn_args a, tr_kv_head head, float *parts) {
    const uint32_t splits = tr_cuda_ops_attn_splits(a.pos0, a.rows, a.window);
    const uint32_t first = tr_cuda_ops_attn_first_split(a.pos0, a.window);
    const size_t floats = tr_ops_attn_part_floats(a.d), heads = (size_t)a.rows * a.heads;
    launch(s, heads * splits, [=] __device__(size_t i) {
        const uint32_t n = first + (uint32_t)(i % splits);
        const size_t h = i / splits;
        tr_attn_args one = attn_one(a, &head, (uint32_t)(h / a.heads), (uint32_t)(h % a.heads));
        if (n < tr_cuda_ops_attn_first_split(one.pos0, a.window) || n > one.pos0 / TR_OPS_ATTN_SPLIT_TOK) return;
        one.part = parts + i * floats;
        one.split = n;
        switch (format) {
        case TR_KV_INT8: return tr_ref_attn_int8(&one);
        case TR_KV_INT8_STATIC: return tr_ref_attn_int8_static(&one);
        case TR_KV_INT8_RESIDUAL: return tr_ref_attn_int8_residual(&one);
        default: return tr_ref_attn_bf16(&one);
        }
    });
    launch(s, heads, [=] __device__(size_t h) {
        const tr_attn_args one = attn_one(a, &head, (uint32_t)(h / a.heads), (uint32_t)(h % a.heads));
        const uint32_t from = tr_cuda_ops_attn_first_split(one.pos0, a.window);
        const uint32_t n = one.pos0 / TR_OPS_ATTN_SPLIT_TOK + 1 - from;
        tr_ref_attn_merge(one.out, parts + (h * splits + from - first) * floats, n, floats, a.d);
    });
}
