/* stages/screen.h - tokens drawn from the upper plane of the head: the same tokens as from all logits, for half of the
 * bytes. An upper bound of every logit comes from the upper plane (kernels/planes.h); only ids whose bound can win are
 * computed from both planes. Two passes over a share of the ids: tr_screen_bounds and a first guess in each share,
 * then, with the best guess of all shares as the floor, tr_screen_scan. Shares and guesses never change a token: the
 * argument is tr_sampler_scan_bounds's. Owns: the prepared rows. Threads: one screen a worker. No heap after init. */
#ifndef TR_SCREEN_H
#define TR_SCREEN_H
#include "model/image.h"
#include "model/sampler.h"
#include "stages/linear.h"

enum { TR_SCREEN_ROWS = 4 }; /* a step that asks for more rows computes all logits */

typedef struct tr_screen {
    const tr_ops *ops;
    const tr_planes *w;
    int8_t *memory; /* behind query[] */
    tr_planes_query query[TR_SCREEN_ROWS];
} tr_screen;

/* One row: bounds of its logits, and what the exact ones go on from; both [n padded]. */
typedef struct tr_screen_row {
    const float *bound;
    const int32_t *coarse;
    uint32_t index;    /* of the row in the screen */
    uint32_t computed; /* ids that were computed from both planes so far */
} tr_screen_row;

tr_status tr_screen_init(tr_screen *s, const tr_ops *ops, const tr_planes *w);
void tr_screen_fini(tr_screen *s);
/* Bounds of all rows (at most TR_SCREEN_ROWS, ready for the head) for the ids of these blocks; rows ld apart. */
void tr_screen_bounds(tr_screen *s, const tr_linear_rows *x, uint32_t rows, float *bound, int32_t *coarse, size_t ld,
                      uint32_t block0, uint32_t blocks);
/* The id of [id0, id1) with the largest bound, and its score. */
tr_sampler_best tr_screen_guess(const tr_screen *s, tr_screen_row *row, const tr_sampler_params *p, uint32_t id0,
                                uint32_t id1);
/* Best of the ids of [id0, id1) that can score `floor`. */
tr_sampler_best tr_screen_scan(const tr_screen *s, tr_screen_row *row, const tr_sampler_params *p, uint32_t id0,
                               uint32_t id1, double floor);
#endif
