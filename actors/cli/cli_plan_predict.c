#include "actors/cli/cli_plan_predict.h"

#include "actors/cli/cli_bench.h"
#include "actors/cli/load_options.h"
#include "actors/cli/simulation.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { REQUESTS = 48, OPEN = 8, LONE = 4 }; /* of the load, where the options name none */

typedef struct work {
    const tr_model_config *model;
    const tr_costs *costs;
    tr_load load, lone;
    uint32_t max_open;
    uint64_t seed;
} work;

bool tr_cli_plan_predict_wanted(const tr_options *o) {
    return tr_options_given(o, TR_OPTION_COSTS) || tr_options_flag(o, TR_OPTION_MEASURE) ||
           tr_options_flag(o, TR_OPTION_COMPARE);
}

tr_status tr_cli_plan_predict_costs(tr_cli_session *s, const tr_options *o, tr_costs *out, tr_error *err) {
    const tr_company_build_want kept = s->topology.want;
    if (s->topology.hosts.n > 1)
        return tr_error_set(err, TR_UNAVAILABLE, "companies of several hosts are not predicted yet");
    if (!tr_options_flag(o, TR_OPTION_MEASURE)) {
        if (tr_options_given(o, TR_OPTION_COSTS)) return tr_costs_read(tr_options_text(o, TR_OPTION_COSTS), out, err);
        return tr_error_set(err, TR_USAGE, "--compare needs costs: add --measure, or --costs FILE");
    }
    TR_TRY(tr_cli_bench_costs(s, out, err));
    s->topology.want = kept;
    if (!tr_options_given(o, TR_OPTION_COSTS)) return TR_OK;
    return tr_costs_write(tr_options_text(o, TR_OPTION_COSTS), out, s->topology.model_name, err);
}

/* ---- one company ----------------------------------------------------------------------------------------------------
 */

static tr_status predict(const work *w, const tr_company *c, tr_cli_plan_predict_row *row, tr_error *err) {
    static tr_simulation s; /* large */
    tr_simulation_want want = {.seed = w->seed, .max_open = 1, .policy = TR_POLICY_END};
    TR_TRY(tr_simulation_run(c, w->model, w->costs, &w->lone, &want, &s, err));
    row->ttft_lone = s.report.time[TR_SERVE_TTFT].mean;
    row->itl_lone = s.report.time[TR_SERVE_ITL].mean;
    want.max_open = w->max_open;
    TR_TRY(tr_simulation_run(c, w->model, w->costs, &w->load, &want, &s, err));
    row->ttft = s.report.time[TR_SERVE_TTFT].mean;
    row->itl = s.report.time[TR_SERVE_ITL].mean;
    row->itl_p99 = s.report.time[TR_SERVE_ITL].p99;
    row->tok_s = s.report.seconds > 0 ? s.report.output_tokens / s.report.seconds : 0;
    row->bubble = tr_simulation_bubble(&s);
    return TR_OK;
}

static void name_of(const tr_company_build_want *w, tr_cli_plan_predict_row *row) {
    row->unified = w->unified;
    if (w->unified)
        snprintf(row->name, sizeof row->name, "unified pp=%u%s", w->side[0].pp, w->side[0].tp > 1 ? ", tp" : "");
    else
        snprintf(row->name, sizeof row->name, "prefill pp=%u, decode pp=%u", w->side[0].pp, w->side[1].pp);
}

/* The prefill's precision for both phases: decode rows join chunks, and cost what a prompt's rows do. */
static tr_status predict_together(const work *w, const tr_cli_session *s, tr_cli_plan_predict *out, tr_error *err) {
    static tr_company c; /* large */
    static tr_costs costs;
    tr_company_build_want want = s->topology.want;
    work one = *w;
    tr_error ignored = {0};
    want.side[1].dtype = want.side[0].dtype;
    want.side[1].kv = want.side[0].kv;
    costs = *w->costs;
    costs.whole[1] = costs.whole[0];
    memcpy(costs.stage[1], costs.stage[0], sizeof costs.stage[1]);
    one.costs = &costs;
    if (tr_company_build(&want, w->model, &s->machine, &c, &ignored) != TR_OK) return TR_OK;
    out->alternates = true;
    return predict(&one, &c, &out->together, err);
}

static const struct {
    bool unified;
    uint32_t pp[2];
} candidates[] = {{true, {1, 1}}, {true, {2, 2}}, {false, {1, 1}}, {false, {2, 1}}, {false, {1, 2}}, {false, {2, 3}}};
enum { CANDIDATES = sizeof candidates / sizeof *candidates };

/* What this machine or this model cannot have is passed over. */
static tr_status predict_others(const work *w, const tr_cli_session *s, tr_cli_plan_predict *out, tr_error *err) {
    static tr_company c; /* large */
    for (uint32_t i = 0; i < CANDIDATES && out->n < TR_CLI_PLAN_PREDICT_MAX; i++) {
        tr_company_build_want want = s->topology.want;
        tr_cli_plan_predict_row *row = &out->row[out->n];
        tr_error ignored = {0};
        want.unified = candidates[i].unified;
        for (int p = 0; p < 2; p++) {
            want.side[p].pp = candidates[i].pp[p];
            want.side[p].tp = 1;
            want.side[p].n_layers = 0;
        }
        name_of(&want, row);
        if (strcmp(row->name, out->row[0].name) == 0) continue;
        if (tr_company_build(&want, w->model, &s->machine, &c, &ignored) != TR_OK) continue;
        TR_TRY(predict(w, &c, row, err));
        out->n++;
    }
    return TR_OK;
}

/* ---- all ------------------------------------------------------------------------------------------------------------
 */

static tr_status make_load(work *w, const tr_options *o, tr_cli_plan_predict *out, tr_error *err) {
    const bool open = tr_options_given(o, TR_OPTION_RATE) || tr_options_given(o, TR_OPTION_TRACE);
    double prompts = 0, outputs = 0;
    TR_TRY(tr_load_options(o, &w->load, err));
    if (!open && !tr_options_given(o, TR_OPTION_REQUESTS) && w->load.n > REQUESTS) w->load.n = REQUESTS;
    w->max_open = tr_options_u32(o, TR_OPTION_CONCURRENCY);
    if (!open && w->max_open == 0) w->max_open = OPEN;
    for (size_t i = 0; i < w->load.n; i++) {
        prompts += w->load.request[i].prompt;
        outputs += w->load.request[i].output;
    }
    prompts /= (double)w->load.n;
    outputs /= (double)w->load.n;
    if (open)
        snprintf(out->load, sizeof out->load, "%zu arrivals of %.0f + %.0f tokens", w->load.n, prompts, outputs);
    else
        snprintf(out->load, sizeof out->load, "%u at a time, %.0f + %.0f tokens", w->max_open, prompts, outputs);
    const tr_load_want lone = {.n = LONE,
                               .prompt = (uint32_t)prompts + 1,
                               .output = outputs < 2 ? 2 : (uint32_t)outputs,
                               .prompt_max = TR_MAX_TOKENS,
                               .output_max = TR_MAX_TOKENS};
    return tr_load_random(&lone, &w->lone, err);
}

tr_status tr_cli_plan_predict_make(const tr_cli_session *s, const tr_options *o, const tr_costs *costs,
                                   tr_cli_plan_predict *out, tr_error *err) {
    work w = {.model = tr_model_file_config(s->model), .costs = costs, .seed = tr_options_u64(o, TR_OPTION_SEED)};
    memset(out, 0, sizeof *out);
    tr_status status = make_load(&w, o, out, err);
    name_of(&s->topology.want, &out->row[0]);
    if (status == TR_OK) status = predict(&w, &s->company, &out->row[0], err);
    out->n = 1;
    if (status == TR_OK && s->company.unified && !s->company.one_path && tr_policy_table[s->company.policy].mixes)
        status = predict_together(&w, s, out, err);
    if (status == TR_OK && tr_options_flag(o, TR_OPTION_COMPARE)) status = predict_others(&w, s, out, err);
    tr_load_free(&w.load);
    tr_load_free(&w.lone);
    return status;
}

/* ---- result ---------------------------------------------------------------------------------------------------------
 */

/* Worth its second pipeline: smoother by a tenth than the best unified one, and as fast within a twentieth. */
static bool worth(const tr_cli_plan_predict_row *split, const tr_cli_plan_predict_row *unified) {
    return split->itl_p99 < 0.9 * unified->itl_p99 && split->tok_s > 0.95 * unified->tok_s;
}

static const tr_cli_plan_predict_row *best(const tr_cli_plan_predict *p, bool unified) {
    const tr_cli_plan_predict_row *found = NULL;
    for (uint32_t i = 0; i < p->n; i++)
        if (p->row[i].unified == unified && (found == NULL || p->row[i].tok_s > found->tok_s)) found = &p->row[i];
    return found;
}

static void print_verdict(const tr_cli_plan_predict *p) {
    const tr_cli_plan_predict_row *u = best(p, true), *chosen = best(p, false);
    if (u == NULL || chosen == NULL) return;
    for (uint32_t i = 0; i < p->n; i++)
        if (!p->row[i].unified && worth(&p->row[i], u)) chosen = &p->row[i];
    printf("\n%s: %s against %s: %+.0f %% tok/s, %+.0f %% first token, %+.0f %% p99 between tokens\n",
           worth(chosen, u) ? "disaggregation is worth it" : "disaggregation is not worth it here", chosen->name,
           u->name, 100 * (chosen->tok_s / u->tok_s - 1), 100 * (chosen->ttft / u->ttft - 1),
           100 * (chosen->itl_p99 / u->itl_p99 - 1));
}

void tr_cli_plan_predict_print(const tr_cli_plan_predict *p) {
    const tr_cli_plan_predict_row *r = &p->row[0];
    if (p->n == 0) return;
    printf("predicted  alone: first token after %.1f ms, then %.2f ms a token\n", r->ttft_lone, r->itl_lone);
    printf("           %s: first token after %.1f ms, %.2f ms between tokens (p99 %.2f), %.1f tok/s, bubble %.1f %%\n",
           p->load, r->ttft, r->itl, r->itl_p99, r->tok_s, 100 * r->bubble);
    if (p->alternates)
        printf("           two precisions in turn; the prefill's for both, in the same steps: first token after %.1f "
               "ms, %.2f "
               "ms between tokens (p99 %.2f), %.1f tok/s: in turn is %.2f times as fast\n",
               p->together.ttft, p->together.itl, p->together.itl_p99, p->together.tok_s, r->tok_s / p->together.tok_s);
    if (p->n == 1) return;
    printf("\n| %s | alone: first, then | first token | between tokens | p99 | tok/s | bubble "
           "|\n|---|---|---|---|---|---|---|\n",
           p->load);
    for (uint32_t i = 0; i < p->n; i++) {
        r = &p->row[i];
        printf("| %s%s | %.1f, %.2f | %.1f | %.2f | %.2f | %.1f | %.1f %% |\n", r->name, i == 0 ? " (asked)" : "",
               r->ttft_lone, r->itl_lone, r->ttft, r->itl, r->itl_p99, r->tok_s, 100 * r->bubble);
    }
    print_verdict(p);
}

static json_t *row_json(const tr_cli_plan_predict_row *r) {
    return json_pack("{s:s,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "topology", r->name, "ttft_lone_ms", r->ttft_lone,
                     "itl_lone_ms", r->itl_lone, "ttft_ms", r->ttft, "itl_ms", r->itl, "itl_p99_ms", r->itl_p99,
                     "output_tok_s", r->tok_s, "bubble", r->bubble);
}

json_t *tr_cli_plan_predict_json(const tr_cli_plan_predict *p) {
    json_t *root = json_pack("{s:s,s:o}", "load", p->load, "plan", row_json(&p->row[0])), *others = json_array();
    for (uint32_t i = 1; i < p->n; i++) json_array_append_new(others, row_json(&p->row[i]));
    if (p->alternates) json_object_set_new(root, "prefill_dtype_for_both", row_json(&p->together));
    json_object_set_new(root, "candidates", others);
    return root;
}
