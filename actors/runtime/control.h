/* actors/runtime/control.h - one block of shared memory an actor: state, liveness, bell. The supervisor parses no
 * message: it reads these words, and writes the ones marked so. Cache lines are split by writer. */
#ifndef TR_CONTROL_H
#define TR_CONTROL_H
#include "actors/runtime/company.h"
#include "base/ledger.h"
#include "stages/team.h"
#include "transport/bell.h"
#include "transport/event.h" /* tr_actor_state */

#include <stdatomic.h>
#include <stdint.h>

typedef struct tr_control_block {
    /* written by the actor itself */
    _Alignas(64) _Atomic uint32_t state; /* tr_actor_state; INIT is set by the supervisor before each spawn */
    _Atomic uint32_t busy;     /* 1 while it computes: progress is expected, as while it is awake; 2 on files */
    _Atomic uint64_t progress; /* steps, jobs or turns completed in all lives */
    _Atomic uint64_t beat;     /* raised inside a long step: it is slow, it does not hang */
    _Atomic uint64_t kernel_ns, step_ns; /* sums over steps: inside kernels, received to published */
    _Atomic uint32_t port;               /* gateway: where it listens */
    _Atomic uint32_t placed;             /* 1: pinned and bound as planned and verified; 2: refused, runs unbound */
    tr_ledger ledger;                    /* of a stage, rank 0; while it is down, written by the supervisor */
    /* written by the supervisor; for actors of other nodes by the agent of this one, which also reports their state */
    _Alignas(64) _Atomic uint32_t incarnation; /* 1 is the first life; 0: never started */
    _Atomic uint32_t up;                       /* 1: READY and alive, as published to the peers */
    _Atomic uint32_t counted_deaths;           /* deaths that say something about the work (see supervisor_core.h) */
    _Atomic int32_t pid;                       /* 0 while down */
    _Atomic uint64_t rss;                      /* bytes, of an actor of another node; else 0 */
    tr_bell bell;                              /* rung by everybody */
    tr_team_lobby lobby;                       /* a stage's; called by the stages before it too */
} tr_control_block;

/* The link to another node, written by the agent of this one. */
typedef struct tr_control_link {
    _Alignas(64) _Atomic uint32_t up;
    _Atomic uint64_t outages;   /* since the agent's start */
    _Atomic uint64_t silent_ns; /* before the last one was noticed */
} tr_control_link;

typedef struct tr_control {
    /* written by the supervisor */
    _Alignas(64) _Atomic uint32_t ready; /* 1: every actor has been READY */
    _Atomic uint32_t stopping;           /* 1: actors must leave */
    _Atomic uint32_t changes;            /* raised when an actor's incarnation, up or counted_deaths changed */
    /* written by the frontend; survives it */
    _Alignas(64) _Atomic uint32_t drain; /* 1: nothing new is accepted; 2: and the company ends with its last request */
    /* written by the frontend, the node's agent or the command line's signals */
    _Alignas(64) _Atomic uint32_t stop_requested; /* 1 + exit code: the supervisor shall stop the company in order */
    tr_control_link link[TR_COMPANY_NODES_MAX];   /* by the other node */
    tr_control_block actor[TR_COMPANY_ACTORS_MAX];
} tr_control;
#endif
