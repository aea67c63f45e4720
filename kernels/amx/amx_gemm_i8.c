/* AMX: int8 matmul by tiles of 16 rows x 16 channels x 64 inputs. The packed weights [n/16][k/4][16][4] are B tiles as
 * they lie (16 lines of 64 bytes), the u8 activations are A tiles with ldx as the stride. int32 sums are exact in any
 * order, so the numbers are those of every other variant.
 * Up to 6 rows go to the VNNI kernels: memory is the limit, and they get all of it. So do inputs that are no multiple
 * of 64. 7 to 15 rows are one row tile, cut to that height; of more, the last row tile starts at rows - 16 and writes
 * some rows a second time (the same bits).
 * Inline assembly, not the intrinsics: those of gcc 12 say neither that ldtilecfg reads all 64 bytes nor that tile
 * loads and stores touch memory, so the configuration may be stored after it was read (a fault). The tile registers
 * belong to one call: configured on entry, released before it returns. */
#include "kernels/variants.h"

#include <immintrin.h>

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

INLINE size_t tile_rows(const tr_gemm_i8_args *a) { return a->rows < ROWS ? a->rows : ROWS; }

/* Rows from r0 and, for mt 2, from r1; nt blocks from b, whose weights are in the cache. */
INLINE void block(const tr_gemm_i8_args *a, const int mt, const int nt, size_t r0, size_t r1, size_t b) {
    tile_sums sums[4] __attribute__((aligned(64)));
    const uint8_t *a0 = a->x + r0 * a->ldx, *a1 = a->x + r1 * a->ldx;
    const int8_t *b0 = a->w + b * 16 * a->k, *b1 = b0 + (nt == 2 ? 16 * a->k : 0);
    tiles_zero();
    for (const int8_t *end = b0 + a->k * 16; b0 != end; b0 += 1024, b1 += 1024, a0 += STEP, a1 += STEP)
        step(mt, nt, a0, a1, a->ldx, b0, b1);
    sums_store(mt, nt, sums);
    finish(a, sums, nt, r0, tile_rows(a), b);
    if (mt == 2) finish(a, sums + 2, nt, r1, ROWS, b);
}

typedef void block_fn(const tr_gemm_i8_args *a, size_t r0, size_t r1, size_t b);
#define BLOCK(mt, nt)                                                                                                  \
    NOINLINE void block_##mt##x##nt(const tr_gemm_i8_args *a, size_t r0, size_t r1, size_t b) {                        \
        block(a, mt, nt, r0, r1, b);                                                                                   \
    }
BLOCK(1, 1)
BLOCK(1, 2)
BLOCK(2, 1)
BLOCK(2, 2)
static block_fn *const block_of[2][2] = {{block_1x1, block_1x2}, {block_2x1, block_2x2}};

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

/* The first row tile of four blocks from b, whose weights come from memory: it gives more to four streams of a core
 * than to one or two. The next tile of each stream is on its way; at the end of the blocks that is the first one of the
 * next four. */
NOINLINE void first_1x4(const tr_gemm_i8_args *a, size_t b) {
    tile_sums sums[4] __attribute__((aligned(64)));
    const size_t bytes = 16 * a->k, ld = 64;
    const uint8_t *x = a->x;
    const int8_t *w = a->w + b * bytes, *end = w + bytes;
    tiles_zero();
    for (; w != end; w += 1024, x += STEP) {
        const int8_t *next = w + 1024 == end ? end + 3 * bytes : w + 1024;
        for (size_t v = 0; v < 4; v++)
#pragma GCC unroll 16
            for (int i = 0; i < 1024; i += 64) _mm_prefetch((const char *)next + v * bytes + i, _MM_HINT_T0);
        step_1x4(x, a->ldx, w, bytes);
    }
    __asm__ volatile("tilestored %%tmm0, (%0,%1,1)" ::"r"(sums[0]), "r"(ld) : "memory");
    __asm__ volatile("tilestored %%tmm1, (%0,%1,1)" ::"r"(sums[1]), "r"(ld) : "memory");
    __asm__ volatile("tilestored %%tmm2, (%0,%1,1)" ::"r"(sums[2]), "r"(ld) : "memory");
    __asm__ volatile("tilestored %%tmm3, (%0,%1,1)" ::"r"(sums[3]), "r"(ld) : "memory");
    finish(a, sums, 4, 0, tile_rows(a), b);
}

/* Eight blocks at a time: the first row tile brings their weights into the cache, then the other rows pass over them,
 * 32 by 32. */
void tr_amx_gemm_i8(const tr_gemm_i8_args *a) {
    enum { ROWS_MIN = 7, GROUP = 8 };
    if (a->rows < ROWS_MIN || a->k % STEP) {
        tr_avx512vnni_gemm_i8(a);
        return;
    }
    config c = whole_tiles;
    for (size_t i = 0; i < 5; i++) c.rows[i] = (uint8_t)tile_rows(a); /* sums and activations */
    tiles_enter(&c);
    for (size_t first = a->block0, end = first + a->blocks; first < end; first += GROUP) {
        size_t stop = end - first < GROUP ? end : first + GROUP, b = first;
        for (; stop - b >= 4; b += 4) first_1x4(a, b);
        for (; b < stop; b += 2) block_of[0][stop - b > 1](a, 0, 0, b);
        for (size_t r = ROWS; r < a->rows; r += 2 * ROWS) {
            size_t last = a->rows - ROWS, r0 = r < last ? r : last, r1 = r + ROWS < last ? r + ROWS : last;
            for (b = first; b < stop; b += 2) block_of[a->rows - r > ROWS][stop - b > 1](a, r0, r1, b);
        }
    }
    tiles_leave();
}
