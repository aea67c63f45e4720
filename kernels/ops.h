/* kernels/ops.h - the operations a stage is made of, one table of function pointers for each kernel set.
 * Why: layer code calls ops->x only; which set runs is chosen once for the whole company (tr_ops_select) before any
 *      stage starts, and travels by name in the plan; stages never probe.
 * Numbers: every operation is defined by its scalar reference (kernels/ref), and EVERY variant returns the same bits
 *   (a NaN for a NaN, whatever its payload):
 *   - a bf16 matmul output is one chain of fused multiply-adds from 0 over bf16 weights and inputs rounded to bf16
 *     (nearest even), which takes of each pair of inputs the odd one, then the even one: what vdpbf16ps does.
 *     Denormal inputs count as zero, denormal results become zero (vdpbf16ps does so by itself, the others by FTZ/DAZ).
 *     AMX (tdpbf16ps) sums odd and even inputs in chains of their own: other bits, so there is no such variant;
 *   - an int8 matmul output is one int32 sum, then a fixed epilogue;
 *   - a reduction over n elements keeps 16 lanes (element i goes to lane i % 16, in order) and folds them as a tree
 *     (l, l+8), (l, l+4), (l, l+2), (l, l+1);
 *   - exp is the fixed polynomial of kernels/fixed_math.h, with fma by name; GELU and SiLU are x * sigmoid by it.
 *   So an output never depends on the number of rows, the split over workers, or the instruction set.
 * Threads: reentrant; callers split work by blocks of 16 output channels, by rows, or by kv head. Two writers of one KV
 *   tile must write different tokens. No heap, no system call ("amx": the first
 *   int8 matmul of a thread traps once into the system, which then keeps 8 KiB for its tile registers).
 * Memory: all pointers 64-byte aligned unless said; row strides (ld*) in elements unless said, multiples of 16; d a
 *   multiple of 16, k of 32 and at most 65536 (int32 sums stay exact). FTZ/DAZ is set by the worker team
 *   (tr_ops_thread_init).
 * Weight packing (16 output channels = one block; rows beyond the real n in the last block are zero, with scale 0):
 *   bf16: u16 [n/16][k/2][16][2]
 *   int8: s8  [n/16][k/4][16][4], comp s32 [n] = -128 * sum_k w, scale f32 [n]
 *   groups: kernels/groups.h; planes: kernels/planes.h */
#ifndef TR_OPS_H
#define TR_OPS_H
#include "base/status.h"
#include "kernels/groups.h"
#include "kernels/kv_page.h"
#include "kernels/planes.h"
#include "kernels/port.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TR_OPS_VERSION = 1,          /* of the definitions below: raised when an operation gives other bits than before */
    TR_OPS_BLOCK_N = 16,         /* output channels of one packed block */
    TR_OPS_ATTN_SPLIT_TOK = 512, /* attention starts anew at these absolute positions and merges at the end */
    TR_OPS_ATTN_Q_MAX = 32512,   /* int8 attention: steps of a rounded query, two signed bytes: 127 * 256 */
    TR_OPS_ATTN_P_MAX = 32767    /* and of a rounded weight, 7 and 8 bits: 512 of them times 127 fit in int32 */
};

/* One matmul call: y[m][n] for m in [0, rows), n in [16*block0, 16*(block0+blocks)). */
typedef struct tr_gemm_bf16_args {
    const void *x;     /* [rows, k] made ready by bf16_row of the same table; ldx: bytes from row to row */
    const uint16_t *w; /* packed, whole matrix */
    float *y;          /* [rows, n] stride ldy, indexed by absolute channel */
    float *panel;      /* scratch of this worker: tr_ops_panel_floats(k) floats */
    size_t rows, k, ldx, ldy, block0, blocks;
} tr_gemm_bf16_args;

typedef struct tr_gemm_i8_args {
    const uint8_t *x;     /* [rows, k] stride ldx: value = (x - 128) * x_scale[row] */
    const float *x_scale; /* [rows] */
    const int8_t *w;
    const int32_t *comp;  /* [n padded] */
    const float *w_scale; /* [n padded] */
    float *y;             /* y = ((float)(sum + comp) * w_scale[n]) * x_scale[m] */
    size_t rows, k, ldx, ldy, block0, blocks;
} tr_gemm_i8_args;

/* The same weights with activations of 16 bits in two planes, x = [rows][2][ldx]: value = ((hi - 128) * 256 + lo) *
 * x_scale; y = (fma((float)(sum_hi + comp), 256, (float)sum_lo) * w_scale[n]) * x_scale[m]. */
typedef tr_gemm_i8_args tr_gemm_i8a16_args;

/* Weights and activations of kernels/groups.h. Over the groups g of 32 (16) inputs in order, from y = 0:
 *   sum = sum over the group of q * (code - offset), in int32
 *   y = fma((float)sum, scale_g * x_scale, y), then where the format has a minimum y = fma(min_g, x_scaled_sum, y) */
typedef struct tr_gemm_groups_args {
    const uint8_t *x; /* [rows] of quant_groups, ldx bytes apart */
    const uint8_t *w; /* whole matrix */
    float *y;         /* [rows, n] stride ldy, indexed by absolute channel */
    float *panel;     /* scratch of this worker: tr_ops_panel_floats(k) floats */
    tr_groups_format format;
    size_t rows, k, ldx, ldy, block0, blocks;
} tr_gemm_groups_args;

/* Attention of rows that belong to one sequence, for one kv head and the q heads that share it.
 * Row r stands at position pos0 + r and sees keys (window ? max(0, pos - window + 1) : 0) .. pos, in splits of
 * TR_OPS_ATTN_SPLIT_TOK and in these in tiles of 16, both at absolute positions. Tiles that lie wholly outside what the
 * row sees are not touched; keys and values of a touched tile that the row does not see are not read as numbers.
 * In each split: max over the scores, p[t] = exp(score[t] - max), sum of p (max and sum as reductions over 16 lanes,
 * token t in lane t % 16), out[i] = sum of p[t] * v[t][i]. Then the splits merge in ascending order: by exp of the
 * difference of their maxima; at last out is multiplied by 1 / sum.
 *   bf16: q and p[t] are rounded to bf16 (the sum of p is that of the rounded ones); score = scale * a chain over the
 *     dims as in a bf16 matmul, of each pair the odd one, then the even one; out is such a chain over the tokens, where
 *     one that is not seen beside one that is counts as 0 * 0. A number's pair never depends on the rows of the call.
 *   int8: q is rounded to 16 bits (TR_OPS_ATTN_Q_MAX steps to its absmax, q_scale a step), p[t] * v_scale[t] of the
 *     tokens seen to 15 bits (TR_OPS_ATTN_P_MAX steps to the largest of the split, p_scale a step); the products with
 *     the stored bytes are int32 sums, exact up to d = 512:
 *     score = ((float)sum * k_scale[t]) * (q_scale * scale), out = (float)sum * p_scale.
 *   int8_static: the same with q[i] * k_step[i] for q[i], 1 for k_scale and v_scale, and at the end
 *     out[i] = ((float)sum * p_scale) * v_step[i].
 *   int8_residual: as int8, and for tokens with a residual r: score = fma(dot, (k_scale[t] / 16) * scale, score as
 *     above), dot a reduction of q[i] * r[i] by fma; then, token by token in order, out[i] = fma(p, r[i], out[i] as
 *     above), p = (p[t] * v_scale[t]) / 16 not rounded to steps. */
typedef struct tr_attn_args {
    const float *q;        /* [rows][heads][d], row stride ldq, head h at q + h*d; rotated already if K is stored so */
    float *out;            /* same shape, row stride ldo */
    const uint8_t *pages;  /* page 0 of this layer and kv head */
    const uint32_t *table; /* logical page -> page; page p lies at pages + p * page_bytes */
    size_t page_bytes;
    size_t ldq, ldo;
    uint32_t page_tok; /* 16, 32 or 64 */
    uint32_t rows, heads, d;
    uint32_t pos0;
    uint32_t window; /* 0: none */
    float scale;
    const tr_kv_head *kv; /* calibrated formats: of this layer and kv head */
    float *scratch;       /* tr_ops_attn_scratch_floats(heads, d) floats of this worker */
    float *part; /* NULL: all splits, merged to out. Otherwise rows is 1, and only `split`, of which the row sees some
                  * key, goes unmerged to part: [heads][tr_ops_attn_part_floats(d)], out then max and sum */
    uint32_t split; /* position / TR_OPS_ATTN_SPLIT_TOK */
    uint32_t next;  /* with part: the split that this worker will most likely be given next, a hint; split: none */
} tr_attn_args;

/* Bounds of y[m][n] as gemm_i8 defines it, from the upper plane: bound[m][n - 16 * block0] >= y[m][n], or one of the
 * two is a NaN. */
typedef struct tr_planes_args {
    const tr_planes *w;
    const tr_planes_query *query; /* [rows] */
    const int8_t *quads;          /* [lines][rows][8], which the queries' init has written */
    float *bound;                 /* [rows][ld], from the first block on */
    int32_t *coarse;              /* the same: what planes_output goes on from */
    size_t rows, ld, block0, blocks;
} tr_planes_args;

/* OP(name, return type, (arguments)) */
#define TR_OPS(OP)                                                                                                     \
    /* y[i] = (x[i] * (1 / sqrt(mean(x^2) + eps))) * w[i] */                                                           \
    OP(rmsnorm, void, (float *y, const float *x, const float *w, size_t n, float eps))                                 \
    /* Row for gemm_bf16: x rounded to bf16, denormals as zeros. Its bytes, at most 4 * k, are this table's own */     \
    OP(bf16_row, void, (void *row, const float *x, size_t k))                                                          \
    OP(gemm_bf16, void, (const tr_gemm_bf16_args *a))                                                                  \
    OP(gemm_i8, void, (const tr_gemm_i8_args *a))                                                                      \
    OP(gemm_i8a16, void, (const tr_gemm_i8a16_args *a))                                                                \
    OP(gemm_groups, void, (const tr_gemm_groups_args *a))                                                              \
    /* In-place orthonormal Hadamard on each run of `block` elements (power of two <= 128); block 1: nothing */        \
    OP(hadamard, void, (float *x, size_t n, size_t block))                                                             \
    /* rotate by block, then q = 128 + round_half_even(x * (127 / absmax)), scale = absmax / 127 (absmax below */      \
    /* 2^-100: q 128, scale 0; a NaN or infinity anywhere: scale NaN or infinite). x is left as it was unless */       \
    /* tmp == x; tmp: n floats of scratch */                                                                           \
    OP(quant_u8, void, (uint8_t * q, float *scale, const float *x, float *tmp, size_t n, size_t block))                \
    /* the same with 32767 for 127 and 32768 for 128: high bytes to q[0..n), low bytes to q[ld..ld + n) */             \
    OP(quant_u16, void, (uint8_t * q, size_t ld, float *scale, const float *x, float *tmp, size_t n, size_t block))    \
    /* rotate, then each 32 elements as in quant_u8 with a scale of their own, codes without the 128; one row of */    \
    /* kernels/groups.h (scaled sum = scale * (float)sum). n: a multiple of 32 */                                      \
    OP(quant_groups, void, (uint8_t * q, const float *x, float *tmp, size_t n, size_t block))                          \
    /* rotate-half RoPE of one head in place: cs = cos[d/2] then sin[d/2] */                                           \
    OP(rope, void, (float *x, const float *cs, size_t d))                                                              \
    OP(add, void, (float *y, const float *x, size_t n))                          /* y += x */                          \
    OP(gelu_mul, void, (float *y, const float *gate, const float *up, size_t n)) /* tanh GELU(gate) * up */            \
    OP(silu_mul, void, (float *y, const float *gate, const float *up, size_t n))                                       \
    /* token row of a packed bf16 matrix, times scale */                                                               \
    OP(embed_packed, void, (float *y, const uint16_t *w, size_t k, size_t row, float scale))                           \
    OP(embed_rows, void, (float *y, const uint16_t *w, size_t k, size_t row, float scale)) /* row-major bf16 */        \
    /* Write one token's K and V into slot t (0..15) of a tile. int8 rotates K into tmp (d floats) first */            \
    OP(kv_store_bf16, void, (uint8_t * tile, uint32_t t, const float *k, const float *v, uint32_t d))                  \
    OP(kv_store_int8, void, (uint8_t * tile, uint32_t t, const float *k, const float *v, uint32_t d, float *tmp))      \
    /* The same by the channels' steps: code = quant(x, mul[i]) */                                                     \
    OP(kv_store_int8_static, void,                                                                                     \
       (uint8_t * tile, uint32_t t, const float *k, const float *v, uint32_t d, float *tmp, const tr_kv_head *head))   \
    /* Tokens [src_t0, src_t0 + n) of a bf16 tile to [dst_t0, dst_t0 + n) of an int8 tile: same numbers as */          \
    /* kv_store_int8 of the bf16 values. next: tile that is converted after this one (a hint), or NULL. tmp: d floats  \
     */                                                                                                                \
    OP(kv_convert_bf16_int8, void,                                                                                     \
       (uint8_t * dst, uint32_t dst_t0, const uint8_t *src, uint32_t src_t0, uint32_t n, uint32_t d,                   \
        const uint8_t *next, float *tmp))                                                                              \
    OP(attn_bf16, void, (const tr_attn_args *a))                                                                       \
    OP(attn_int8, void, (const tr_attn_args *a))                                                                       \
    OP(attn_int8_static, void, (const tr_attn_args *a))                                                                \
    OP(attn_int8_residual, void, (const tr_attn_args *a))                                                              \
    /* The end of attention from n parts of one head in order, `stride` floats apart: the bits of one whole call */    \
    OP(attn_merge, void, (float *out, const float *parts, size_t n, size_t stride, uint32_t d))                        \
    OP(planes_bound, void, (const tr_planes_args *a))                                                                  \
    /* y[n] as gemm_i8 gives it, from coarse[n] and the lower plane */                                                 \
    OP(planes_output, float, (const tr_planes *w, const tr_planes_query *q, size_t n, int32_t coarse))                 \
    /* One block of 16 channels back to packed int8 */                                                                 \
    OP(planes_unpack, void, (int8_t * out, const tr_planes *w, size_t block))                                          \
    /* Largest element; the lowest index wins ties; NaN loses against everything. Returns the index, *max_out its */   \
    /* value (index 0 and -infinity when nothing is above -infinity) */                                                \
    OP(argmax, size_t, (const float *x, size_t n, float *max_out))                                                     \
    /* Indices of the elements that are not below `least` (a NaN is not), ascending; returns how many. index: n + 16   \
     */                                                                                                                \
    OP(at_least, size_t, (const float *x, size_t n, float least, uint32_t *index))

typedef struct tr_ops {
    const char *name;             /* "ref", "avx2", "avx2vnni", "avx512", "avx512vnni", "avx512bf16", "amx" */
    tr_port bf16_port, int8_port; /* instruction of its matmuls */
#define OP(name, ret, args) ret(*name) args;
    TR_OPS(OP)
#undef OP
} tr_ops;

/* Bytes of an element in a row of bf16_row: rows may be made ready piece by piece, from multiples of 32 elements on. */
static inline size_t tr_ops_bf16_row_bytes(const tr_ops *ops) { return ops->bf16_port == TR_PORT_BF16_512 ? 2 : 4; }

/* Scratch sizes, the same for every variant. */
size_t tr_ops_panel_floats(size_t k);
size_t tr_ops_attn_scratch_floats(uint32_t heads, uint32_t d);
static inline TR_HOST_AND_DEVICE size_t tr_ops_attn_part_floats(uint32_t d) { return (size_t)d + 16; }

/* The table named so, or NULL when unknown or when this CPU cannot run it. Tables are static and immutable. The first
 * call of this, tr_ops_select or tr_ops_available asks the system for what "amx" needs (the tile registers, which are
 * granted to a process); refused, "amx" is not there. */
const tr_ops *tr_ops_find(const char *name);
/* The kernel set to run. TROUPE_CPU=NAME: that one, or where this CPU cannot run it the best of those below it (unknown
 * name: TR_CONFIG). Else the fastest: sets return the same bits, so the choice is free, and a probe of the instructions
 * (half a millisecond each, once a process) makes it, by the product of the rates of both matmuls. */
tr_status tr_ops_select(const tr_ops **ops_out, tr_error *err);
/* Multiply-adds a second of a core by the matmul instructions of the available sets ([TR_PORT_COUNT], 0: no set has
 * it). The first call probes. */
const double *tr_ops_rates(void);
/* Variants this CPU can run, from "ref" up, ended by NULL. */
const tr_ops *const *tr_ops_available(void);
/* Set flush-to-zero and denormals-are-zero for the calling thread (every thread that runs operations). */
void tr_ops_thread_init(void);
#endif
