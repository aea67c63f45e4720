/* troupe simulate: a company under load by the clock of its costs (costs.h): nothing is started, no weights are read.
 * The company is that of a model here, or of the model and machine that the costs describe. */
#include "actors/cli/cli_session.h"
#include "actors/cli/load_options.h"
#include "actors/cli/simulation.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct simulation {
    tr_cli_session session;
    tr_costs costs;
    tr_load load;
    tr_simulation_want want;
    tr_simulation done;
    tr_model_config model;
} simulation;

/* ---- what is simulated ----------------------------------------------------------------------------------------------
 */

static tr_policy_id policy_of(const char *name) {
    uint32_t i = 0;
    while (i < TR_POLICY_END && strcmp(tr_policy_table[i].name, name) != 0) i++;
    return (tr_policy_id)i;
}

/* Without a model that is named: the one of the costs. */
static tr_status load_session(simulation *s, tr_options *o, tr_error *err) {
    const char *file = tr_options_given(o, TR_OPTION_FILE) ? tr_options_text(o, TR_OPTION_FILE) : NULL;
    tr_cli_session *session = &s->session;
    TR_TRY(tr_cli_session_load_machine(session, o, err));
    if (file) TR_TRY(tr_topology_load(file, o, err));
    if (o->n_positional > 0) TR_TRY(tr_options_set_key(o, TR_SOURCE_FLAG, "model", o->positional[0], "MODEL", err));
    TR_TRY(tr_topology_resolve(o, file, &session->topology, err));
    if (!session->topology.model[0]) {
        s->model = s->costs.model;
        return s->costs.has_model ? TR_OK
                                  : tr_error_set(err, TR_USAGE, "no model named, and none in the costs: give MODEL");
    }
    TR_TRY(tr_model_file_open(session->topology.model, &session->model, err));
    s->model = *tr_model_file_config(session->model);
    return TR_OK;
}

/* The costs may speak of another machine. */
static tr_status plan(simulation *s, tr_error *err) {
    tr_cli_session *session = &s->session;
    tr_machine *machine = &session->machine;
    if (s->costs.cores) {
        const uint64_t memory = machine->memory_bytes;
        char text[48];
        snprintf(text, sizeof text, "core:%u pu:1", s->costs.cores);
        TR_TRY(tr_machine_synthetic(text, machine, err));
        machine->is_this_system = true; /* as if it were: nothing is started */
        machine->memory_bytes = memory;
    }
    if (s->costs.memory_gib) machine->memory_bytes = (uint64_t)s->costs.memory_gib << 30;
    return tr_company_build(&session->topology.want, &s->model, machine, &session->company, err);
}

static tr_status run(simulation *s, tr_options *o, tr_error *err) {
    TR_TRY(tr_costs_read(tr_options_text(o, TR_OPTION_COSTS), &s->costs, err));
    TR_TRY(load_session(s, o, err));
    TR_TRY(tr_serve_report_limits_parse(tr_options_text(o, TR_OPTION_GOODPUT), &s->want.limits, err));
    s->want.replicas = tr_options_u32(o, TR_OPTION_REPLICAS);
    s->want.max_open = tr_options_u32(o, TR_OPTION_CONCURRENCY);
    s->want.seed = tr_options_u64(o, TR_OPTION_SEED);
    s->want.policy = policy_of(tr_options_text(o, TR_OPTION_SIM_POLICY));
    if (s->session.topology.hosts.n > 1)
        return tr_error_set(err, TR_UNAVAILABLE, "companies of several hosts are not simulated yet: leave out hosts");
    TR_TRY(plan(s, err));
    TR_TRY(tr_load_options(o, &s->load, err));
    return tr_simulation_run(&s->session.company, &s->model, &s->costs, &s->load, &s->want, &s->done, err);
}

/* ---- result ---------------------------------------------------------------------------------------------------------
 */

static void print_text(const simulation *s) {
    const tr_simulation *d = &s->done;
    const tr_company *c = &s->session.company;
    tr_serve_report_print(&d->report, &s->want.limits, "md");
    printf("\npolicy %s, %u replica%s%s; at most %u running and %u waiting in one\n",
           tr_policy_table[d->config.scheduler.policy].name, d->config.n_replicas, d->config.n_replicas == 1 ? "" : "s",
           c->exclusive ? ", stages share cores" : "", d->result.most_running, d->result.most_waiting);
    puts("\n| stage | layers | steps | computes | bubble |\n|---|---|---|---|---|");
    for (uint32_t i = 0; i < c->n_actors; i++) {
        const tr_company_actor *a = &c->actor[i];
        if (a->role != TR_ROLE_STAGE || a->rank > 0) continue;
        const tr_simulate_stage_result *r = &d->result.stage[a->pipeline][a->stage];
        printf("| %s | %u..%u | %llu | %.1f %% | %.1f %% |\n", a->name, a->lo, a->hi - 1,
               (unsigned long long)(r->steps[0] + r->steps[1]), 100 * tr_simulation_busy(d, a->pipeline, a->stage),
               100 * tr_simulate_bubble(&d->config, &d->result, a->pipeline, a->stage));
    }
}

static json_t *stages_json(const simulation *s) {
    const tr_company *c = &s->session.company;
    const tr_simulation *d = &s->done;
    json_t *list = json_array();
    for (uint32_t i = 0; i < c->n_actors; i++) {
        const tr_company_actor *a = &c->actor[i];
        if (a->role != TR_ROLE_STAGE || a->rank > 0) continue;
        const tr_simulate_stage_result *r = &d->result.stage[a->pipeline][a->stage];
        json_array_append_new(list, json_pack("{s:s,s:[i,i],s:[I,I],s:f,s:f}", "name", a->name, "layers", (int)a->lo,
                                              (int)a->hi, "steps", (json_int_t)r->steps[0], (json_int_t)r->steps[1],
                                              "busy", tr_simulation_busy(d, a->pipeline, a->stage), "bubble",
                                              tr_simulate_bubble(&d->config, &d->result, a->pipeline, a->stage)));
    }
    return list;
}

static void print_json(const simulation *s) {
    const tr_simulation *d = &s->done;
    json_t *root = tr_serve_report_json(&d->report, &s->want.limits);
    json_object_set_new(root, "policy", json_string(tr_policy_table[d->config.scheduler.policy].name));
    json_object_set_new(root, "replicas", json_integer(d->config.n_replicas));
    json_object_set_new(root, "exclusive", json_boolean(s->session.company.exclusive));
    json_object_set_new(root, "bubble", json_real(tr_simulation_bubble(d)));
    json_object_set_new(root, "most_running", json_integer(d->result.most_running));
    json_object_set_new(root, "most_waiting", json_integer(d->result.most_waiting));
    json_object_set_new(root, "stages", stages_json(s));
    char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (text) puts(text);
    free(text);
    json_decref(root);
}

int tr_cli_simulate(tr_options *o) {
    static simulation s;
    tr_error err = {0};
    tr_status status = TR_OK;
    if (!tr_options_given(o, TR_OPTION_COSTS))
        status = tr_error_set(&err, TR_USAGE,
                              "--costs FILE: what steps cost; troupe bench model MODEL --costs FILE writes it");
    if (status == TR_OK) status = run(&s, o, &err);
    if (status == TR_OK) {
        if (tr_options_flag(o, TR_OPTION_JSON))
            print_json(&s);
        else
            print_text(&s);
    }
    tr_load_free(&s.load);
    tr_cli_session_fini(&s.session);
    return status == TR_OK ? 0 : tr_cli_fail(&err, status);
}
