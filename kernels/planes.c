#include "kernels/planes.h"

#include <math.h>
#include <string.h>

/* Step of a code: E_j of a row is about normal with deviation sqrt(block * 85); 16 levels cover that best at 0.335
 * deviations, which is 2 T. */
static int32_t code_step(uint32_t block) { return (int32_t)(1.545 * sqrt(block) + 0.5); }

/* Every s_j.x of one block: Sylvester's matrix. */
static void sylvester(int32_t *x, uint32_t block) {
    for (uint32_t span = 1; span < block; span *= 2)
        for (uint32_t i = 0; i < block; i += 2 * span)
            for (uint32_t j = i; j < i + span; j++) {
                int32_t a = x[j], b = x[j + span];
                x[j] = a + b, x[j + span] = a - b;
            }
}

/* Smallest v with v^2 * by >= value. */
static uint32_t root_up(uint64_t value, uint64_t by) {
    uint64_t v = (uint64_t)sqrt((double)value / (double)by);
    while (v > 0 && (v - 1) * (v - 1) * by >= value) v--;
    while (v * v * by < value) v++;
    return (uint32_t)v;
}

static uint64_t square(int32_t x) { return (uint64_t)((int64_t)x * x); }

static void pack_row(const tr_planes *w, size_t row, const int8_t *packed) {
    const uint32_t k = w->k, coords = tr_planes_coords(k), r = (uint32_t)(row % 16);
    uint8_t *upper = (uint8_t *)w->upper + row / 16 * tr_planes_lines(k) * TR_PLANES_LINE + 4 * (size_t)r;
    uint8_t *lower = (uint8_t *)w->lower + row * (k / 2);
    int32_t e[TR_PLANES_K_MAX];
    uint64_t all = 0, along = 0, missed = 0; /* |e|^2; the other two times block */
    for (uint32_t i = 0; i < k; i++) {
        uint8_t v = (uint8_t)(packed[((size_t)(i / 4) * 16 + r) * 4 + i % 4] + 128);
        uint8_t *h = &upper[(size_t)(i / 8) * TR_PLANES_LINE + i % 4], *l = &lower[i / 8 * 4 + i % 4];
        *h = (uint8_t)(i % 8 < 4 ? v >> 4 : *h | (v & 0xf0));
        *l = (uint8_t)(i % 8 < 4 ? v & 15 : *l | v << 4);
        e[i] = 2 * (v & 15) - 15;
        all += square(e[i]);
    }
    for (uint32_t i = 0; i < k; i += w->block) sylvester(e + i, w->block);
    const int32_t step = code_step(w->block);
    upper += (size_t)(k / 8) * TR_PLANES_LINE;
    for (uint32_t j = 0; j < coords; j++) {
        int32_t value = e[w->coord[j]], code = (value + 16 * step) / (2 * step); /* nearest of T (2 c - 15) */
        code = value + 16 * step < 0 ? 0 : code > 15 ? 15 : code;
        along += square(value);
        missed += square(value - step * (2 * code - 15));
        uint8_t *c = &upper[(size_t)(j / 8) * TR_PLANES_LINE + j % 4];
        *c = (uint8_t)(j % 8 < 4 ? code : *c | code << 4);
    }
    upper += (size_t)(coords / 8) * TR_PLANES_LINE;
    const uint64_t unit = (uint64_t)k * w->block; /* q^2 k / 256 >= norm^2, norm^2 as a multiple of 1 / block */
    upper[0] = (uint8_t)root_up(256 * (w->block * all - along), unit);
    upper[1] = (uint8_t)root_up(256 * missed, unit);
    upper[2] = upper[3] = 0;
}

void tr_planes_pack_block(const tr_planes *w, size_t index, const int8_t *packed) {
    for (size_t r = 0; r < 16; r++) pack_row(w, 16 * index + r, packed);
}

/* Quads of even index, then of odd index: what the low and the high halves of a line's bytes are multiplied with. */
static size_t quad_at(uint32_t n, uint32_t i) { return (i % 8 < 4 ? 0 : n / 2) + i / 8 * 4 + i % 4; }

static int32_t largest(const int32_t *v, uint32_t n) {
    int32_t max = 0;
    for (uint32_t i = 0; i < n; i++) max = v[i] > max ? v[i] : -v[i] > max ? -v[i] : max;
    return max;
}

static void coordinates(tr_planes_query *q, const tr_planes *w, const int32_t *along, int8_t *out) {
    const uint32_t coords = tr_planes_coords(w->k);
    const int32_t step = code_step(w->block), max = largest(along, coords);
    uint32_t shift = 0;
    int32_t sum = 0, missed = 0;
    while (max + (1 << shift >> 1) >= 128 << shift) shift++;
    for (uint32_t j = 0; j < coords; j++) {
        int32_t alpha = (along[j] + (1 << shift >> 1)) >> shift, rest = along[j] - alpha * (1 << shift);
        out[quad_at(coords, j)] = (int8_t)alpha;
        sum += alpha;
        missed += rest < 0 ? -rest : rest;
    }
    q->coord_mul = step << (shift + 1);
    q->coord_add = 15 * step * (missed - sum * (1 << shift)) + (int32_t)w->block - 1;
    q->coord_shift = (uint32_t)__builtin_ctz(w->block);
}

/* The same again, line by line. */
static void spread(const int8_t *x, uint32_t k, int8_t *quads, size_t stride) {
    const uint32_t coords = tr_planes_coords(k), parts[] = {k, coords};
    for (uint32_t p = 0; p < 2; x += parts[p++])
        for (uint32_t i = 0; i < parts[p] / 8; i++, quads += stride) {
            memcpy(quads, x + 4 * i, 4);
            memcpy(quads + 4, x + parts[p] / 2 + 4 * i, 4);
        }
    memcpy(quads, x, 4); /* the norms */
    memset(quads + 4, 0, 4);
}

void tr_planes_query_init(tr_planes_query *q, const tr_planes *w, const uint8_t *x, float x_scale, int8_t *memory,
                          int8_t *quads, size_t stride) {
    const uint32_t k = w->k, coords = tr_planes_coords(k);
    int32_t a[TR_PLANES_K_MAX], along[TR_PLANES_COORDS_MAX], sum = 0;
    uint64_t all = 0, par = 0; /* |a|^2; |par a|^2 times block */
    for (uint32_t i = 0; i < k; i++) {
        a[i] = x[i] - 128;
        memory[quad_at(k, i)] = (int8_t)a[i];
        sum += a[i];
        all += square(a[i]);
    }
    for (uint32_t i = 0; i < k; i += w->block) sylvester(a + i, w->block);
    for (uint32_t j = 0; j < coords; j++) {
        along[j] = a[w->coord[j]];
        par += square(along[j]);
    }
    *q = (tr_planes_query){.x = memory, .scale = x_scale, .center = -128 * sum, .offset = 15 * sum};
    coordinates(q, w, along, memory + k);
    /* Norms of a in units that go with those of e: norm * sqrt(k) / 16. */
    uint32_t perp = root_up((w->block * all - par) * k, 256 * (uint64_t)w->block);
    uint32_t along_norm = root_up(par * k, 256 * (uint64_t)w->block), max = perp > along_norm ? perp : along_norm;
    while ((max + (1u << q->norm_shift) - 1) >> q->norm_shift > 127) q->norm_shift++;
    int8_t *norm = memory + k + coords;
    norm[0] = (int8_t)((perp + (1u << q->norm_shift) - 1) >> q->norm_shift);
    norm[1] = (int8_t)((along_norm + (1u << q->norm_shift) - 1) >> q->norm_shift);
    norm[2] = norm[3] = 0;
    spread(memory, k, quads, stride);
}
