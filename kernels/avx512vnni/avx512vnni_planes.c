/* AVX-512 VNNI: weights in two planes (kernels/planes.h). Of a line the low halves, moved up, and the high halves are
 * bytes of 16 times their value: they meet the even and the odd quads in one sum, three instructions a line and two dot
 * products a line and row. Micro-kernels as in avx512vnni_gemm_i8.c: functions of their own, sums in registers by
 * inline assembly. */
#include "kernels/simd/vnni512.inc"
#include "kernels/variants.h"

typedef struct tile {
    const uint8_t *line; /* first line of the first block */
    const uint8_t *next; /* a block that is brought to L2 meanwhile, where several tiles share the lines */
    const float *scale;
    const tr_planes_query *query;
    const int8_t *quads;
    float *bound;
    int32_t *coarse;
    size_t ld, k, coords, width; /* width: bytes of a line of quads */
    size_t apart;                /* blocks from one to the next of those side by side */
} tile;

/* What is fetched, a line of `n` streams in each step: each block's stream ahead, where it goes on at its end in the
 * block that it will read next, nv blocks further, or has no end; or one other block. */
typedef struct ahead {
    const uint8_t *at, *end;
    size_t jump;
    int n;
} ahead;

/* sum += 16 times the sums of `lines` lines of nv blocks. `step`: bytes from block to block. */
INLINE void line_loop(const uint8_t *line, size_t lines, size_t step, const int8_t *quads, size_t width, ahead *fetch,
                      __m512i sum[12][4], const int rows, const int nv) {
    const __m512i high = _mm512_set1_epi8((char)0xf0);
    for (const uint8_t *end = line + lines * 64; line != end; line += 64, quads += width) {
        const uint8_t *next = fetch->at == fetch->end ? fetch->at + fetch->jump : fetch->at;
        __m512i c[4], w[4];
#pragma GCC unroll 4
        for (int f = 0; f < fetch->n; f++) _mm_prefetch((const char *)next + (size_t)f * step, _MM_HINT_T1);
        fetch->at = next + 64;
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            c[v] = _mm512_loadu_si512(line + (size_t)v * step);
            w[v] = _mm512_and_si512(_mm512_slli_epi16(c[v], 4), high);
        }
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const __m512i x = quad(quads + 8 * r);
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) dot(&sum[r][v], w[v], x);
        }
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) w[v] = _mm512_and_si512(c[v], high);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const __m512i x = quad(quads + 8 * r + 4);
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) dot(&sum[r][v], w[v], x);
        }
    }
}

/* Where the lines are fetched. LONG: each block is a piece of a stream of its own that runs over many blocks, and that
 * the processor fetches by itself but for what lies close ahead. */
typedef enum fetch_form { FETCH_PASS, FETCH_NEAR, FETCH_LONG } fetch_form;

/* `rows` rows, nv blocks. */
INLINE void bound_tile(const tile *a, const int rows, const int nv, const fetch_form form) {
    enum { AHEAD = 2048, AHEAD_LONG = 1024 };
    const size_t main = a->k / 8, extra = a->coords / 8, channels = form == FETCH_LONG ? 16 * a->apart : 16;
    const size_t bytes = (main + extra + 1) * 64, step = form == FETCH_LONG ? a->apart * bytes : bytes;
    __m512i sum[12][4];
    ahead fetch = {a->next, NULL, 0, 1};
    if (form == FETCH_NEAR)
        fetch = (ahead){a->line + (step < AHEAD ? step : AHEAD), a->line + step, (size_t)(nv - 1) * step, nv};
    if (form == FETCH_LONG) fetch = (ahead){a->line + AHEAD_LONG, NULL, 0, nv};
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) sum[r][v] = _mm512_set1_epi32(a->query[r].center);
    line_loop(a->line, main, step, a->quads, a->width, &fetch, sum, rows, nv);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            _mm512_storeu_si512(a->coarse + (size_t)r * a->ld + (size_t)v * channels, sum[r][v]);
            sum[r][v] = _mm512_setzero_si512();
        }
    const uint8_t *line = a->line + main * 64, *norms = line + extra * 64;
    const int8_t *quads = a->quads + main * a->width, *norm = quads + extra * a->width;
    line_loop(line, extra, step, quads, a->width, &fetch, sum, rows, nv);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        const tr_planes_query *q = &a->query[r];
        const __m512i x = quad(norm + 8 * r), mul = _mm512_set1_epi32(q->coord_mul);
        const __m512i add = _mm512_set1_epi32(q->coord_add), offset = _mm512_set1_epi32(q->offset);
        const __m128i shift = _mm_cvtsi32_si128((int)q->coord_shift), up = _mm_cvtsi32_si128((int)q->norm_shift);
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            __m512i rest = _mm512_setzero_si512();
            dot(&rest, _mm512_loadu_si512(norms + (size_t)v * step), x);
            __m512i t = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srai_epi32(sum[r][v], 4), mul), add);
            t = _mm512_add_epi32(_mm512_sra_epi32(t, shift), _mm512_add_epi32(_mm512_sll_epi32(rest, up), offset));
            __m512i most = _mm512_add_epi32(_mm512_loadu_si512(a->coarse + (size_t)r * a->ld + (size_t)v * channels),
                                            _mm512_srai_epi32(t, 1));
            __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(most), _mm512_loadu_ps(a->scale + (size_t)v * channels));
            _mm512_storeu_ps(a->bound + (size_t)r * a->ld + (size_t)v * channels,
                             _mm512_mul_ps(y, _mm512_set1_ps(q->scale)));
        }
    }
}

typedef void tile_fn(const tile *a);
#define LONE(rows, nv)                                                                                                 \
    NOINLINE void bound_##rows##x##nv(const tile *a) { bound_tile(a, rows, nv, FETCH_NEAR); }
NOINLINE void bound_long(const tile *a) { bound_tile(a, 1, 4, FETCH_LONG); }
#define PASS(rows)                                                                                                     \
    NOINLINE void bound_pass_##rows(const tile *a) { bound_tile(a, rows, 2, FETCH_PASS); }
#define FEW(nv)  LONE(1, nv) LONE(2, nv) LONE(3, nv) LONE(4, nv)
#define MANY(nv) LONE(5, nv) LONE(6, nv) LONE(7, nv) LONE(8, nv) LONE(9, nv) LONE(10, nv) LONE(11, nv) LONE(12, nv)
FEW(1)
MANY(1)
LONE(2, 4)
LONE(3, 4)
LONE(4, 4)
MANY(2)
PASS(6)
PASS(7)
PASS(8)
PASS(9)
PASS(10)
PASS(11)
PASS(12)
enum { ROWS_MAX = 12, FOUR = 4 /* rows that leave registers for four blocks side by side; else two */ };
static tile_fn *const one[ROWS_MAX + 1] = {NULL,       bound_1x1,  bound_2x1, bound_3x1, bound_4x1,
                                           bound_5x1,  bound_6x1,  bound_7x1, bound_8x1, bound_9x1,
                                           bound_10x1, bound_11x1, bound_12x1};
static tile_fn *const many[ROWS_MAX + 1] = {NULL,       NULL,       bound_2x4, bound_3x4, bound_4x4,
                                            bound_5x2,  bound_6x2,  bound_7x2, bound_8x2, bound_9x2,
                                            bound_10x2, bound_11x2, bound_12x2};
static tile_fn *const pass[ROWS_MAX + 1] = {NULL,          NULL,          NULL,         NULL,         NULL,
                                            NULL,          bound_pass_6,  bound_pass_7, bound_pass_8, bound_pass_9,
                                            bound_pass_10, bound_pass_11, bound_pass_12};

/* Rows from m on, blocks from b on. */
static tile at_block(const tr_planes_args *a, size_t b, size_t m) {
    const tr_planes *w = a->w;
    const size_t at = 16 * (b - a->block0);
    return (tile){.line = w->upper + b * tr_planes_lines(w->k) * TR_PLANES_LINE,
                  .scale = w->scale + 16 * b,
                  .query = a->query + m,
                  .quads = a->quads + 8 * m,
                  .bound = a->bound + m * a->ld + at,
                  .coarse = a->coarse + m * a->ld + at,
                  .ld = a->ld,
                  .k = w->k,
                  .coords = tr_planes_coords(w->k),
                  .width = 8 * a->rows};
}

/* Blocks in four runs, side by side. */
static void one_row(const tr_planes_args *a) {
    const size_t run = a->blocks / 4, end = a->block0 + a->blocks;
    for (size_t b = a->block0; b < a->block0 + run; b++) {
        tile t = at_block(a, b, 0);
        t.apart = run;
        bound_long(&t);
    }
    for (size_t b = a->block0 + 4 * run; b < end; b++) {
        tile t = at_block(a, b, 0);
        bound_1x1(&t);
    }
}

/* Up to ROWS_MAX rows in one tile. More: tiles as high as each other on the same two blocks, of which the first two
 * fetch a block of the next two. */
static void more_rows(const tr_planes_args *a) {
    const size_t bytes = tr_planes_lines(a->w->k) * TR_PLANES_LINE, end = a->block0 + a->blocks;
    const size_t passes = (a->rows + ROWS_MAX - 1) / ROWS_MAX, most = a->rows <= FOUR ? 4 : 2;
    for (size_t b = a->block0, nv; b < end; b += nv) {
        nv = end - b >= most ? most : 1;
        for (size_t p = 0, m = 0, rows; p < passes; p++, m += rows) {
            rows = (a->rows - m) / (passes - p);
            tile t = at_block(a, b, m);
            t.next = t.line + (p < 2 ? 2 + p : 0) * bytes;
            (nv == 1 ? one : passes == 1 ? many : pass)[rows](&t);
        }
    }
}

void tr_avx512vnni_planes_bound(const tr_planes_args *a) { (a->rows == 1 ? one_row : more_rows)(a); }

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
