/* transport/event.h - the contract of every actor's pure core: step(self, event) -> effects.
 * No system call, no clock, no heap after init; time comes in with the event, everything else goes out as an effect.
 * Two drivers run the same cores: the real one (rings, sockets, kernels, processes) and the simulator (one thread,
 * virtual time, faults). Actors are named by their index in the company plan; (index, incarnation) names one life of an
 * actor. Messages in effects point into memory of the core and are valid until its next step: the driver encodes them
 * at once. */
#ifndef TR_EVENT_H
#define TR_EVENT_H
#include "transport/schema.h"
#include "transport/wire.h"

#include <stdbool.h>
#include <stdint.h>

#define TR_NOBODY UINT32_MAX

typedef enum tr_actor_state {
    TR_ACTOR_INIT = 0,     /* process is there, not usable yet */
    TR_ACTOR_READY = 1,    /* takes part */
    TR_ACTOR_DRAINING = 2, /* ending in order */
    TR_ACTOR_DEAD = 3      /* no process */
} tr_actor_state;

typedef enum tr_event_kind {
    TR_EVENT_START,       /* first event of an incarnation; shared memory may hold what an earlier one left */
    TR_EVENT_MSG,         /* msg, from */
    TR_EVENT_PEER_UP,     /* from, incarnation: the peer is READY. After START one for every peer that is up. counted: a
                             counted death since it was last seen, which no PEER_DOWN has told */
    TR_EVENT_PEER_DOWN,   /* from; counted: the death says something about the work in flight (not an outside SIGKILL).
                             A driver that only sees a new incarnation raises DOWN, then UP */
    TR_EVENT_INPUT,       /* stage: header of the record at the head of the input channel (again after each release) */
    TR_EVENT_TOKENS,      /* first stage: what a step sampled, from the last one; tokens */
    TR_EVENT_OUTPUT_ROOM, /* stage: the output channel has room for a record */
    TR_EVENT_COMPUTED,    /* stage, resharder, store: the COMPUTE effect ended; computed */
    TR_EVENT_LAYERS,      /* stage, while it computes: K and V of these layers of the step are complete; layers */
    TR_EVENT_TIMER,       /* timer set by TR_EFFECT_TIMER has passed */
    TR_EVENT_CHILD_EXIT,  /* supervisor: from = child, exit status in child */
    TR_EVENT_CHILD_STATE, /* supervisor: from = child published another state or progress count */
    TR_EVENT_STOP         /* end in order: drain or terminate; supervisor: with child_exit.exit_code */
} tr_event_kind;

typedef struct tr_event {
    tr_event_kind kind;
    uint32_t from;        /* actor index or TR_NOBODY */
    uint32_t incarnation; /* of from */
    uint64_t now_ns;
    const tr_msg *msg; /* TR_EVENT_MSG; valid during the step */
    union {
        bool counted;
        tr_wire_header input;
        struct {
            uint32_t epoch, n;
            uint64_t step;
            const tr_wire_token *data; /* [n], valid during the step */
        } tokens;
        struct {
            uint32_t status;             /* 0, or 1 + index of the span at fault */
            bool aborted;                /* stage: another rank of it died meanwhile: no result, a RESET will come */
            const char *error;           /* NULL or one line */
            const uint32_t *sampled;     /* [tokens drawn] of the step, in the order of the spans */
            const uint32_t *logprob_ids; /* of the spans that ask, in turn; valid during the step; NULL: none */
            const float *logprobs;
            uint64_t kernel_ns, total_ns, bytes;
            uint32_t positions; /* store: that are there */
        } computed;
        struct {
            uint32_t lo, hi;
        } layers;
        struct {
            int exit_code; /* or -1 when a signal ended it */
            int signal;    /* 0 when it exited */
            bool ours;     /* the supervisor sent that signal */
        } child_exit;
        struct {
            uint32_t state;    /* tr_actor_state */
            uint32_t busy;     /* 1: has work now; progress must move while this stays. 2: work on files */
            bool runs;         /* a thread of it runs, or waits for a core or a disk */
            uint64_t progress; /* steps, jobs or turns completed, in all lives */
        } child_state;
    } as;
} tr_event;

typedef enum tr_effect_kind {
    TR_EFFECT_SEND,    /* msg to actor `to` */
    TR_EFFECT_COMPUTE, /* stage: run msg (a STEP); resharder: a RESHARD; store: a STORE_GET or STORE_PUT. One at a time;
                          COMPUTED follows, msg is valid until then */
    TR_EFFECT_RELEASE_INPUT, /* stage: drop the record at the head of the input channel */
    TR_EFFECT_PUBLISH,       /* stage: commit the output record that the computation filled */
    TR_EFFECT_FEED,          /* last stage: send what the computation sampled to the first stage */
    TR_EFFECT_TIMER,         /* at now + delay_ns; a later one replaces it */
    TR_EFFECT_SPAWN,         /* supervisor: start actor `to` with `incarnation` */
    TR_EFFECT_KILL,          /* supervisor: signal `signal` to actor `to` */
    TR_EFFECT_PEERS,         /* supervisor: publish that `to` (incarnation) is up, or down and whether the death was
                                counted (control block), and ring everybody */
    TR_EFFECT_EXIT           /* supervisor: the company ends with exit_code; to: actor at fault or TR_NOBODY */
} tr_effect_kind;

typedef struct tr_effect {
    tr_effect_kind kind;
    uint32_t to;
    uint32_t incarnation;
    bool up, counted; /* PEERS */
    bool quiet;       /* SEND: of use only together with what comes later and wakes the receiver; do not wake him now */
    int signal, exit_code;
    uint64_t delay_ns;
    tr_msg msg;
} tr_effect;

enum { TR_EFFECTS_MAX = 1024 };
typedef struct tr_effects {
    uint32_t n;
    tr_effect item[TR_EFFECTS_MAX];
} tr_effects;

#endif
