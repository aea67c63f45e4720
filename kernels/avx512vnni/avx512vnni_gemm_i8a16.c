/* AVX-512 VNNI: int8 weights times 16-bit activations in two planes of bytes: two dot products a weight. Tiles of 3
 * rows (6 planes) x 64 channels; the sums of a high plane start at comp. See avx512vnni_gemm_i8.c for the assembly. */
#include "kernels/simd/vnni512.inc"
#include "kernels/variants.h"

typedef struct tile {
    const uint8_t *x; /* planes ldx apart */
    const float *x_scale;
    const int8_t *w;
    const int32_t *comp;
    const float *w_scale;
    float *y;
    size_t k, ldx, ldy;
} tile;

INLINE void finish(const tile *a, int row, int v, __m512i high, __m512i low) {
    __m512 sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(low));
    sum = _mm512_mul_ps(sum, _mm512_loadu_ps(a->w_scale + 16 * v));
    _mm512_storeu_ps(a->y + (size_t)row * a->ldy + 16 * v, _mm512_mul_ps(sum, _mm512_set1_ps(a->x_scale[row])));
}

INLINE void tile_loop(const tile *a, const int rows, const int nv) {
    enum { AHEAD = 2048 }; /* bytes in each block's stream */
    __m512i acc[6][4];
#pragma GCC unroll 6
    for (int p = 0; p < 2 * rows; p++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) acc[p][v] = p % 2 ? _mm512_setzero_si512() : _mm512_loadu_si512(a->comp + 16 * v);
    const size_t ld = a->ldx, step = a->k * 16;
    const uint8_t *x = a->x, *x3 = x + 3 * ld;
    for (const int8_t *w = a->w, *end = w + step; w != end; w += 64, x += 4, x3 += 4) {
        __m512i c[4];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            _mm_prefetch((const char *)w + (size_t)v * step + AHEAD, _MM_HINT_T0);
            c[v] = _mm512_loadu_si512(w + (size_t)v * step);
        }
#pragma GCC unroll 6
        for (int p = 0; p < 2 * rows; p++) {
            __m512i b = quad((p < 3 ? x : x3) + (size_t)(p % 3) * ld);
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) dot(&acc[p][v], b, c[v]);
        }
    }
#pragma GCC unroll 3
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) finish(a, r, v, acc[2 * r][v], acc[2 * r + 1][v]);
}

typedef void tile_fn(const tile *a);
#define TILE(rows, nv)                                                                                                 \
    NOINLINE void planes_##rows##x##nv(const tile *a) { tile_loop(a, rows, nv); }
#define TILES(nv) TILE(1, nv) TILE(2, nv) TILE(3, nv)
TILES(1)
TILES(4)
static tile_fn *const tiles[2][3] = {{planes_1x1, planes_2x1, planes_3x1}, {planes_1x4, planes_2x4, planes_3x4}};

void tr_avx512vnni_gemm_i8a16(const tr_gemm_i8a16_args *a) {
    for (size_t b = a->block0, left = a->blocks; left > 0;) {
        const size_t nv = left < 4 ? 1 : 4;
        for (size_t r = 0; r < a->rows; r += 3) {
            size_t rows = a->rows - r < 3 ? a->rows - r : 3;
            const tile t = {.x = a->x + 2 * r * a->ldx,
                            .x_scale = a->x_scale + r,
                            .w = a->w + b * 16 * a->k,
                            .comp = a->comp + b * 16,
                            .w_scale = a->w_scale + b * 16,
                            .y = a->y + r * a->ldy + b * 16,
                            .k = a->k,
                            .ldx = a->ldx,
                            .ldy = a->ldy};
            tiles[nv == 4][rows - 1](&t);
        }
        b += nv;
        left -= nv;
    }
}
