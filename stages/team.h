/* stages/team.h - the workers of one stage: n threads of which the caller is the first.
 * Why: a stage splits every operation over its cores; the split never changes a number (kernels/ops.h).
 * Waiting: inside a run a barrier spins, and sleeps on a futex when the wait is a long one (at once with more workers
 * than cores); between runs the workers sleep. Beside a busy process a worker less takes part, see crowd.h.
 * Owns: the threads. Threads: run() by the creating thread only. */
#ifndef TR_TEAM_H
#define TR_TEAM_H
#include "base/status.h"

#include <stdint.h>

typedef struct tr_team tr_team;
typedef void (*tr_team_fn)(void *arg, uint32_t worker, uint32_t n_workers);

/* cpus: [n] logical CPUs to bind the workers to (worker 0 = the caller), one each, or NULL for no binding; a CPU may be
 * named twice. A refused binding is a warning in the log, not an error. Returns when every worker stands where it
 * belongs. */
tr_status tr_team_create(uint32_t n_workers, const uint32_t *cpus, tr_team **team_out, tr_error *err);
void tr_team_destroy(tr_team **team);
uint32_t tr_team_size(const tr_team *team); /* all workers, also those that are away */
/* Run fn on all workers that take part, [0, n_workers); returns when all have returned. */
void tr_team_run(tr_team *team, tr_team_fn fn, void *arg);
/* Between runs, where time is no matter: binds the workers to all cores of the team when one is away, back to one each
 * when all take part. The only call that makes a system call other than the futex, and only when that changes. */
void tr_team_settle(tr_team *team);
/* Inside fn: wait until all workers that take part are here. */
void tr_team_barrier(tr_team *team);
/* Share [begin, end) of n items for a worker, in contiguous runs. */
static inline void tr_team_share(uint32_t n, uint32_t worker, uint32_t n_workers, uint32_t *begin, uint32_t *end) {
    *begin = (uint32_t)((uint64_t)n * worker / n_workers);
    *end = (uint32_t)((uint64_t)n * (worker + 1) / n_workers);
}
#endif
