/* actors/cli/costs.h - what steps, links and clients cost, as a file that troupe bench model --costs writes and
 * simulate and plan read. JSON, all times in microseconds:
 *   prefill, decode   of a step of the whole model on one stage: step_us + row_us * rows + read_us * reads, at least
 *                     least_us, and draw_us where a token is drawn (prefill: the LM head of a prompt's last row).
 * reads: positions of K and V that the rows look at, over all layers. Divided over the stages of a plan by layers; the
 * head of a decode step counts as the layers that its multiply-adds are worth workers           threads that a stage
 * had when this was measured: with other numbers times go in proportion; 0 or absent: they stay stages {"prefill":
 * [{...}, ...], "decode": [...]}: of each stage, instead of the division message_us hop_us hop_row_us move_us
 * move_cell_us submit_us submit_token_us output_us reply_us scheduler/simulate/simulate.h model, cores      of a
 * company that is not here: the config.json of its model, cores of its machine What is absent is 0. Errors:
 * TR_NO_INPUT, TR_DATA (names the file and the key). */
#ifndef TR_COSTS_H
#define TR_COSTS_H
#include "actors/runtime/company.h"
#include "base/status.h"
#include "model/model_config.h"
#include "scheduler/simulate/simulate.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tr_costs {
    tr_simulate_cost whole[2];                          /* prefill, decode; ns */
    uint32_t n_stages[2];                               /* entries of stage; 0: by division */
    tr_simulate_cost stage[2][TR_SCHEDULER_STAGES_MAX]; /* ns */
    double message, hop, hop_row, move, move_cell, submit, submit_token, output, reply; /* ns */
    uint32_t workers, cores, memory_gib;
    bool has_model;
    tr_model_config model; /* with has_model */
} tr_costs;

tr_status tr_costs_read(const char *path, tr_costs *out, tr_error *err);
/* Without stages and model. TR_CANNOT_CREATE. */
tr_status tr_costs_write(const char *path, const tr_costs *costs, const char *model_name, tr_error *err);
/* Costs of every stage of a plan, and the rest, into the configuration of its simulation. */
void tr_costs_apply(const tr_costs *costs, const tr_company *company, const tr_model_config *model,
                    tr_simulate_config *out);
#endif
