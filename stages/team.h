/* stages/team.h - the workers of one stage: threads of one process, or of several (tensor parallel ranks).
 * Why: a stage splits every operation over its cores; the split never changes a number (kernels/ops.h).
 * Waiting: inside a run a barrier spins, and sleeps on a futex when the wait is a long one (at once with more workers
 * than cores); between runs the workers sleep. Beside a busy process a worker less of a team of one process takes part,
 * see crowd.h.
 * Teams that take turns on the same cores, as the stages of a pipeline do, hand each core on: a worker who has left the
 * run wakes his successor, the worker of that index of the next team. He is there when the work is, and no other core
 * has to be told.
 * Several processes: rank 0 leads, its creating thread is worker 0 and alone calls run(). The other ranks follow: all
 * their workers are threads of the team, and every run of the leader calls their `follow`. They meet in a
 * tr_team_meeting in shared memory, and what a run works on lies in shared memory too.
 * Death: any process may die at any instruction. Whoever notices calls tr_team_meeting_leave for its rank; barriers
 * then let everybody through at once and say so, and the run ends as aborted. The next run may begin when every rank is
 * idle and present; it is the users' affair to agree on that (the scheduler's RESET). A new life of a rank joins the
 * meeting that it finds.
 * Owns: the threads. Threads: run() by the creating thread only. */
#ifndef TR_TEAM_H
#define TR_TEAM_H
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_TEAM_RANKS_MAX = 64, TR_TEAM_WORKERS_MAX = 256 /* over all ranks */ };

/* What the workers meet at. Generation: raised by 2 by the last to arrive at a barrier; bit 0: a rank has left. */
typedef struct tr_team_meeting {
    _Alignas(64) _Atomic uint32_t run;     /* raised to start a run; says who takes part; workers sleep on it */
    _Atomic uint32_t what;                 /* the leader's word on it */
    _Alignas(64) _Atomic uint32_t arrived; /* workers at the barrier */
    _Alignas(64) _Atomic uint32_t generation;
    _Atomic uint32_t sleepers;                                /* at the barrier */
    _Alignas(64) _Atomic uint32_t present[TR_TEAM_RANKS_MAX]; /* 1: all workers of the rank look at run */
} tr_team_meeting;

/* Where the workers of a team but the first wait between runs, for their run or for who hands on his core. In memory of
 * several processes; survives them. Zeroed memory: nobody waits. */
typedef struct tr_team_lobby {
    _Alignas(64) _Atomic uint32_t calls; /* raised to wake somebody */
    _Atomic uint32_t asleep;
} tr_team_lobby;

/* Zeroed memory: nobody is there. */
void tr_team_meeting_init(tr_team_meeting *m);
/* The rank is dead or goes: whoever waits for it is let through. By any process that maps the meeting. */
void tr_team_meeting_leave(tr_team_meeting *m, uint32_t rank);

typedef struct tr_team tr_team;
typedef void (*tr_team_fn)(void *arg, uint32_t worker, uint32_t n_workers);

typedef struct tr_team_config {
    tr_team_meeting *meeting; /* borrowed */
    uint32_t rank, n_ranks;
    uint32_t n_workers;     /* of this rank */
    uint32_t first, total;  /* index of its first worker; workers of all ranks */
    const uint32_t *cpus;   /* [total] logical CPUs to bind workers to, or NULL */
    _Atomic uint64_t *beat; /* raised now and then while all workers of this rank wait for others: they do not hang */
    tr_team_lobby *lobby;   /* borrowed, of a team of one process; or NULL */
    tr_team_fn follow;      /* ranks above 0 */
    void *arg;
} tr_team_config;

/* A team of this process alone. cpus: [n] logical CPUs to bind the workers to (worker 0 = the caller), one each, or
 * NULL for no binding; a CPU may be named twice. A refused binding is a warning in the log, not an error. Returns when
 * every worker stands where it belongs. */
tr_status tr_team_create(uint32_t n_workers, const uint32_t *cpus, tr_team **team_out, tr_error *err);
/* One rank of a team over several processes; returns when its workers stand where they belong. It is present, and runs
 * may come, from enter on. */
tr_status tr_team_join(const tr_team_config *config, tr_team **team_out, tr_error *err);
void tr_team_enter(tr_team *team);
/* In the next runs cores are handed on to the team that waits there; NULL: to nobody. Between runs, by who calls run().
 */
void tr_team_hand_on(tr_team *team, tr_team_lobby *next);
void tr_team_destroy(tr_team **team);
/* Workers of all ranks, also those that are away; of this process, from which on. */
uint32_t tr_team_size(const tr_team *team);
uint32_t tr_team_local(const tr_team *team, uint32_t *first_out);
/* Run fn on all workers of this process that take part, [0, n_workers), and `follow` on those of the other ranks, who
 * learn `what` of it; returns when all have returned. False: a rank has left, the run is worth nothing; no worker of
 * this process is in it any more. */
bool tr_team_run(tr_team *team, tr_team_fn fn, void *arg, uint32_t what);
uint32_t tr_team_what(const tr_team *team);
/* No worker of this process is in a run, or will still enter one that was started. */
bool tr_team_idle(const tr_team *team);
/* Between runs, where time is no matter: where another process stands on the cores (crowd.h) every worker is bound to
 * all cores of the team, and back to one each when that is over. The only call that makes a system call other than the
 * futex, and only when that changes. Followers do it by themselves. */
void tr_team_settle(tr_team *team);
/* Inside fn: wait until all workers that take part are here. False: a rank has left, do not rely on what the others
 * should have done. */
bool tr_team_barrier(tr_team *team);
bool tr_team_aborted(const tr_team *team);
/* Share [begin, end) of n items for a worker, in contiguous runs. */
static inline void tr_team_share(uint32_t n, uint32_t worker, uint32_t n_workers, uint32_t *begin, uint32_t *end) {
    *begin = (uint32_t)((uint64_t)n * worker / n_workers);
    *end = (uint32_t)((uint64_t)n * (worker + 1) / n_workers);
}
#endif
