#include "actors/runtime/company_scheduler.h"

#include <string.h>

/* Prompt tokens that a question to a store must be able to save: computing fewer takes about as long as asking. */
enum { STORE_LEAST = 64 };

static void fill_pipeline(const tr_company *c, uint32_t index, tr_scheduler_pipeline *out) {
    for (int lead = 1; lead >= 0; lead--)
        for (uint32_t a = 0; a < c->n_actors; a++) {
            const tr_company_actor *actor = &c->actor[a];
            if (actor->role != TR_ROLE_STAGE || actor->pipeline != index || (actor->rank == 0) != (lead == 1)) continue;
            out->stage[out->n_ranks++] = a; /* the plan has the stages in order */
            out->n_stages += (uint32_t)lead;
            out->feeds |= actor->phase[TR_PHASE_DECODE - 1].active != 0;
        }
    out->max_in_flight = c->max_in_flight[index];
}

void tr_company_scheduler(const tr_company *c, tr_scheduler_config *config) {
    *config = (tr_scheduler_config){.n_pipelines = c->unified ? 1 : 2,
                                    .exclusive = c->exclusive,
                                    .frontend = c->frontend,
                                    .resharder = c->resharder,
                                    .resharder_to = c->resharder_to,
                                    .two_resharders = c->resharder_to != c->resharder,
                                    .policy = (tr_policy_id)c->policy,
                                    .slo_ns = c->slo_ns,
                                    .fair = c->fair,
                                    .has_store = c->store_actor != TR_NOBODY,
                                    .store = c->store_actor,
                                    .store_least = STORE_LEAST,
                                    .chunk = c->chunk,
                                    .max_rows = c->max_rows,
                                    .max_batch = c->max_batch,
                                    .max_waiting = c->max_waiting,
                                    .one_pool = c->one_pool,
                                    .prefix_cache = c->prefix_cache,
                                    .one_path = c->one_path,
                                    .prefix_key = c->prefix_key,
                                    .watermark = c->watermark,
                                    .promise_tok = c->promise_tok,
                                    .swap_bytes = c->swap_bytes,
                                    .context = c->context,
                                    .vocab = c->vocab,
                                    .n_eos = c->n_eos};
    memcpy(config->eos, c->eos, sizeof config->eos);
    for (uint32_t p = 0; p < 2; p++) config->layout[p] = c->layout[c->one_pool ? 0 : p];
    for (uint32_t p = 0; p < config->n_pipelines; p++) fill_pipeline(c, p, &config->pipeline[p]);
}
