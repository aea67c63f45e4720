/* AVX-512 VNNI: int8 matmul on the packed [n/16][k/4][16][4] weights, u8 activations x s8 weights, int32 sums.
 * The sums of a tile start at comp (= -128 * sum of the weights), so no correction is left for the end.
 * Inline assembly keeps the sums in registers: from the intrinsic gcc spills them in the k loop. For the same reason
 * every micro-kernel is a function of its own with nothing but the k loop in it. */
#include "kernels/simd/vnni512.inc"
#include "kernels/variants.h"

typedef struct tile {
    const uint8_t *x;
    const float *x_scale;
    const int8_t *w;
    const int8_t *next; /* as long as a block: brought to L2 meanwhile */
    const int32_t *comp;
    const float *w_scale;
    float *y;
    size_t k, ldx, ldy;
} tile;

INLINE void finish(const tile *a, int row, int v, __m512i sum) {
    __m512 s = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(a->w_scale + 16 * v));
    _mm512_storeu_ps(a->y + (size_t)row * a->ldy + 16 * v, _mm512_mul_ps(s, _mm512_set1_ps(a->x_scale[row])));
}

/* rows x (16 * nv) outputs. `ahead`: bytes to prefetch in each block's stream; near the end of its block a stream goes
 * on in the block that it will read next, nv blocks further. 0: the weights are in the cache, and a->next is to be. */
INLINE void tile_loop(const tile *a, const int rows, const int nv, const size_t ahead) {
    __m512i acc[14][4];
    const uint8_t *x = a->x, *x3, *x6, *x9, *x12;
    const size_t ld = a->ldx, step = a->k * 16;
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) acc[r][v] = _mm512_loadu_si512(a->comp + 16 * v);
    /* Rows are reached from every third one by [p], [p + ld], [p + 2 ld]: few address registers. */
    x3 = x + 3 * ld, x6 = x + 6 * ld, x9 = x + 9 * ld, x12 = x + 12 * ld;
    const int8_t *w = a->w, *end = w + step, *fetch = ahead == 0 ? a->next : w + (ahead < step ? ahead : step);
#pragma GCC unroll 2
    for (; w != end; w += 64) {
        if (ahead) {
            fetch = fetch == end ? fetch + (size_t)(nv - 1) * step : fetch;
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) _mm_prefetch((const char *)fetch + (size_t)v * step, _MM_HINT_T1);
        } else
            _mm_prefetch((const char *)fetch, _MM_HINT_T1);
        fetch += 64;
        __m512i c[4];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            c[v] = _mm512_loadu_si512(w + (size_t)v * step);
        }
#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            const uint8_t *p = r < 3 ? x : r < 6 ? x3 : r < 9 ? x6 : r < 12 ? x9 : x12;
            __m512i b = quad(p + (size_t)(r % 3) * ld);
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) dot(&acc[r][v], b, c[v]);
        }
        x += 4, x3 += 4, x6 += 4, x9 += 4, x12 += 4;
    }
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) finish(a, r, v, acc[r][v]);
}

/* One row and one block, where four are not left: four sums take turns along k, and the stream is fetched ahead. k is a
 * multiple of 32. */
INLINE void row_loop(const tile *a) {
    enum { AHEAD = 4096 };
    __m512i s0 = _mm512_loadu_si512(a->comp), s1 = _mm512_setzero_si512(), s2 = s1, s3 = s1;
    const int8_t *w = a->w;
    for (const uint8_t *x = a->x, *end = x + a->k; x != end; x += 16, w += 256) {
        _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T1);
        _mm_prefetch((const char *)w + AHEAD + 64, _MM_HINT_T1);
        _mm_prefetch((const char *)w + AHEAD + 128, _MM_HINT_T1);
        _mm_prefetch((const char *)w + AHEAD + 192, _MM_HINT_T1);
        dot(&s0, quad(x), _mm512_loadu_si512(w));
        dot(&s1, quad(x + 4), _mm512_loadu_si512(w + 64));
        dot(&s2, quad(x + 8), _mm512_loadu_si512(w + 128));
        dot(&s3, quad(x + 12), _mm512_loadu_si512(w + 192));
    }
    finish(a, 0, 0, _mm512_add_epi32(_mm512_add_epi32(s0, s1), _mm512_add_epi32(s2, s3)));
}

/* One row and four blocks, each in a stream of its own that runs over many blocks, `apart` blocks from the next one:
 * the processor fetches such a stream by itself, but for its beginnings, and memory gives more than to short ones. */
INLINE void streams_loop(const tile *a, size_t apart) {
    enum { AHEAD = 1024 };
    const size_t channels = 16 * apart, step = channels * a->k;
    __m512i acc[4];
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) {
        acc[v] = _mm512_loadu_si512(a->comp + v * channels);
        _mm_prefetch((const char *)(a->comp + v * channels + 16), _MM_HINT_T0);
        _mm_prefetch((const char *)(a->w_scale + v * channels + 16), _MM_HINT_T0);
    }
    const int8_t *w = a->w;
    for (const uint8_t *x = a->x, *end = x + a->k; x != end; x += 4, w += 64) {
        const __m512i b = quad(x);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            _mm_prefetch((const char *)w + v * step + AHEAD, _MM_HINT_T1);
            dot(&acc[v], b, _mm512_loadu_si512(w + v * step));
        }
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) {
        __m512 s = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[v]), _mm512_loadu_ps(a->w_scale + v * channels));
        _mm512_storeu_ps(a->y + v * channels, _mm512_mul_ps(s, _mm512_set1_ps(a->x_scale[0])));
    }
}

typedef void tile_fn(const tile *a);
NOINLINE void row_1x1(const tile *a) { row_loop(a); }
NOINLINE void row_1x4(const tile *a, size_t apart) { streams_loop(a, apart); }
#define TILE(kind, rows, nv, ahead)                                                                                    \
    NOINLINE void kind##_##rows##x##nv(const tile *a) { tile_loop(a, rows, nv, ahead); }

/* Cached weights (many rows): up to 6 x 64, and 8 x 32. */
#define HOT(nv)                                                                                                        \
    TILE(hot, 1, nv, 0)                                                                                                \
    TILE(hot, 2, nv, 0) TILE(hot, 3, nv, 0) TILE(hot, 4, nv, 0) TILE(hot, 5, nv, 0) TILE(hot, 6, nv, 0)
#define HOT_LIST(nv) hot_1x##nv, hot_2x##nv, hot_3x##nv, hot_4x##nv, hot_5x##nv, hot_6x##nv
HOT(1)
HOT(2)
HOT(3)
HOT(4)
TILE(hot, 7, 1, 0)
TILE(hot, 8, 1, 0)
TILE(hot, 7, 2, 0)
TILE(hot, 8, 2, 0)
static tile_fn *const hot[4][8] = {
    {HOT_LIST(1), hot_7x1, hot_8x1}, {HOT_LIST(2), hot_7x2, hot_8x2}, {HOT_LIST(3)}, {HOT_LIST(4)}};

/* Weights from memory (1..14 rows): every row of the call in one tile, so the weights are read once. Four blocks side
 * by side where the registers allow it: memory gives four streams of a core a fifth more than one. */
enum { COLD_ROWS_MAX = 14 };
enum { AHEAD_NV1 = 4096, AHEAD_NV2 = 4096, AHEAD_NV4 = 2048 }; /* bytes, multiples of 64 */
#define TILES_2_TO_6(nv)                                                                                               \
    TILE(cold, 2, nv, AHEAD_NV##nv)                                                                                    \
    TILE(cold, 3, nv, AHEAD_NV##nv)                                                                                    \
    TILE(cold, 4, nv, AHEAD_NV##nv) TILE(cold, 5, nv, AHEAD_NV##nv) TILE(cold, 6, nv, AHEAD_NV##nv)
#define TILES_7_TO_14(nv)                                                                                              \
    TILE(cold, 7, nv, AHEAD_NV##nv)                                                                                    \
    TILE(cold, 8, nv, AHEAD_NV##nv)                                                                                    \
    TILE(cold, 9, nv, AHEAD_NV##nv)                                                                                    \
    TILE(cold, 10, nv, AHEAD_NV##nv)                                                                                   \
    TILE(cold, 11, nv, AHEAD_NV##nv)                                                                                   \
    TILE(cold, 12, nv, AHEAD_NV##nv) TILE(cold, 13, nv, AHEAD_NV##nv) TILE(cold, 14, nv, AHEAD_NV##nv)
TILES_2_TO_6(1)
TILES_7_TO_14(1)
TILES_7_TO_14(2)
TILES_2_TO_6(4)
static tile_fn *const cold_one[COLD_ROWS_MAX + 1] = {NULL,      row_1x1,   cold_2x1,  cold_3x1,  cold_4x1,
                                                     cold_5x1,  cold_6x1,  cold_7x1,  cold_8x1,  cold_9x1,
                                                     cold_10x1, cold_11x1, cold_12x1, cold_13x1, cold_14x1};
static tile_fn *const cold_many[COLD_ROWS_MAX + 1] = {NULL,      NULL,      cold_2x4,  cold_3x4,  cold_4x4,
                                                      cold_5x4,  cold_6x4,  cold_7x2,  cold_8x2,  cold_9x2,
                                                      cold_10x2, cold_11x2, cold_12x2, cold_13x2, cold_14x2};

/* Rows [r, r + rows) of `nv` blocks from block b. */
static tile at_block(const tr_gemm_i8_args *a, size_t r, size_t b) {
    return (tile){.x = a->x + r * a->ldx,
                  .x_scale = a->x_scale + r,
                  .w = a->w + b * 16 * a->k,
                  .comp = a->comp + b * 16,
                  .w_scale = a->w_scale + b * 16,
                  .y = a->y + r * a->ldy + b * 16,
                  .k = a->k,
                  .ldx = a->ldx,
                  .ldy = a->ldy};
}

/* Blocks in four runs, side by side. */
static void one_row(const tr_gemm_i8_args *a) {
    const size_t run = a->blocks / 4, rest = a->block0 + 4 * run, end = a->block0 + a->blocks;
    for (size_t b = a->block0; b < a->block0 + run; b++) {
        tile t = at_block(a, 0, b);
        row_1x4(&t, run);
    }
    for (size_t b = rest; b < end; b++) {
        tile t = at_block(a, 0, b);
        row_1x1(&t);
    }
}

static void few_rows(const tr_gemm_i8_args *a) {
    const size_t most = a->rows <= 6 ? 4 : 2, end = a->block0 + a->blocks;
    for (size_t b = a->block0, nv; b < end; b += nv) {
        nv = end - b >= most ? most : 1;
        tile t = at_block(a, 0, b);
        (nv > 1 ? cold_many : cold_one)[a->rows](&t);
    }
}

/* Tiles of `height` rows, all of them on the same `most` blocks, which the tiles before have brought to L2: each of the
 * first tiles fetches one block of what follows in memory. That is mostly what is read next, also behind the end of
 * this call, and spreads over the time of all tiles. */
static void many_rows(const tr_gemm_i8_args *a, size_t height, size_t most) {
    const size_t block = 16 * a->k, end = a->block0 + a->blocks;
    for (size_t b = a->block0, nv; b < end; b += nv) {
        nv = end - b < most ? end - b : most;
        for (size_t r = 0; r < a->rows; r += height) {
            size_t rows = a->rows - r < height ? a->rows - r : height;
            tile t = at_block(a, r, b);
            t.next = t.w + (r / height < nv ? nv + r / height : 0) * block;
            hot[nv - 1][rows - 1](&t);
        }
    }
}

void tr_avx512vnni_gemm_i8(const tr_gemm_i8_args *a) {
    if (a->rows == 0) return;
    if (a->rows == 1)
        one_row(a);
    else if (a->rows <= COLD_ROWS_MAX)
        few_rows(a);
    else if (a->rows <= 16)
        many_rows(a, 8, 2);
    else
        many_rows(a, 6, 4);
}
