/* Reference of the operations on weights in two planes (kernels/planes.h: layout and proof of the bound). */
#include "kernels/variants.h"

#include <string.h>

/* Sum over `n` inputs of one row, `line` at the row's first quad: 4-bit values times x. */
TR_DEVICE static int32_t nibbles(const uint8_t *line, size_t stride, const int8_t *x, uint32_t n) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < n / 2; i++) {
        uint8_t v = line[i / 4 * stride + i % 4];
        sum += (v & 15) * x[i] + (v >> 4) * x[n / 2 + i];
    }
    return sum;
}

/* Upper bound of the sum; *coarse_out: C of planes.h. */
TR_DEVICE static int32_t sum_bound(const tr_planes *w, const tr_planes_query *q, size_t row, int32_t *coarse_out) {
    const uint32_t k = w->k, coords = tr_planes_coords(k);
    const uint8_t *line = w->upper + row / 16 * tr_planes_lines(k) * TR_PLANES_LINE + 4 * (row % 16);
    *coarse_out = 16 * nibbles(line, TR_PLANES_LINE, q->x, k) + q->center;
    line += (size_t)(k / 8) * TR_PLANES_LINE;
    int32_t along = nibbles(line, TR_PLANES_LINE, q->x + k, coords) * q->coord_mul + q->coord_add;
    line += (size_t)(coords / 8) * TR_PLANES_LINE;
    const int8_t *norm = q->x + k + coords;
    int32_t rest = (line[0] * norm[0] + line[1] * norm[1]) * (1 << q->norm_shift);
    return *coarse_out + (((along >> q->coord_shift) + rest + q->offset) >> 1);
}

TR_DEVICE static float output(const tr_planes *w, const tr_planes_query *q, size_t row, int32_t sum) {
    return ((float)sum * w->scale[row]) * q->scale;
}

TR_DEVICE void tr_ref_planes_bound(const tr_planes_args *a) {
    for (size_t m = 0; m < a->rows; m++)
        for (size_t i = 0; i < 16 * a->blocks; i++) {
            const size_t n = 16 * a->block0 + i;
            const int32_t sum = sum_bound(a->w, &a->query[m], n, &a->coarse[m * a->ld + i]);
            a->bound[m * a->ld + i] = output(a->w, &a->query[m], n, sum);
        }
}

TR_DEVICE float tr_ref_planes_output(const tr_planes *w, const tr_planes_query *q, size_t row, int32_t coarse) {
    return output(w, q, row, coarse + nibbles(w->lower + row * (w->k / 2), 4, q->x, w->k));
}

TR_DEVICE void tr_ref_planes_unpack(int8_t *out, const tr_planes *w, size_t block) {
    const uint8_t *upper = w->upper + block * tr_planes_lines(w->k) * TR_PLANES_LINE;
    const uint8_t *lower = w->lower + block * 16 * (w->k / 2);
    for (uint32_t i = 0; i < w->k; i++)
        for (uint32_t r = 0; r < 16; r++) {
            uint8_t h = upper[(size_t)(i / 8) * TR_PLANES_LINE + 4 * r + i % 4];
            uint8_t l = lower[r * (w->k / 2) + i / 8 * 4 + i % 4];
            int v = i % 8 < 4 ? (h & 15) << 4 | (l & 15) : (h & 0xf0) | l >> 4;
            out[((size_t)(i / 4) * 16 + r) * 4 + i % 4] = (int8_t)(v - 128);
        }
}
