#include "stages/screen.h"

#include <math.h>
#include <stdlib.h>

tr_status tr_screen_init(tr_screen *s, const tr_ops *ops, const tr_planes *w) {
    *s = (tr_screen){.ops = ops, .w = w, .memory = aligned_alloc(64, TR_SCREEN_ROWS * tr_planes_query_bytes(w->k))};
    return s->memory ? TR_OK : TR_UNAVAILABLE;
}

void tr_screen_fini(tr_screen *s) {
    free(s->memory);
    *s = (tr_screen){0};
}

void tr_screen_bounds(tr_screen *s, const tr_linear_rows *x, uint32_t rows, float *bound, int32_t *coarse, size_t ld,
                      uint32_t block0, uint32_t blocks) {
    for (uint32_t r = 0; r < rows; r++)
        tr_planes_query_init(&s->query[r], s->w, x->x + (size_t)r * s->w->k, x->scale[r],
                             s->memory + r * tr_planes_query_bytes(s->w->k));
    s->ops->planes_bound(&(tr_planes_args){.w = s->w,
                                           .query = s->query,
                                           .bound = bound,
                                           .coarse = coarse,
                                           .rows = rows,
                                           .ld = ld,
                                           .block0 = block0,
                                           .blocks = blocks});
}

static float logit(const tr_screen *s, const tr_screen_row *row, uint32_t id) {
    return s->ops->planes_output(s->w, &s->query[row->index], id, row->coarse[id]);
}

tr_sampler_best tr_screen_guess(const tr_screen *s, tr_screen_row *row, const tr_sampler_params *p, uint32_t id0,
                                uint32_t id1) {
    if (id0 >= id1) return TR_SAMPLER_NONE;
    float ignored;
    const uint32_t id = id0 + (uint32_t)s->ops->argmax(row->bound + id0, id1 - id0, &ignored);
    const double score = tr_sampler_score(p, logit(s, row, id), id);
    row->computed++;
    return isnan(score) ? TR_SAMPLER_NONE : (tr_sampler_best){score, id};
}

/* A run of ids at a time: what has to be computed is listed and fetched, then computed. */
tr_sampler_best tr_screen_scan(const tr_screen *s, tr_screen_row *row, const tr_sampler_params *p, uint32_t id0,
                               uint32_t id1, double floor) {
    enum { RUN = 1024 };
    tr_sampler_best best = TR_SAMPLER_NONE;
    const size_t row_bytes = s->w->k / 2;
    uint32_t ids[RUN];
    float logits[RUN];
    for (uint32_t i = id0; i < id1; i += RUN) {
        const double least = best.score > floor ? best.score : floor;
        const uint32_t n = tr_sampler_reach(p, row->bound, i, id1 - i < RUN ? id1 : i + RUN, least, ids);
        for (uint32_t k = 0; k < n; k++)
            for (size_t at = 0; at < row_bytes; at += 64) __builtin_prefetch(s->w->lower + ids[k] * row_bytes + at);
        for (uint32_t k = 0; k < n; k++) logits[k] = logit(s, row, ids[k]);
        tr_sampler_scan_ids(p, ids, logits, n, &best);
        row->computed += n;
    }
    return best;
}
