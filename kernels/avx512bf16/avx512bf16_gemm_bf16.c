/* AVX-512 BF16: bf16 matmul by vdpbf16ps. The instruction multiplies and adds the odd element of each pair, then the
 * even one, each as a fused multiply-add that takes denormals for zero: the chain that kernels/ops.h defines. Rows are
 * kept as bf16, the packed weights [k/2][16][2] are its operand as they lie.
 * Inline assembly keeps the sums in registers: from the intrinsic gcc spills them in the k loop. For the same reason
 * every micro-kernel is a function of its own with nothing but the k loop in it. */
#include "kernels/simd/lanes.inc"
#include "kernels/variants.h"

#define NOINLINE static __attribute__((noinline))

INLINE void dot(vf *acc, vi x, vi w) { __asm__("vdpbf16ps %2, %1, %0" : "+v"(*acc) : "v"(x), "v"(w)); }
INLINE vi pair(const uint16_t *x) {
    int32_t p;
    memcpy(&p, x, sizeof p);
    return viset1(p);
}

void tr_avx512bf16_bf16_row(void *row, const float *x, size_t k) {
    uint16_t *to = row;
    for (size_t i = 0; i < k; i += 32) /* k is a multiple of 32 */
        vistore(to + i, (vi)_mm512_cvtne2ps_pbh(vload(x + i + 16), vload(x + i)));
}

typedef struct tile {
    const uint16_t *x;
    size_t ldx;
    float *y;
    size_t ldy, k;
    const uint16_t *w;
    const uint16_t *next; /* as long as a block: brought to L2 meanwhile */
} tile;

/* rows x (16 * nv) outputs. `ahead`: elements to prefetch in each block's stream; near the end of its block a stream
 * goes on in the block that it will read next, nv blocks further. 0: the weights are in the cache, and a->next is to
 * be. To L2 only: fetched to L1, several streams come a fifth slower (Zen 4). */
INLINE void tile_loop(const tile *a, const int rows, const int nv, const size_t ahead) {
    vf acc[14][8];
    const uint16_t *x = a->x, *x3, *x6, *x9, *x12;
    const size_t ld = a->ldx, step = a->k * 16;
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < nv; v++) acc[r][v] = vset1(0.0f);
    /* Rows are reached from every third one by [p], [p + ld], [p + 2 ld]: few address registers. */
    x3 = x + 3 * ld, x6 = x + 6 * ld, x9 = x + 9 * ld, x12 = x + 12 * ld;
    const uint16_t *w = a->w, *end = w + step, *fetch = ahead == 0 ? a->next : w + (ahead < step ? ahead : step);
#pragma GCC unroll 2
    for (; w != end; w += 32) {
        if (ahead) {
            fetch = fetch == end ? fetch + (size_t)(nv - 1) * step : fetch;
#pragma GCC unroll 8
            for (int v = 0; v < nv; v++) _mm_prefetch((const char *)(fetch + (size_t)v * step), _MM_HINT_T1);
        } else
            _mm_prefetch((const char *)fetch, _MM_HINT_T1);
        fetch += 32;
        vi c[8];
#pragma GCC unroll 8
        for (int v = 0; v < nv; v++) {
            c[v] = viload(w + (size_t)v * step);
        }
#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            const uint16_t *p = r < 3 ? x : r < 6 ? x3 : r < 9 ? x6 : r < 12 ? x9 : x12;
            vi b = pair(p + (size_t)(r % 3) * ld);
#pragma GCC unroll 8
            for (int v = 0; v < nv; v++) dot(&acc[r][v], b, c[v]);
        }
        x += 2, x3 += 2, x6 += 2, x9 += 2, x12 += 2;
    }
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < nv; v++) vstore(a->y + (size_t)r * a->ldy + 16 * v, acc[r][v]);
}

typedef void tile_fn(const tile *a);
#define TILE(kind, rows, nv, ahead)                                                                                    \
    NOINLINE void kind##_##rows##x##nv(const tile *a) { tile_loop(a, rows, nv, ahead); }

/* Cached weights (many rows): up to 6 x 64. */
#define HOT(nv)                                                                                                        \
    TILE(hot, 1, nv, 0)                                                                                                \
    TILE(hot, 2, nv, 0) TILE(hot, 3, nv, 0) TILE(hot, 4, nv, 0) TILE(hot, 5, nv, 0) TILE(hot, 6, nv, 0)
#define HOT_LIST(nv)                                                                                                   \
    { hot_1x##nv, hot_2x##nv, hot_3x##nv, hot_4x##nv, hot_5x##nv, hot_6x##nv }
enum { HOT_ROWS = 6, HOT_BLOCKS = 4 };
HOT(1)
HOT(2)
HOT(3)
HOT(4)
static tile_fn *const hot[HOT_BLOCKS][HOT_ROWS] = {HOT_LIST(1), HOT_LIST(2), HOT_LIST(3), HOT_LIST(4)};

/* Weights from memory (few rows): every row of the call in one tile, so the weights are read once. As many blocks side
 * by side as the registers allow: memory gives several streams of a core more than one. */
enum { COLD_ROWS_MAX = 14, COLD_BLOCKS_MAX = 8 };
enum { AHEAD_NV1 = 2048, AHEAD_NV2 = 2048, AHEAD_NV4 = 1024, AHEAD_NV8 = 512 }; /* elements, multiples of 32 */
#define COLD(rows, nv)  TILE(cold, rows, nv, AHEAD_NV##nv)
#define COLD_1_TO_2(nv) COLD(1, nv) COLD(2, nv)
#define COLD_3_TO_6(nv) COLD(3, nv) COLD(4, nv) COLD(5, nv) COLD(6, nv)
#define COLD_7_TO_14(nv)                                                                                               \
    COLD(7, nv)                                                                                                        \
    COLD(8, nv) COLD(9, nv) COLD(10, nv) COLD(11, nv) COLD(12, nv) COLD(13, nv) COLD(14, nv)
COLD_1_TO_2(1)
COLD_3_TO_6(1)
COLD_7_TO_14(1)
COLD_7_TO_14(2)
COLD_1_TO_2(4)
COLD_3_TO_6(4)
COLD_1_TO_2(8)
#define LIST_1_TO_2(nv) cold_1x##nv, cold_2x##nv
#define LIST_3_TO_6(nv) cold_3x##nv, cold_4x##nv, cold_5x##nv, cold_6x##nv
#define LIST_7_TO_14(nv)                                                                                               \
    cold_7x##nv, cold_8x##nv, cold_9x##nv, cold_10x##nv, cold_11x##nv, cold_12x##nv, cold_13x##nv, cold_14x##nv
/* [blocks][rows], NULL where the registers or the rows say no. */
static tile_fn *const cold[COLD_BLOCKS_MAX + 1][COLD_ROWS_MAX + 1] = {
    [1] = {NULL, LIST_1_TO_2(1), LIST_3_TO_6(1), LIST_7_TO_14(1)},
    [2] = {[7] = LIST_7_TO_14(2)},
    [4] = {NULL, LIST_1_TO_2(4), LIST_3_TO_6(4)},
    [8] = {NULL, LIST_1_TO_2(8)}};

/* Rows from r of the blocks from b. */
static tile at_block(const tr_gemm_bf16_args *a, size_t r, size_t b) {
    return (tile){.x = (const uint16_t *)a->x + r * (a->ldx / 2),
                  .ldx = a->ldx / 2,
                  .y = a->y + r * a->ldy + b * 16,
                  .ldy = a->ldy,
                  .k = a->k,
                  .w = a->w + b * 16 * a->k};
}

static void few_rows(const tr_gemm_bf16_args *a) {
    size_t first = a->rows <= COLD_ROWS_MAX ? a->rows : (a->rows + 1) / 2; /* more: two passes, the second hot */
    for (size_t b = a->block0, left = a->blocks, nv; left > 0; b += nv, left -= nv) {
        for (nv = COLD_BLOCKS_MAX; nv > left || !cold[nv][first];) nv /= 2;
        for (size_t r = 0; r < a->rows; r += first) {
            size_t rows = a->rows - r < first ? a->rows - r : first;
            tile t = at_block(a, r, b);
            cold[nv][rows](&t);
        }
    }
}

static void many_rows(const tr_gemm_bf16_args *a) {
    const size_t block = 16 * a->k;
    for (size_t b = a->block0, left = a->blocks, nv; left > 0; b += nv, left -= nv) {
        nv = left < HOT_BLOCKS ? left : HOT_BLOCKS;
        for (size_t r = 0; r < a->rows; r += HOT_ROWS) {
            size_t rows = a->rows - r < HOT_ROWS ? a->rows - r : HOT_ROWS, number = r / HOT_ROWS;
            tile t = at_block(a, r, b);
            /* The first tiles fetch a block each of what follows in memory: mostly what is read next, also behind the
             * end of this call. */
            t.next = t.w + (number < nv ? nv + number : 0) * block;
            hot[nv - 1][rows - 1](&t);
        }
    }
}

void tr_avx512bf16_gemm_bf16(const tr_gemm_bf16_args *a) {
    enum { FEW_ROWS = 16 };
    if (a->rows == 0) return;
    if (a->rows <= FEW_ROWS)
        few_rows(a);
    else
        many_rows(a);
}
