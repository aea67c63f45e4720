#include "stages/screen.h"

#include "base/checked.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

tr_status tr_screen_rows_init(tr_screen_rows *s, const tr_planes *w, _Atomic double *floor) {
    *s = (tr_screen_rows){.w = w,
                          .floor = floor,
                          .memory = aligned_alloc(64, TR_SCREEN_ROWS * tr_planes_query_bytes(w->k)),
                          .quads = aligned_alloc(64, tr_align_up(TR_SCREEN_ROWS * 8 * tr_planes_lines(w->k), 64))};
    return s->memory && s->quads ? TR_OK : TR_UNAVAILABLE;
}

void tr_screen_rows_fini(tr_screen_rows *s) {
    free(s->memory);
    free(s->quads);
    *s = (tr_screen_rows){0};
}

void tr_screen_rows_make(tr_screen_rows *s, uint32_t row, uint32_t n, const uint8_t *x, float scale) {
    if (row == 0) s->n = n;
    tr_planes_query_init(&s->query[row], s->w, x, scale, s->memory + row * tr_planes_query_bytes(s->w->k),
                         s->quads + 8 * (size_t)row, 8 * (size_t)n);
}

void tr_screen_rows_draw(tr_screen_rows *s, uint32_t i, uint32_t n, uint32_t row, const tr_sampler_params *params) {
    if (i == 0) s->n_draws = n;
    s->row[i] = row;
    s->params[i] = *params;
}

tr_status tr_screen_init(tr_screen *s, const tr_ops *ops) {
    const size_t cells = TR_SCREEN_ROWS * TR_SCREEN_IDS;
    *s = (tr_screen){.ops = ops,
                     .bound = aligned_alloc(64, cells * sizeof *s->bound),
                     .coarse = aligned_alloc(64, cells * sizeof *s->coarse),
                     .list = malloc(TR_SCREEN_ROWS * sizeof *s->list)};
    return s->bound && s->coarse && s->list ? TR_OK : TR_UNAVAILABLE;
}

void tr_screen_fini(tr_screen *s) {
    free(s->bound);
    free(s->coarse);
    free(s->list);
    *s = (tr_screen){0};
}

static double floor_of(tr_screen_rows *rows, uint32_t draw) {
    return atomic_load_explicit(&rows->floor[draw], memory_order_relaxed);
}

static void raise_floor(tr_screen_rows *rows, uint32_t draw, double score) {
    double seen = floor_of(rows, draw);
    while (score > seen && !atomic_compare_exchange_weak_explicit(&rows->floor[draw], &seen, score,
                                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

static float logit(const tr_screen *s, const tr_screen_rows *rows, uint32_t draw, uint32_t id, int32_t coarse) {
    s->list[draw].computed++;
    return s->ops->planes_output(rows->w, &rows->query[rows->row[draw]], id, coarse);
}

/* Of the list from `from` on, what can still score the floor. */
static void drop(const tr_screen *s, tr_screen_rows *rows, uint32_t draw, uint32_t from) {
    tr_screen_list *l = &s->list[draw];
    uint32_t index[TR_SCREEN_KEPT];
    const uint32_t kept =
        tr_sampler_reach(&rows->params[draw], l->id + from, l->bound + from, l->n - from, floor_of(rows, draw), index);
    for (uint32_t i = 0; i < kept; i++) { /* never past what is still to move */
        l->id[from + i] = l->id[from + index[i]];
        l->bound[from + i] = l->bound[from + index[i]];
        l->coarse[from + i] = l->coarse[from + index[i]];
    }
    l->n = from + kept;
}

/* Computes all that is listed; what follows is fetched meanwhile. */
static void compute(const tr_screen *s, tr_screen_rows *rows, uint32_t draw) {
    enum { RUN = 256, AHEAD = 8 };
    tr_screen_list *l = &s->list[draw];
    const size_t bytes = rows->w->k / 2;
    float logits[RUN];
    for (uint32_t i = 0, n; i < l->n; i += n) {
        n = l->n - i < RUN ? l->n - i : RUN;
        for (uint32_t j = i; j < i + n; j++) {
            const uint8_t *next = rows->w->lower + l->id[j + AHEAD < l->n ? j + AHEAD : j] * bytes;
            for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(next + at);
            logits[j - i] = logit(s, rows, draw, l->id[j], l->coarse[j]);
        }
        tr_sampler_scan_ids(&rows->params[draw], l->id + i, logits, n, &l->best);
    }
    l->n = 0;
    raise_floor(rows, draw, l->best.score);
}

/* Lists of n ids from id0 on those that can score the floor. */
static void list(const tr_screen *s, tr_screen_rows *rows, uint32_t draw, uint32_t id0, uint32_t n) {
    tr_screen_list *l = &s->list[draw];
    const tr_sampler_params *p = &rows->params[draw];
    const size_t cells = (size_t)rows->row[draw] * TR_SCREEN_IDS;
    const float *bound = s->bound + cells;
    const int32_t *coarse = s->coarse + cells;
    uint32_t index[TR_SCREEN_IDS + 16], top = UINT32_MAX;
    const uint32_t found = (uint32_t)s->ops->at_least(bound, n, tr_sampler_bar(p, floor_of(rows, draw)), index);
    const uint32_t from = l->n;
    for (uint32_t i = 0; i < found; i++, l->n++) {
        const uint32_t at = index[i];
        l->id[l->n] = id0 + at, l->bound[l->n] = bound[at], l->coarse[l->n] = coarse[at];
        if (bound[at] > l->record) l->record = bound[at], top = at;
    }
    if (top != UINT32_MAX)
        raise_floor(rows, draw, tr_sampler_score(p, logit(s, rows, draw, id0 + top, coarse[top]), id0 + top));
    if (top != UINT32_MAX || p->temperature > 0) drop(s, rows, draw, from);
    if (l->n > TR_SCREEN_KEPT - TR_SCREEN_IDS) drop(s, rows, draw, 0);
    if (l->n > TR_SCREEN_KEPT - TR_SCREEN_IDS) compute(s, rows, draw);
}

void tr_screen_begin(tr_screen *s, const tr_screen_rows *rows) {
    for (uint32_t i = 0; i < rows->n_draws; i++)
        s->list[i].n = s->list[i].computed = 0, s->list[i].record = -INFINITY, s->list[i].best = TR_SAMPLER_NONE;
}

void tr_screen_bounds(tr_screen *s, tr_screen_rows *rows, uint32_t block0, uint32_t blocks, uint32_t vocab) {
    enum { BLOCKS = TR_SCREEN_IDS / TR_OPS_BLOCK_N };
    for (uint32_t b = block0, n, end = block0 + blocks; b < end; b += n) {
        n = end - b < BLOCKS ? end - b : BLOCKS;
        s->ops->planes_bound(&(tr_planes_args){.w = rows->w,
                                               .query = rows->query,
                                               .quads = rows->quads,
                                               .bound = s->bound,
                                               .coarse = s->coarse,
                                               .rows = rows->n,
                                               .ld = TR_SCREEN_IDS,
                                               .block0 = b,
                                               .blocks = n});
        const uint32_t id = b * TR_OPS_BLOCK_N, ids = n * TR_OPS_BLOCK_N;
        for (uint32_t i = 0; i < rows->n_draws; i++) list(s, rows, i, id, vocab - id < ids ? vocab - id : ids);
    }
}

tr_sampler_best tr_screen_scan(tr_screen *s, tr_screen_rows *rows, uint32_t draw) {
    drop(s, rows, draw, 0);
    compute(s, rows, draw);
    return s->list[draw].best;
}
