/* actors/cli/simulation.h - a planned company under a load, simulated: figures as a benchmark of the real one has them.
 * Memory of its own while it runs. Threads: one. */
#ifndef TR_SIMULATION_H
#define TR_SIMULATION_H
#include "actors/cli/costs.h"
#include "actors/cli/load.h"
#include "actors/cli/serve_report.h"

typedef struct tr_simulation_want {
    uint32_t replicas, max_open; /* as in tr_simulate_config */
    uint64_t seed;
    tr_policy_id policy;           /* TR_POLICY_END: the plan's */
    tr_serve_report_limits limits; /* of goodput */
} tr_simulation_want;

typedef struct tr_simulation {
    tr_simulate_config config;
    tr_simulate_result result;
    tr_serve_report report;
} tr_simulation;

/* TR_SYSTEM: no memory; TR_CONFIG. */
tr_status tr_simulation_run(const tr_company *company, const tr_model_config *model, const tr_costs *costs,
                            const tr_load *load, const tr_simulation_want *want, tr_simulation *out, tr_error *err);
/* Time that a stage computes, of the time in which its company has requests. */
double tr_simulation_busy(const tr_simulation *s, uint32_t pipeline, uint32_t stage);
/* The largest bubble of the stages (tr_simulate_bubble). */
double tr_simulation_bubble(const tr_simulation *s);
#endif
