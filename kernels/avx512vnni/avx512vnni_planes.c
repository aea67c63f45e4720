/* AVX-512 VNNI: weights in two planes (kernels/planes.h). A line's low halves times the even quads, its high halves,
 * left where they stand (16 times their value), times the odd quads: two masks and two dot products a line and row.
 * Micro-kernels as in avx512vnni_gemm_i8.c: functions of their own, sums in registers by inline assembly. */
#include "kernels/variants.h"

#include <immintrin.h>
#include <string.h>

#define INLINE   static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))

INLINE void dot(__m512i *acc, __m512i u8, __m512i s8) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(u8), "v"(s8));
}
INLINE __m512i quad(const int8_t *x) {
    int32_t q;
    memcpy(&q, x, sizeof q);
    return _mm512_set1_epi32(q);
}

typedef struct tile {
    const uint8_t *line; /* first line of the first block */
    const float *scale;
    const tr_planes_query *query;
    float *bound;
    int32_t *coarse;
    size_t ld, k, coords;
} tile;

/* Where the streams are fetched ahead: nv of them, a block apart. At the end of its block a stream goes on in the block
 * that it will read next, nv blocks further. */
typedef struct ahead {
    const uint8_t *at, *end;
} ahead;

/* 16 times the sums of `lines` lines of nv blocks; x[row]: even quads, odd ones at + 4 lines. `step`: bytes from block
 * to block. */
INLINE void line_loop(const uint8_t *line, size_t lines, size_t step, const int8_t *const *x, ahead *fetch,
                      __m512i sum[4][4], const int rows, const int nv) {
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8((char)0xf0);
    __m512i even[4][4], odd[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) even[r][v] = odd[r][v] = _mm512_setzero_si512();
    for (size_t i = 0; i < lines; i++, line += 64) {
        const uint8_t *next = fetch->at == fetch->end ? fetch->at + (size_t)(nv - 1) * step : fetch->at;
        __m512i c[4];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            _mm_prefetch((const char *)next + (size_t)v * step, _MM_HINT_T1);
            c[v] = _mm512_loadu_si512(line + (size_t)v * step);
        }
        fetch->at = next + 64;
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m512i xe = quad(x[r] + 4 * i), xo = quad(x[r] + 4 * (lines + i));
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) {
                dot(&even[r][v], _mm512_and_si512(c[v], low), xe);
                dot(&odd[r][v], _mm512_and_si512(c[v], high), xo);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) sum[r][v] = _mm512_add_epi32(_mm512_slli_epi32(even[r][v], 4), odd[r][v]);
}

/* `rows` rows, nv blocks. */
INLINE void bound_tile(const tile *a, const int rows, const int nv) {
    enum { AHEAD = 2048 };
    const size_t main = a->k / 8, extra = a->coords / 8, step = (main + extra + 1) * 64;
    const int8_t *x[4];
    __m512i sum[4][4], along[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) x[r] = a->query[r].x;
    ahead fetch = {a->line + (step < AHEAD ? step : AHEAD), a->line + step};
    line_loop(a->line, main, step, x, &fetch, sum, rows, nv);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        x[r] += a->k;
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            sum[r][v] = _mm512_add_epi32(sum[r][v], _mm512_set1_epi32(a->query[r].center));
            _mm512_storeu_si512(a->coarse + (size_t)r * a->ld + 16 * v, sum[r][v]);
        }
    }
    const uint8_t *line = a->line + main * 64, *norms = line + extra * 64;
    line_loop(line, extra, step, x, &fetch, along, rows, nv);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const tr_planes_query *q = &a->query[r];
        const __m512i norm = quad(x[r] + a->coords), mul = _mm512_set1_epi32(q->coord_mul);
        const __m512i add = _mm512_set1_epi32(q->coord_add), offset = _mm512_set1_epi32(q->offset);
        const __m128i shift = _mm_cvtsi32_si128((int)q->coord_shift), up = _mm_cvtsi32_si128((int)q->norm_shift);
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            __m512i rest = _mm512_setzero_si512();
            dot(&rest, _mm512_loadu_si512(norms + (size_t)v * step), norm);
            __m512i t = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srai_epi32(along[r][v], 4), mul), add);
            t = _mm512_add_epi32(_mm512_sra_epi32(t, shift), _mm512_add_epi32(_mm512_sll_epi32(rest, up), offset));
            __m512i most =
                _mm512_add_epi32(_mm512_loadu_si512(a->coarse + (size_t)r * a->ld + 16 * v), _mm512_srai_epi32(t, 1));
            __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(most), _mm512_loadu_ps(a->scale + 16 * v));
            _mm512_storeu_ps(a->bound + (size_t)r * a->ld + 16 * v, _mm512_mul_ps(y, _mm512_set1_ps(q->scale)));
        }
    }
}

typedef void tile_fn(const tile *a);
#define TILE(rows, nv)                                                                                                 \
    NOINLINE void bound_##rows##x##nv(const tile *a) { bound_tile(a, rows, nv); }
TILE(1, 4)
TILE(2, 4)
TILE(3, 2)
TILE(4, 2)
TILE(1, 1)
TILE(2, 1)
TILE(3, 1)
TILE(4, 1)
enum { ROWS_MAX = 4 };
static const struct {
    size_t nv;
    tile_fn *many, *one;
} tiles[ROWS_MAX + 1] = {{0, NULL, NULL},
                         {4, bound_1x4, bound_1x1},
                         {4, bound_2x4, bound_2x1},
                         {2, bound_3x2, bound_3x1},
                         {2, bound_4x2, bound_4x1}};

void tr_avx512vnni_planes_bound(const tr_planes_args *a) {
    const tr_planes *w = a->w;
    const size_t bytes = tr_planes_lines(w->k) * TR_PLANES_LINE;
    const size_t nv = a->rows == 0 ? 1 : tiles[a->rows < ROWS_MAX ? a->rows : ROWS_MAX].nv;
    for (size_t b = a->block0, end = a->block0 + a->blocks; b < end;) {
        const bool whole = end - b >= nv;
        for (size_t m = 0; m < a->rows;) {
            const size_t left = a->rows - m, rows = left < ROWS_MAX ? left : ROWS_MAX;
            for (size_t at = b; at < b + (whole ? nv : 1);) {
                const bool many = whole && tiles[rows].nv <= nv;
                const tile t = {.line = w->upper + at * bytes,
                                .scale = w->scale + 16 * at,
                                .query = a->query + m,
                                .bound = a->bound + m * a->ld + 16 * at,
                                .coarse = a->coarse + m * a->ld + 16 * at,
                                .ld = a->ld,
                                .k = w->k,
                                .coords = tr_planes_coords(w->k)};
                (many ? tiles[rows].many : tiles[rows].one)(&t);
                at += many ? tiles[rows].nv : 1;
            }
            m += rows;
        }
        b += whole ? nv : 1;
    }
}

float tr_avx512vnni_planes_output(const tr_planes *w, const tr_planes_query *q, size_t n, int32_t coarse) {
    const __m512i low = _mm512_set1_epi8(15);
    const uint8_t *l = w->lower + n * (w->k / 2);
    __m512i even = _mm512_setzero_si512(), odd = even;
    for (size_t i = 0, half = w->k / 2; i < half; i += 64) {
        const __mmask64 part = half - i >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (half - i)) - 1;
        __m512i c = _mm512_maskz_loadu_epi8(part, l + i);
        dot(&even, _mm512_and_si512(c, low), _mm512_maskz_loadu_epi8(part, q->x + i));
        dot(&odd, _mm512_and_si512(_mm512_srli_epi16(c, 4), low), _mm512_maskz_loadu_epi8(part, q->x + half + i));
    }
    int32_t sum = coarse + _mm512_reduce_add_epi32(_mm512_add_epi32(even, odd));
    return ((float)sum * w->scale[n]) * q->scale;
}
