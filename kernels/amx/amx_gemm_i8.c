/* AMX: int8 matmul by tiles of 16 rows x 16 channels x 64 inputs. The packed weights [n/16][k/4][16][4] are B tiles as
 * they lie (16 lines of 64 bytes), the u8 activations are A tiles with ldx as the stride. int32 sums are exact in any
 * order, so the numbers are those of every other variant.
 * Up to 6 rows go to the VNNI kernels: memory is the limit, and they get all of it. 7 to 16 rows are one row tile, cut
 * to that height.
 * Rows and inputs that fill no whole tile: the last row tile starts at rows - 16 and writes some rows a second time
 * (the same bits), the last 32 inputs are taken with the 32 before them, whose activations are replaced by zeros.
 * Inline assembly, not the intrinsics: those of gcc 12 say neither that ldtilecfg reads all 64 bytes nor that tile
 * loads and stores touch memory, so the configuration may be stored after it was read (a fault). The tile registers
 * belong to one call: configured on entry, released before it returns. */
#include "kernels/variants.h"

#include <immintrin.h>
#include <string.h>

#define INLINE   static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))

enum { ROWS = 16, STEP = 64 }; /* of a tile: rows, inputs */

/* Tiles 0..3 sums, 4..7 operands. The layout is the instruction's; reserved bytes must be zero. */
typedef struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} config;
_Static_assert(sizeof(config) == 64, "operand of ldtilecfg");
static const config whole_tiles __attribute__((aligned(64))) = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

INLINE void tiles_enter(const config *c) { __asm__ volatile("ldtilecfg %0" ::"m"(*c)); }
INLINE void tiles_leave(void) { __asm__ volatile("tilerelease" ::: "memory"); }
INLINE void tiles_zero(void) {
    __asm__ volatile("tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3" ::: "memory");
}

/* Two row tiles by two blocks. */
INLINE void step_2x2(const uint8_t *a0, const uint8_t *a1, size_t lda, const int8_t *b0, const int8_t *b1) {
    __asm__ volatile("tileloadd (%[b0],%[ldb],1), %%tmm6\n\t"
                     "tileloadd (%[a0],%[lda],1), %%tmm4\n\t"
                     "tdpbusd %%tmm6, %%tmm4, %%tmm0\n\t"
                     "tileloadd (%[a1],%[lda],1), %%tmm5\n\t"
                     "tdpbusd %%tmm6, %%tmm5, %%tmm2\n\t"
                     "tileloadd (%[b1],%[ldb],1), %%tmm7\n\t"
                     "tdpbusd %%tmm7, %%tmm4, %%tmm1\n\t"
                     "tdpbusd %%tmm7, %%tmm5, %%tmm3" ::[a0] "r"(a0),
                     [a1] "r"(a1), [b0] "r"(b0), [b1] "r"(b1), [lda] "r"(lda), [ldb] "r"((size_t)64)
                     : "memory");
}
INLINE void step_2x1(const uint8_t *a0, const uint8_t *a1, size_t lda, const int8_t *b0) {
    __asm__ volatile("tileloadd (%[b0],%[ldb],1), %%tmm6\n\t"
                     "tileloadd (%[a0],%[lda],1), %%tmm4\n\t"
                     "tdpbusd %%tmm6, %%tmm4, %%tmm0\n\t"
                     "tileloadd (%[a1],%[lda],1), %%tmm5\n\t"
                     "tdpbusd %%tmm6, %%tmm5, %%tmm2" ::[a0] "r"(a0),
                     [a1] "r"(a1), [b0] "r"(b0), [lda] "r"(lda), [ldb] "r"((size_t)64)
                     : "memory");
}
INLINE void step_1x2(const uint8_t *a0, size_t lda, const int8_t *b0, const int8_t *b1) {
    __asm__ volatile("tileloadd (%[a0],%[lda],1), %%tmm4\n\t"
                     "tileloadd (%[b0],%[ldb],1), %%tmm6\n\t"
                     "tdpbusd %%tmm6, %%tmm4, %%tmm0\n\t"
                     "tileloadd (%[b1],%[ldb],1), %%tmm7\n\t"
                     "tdpbusd %%tmm7, %%tmm4, %%tmm1" ::[a0] "r"(a0),
                     [b0] "r"(b0), [b1] "r"(b1), [lda] "r"(lda), [ldb] "r"((size_t)64)
                     : "memory");
}
INLINE void step_1x1(const uint8_t *a0, size_t lda, const int8_t *b0) {
    __asm__ volatile("tileloadd (%[a0],%[lda],1), %%tmm4\n\t"
                     "tileloadd (%[b0],%[ldb],1), %%tmm6\n\t"
                     "tdpbusd %%tmm6, %%tmm4, %%tmm0" ::[a0] "r"(a0),
                     [b0] "r"(b0), [lda] "r"(lda), [ldb] "r"((size_t)64)
                     : "memory");
}

/* mt row tiles (the second starts at row r1, anywhere) by nt blocks. */
INLINE void step(const int mt, const int nt, const uint8_t *a0, const uint8_t *a1, size_t lda, const int8_t *b0,
                 const int8_t *b1) {
    if (mt == 2 && nt == 2) step_2x2(a0, a1, lda, b0, b1);
    if (mt == 2 && nt == 1) step_2x1(a0, a1, lda, b0);
    if (mt == 1 && nt == 2) step_1x2(a0, lda, b0, b1);
    if (mt == 1 && nt == 1) step_1x1(a0, lda, b0);
}

typedef int32_t tile_sums[ROWS][16];

INLINE void sums_store(const int mt, const int nt, tile_sums *s) {
    const size_t ld = 64;
    __asm__ volatile("tilestored %%tmm0, (%0,%1,1)" ::"r"(s[0]), "r"(ld) : "memory");
    if (nt == 2) __asm__ volatile("tilestored %%tmm1, (%0,%1,1)" ::"r"(s[1]), "r"(ld) : "memory");
    if (mt == 2) __asm__ volatile("tilestored %%tmm2, (%0,%1,1)" ::"r"(s[2]), "r"(ld) : "memory");
    if (mt == 2 && nt == 2) __asm__ volatile("tilestored %%tmm3, (%0,%1,1)" ::"r"(s[3]), "r"(ld) : "memory");
}

/* `rows` rows from `row`, nt blocks from b. */
INLINE void finish(const tr_gemm_i8_args *a, tile_sums *s, const int nt, size_t row, size_t rows, size_t b) {
    const float *x_scale = a->x_scale + row;
    float *y = a->y + row * a->ldy + b * 16;
    __m512i comp[4];
    __m512 w_scale[4];
#pragma GCC unroll 4
    for (int v = 0; v < nt; v++) {
        comp[v] = _mm512_loadu_si512(a->comp + (b + (size_t)v) * 16);
        w_scale[v] = _mm512_loadu_ps(a->w_scale + (b + (size_t)v) * 16);
    }
    for (size_t r = 0; r < rows; r++, y += a->ldy) {
        __m512 scale = _mm512_set1_ps(x_scale[r]);
#pragma GCC unroll 4
        for (int v = 0; v < nt; v++) {
            __m512 f = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_load_si512(s[v][r]), comp[v]));
            _mm512_storeu_ps(y + 16 * v, _mm512_mul_ps(_mm512_mul_ps(f, w_scale[v]), scale));
        }
    }
}

/* The last 64 inputs of 16 rows, the first 32 of them (already counted) as zeros. x: end of the first row. */
INLINE void tail_rows(uint8_t (*tail)[STEP], const uint8_t *x, size_t ldx) {
    for (size_t r = 0; r < ROWS; r++, x += ldx) {
        _mm256_store_si256((__m256i *)(void *)tail[r], _mm256_setzero_si256());
        _mm256_store_si256((__m256i *)(void *)(tail[r] + 32),
                           _mm256_loadu_si256((const __m256i *)(const void *)(x - 32)));
    }
}

/* One tile of a stream of weights that still lies in memory. */
INLINE void fetch(const int8_t *b) {
#pragma GCC unroll 16
    for (int i = 0; i < 1024; i += 64) _mm_prefetch((const char *)b + i, _MM_HINT_T0);
}

/* Rows r0 .. r0 + 15 and, for mt 2, r1 .. r1 + 15; nt blocks from b. */
INLINE void block(const tr_gemm_i8_args *a, const int mt, const int nt, const bool cold, size_t r0, size_t r1,
                  size_t b) {
    tile_sums sums[4] __attribute__((aligned(64)));
    const uint8_t *a0 = a->x + r0 * a->ldx, *a1 = a->x + r1 * a->ldx;
    const int8_t *b0 = a->w + b * 16 * a->k, *b1 = b0 + (nt == 2 ? 16 * a->k : 0);
    enum { AHEAD = 6144 }; /* bytes; behind the end of a block lies one that is read next */
    tiles_zero();
    for (const int8_t *end = b0 + a->k / STEP * STEP * 16; b0 != end; b0 += 1024, b1 += 1024, a0 += STEP, a1 += STEP) {
        if (cold) fetch(b0 + AHEAD);
        if (cold && nt == 2) fetch(b1 + AHEAD);
        step(mt, nt, a0, a1, a->ldx, b0, b1);
    }
    if (a->k % STEP) {
        uint8_t tail[2][ROWS][STEP] __attribute__((aligned(64)));
        tail_rows(tail[0], a0 + 32, a->ldx);
        if (mt == 2) tail_rows(tail[1], a1 + 32, a->ldx);
        step(mt, nt, tail[0][0], tail[1][0], STEP, b0 - 512, b1 - 512);
    }
    sums_store(mt, nt, sums);
    finish(a, sums, nt, r0, ROWS, b);
    if (mt == 2) finish(a, sums + 2, nt, r1, ROWS, b);
}

typedef void block_fn(const tr_gemm_i8_args *a, size_t r0, size_t r1, size_t b);
#define BLOCK(kind, mt, nt)                                                                                            \
    NOINLINE void kind##_##mt##x##nt(const tr_gemm_i8_args *a, size_t r0, size_t r1, size_t b) {                       \
        enum { hot, cold };                                                                                            \
        block(a, mt, nt, kind, r0, r1, b);                                                                             \
    }
BLOCK(hot, 1, 1)
BLOCK(hot, 1, 2)
BLOCK(hot, 2, 1)
BLOCK(hot, 2, 2)
BLOCK(cold, 1, 1)
BLOCK(cold, 1, 2)
BLOCK(cold, 2, 1)
BLOCK(cold, 2, 2)
/* [weights from memory][two row tiles][two blocks] */
static block_fn *const blocks[2][2][2] = {{{hot_1x1, hot_1x2}, {hot_2x1, hot_2x2}},
                                          {{cold_1x1, cold_1x2}, {cold_2x1, cold_2x2}}};

/* One row tile by four blocks that lie bytes apart. */
INLINE void step_1x4(const uint8_t *x, size_t ldx, const int8_t *w, size_t bytes) {
    __asm__ volatile("tileloadd (%[a],%[lda],1), %%tmm4\n\t"
                     "tileloadd (%[b0],%[ldb],1), %%tmm5\n\t"
                     "tdpbusd %%tmm5, %%tmm4, %%tmm0\n\t"
                     "tileloadd (%[b1],%[ldb],1), %%tmm6\n\t"
                     "tdpbusd %%tmm6, %%tmm4, %%tmm1\n\t"
                     "tileloadd (%[b2],%[ldb],1), %%tmm7\n\t"
                     "tdpbusd %%tmm7, %%tmm4, %%tmm2\n\t"
                     "tileloadd (%[b3],%[ldb],1), %%tmm5\n\t"
                     "tdpbusd %%tmm5, %%tmm4, %%tmm3" ::[a] "r"(x),
                     [b0] "r"(w), [b1] "r"(w + bytes), [b2] "r"(w + 2 * bytes), [b3] "r"(w + 3 * bytes), [lda] "r"(ldx),
                     [ldb] "r"((size_t)64)
                     : "memory");
}

/* All rows (at most 16), four blocks from b. The next tile of each stream is on its way; at the end of the blocks these
 * are the first ones of the next four. */
NOINLINE void few_1x4(const tr_gemm_i8_args *a, size_t b) {
    tile_sums sums[4] __attribute__((aligned(64)));
    const size_t bytes = 16 * a->k, ld = 64;
    const uint8_t *x = a->x;
    const int8_t *w = a->w + b * bytes, *end = w + bytes;
    tiles_zero();
    for (; w != end; w += 1024, x += STEP) {
        const int8_t *next = w + 1024 == end ? w + 1024 + 3 * bytes : w + 1024;
        for (size_t v = 0; v < 4; v++) fetch(next + v * bytes);
        step_1x4(x, a->ldx, w, bytes);
    }
    __asm__ volatile("tilestored %%tmm0, (%0,%1,1)" ::"r"(sums[0]), "r"(ld) : "memory");
    __asm__ volatile("tilestored %%tmm1, (%0,%1,1)" ::"r"(sums[1]), "r"(ld) : "memory");
    __asm__ volatile("tilestored %%tmm2, (%0,%1,1)" ::"r"(sums[2]), "r"(ld) : "memory");
    __asm__ volatile("tilestored %%tmm3, (%0,%1,1)" ::"r"(sums[3]), "r"(ld) : "memory");
    finish(a, sums, 4, 0, a->rows, b);
}

/* 7 to 16 rows: the weights come from memory, which gives more to four streams of a core than to one or two. */
static void few_rows(const tr_gemm_i8_args *a) {
    config cut = whole_tiles;
    for (size_t i = 0; i < 5; i++) cut.rows[i] = (uint8_t)a->rows;
    tr_gemm_i8_args rest = *a;
    tiles_enter(&cut);
    for (; rest.blocks >= 4; rest.block0 += 4, rest.blocks -= 4) few_1x4(a, rest.block0);
    tiles_leave();
    if (rest.blocks > 0) tr_avx512vnni_gemm_i8(&rest);
}

/* Blocks as many as stay in L2 while all rows pass over them, in pairs; within, the rows of a step are in L1 and y is
 * written along its rows. */
void tr_amx_gemm_i8(const tr_gemm_i8_args *a) {
    enum { L2_BYTES = 1 << 20, FEW_ROWS_MIN = 7 };
    if (a->rows >= FEW_ROWS_MIN && a->rows <= ROWS && a->k % STEP == 0) {
        few_rows(a);
        return;
    }
    if (a->rows < ROWS || a->k < STEP) {
        tr_avx512vnni_gemm_i8(a);
        return;
    }
    const size_t last = a->rows - ROWS, group = L2_BYTES / (32 * a->k) > 1 ? L2_BYTES / (32 * a->k) * 2 : 2;
    tiles_enter(&whole_tiles);
    for (size_t first = a->block0, end = first + a->blocks; first < end; first += group) {
        size_t stop = end - first < group ? end : first + group;
        for (size_t r = 0; r < a->rows; r += 2 * ROWS) {
            size_t r0 = r < last ? r : last, r1 = r + ROWS < last ? r + ROWS : last;
            for (size_t b = first; b < stop; b += 2) blocks[r == 0][a->rows - r > ROWS][stop - b > 1](a, r0, r1, b);
        }
    }
    tiles_leave();
}
