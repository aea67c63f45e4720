/* stages/screen.h - tokens drawn from the upper plane of the head: the same tokens as from all logits, for half of the
 * bytes. An upper bound of every logit comes from the upper plane (kernels/planes.h); only ids whose bound can win are
 * computed from both planes.
 * Two passes over a share of the ids. tr_screen_bounds lists the ids that can beat the floor, a score that some id of
 * the row has: where a bound is a record, its id is computed and may raise the floor, for all workers. When all shares
 * are through, tr_screen_scan computes what the last floor leaves of a list; workers whose own is done help with those
 * of the others. Neither shares nor the moment when a floor rises ever change a token: the argument is that of
 * tr_sampler_reach.
 * Threads: rows and draws are made by one worker each and read by all after a barrier; one screen a worker, with a
 * barrier between its passes. The floors alone are common to workers of several processes. No heap after init. */
#ifndef TR_SCREEN_H
#define TR_SCREEN_H
#include "kernels/ops.h"
#include "model/sampler.h"

enum {
    TR_SCREEN_ROWS = 32,      /* a step that asks for more rows, or tokens, computes all logits */
    TR_SCREEN_IDS = 512,      /* whose bounds are made at a time */
    TR_SCREEN_IDS_ONE = 2048, /* the same for a single row: long streams of weights */
    TR_SCREEN_KEPT = 8192     /* ids that a worker lists at most for a token; then it computes them at once */
};

/* Rows, and the tokens to draw from them. Owns its memory. */
typedef struct tr_screen_rows {
    const tr_planes *w;
    uint32_t n, n_draws;
    int8_t *memory, *quads; /* of the queries */
    tr_planes_query query[TR_SCREEN_ROWS];
    uint32_t row[TR_SCREEN_ROWS]; /* [n_draws] */
    tr_sampler_params params[TR_SCREEN_ROWS];
    _Atomic double *floor; /* [n_draws], borrowed */
} tr_screen_rows;

/* What one worker lists for one draw, and the best of what it computed. */
typedef struct tr_screen_list {
    uint32_t n, computed;   /* computed: ids so far */
    _Atomic uint32_t taken; /* of the second pass: entries that somebody computes */
    float record;           /* largest bound so far */
    tr_sampler_best best;
    uint32_t id[TR_SCREEN_KEPT];
    float bound[TR_SCREEN_KEPT];
    int32_t coarse[TR_SCREEN_KEPT];
} tr_screen_list;

/* One worker's. Owns its memory. */
typedef struct tr_screen {
    const tr_ops *ops;
    float *bound;         /* [rows, tr_screen_ids(rows)] */
    int32_t *coarse;      /* the same */
    tr_screen_list *list; /* [TR_SCREEN_ROWS], one a draw */
} tr_screen;

/* TR_UNAVAILABLE without memory; fini is safe then. floor: [TR_SCREEN_ROWS], before a first pass TR_SAMPLER_NONE.score.
 */
tr_status tr_screen_rows_init(tr_screen_rows *s, const tr_planes *w, _Atomic double *floor);
void tr_screen_rows_fini(tr_screen_rows *s);
/* Row `row` of n: x [k] as quant_u8 gives it. */
void tr_screen_rows_make(tr_screen_rows *s, uint32_t row, uint32_t n, const uint8_t *x, float scale);
/* Draw i of n. */
void tr_screen_rows_draw(tr_screen_rows *s, uint32_t i, uint32_t n, uint32_t row, const tr_sampler_params *params);

tr_status tr_screen_init(tr_screen *s, const tr_ops *ops);
void tr_screen_fini(tr_screen *s);
/* Ids whose bounds are made at a time. */
static inline uint32_t tr_screen_ids(uint32_t rows) { return rows == 1 ? TR_SCREEN_IDS_ONE : TR_SCREEN_IDS; }
/* Nothing is listed. */
void tr_screen_begin(tr_screen *s, const tr_screen_rows *rows);
/* All rows, ids of these blocks, in any order; those from `vocab` on do not exist. */
void tr_screen_bounds(tr_screen *s, tr_screen_rows *rows, uint32_t block0, uint32_t blocks, uint32_t vocab);
/* Best of what this worker has computed for one draw: s takes of the list of `of` (its own or another worker's) what
 * nobody has taken, as far as it matters. */
tr_sampler_best tr_screen_scan(tr_screen *s, tr_screen *of, tr_screen_rows *rows, uint32_t draw);
#endif
