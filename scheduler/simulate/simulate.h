/* scheduler/simulate/simulate.h - a company under load, by the clock of its costs instead of a machine's.
 * The real scheduler core issues every step; modelled is what it sees of the others: stages that take a step's cost
 * (one step at a time, in order), links, the hand-off, clients. Texts are not computed, so replicas of hundreds of
 * sequences and pipelines of many stages run faster than the real ones. A discrete-event simulation: pure, no clock,
 * deterministic; the same configuration and requests give the same figures.
 *
 * Cost of a step on a stage, in ns: max(least + least_row * rows, step + row * rows) + read * reads, plus draw where a
 * token is drawn from it. rows: of the step; reads: positions of K and V that they look at, over all layers
 * (scheduler/cost.h); least: what reading the weights takes, where arithmetic hides behind it. Pipelines that share
 * cores are the scheduler's business: it keeps one step in flight there. Not modelled: faults, a full output channel
 * between stages, stops before max_tokens, samples, saved sequences. */
#ifndef TR_SIMULATE_H
#define TR_SIMULATE_H
#include "base/status.h"
#include "scheduler/scheduler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TR_SIMULATE_REPLICAS_MAX = 256, TR_SIMULATE_BLOCK = 512, TR_SIMULATE_REQUESTS_MAX = 1000000 };

typedef struct tr_simulate_cost { /* ns */
    double step, row, read, least, least_row, draw;
} tr_simulate_cost;

typedef struct tr_simulate_stage {
    uint32_t lo, hi;           /* layers */
    tr_simulate_cost phase[2]; /* prefill, decode */
} tr_simulate_stage;

typedef struct tr_simulate_config {
    tr_scheduler_config scheduler; /* of every replica; journal, tables and bitmaps are made here */
    uint32_t n_replicas;           /* a request goes to the one with the fewest tokens open */
    uint32_t max_open;             /* requests open at a time, at most: the next one waits for an end; 0: any number */
    tr_simulate_stage stage[2][TR_SCHEDULER_STAGES_MAX];
    double message_ns;                 /* scheduler to stage, or back */
    double hop_ns, hop_row_ns;         /* activations to the next stage; of tokens to the first one only hop_ns */
    double move_ns, move_cell_ns;      /* a job of the hand-off; each position of a layer in it */
    double submit_ns, submit_token_ns; /* client to scheduler, with tokenizing */
    double output_ns;                  /* scheduler to client */
    double reply_ns; /* what sampled tokens cost those who share the stages' cores: added to a step for each */
    uint64_t seed;   /* of prompts */
} tr_simulate_config;

typedef struct tr_simulate_request {
    uint64_t at_ns; /* arrival, not before that of the one before it */
    uint32_t prompt, output;
    const uint64_t *block; /* [n_blocks] names of its blocks of TR_SIMULATE_BLOCK tokens; equal ones are shared */
    uint32_t n_blocks;
    float *gap_ms; /* [output], or NULL: times between tokens as the client sees them */
    /* results */
    uint32_t replica, n_gaps, got, cached;
    uint64_t start_ns;                  /* sent: at_ns, or later with max_open */
    uint64_t first_ns, last_ns, end_ns; /* as the client sees them */
    bool ended, ok;                     /* not ok: refused, or it could not be run */
} tr_simulate_request;

typedef struct tr_simulate_stage_result { /* sums over the replicas */
    uint64_t busy_ns;
    uint64_t steps[2]; /* by phase */
} tr_simulate_stage_result;

typedef struct tr_simulate_result {
    uint64_t end_ns, events;
    uint64_t open_ns;      /* time with a request open, over the replicas */
    uint64_t flying_ns[2]; /* time with a step in that pipeline; one pipeline: both phases */
    uint64_t any_ns;       /* time with a step in any */
    uint64_t rows[2];
    uint32_t most_running, most_waiting; /* of a replica */
    tr_simulate_stage_result stage[2][TR_SCHEDULER_STAGES_MAX];
} tr_simulate_result;

typedef struct tr_simulate tr_simulate;
/* Bytes of state for n requests; the caller gives zeroed memory of that size, aligned to 64. 0: out of bounds. */
size_t tr_simulate_bytes(const tr_simulate_config *config, uint32_t n_requests);
/* Runs all requests to their end. memory: as above. TR_CONFIG: the scheduler refuses its configuration; TR_INTERNAL:
 * nothing happens any more though requests are open. */
tr_status tr_simulate_run(void *memory, const tr_simulate_config *config, tr_simulate_request *requests,
                          uint32_t n_requests, tr_simulate_result *result_out);

double tr_simulate_step_ns(const tr_simulate_cost *c, uint32_t rows, uint64_t reads, bool draws);
/* Share of the time with a step in its pipeline in which a stage computed nothing: fill, drain, imbalance and waiting
 * for the scheduler. Where stages share cores: of all stages together, the same for each. */
double tr_simulate_bubble(const tr_simulate_config *config, const tr_simulate_result *r, uint32_t pipeline,
                          uint32_t stage);
#endif
