/* AVX-512 VNNI: matmul of weights in groups. Up to FEW_ROWS rows, up to 6 at a time: 32 inputs of a block are unpacked
 * into eight registers, every row multiplies them, and no byte is written; the packed bytes are read in the order in
 * which they lie. More rows: from the panel, tiles of 6 x 32. */
#include "kernels/simd/lanes.inc"

#define GROUPS_ROWS 6
#define GROUPS_NV   2
#include "kernels/simd/gemm_groups.inc"

enum { FEW_ROWS = 18, PASS_ROWS = 6 };

/* One block as it lies in memory. */
typedef struct packed {
    const uint8_t *x, *codes;
    const float *scale, *min; /* [groups][16]; min NULL: none */
    float *y;
    size_t k, ldx, ldy;
    int shift; /* of the start values; 32: start at 0 */
} packed;

/* Activations come as embedded broadcasts. */
INLINE void dot_quad(vi *acc, vi w, const uint8_t *x) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*acc) : "v"(w), "m"(*(const int32_t *)(const void *)x));
}

INLINE void packed_loop(const packed *t, const int rows, const int bits, const bool table) {
    const int lines = bits == 6 ? 4 : 8; /* of a group */
    const size_t k = t->k, ld = t->ldx, minus = k / 4 + (lines == 4 ? k / 8 : 0);
    const uint8_t *x = t->x, *end = t->x + k, *extra = end, *codes = t->codes;
    const float *scale = t->scale, *min = t->min;
    vf out[PASS_ROWS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) out[r] = vset1(0.0f);
    for (size_t u = 0; x != end; u++, x += 32, extra += 4, codes += 64 * bits) {
        vi line[8];
        unit_lines(codes, bits, table, line);
#pragma GCC unroll 2
        for (int first = 0; first < 8; first += lines) {
            const uint8_t *start = extra + minus + (lines == 4 ? 4 * u + (size_t)first : 0);
            vi sum[PASS_ROWS];
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) sum[r] = vsll_by(quad(start + (size_t)r * ld), t->shift);
#pragma GCC unroll 8
            for (int l = first; l < first + lines; l++)
#pragma GCC unroll 6
                for (int r = 0; r < rows; r++) dot_quad(&sum[r], line[l], x + (size_t)r * ld + 4 * l);
            const vf s = vload(scale);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                out[r] = vfma(vcvt(sum[r]), vmul(s, vset1_at(extra + (size_t)r * ld)), out[r]);
            scale += 16;
        }
        if (min) {
            const vf m = vload(min);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) out[r] = vfma(m, vset1_at(extra + k / 8 + (size_t)r * ld), out[r]);
            min += 16;
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) vstore(t->y + (size_t)r * t->ldy, out[r]);
}

typedef void packed_fn(const packed *t);
#define PACKED(kind, rows, bits, table)                                                                                \
    static __attribute__((noinline)) void kind##_##rows(const packed *t) { packed_loop(t, rows, bits, table); }
#define PACKED_ROWS(kind, bits, table)                                                                                 \
    PACKED(kind, 1, bits, table)                                                                                       \
    PACKED(kind, 2, bits, table)                                                                                       \
    PACKED(kind, 3, bits, table)                                                                                       \
    PACKED(kind, 4, bits, table)                                                                                       \
    PACKED(kind, 5, bits, table)                                                                                       \
    PACKED(kind, 6, bits, table)                                                                                       \
    static packed_fn *const kind[PASS_ROWS] = {kind##_1, kind##_2, kind##_3, kind##_4, kind##_5, kind##_6};
PACKED_ROWS(packed4, 4, false)
PACKED_ROWS(packed5, 5, false)
PACKED_ROWS(packed6, 6, false)
PACKED_ROWS(packed8, 8, false)
PACKED_ROWS(packed_nf4, 4, true)

static packed_fn *const *kind_of(const tr_groups_info *f) {
    if (f->table) return packed_nf4;
    return f->bits == 4 ? packed4 : f->bits == 5 ? packed5 : f->bits == 6 ? packed6 : packed8;
}

static void few_rows(const tr_gemm_groups_args *a, const tr_groups_info *f) {
    packed_fn *const *kind = kind_of(f);
    const size_t block_bytes = tr_groups_block_bytes(a->format, a->k),
                 scale_bytes = tr_groups_scale_bytes(a->format, a->k), passes = (a->rows + PASS_ROWS - 1) / PASS_ROWS;
    float *scale = a->panel, *min = scale + a->k;
    packed t = {.scale = scale,
                .min = f->min ? min : NULL,
                .k = a->k,
                .ldx = a->ldx,
                .ldy = a->ldy,
                .shift = f->shift ? f->shift : 32};
    for (size_t b = a->block0; b < a->block0 + a->blocks; b++) {
        const uint8_t *block = a->w + b * block_bytes;
        unpack_scales(f, block, a->k, scale, min, 16);
        t.codes = block + scale_bytes;
        for (size_t p = 0, r = 0; p < passes; p++) { /* of rows as equal as can be */
            const size_t rows = (a->rows - r) / (passes - p);
            t.x = a->x + r * a->ldx;
            t.y = a->y + r * a->ldy + b * 16;
            kind[rows - 1](&t);
            r += rows;
        }
    }
}

void tr_avx512vnni_gemm_groups(const tr_gemm_groups_args *a) {
    if (a->rows <= FEW_ROWS)
        few_rows(a, tr_groups_describe(a->format));
    else
        groups_all(a);
}
