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
    _Static_assert((int)TR_SCREEN_IDS_ONE <= (int)TR_SCREEN_ROWS * (int)TR_SCREEN_IDS, "one row fits");
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

/* Ids whose logits are computed in one go; rows of weights that are fetched before they are needed. */
enum { RUN = 64, AHEAD = 8 };

static void fetch(const tr_screen_rows *rows, uint32_t id) {
    const size_t bytes = rows->w->k / 2;
    const uint8_t *w = rows->w->lower + id * bytes;
    for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(w + at);
}

/* n ids, at most RUN. */
static void compute(const tr_screen *s, tr_screen_rows *rows, uint32_t draw, const uint32_t *id, const int32_t *coarse,
                    uint32_t n) {
    tr_sampler_best *best = &s->list[draw].best;
    float logits[RUN];
    for (uint32_t i = 0; i < AHEAD && i < n; i++) fetch(rows, id[i]);
    for (uint32_t i = 0; i < n; i++) {
        if (i + AHEAD < n) fetch(rows, id[i + AHEAD]);
        logits[i] = logit(s, rows, draw, id[i], coarse[i]);
    }
    tr_sampler_scan_ids(&rows->params[draw], id, logits, n, best);
    raise_floor(rows, draw, best->score);
}

/* Computes all that is listed. */
static void empty(const tr_screen *s, tr_screen_rows *rows, uint32_t draw) {
    tr_screen_list *l = &s->list[draw];
    for (uint32_t i = 0, n; i < l->n; i += n) {
        n = l->n - i < RUN ? l->n - i : RUN;
        compute(s, rows, draw, l->id + i, l->coarse + i, n);
    }
    l->n = 0;
}

/* Lists of n ids from id0 on those that can score the floor. */
static void list(const tr_screen *s, tr_screen_rows *rows, uint32_t draw, uint32_t id0, uint32_t n) {
    tr_screen_list *l = &s->list[draw];
    const tr_sampler_params *p = &rows->params[draw];
    const size_t cells = (size_t)rows->row[draw] * tr_screen_ids(rows->n);
    const float *bound = s->bound + cells;
    const int32_t *coarse = s->coarse + cells;
    uint32_t index[TR_SCREEN_IDS_ONE + 16], top = UINT32_MAX;
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
    if (l->n > TR_SCREEN_KEPT - TR_SCREEN_IDS_ONE) drop(s, rows, draw, 0);
    if (l->n > TR_SCREEN_KEPT - TR_SCREEN_IDS_ONE) empty(s, rows, draw);
}

void tr_screen_begin(tr_screen *s, const tr_screen_rows *rows) {
    for (uint32_t i = 0; i < rows->n_draws; i++) {
        tr_screen_list *l = &s->list[i];
        l->n = l->computed = 0;
        l->record = -INFINITY;
        l->best = TR_SAMPLER_NONE;
        atomic_store_explicit(&l->taken, 0, memory_order_relaxed);
    }
}

void tr_screen_bounds(tr_screen *s, tr_screen_rows *rows, uint32_t block0, uint32_t blocks, uint32_t vocab) {
    const uint32_t at_once = tr_screen_ids(rows->n) / TR_OPS_BLOCK_N;
    for (uint32_t b = block0, n, end = block0 + blocks; b < end; b += n) {
        n = end - b < at_once ? end - b : at_once;
        s->ops->planes_bound(&(tr_planes_args){.w = rows->w,
                                               .query = rows->query,
                                               .quads = rows->quads,
                                               .bound = s->bound,
                                               .coarse = s->coarse,
                                               .rows = rows->n,
                                               .ld = tr_screen_ids(rows->n),
                                               .block0 = b,
                                               .blocks = n});
        const uint32_t id = b * TR_OPS_BLOCK_N, ids = n * TR_OPS_BLOCK_N;
        for (uint32_t i = 0; i < rows->n_draws; i++) list(s, rows, i, id, vocab - id < ids ? vocab - id : ids);
    }
}

tr_sampler_best tr_screen_scan(tr_screen *s, tr_screen *of, tr_screen_rows *rows, uint32_t draw) {
    tr_screen_list *l = &of->list[draw];
    for (;;) {
        const uint32_t at = atomic_fetch_add_explicit(&l->taken, RUN, memory_order_relaxed);
        if (at >= l->n) return s->list[draw].best;
        uint32_t index[RUN], id[RUN];
        int32_t coarse[RUN];
        const uint32_t kept = tr_sampler_reach(&rows->params[draw], l->id + at, l->bound + at,
                                               l->n - at < RUN ? l->n - at : RUN, floor_of(rows, draw), index);
        for (uint32_t i = 0; i < kept; i++) id[i] = l->id[at + index[i]], coarse[i] = l->coarse[at + index[i]];
        compute(s, rows, draw, id, coarse, kept);
    }
}
