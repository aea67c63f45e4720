/* scheduler/cost.h - what a step of one phase takes: a + b * rows + c * reads, fitted to measured steps.
 * a: what a step reads whatever its rows are (weights, meetings, hops); b: arithmetic of a row; c: the KV cache. reads
 * are positions of K and V, over all layers, that the rows of the step look at. So one form serves both phases: decode
 * is weights + KV bytes / bandwidth, prefill is arithmetic + tokens * prefix.
 * The fit is least squares of the relative error over sums that fade: a bucket for each power of two of rows, so that
 * what few rows taught is kept while only wide steps run, and all of them fade slowly, as a machine changes. What the
 * measurements leave open (equal steps do not tell a from b) is drawn to a fixed shape, scaled to what was measured.
 * One step in disorder moves nothing much: what took over three times as long as expected, or less than a third, counts
 * as that; and no coefficient falls below a small part of that shape. Doubles, in a fixed order: equal inputs give
 * equal outputs, so it replays. Pure; memory of the caller. */
#ifndef TR_COST_H
#define TR_COST_H
#include <stdint.h>

typedef struct tr_cost_work { /* of a step */
    uint32_t rows;
    uint64_t reads;
} tr_cost_work;

enum { TR_COST_TERMS = 3, TR_COST_BUCKETS = 13 };

typedef struct tr_cost_sums { /* weighted by 1 / time^2 */
    double n;
    double ff[TR_COST_TERMS * (TR_COST_TERMS + 1) / 2]; /* feature * feature, upper triangle */
    double ft[TR_COST_TERMS];                           /* feature * time */
} tr_cost_sums;

typedef struct tr_cost {
    uint64_t measured; /* steps */
    tr_cost_sums bucket[TR_COST_BUCKETS];
    double ns[TR_COST_TERMS]; /* a, b, c */
} tr_cost;

/* Zeroed memory is a model that has measured nothing. */
void tr_cost_learn(tr_cost *c, tr_cost_work work, uint64_t ns);
/* 0: nothing has been measured. */
uint64_t tr_cost_ns(const tr_cost *c, tr_cost_work work);
#endif
