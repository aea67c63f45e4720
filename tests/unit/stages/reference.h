/* tests/unit/stages/reference.h - token ids and reference logits of transformers, and how far others are from them. */
#ifndef TR_TEST_REFERENCE_H
#define TR_TEST_REFERENCE_H
#include "base/file_map.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reference {
    uint32_t n, vocab;
    uint32_t *ids;       /* [n] */
    const float *logits; /* [n, vocab] */
    tr_file_map map;
} reference;

/* base.ids.json: [1, 2, ...]; base + tail: npy of '<f4', C order. False: not there or not of that form. */
static inline bool reference_open(reference *r, const char *base, const char *tail) {
    char path[640], header[256];
    tr_file_map ids = {0};
    unsigned rows, cols;
    uint16_t header_bytes;
    *r = (reference){0};
    snprintf(path, sizeof path, "%s%s", base, tail);
    if (tr_file_map_open(path, &r->map, NULL) != TR_OK) return false;
    memcpy(&header_bytes, r->map.data + 8, 2);
    snprintf(header, sizeof header, "%.*s", (int)(header_bytes < 255 ? header_bytes : 255),
             (const char *)r->map.data + 10);
    const char *shape = strstr(header, "'shape': (");
    if (!shape || !strstr(header, "'<f4'") || sscanf(shape, "'shape': (%u, %u)", &rows, &cols) != 2) return false;
    r->n = rows, r->vocab = cols;
    r->logits = (const float *)(const void *)(r->map.data + 10 + header_bytes);
    if (r->map.size < 10 + header_bytes + (size_t)rows * cols * 4) return false;
    snprintf(path, sizeof path, "%s.ids.json", base);
    if (tr_file_map_open(path, &ids, NULL) != TR_OK) return false;
    r->ids = calloc(rows, sizeof *r->ids);
    uint32_t n = 0;
    for (size_t i = 0; i < ids.size && n < rows;) {
        if (ids.data[i] < '0' || ids.data[i] > '9') {
            i++;
            continue;
        }
        for (; i < ids.size && ids.data[i] >= '0' && ids.data[i] <= '9'; i++)
            r->ids[n] = r->ids[n] * 10 + ids.data[i] - '0';
        n++;
    }
    tr_file_map_close(&ids);
    return n == rows;
}

static inline void reference_close(reference *r) {
    tr_file_map_close(&r->map);
    free(r->ids);
}

typedef struct distance {
    uint64_t n, same_top;
    double kl, kl_max, diff_max;
} distance;

static inline double log_sum(const float *x, uint32_t n, uint32_t *top) {
    double sum = 0;
    *top = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[*top]) *top = i;
    for (uint32_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)x[*top]);
    return (double)x[*top] + log(sum);
}

/* KL(reference || got) of one position into d. */
static inline void distance_add(distance *d, const float *want, const float *got, uint32_t vocab) {
    uint32_t a, b;
    double lw = log_sum(want, vocab, &a), lg = log_sum(got, vocab, &b), kl = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        double w = (double)want[i], g = (double)got[i];
        kl += exp(w - lw) * ((w - lw) - (g - lg));
        if (!(fabs(w - g) <= d->diff_max)) d->diff_max = isnan(g) ? INFINITY : fabs(w - g);
    }
    d->n++;
    d->same_top += a == b;
    d->kl += isnan(kl) ? INFINITY : kl;
    if (!(kl <= d->kl_max)) d->kl_max = kl;
}
#endif
