/* actors/stage/passes.h - what every rank of a stage has: its workers, the packed weights, and a forward pass for each
 * phase that the stage takes part in. Weights come from the page cache, KV pages and the memory of a team of several
 * ranks from the supervisor: a new incarnation finds all of it.
 * Owns: team, images, forward passes. Threads: the actor's. */
#ifndef TR_PASSES_H
#define TR_PASSES_H
#include "actors/runtime/runtime.h"
#include "stages/forward.h"

typedef struct tr_passes {
    tr_team *team;
    tr_image *image[TR_PRECISION_END]; /* index: precision of the image */
    tr_kv_calibration *calibration;    /* NULL: no pool needs one */
    tr_forward *forward[2];            /* index phase - 1; NULL: not this stage's */
} tr_passes;

/* follow, arg: what a run of the leader calls on the workers of another rank; NULL for rank 0. close is safe after a
 * failure. Runs may come from here on. */
tr_status tr_passes_open(tr_runtime *rt, tr_team_fn follow, void *arg, tr_passes *passes_out, tr_error *err);
void tr_passes_close(tr_passes *passes);
#endif
