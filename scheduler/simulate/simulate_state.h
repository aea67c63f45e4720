/* scheduler/simulate/simulate_state.h - private state of the simulation, shared by its files only.
 * simulate.c        memory, events, the scheduler's messages, requests
 * simulate_stage.c  what stages and the resharder do with theirs */
#ifndef TR_SIMULATE_STATE_H
#define TR_SIMULATE_STATE_H
#include "scheduler/simulate/simulate.h"
#include "scheduler/simulate/simulate_queue.h"

typedef enum tr_simulate_kind {
    SIM_SUBMIT,     /* index: request */
    SIM_INPUT,      /* pipeline, index: stage; a: step of the table */
    SIM_COMPUTED,   /* pipeline, index: stage */
    SIM_FED,        /* pipeline; a: id of the step whose tokens are at the first stage */
    SIM_STEP_DONE,  /* pipeline; a: step of the table */
    SIM_LAYERS,     /* pipeline, index: stage; a: id of the step; b: end of the layers */
    SIM_RESHARDED,  /* a: job; b: bytes, as positions of layers */
    SIM_RESET_DONE, /* index: actor; a: epoch */
    SIM_RELEASE,    /* index: request */
    SIM_TIMER       /* a: number of the timer */
} tr_simulate_kind;

typedef struct tr_simulate_step { /* a STEP that is out */
    bool used, cut;               /* cut: not the last slice */
    uint32_t begin, end;          /* layers */
    uint32_t epoch, phase, n_spans, n_rows, n_draws;
    uint64_t id, source;
    uint64_t reads;
} tr_simulate_step;

typedef struct tr_simulate_server { /* a stage */
    uint32_t actor, current;        /* current: step of the table, or NONE */
    uint32_t head, n;               /* of the queue */
    uint64_t began_ns, input_ns;    /* input_ns: when the last record on its link is there: none overtakes another */
    uint32_t *queue;                /* [steps_max] steps of the table, in order */
} tr_simulate_server;

typedef struct tr_simulate_pipeline {
    uint32_t n_stages, flying;
    uint64_t since_ns, fed; /* flying > 0 since; fed: id of the step whose tokens the first stage has */
    tr_simulate_server *stage;
    tr_simulate_step *step; /* [steps_max] */
} tr_simulate_pipeline;

typedef struct tr_simulate_replica {
    tr_scheduler *core;
    tr_scheduler_config config;
    tr_simulate_pipeline pipeline[2];
    uint64_t move_free_ns; /* when the resharder has done all that it was told */
    uint64_t timer;        /* number of the one that counts */
    uint64_t open_since_ns, any_since_ns, open_tokens;
    uint32_t open, flying, epoch_of_resharder;
} tr_simulate_replica;

struct tr_simulate {
    const tr_simulate_config *config;
    tr_simulate_request *request;
    tr_simulate_result *result;
    uint32_t n_requests, n_arrived, n_ended, steps_max;
    uint64_t now;
    bool overflow; /* more events than there is room for: a fault of ours */
    tr_simulate_replica *replica;
    tr_simulate_queue queue;
    uint32_t *tokens; /* [context] of a prompt */
    tr_effects *effects;
};

enum { SIM_NONE = UINT32_MAX };

void tr_simulate_push(tr_simulate *s, double delay_ns, tr_simulate_event event);

/* simulate_stage.c */
/* What a stage computes for a step. */
double tr_simulate_stage_ns(const tr_simulate *s, uint32_t pipeline, uint32_t stage, const tr_simulate_step *step);
void tr_simulate_stage_take(tr_simulate *s, uint32_t replica, uint32_t pipeline, const tr_msg_step *m);
void tr_simulate_stage_input(tr_simulate *s, const tr_simulate_event *e);
void tr_simulate_stage_computed(tr_simulate *s, const tr_simulate_event *e);
void tr_simulate_stage_fed(tr_simulate *s, const tr_simulate_event *e);
void tr_simulate_stage_move(tr_simulate *s, uint32_t replica, const tr_msg_reshard *m);
#endif
