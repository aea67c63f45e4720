#include "actors/cli/simulation.h"

#include "actors/runtime/company_scheduler.h"
#include "base/checked.h"

#include <stdlib.h>
#include <string.h>

typedef struct run {
    tr_simulate_request *request;
    tr_serve_report_seen *seen;
    float *gaps;
    void *memory;
    size_t n;
} run;

static void run_fini(run *r) {
    free(r->request);
    free(r->seen);
    free(r->gaps);
    free(r->memory);
}

static tr_status no_memory(tr_error *err, size_t n) {
    return tr_error_set(err, TR_SYSTEM, "no memory to simulate %zu requests: ask for fewer of them, or of replicas", n);
}

static tr_status take_load(run *r, const tr_load *load, uint32_t context, tr_error *err) {
    size_t outputs = 1, used = 0;
    r->n = load->n;
    for (size_t i = 0; i < load->n; i++) outputs += load->request[i].output;
    r->request = calloc(load->n, sizeof *r->request);
    r->seen = calloc(load->n, sizeof *r->seen);
    r->gaps = malloc(outputs * sizeof *r->gaps);
    if (!r->request || !r->seen || !r->gaps) return no_memory(err, load->n);
    for (size_t i = 0; i < load->n; i++) {
        const tr_load_request *q = &load->request[i];
        r->request[i] = (tr_simulate_request){.at_ns = q->at_ns,
                                              .prompt = q->prompt < context ? q->prompt : context - 1,
                                              .output = q->output,
                                              .block = q->block,
                                              .n_blocks = q->n_blocks,
                                              .gap_ms = r->gaps + used};
        used += q->output;
    }
    return TR_OK;
}

/* As bench serve sees it. 0 is no time there. */
static void see(run *r) {
    for (size_t i = 0; i < r->n; i++) {
        const tr_simulate_request *q = &r->request[i];
        r->seen[i] = (tr_serve_report_seen){.ok = q->ok,
                                            .due_ns = q->at_ns + 1,
                                            .start_ns = q->start_ns + 1,
                                            .first_ns = q->first_ns + 1,
                                            .last_ns = q->last_ns + 1,
                                            .end_ns = q->end_ns + 1,
                                            .prompt_tokens = q->prompt,
                                            .output_tokens = q->got,
                                            .cached_tokens = q->cached,
                                            .n_gaps = q->n_gaps,
                                            .gap_ms = q->gap_ms};
    }
}

static tr_status simulate(run *r, tr_simulation *out, tr_error *err) {
    const size_t bytes = tr_simulate_bytes(&out->config, (uint32_t)r->n);
    if (bytes == 0) return tr_error_set(err, TR_CONFIG, "the scheduler refuses this company, or %zu requests", r->n);
    r->memory = aligned_alloc(64, tr_align_up(bytes, 64));
    if (!r->memory) return no_memory(err, r->n);
    memset(r->memory, 0, bytes);
    const tr_status status = tr_simulate_run(r->memory, &out->config, r->request, (uint32_t)r->n, &out->result);
    return status == TR_OK ? TR_OK : tr_error_set(err, status, "the simulation got stuck: a fault of the simulator");
}

tr_status tr_simulation_run(const tr_company *company, const tr_model_config *model, const tr_costs *costs,
                            const tr_load *load, const tr_simulation_want *want, tr_simulation *out, tr_error *err) {
    run r = {0};
    memset(out, 0, sizeof *out);
    tr_company_scheduler(company, &out->config.scheduler);
    tr_costs_apply(costs, company, model, &out->config);
    out->config.scheduler.has_store = 0;
    if (want->policy != TR_POLICY_END) out->config.scheduler.policy = want->policy;
    out->config.n_replicas = want->replicas ? want->replicas : 1;
    out->config.max_open = want->max_open;
    out->config.seed = want->seed;
    tr_status status = take_load(&r, load, company->context, err);
    if (status == TR_OK) status = simulate(&r, out, err);
    if (status == TR_OK) {
        see(&r);
        status = tr_serve_report_make(r.seen, r.n, &want->limits, &out->report, err);
    }
    run_fini(&r);
    return status;
}

double tr_simulation_busy(const tr_simulation *s, uint32_t pipeline, uint32_t stage) {
    const double open = (double)s->result.open_ns;
    return open > 0 ? (double)s->result.stage[pipeline][stage].busy_ns / open : 0;
}

double tr_simulation_bubble(const tr_simulation *s) {
    double most = 0;
    for (uint32_t p = 0; p < s->config.scheduler.n_pipelines; p++)
        for (uint32_t k = 0; k < s->config.scheduler.pipeline[p].n_stages; k++) {
            const double bubble = tr_simulate_bubble(&s->config, &s->result, p, k);
            if (bubble > most) most = bubble;
        }
    return most;
}
