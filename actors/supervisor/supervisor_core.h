/* actors/supervisor/supervisor_core.h - the life of all actors: spawn, watch, restart, escalate, end. Pure core
 * (transport/event.h); the driver spawns, signals, waits and publishes.
 *
 * In: START · CHILD_STATE, CHILD_EXIT · TIMER · STOP. Out: SPAWN, KILL, PEERS, TIMER, EXIT.
 * Child:   OFF -> INIT (spawned) -> READY -> OFF (exit; PEERS down, respawn with the next incarnation after a backoff).
 *          PEERS up is published at READY. DRAINING: SIGTERM was sent. DEAD: will not come back.
 * Company: INIT until all are READY once -> READY -> DRAINING (STOP, escalation or start-up failure) -> DEAD (EXIT).
 * Counted death: any exit but a SIGKILL that the supervisor did not send. Budget of a child: TR_SUPERVISOR_CORE_BUDGET
 *          counted deaths within TR_SUPERVISOR_CORE_WINDOW_NS with no progress between them (its progress counter did
 * not move in a whole life) -> the company ends, exit 70, effect.to = that child. Start-up: a child that exits by
 * itself before its first READY ends the company with its code (0 counts as 70). Lease:   only while a child says busy:
 * no sign of life for lease_ns -> SIGKILL (ours, so counted). Signs are its progress counter and, for at most hang_ns,
 * that it runs, waits for a core or for a disk (child_state.runs): so one that is stopped or waits for what never comes
 * is found in lease_ns, and one that computes for ever in hang_ns. busy 2: it reads or writes files, hang_ns alone
 * counts. A timer that comes much too late means that this process slept: all clocks start anew, nobody is killed. A
 * child that does not reach READY in start_ns is killed alike (0: no limit). End:     SIGTERM to all in reverse order;
 * after term_ns SIGKILL; EXIT when the last one is gone (or kill_ns later). effect EXIT: exit_code, to = the child at
 * fault or TR_NOBODY. */
#ifndef TR_SUPERVISOR_CORE_H
#define TR_SUPERVISOR_CORE_H
#include "base/status.h"
#include "transport/event.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_SUPERVISOR_CORE_CHILDREN = 128, TR_SUPERVISOR_CORE_BUDGET = 5 };
#define TR_SUPERVISOR_CORE_WINDOW_NS 30000000000ull

typedef struct tr_supervisor_core_config {
    uint32_t n_children;
    uint32_t child[TR_SUPERVISOR_CORE_CHILDREN]; /* actor indices in the order of spawning */
    uint64_t lease_ns, hang_ns;                  /* 0: off */
    uint64_t start_ns;                           /* spawn to READY at most; 0: no limit */
    uint64_t term_ns;                            /* SIGTERM to SIGKILL */
    uint64_t backoff_ns;                         /* second counted death in a row; doubles, at most 32 times this */
} tr_supervisor_core_config;

typedef struct tr_supervisor_core_child {
    uint32_t actor, incarnation;
    uint32_t state;      /* tr_actor_state; DEAD also before the first spawn and between lives */
    uint32_t alive;      /* a process exists */
    uint32_t busy;       /* as it says */
    uint32_t ready_once; /* was READY in any life */
    uint32_t n_deaths;   /* counted, without progress between, newest last */
    uint32_t kill_sent;  /* SIGKILL by us in this life */
    uint64_t death_ns[TR_SUPERVISOR_CORE_BUDGET];
    uint64_t progress;    /* last seen */
    uint64_t progress_ns; /* when it last moved, or busy began */
    uint64_t alive_ns;    /* the same, or when it was last seen to run */
    uint64_t respawn_ns;  /* when to spawn again; 0: not waiting */
    uint64_t spawned_ns;
    uint64_t restarts;
} tr_supervisor_core_child;

/* Memory of the caller; read state and child[], write nothing. */
typedef struct tr_supervisor_core {
    tr_supervisor_core_config config;
    uint32_t state; /* tr_actor_state of the company */
    uint32_t culprit;
    int exit_code;
    uint64_t deadline_ns; /* of the phase of ending */
    uint32_t killed;      /* SIGKILL went out to all */
    uint64_t timer_ns;    /* when the timer should come; 0: none */
    tr_supervisor_core_child child[TR_SUPERVISOR_CORE_CHILDREN];
} tr_supervisor_core;

tr_status tr_supervisor_core_init(tr_supervisor_core *s, const tr_supervisor_core_config *config);
void tr_supervisor_core_step(tr_supervisor_core *s, const tr_event *event, tr_effects *fx);
uint64_t tr_supervisor_core_digest(const tr_supervisor_core *s);
#endif
