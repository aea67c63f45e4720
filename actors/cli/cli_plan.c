/* troupe plan: the resolved placement and memory of a company, for people or as JSON; starts nothing, but for
 * --measure.
 * --verify: cli_verify.h; what it will do: cli_plan_predict.h. */
#include "actors/cli/cli_plan_predict.h"
#include "actors/cli/cli_verify.h"
#include "base/clock.h"
#include "model/pack.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct memory {
    uint64_t weights[TR_PRECISION_END]; /* by precision of the image; 0: not used */
    bool cached[TR_PRECISION_END];
    uint64_t kv[2], other;
} memory;

static bool uses(const tr_company *c, tr_precision image) {
    for (uint32_t a = 0; a < c->n_actors; a++)
        for (int p = 0; p < 2; p++)
            if (c->actor[a].phase[p].active &&
                tr_precision_image((tr_precision)c->actor[a].phase[p].precision) == image)
                return true;
    return false;
}

static tr_status measure(const tr_cli_session *s, memory *m, tr_error *err) {
    const tr_company *c = &s->company;
    memset(m, 0, sizeof *m);
    for (uint32_t i = 1; i < TR_PRECISION_END; i++) {
        const tr_precision p = (tr_precision)i;
        if (!uses(c, p)) continue;
        TR_TRY(tr_pack_bytes(s->model, p, &m->weights[p], err));
        m->cached[p] = tr_model_cache_has(s->model, p);
    }
    m->kv[0] = c->segment[TR_SEGMENT_POOL_PREFILL].bytes;
    m->kv[1] = c->segment[TR_SEGMENT_POOL_DECODE].bytes;
    for (uint32_t i = 0; i < TR_SEGMENT_POOL_PREFILL; i++) m->other += c->segment[i].bytes;
    m->other += c->segment[TR_SEGMENT_TEAMS].bytes - c->segment[TR_SEGMENT_TEAMS].sparse;
    return TR_OK;
}

/* ---- text -----------------------------------------------------------------------------------------------------------
 */

static double mib(uint64_t bytes) { return (double)bytes / (1 << 20); }

/* "0-3,8" */
static void cpu_text(const uint32_t *cpus, uint32_t n, char *out, size_t cap) {
    size_t used = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < n && used + 24 < cap; i++) {
        uint32_t j = i;
        while (j + 1 < n && cpus[j + 1] == cpus[j] + 1) j++;
        used += (size_t)snprintf(out + used, cap - used, j > i ? "%s%u-%u" : "%s%u", used ? "," : "", cpus[i], cpus[j]);
        i = j;
    }
    if (n == 0) snprintf(out, cap, "-");
}

/* What the stages of the plan would get on the planned machine, also where it is not this one. */
static const tr_placement_rank *placed(const tr_placement *p, const tr_company_actor *a) {
    return &p->rank[a->pipeline][a->stage * a->tp + a->rank];
}

static void print_stage(const tr_company *c, const tr_company_actor *a, const tr_placement_rank *at) {
    char cores[256], node[16] = "-", what[64] = "";
    cpu_text(at->cpus, at->n_cpus, cores, sizeof cores);
    if (at->numa_node >= 0) snprintf(node, sizeof node, "%d", at->numa_node);
    for (int p = 0; p < 2; p++)
        if (a->phase[p].active)
            snprintf(what + strlen(what), sizeof what - strlen(what), "%s%s", what[0] ? "/" : "",
                     tr_precision_name((tr_precision)a->phase[p].precision));
    printf("  %-12s layers %3u..%-3u  %-10s cores %-12s numa %s", a->name, a->lo, a->hi - 1, what, cores, node);
    if (a->tp > 1) printf("  rank %u of %u", a->rank, a->tp);
    if (c->n_nodes > 1) printf("  host %s", c->node[a->node].name);
    putchar('\n');
}

/* How prompts and streams share the time, and what two precisions cost there. */
static void print_policy(const tr_company *c) {
    const tr_policy *p = &tr_policy_table[c->policy];
    printf("policy     %s", p->name);
    if (c->slo_ns > 0) printf(", %g ms between tokens wanted", (double)c->slo_ns / TR_NS_PER_MS);
    if (c->unified && p->mixes)
        fputs(c->one_path ? "; chunks and decode rows share a step"
                          : "; two precisions: chunks and decode steps alternate, each reads weights of its own",
              stdout);
    puts("");
}

static void print_text(const tr_cli_session *s, const tr_placement *placement, const memory *m) {
    const tr_company *c = &s->company;
    const tr_model_config *config = tr_model_file_config(s->model);
    printf("model      %s (%s, %u layers, hidden %u, vocabulary %u)\n", c->model_name,
           tr_model_config_arch_name(config->arch), config->n_layers, config->hidden, config->vocab);
    printf("machine    %u core%s, %u NUMA node%s%s, kernels %s\n", s->machine.n_cores,
           s->machine.n_cores == 1 ? "" : "s", s->machine.n_nodes, s->machine.n_nodes == 1 ? "" : "s",
           s->machine.is_this_system ? "" : " (described, not this system)", c->ops);
    printf("context    %u tokens, chunk %u, batch %u, transport %s\n", c->context, c->chunk, c->max_batch,
           c->transport_zmq ? "zmq" : "shm");
    for (uint32_t a = 0; a < c->n_actors; a++)
        if (c->actor[a].role == TR_ROLE_STAGE) print_stage(c, &c->actor[a], placed(placement, &c->actor[a]));
    if (c->exclusive)
        puts("  stages share cores: one computes at a time, on all of them");
    else if (c->unified)
        printf("  micro-batches in flight: %u\n", c->max_in_flight[0]);
    else
        printf("  micro-batches in flight: prefill %u, decode %u\n", c->max_in_flight[0], c->max_in_flight[1]);
    print_policy(c);
    uint64_t sum = m->kv[0] + m->kv[1] + m->other;
    for (int p = 1; p < TR_PRECISION_END; p++) {
        if (!m->weights[p]) continue;
        printf("weights    %-7s %9.1f MiB, mapped shared (%s)\n", tr_precision_name((tr_precision)p),
               mib(m->weights[p]), m->cached[p] ? "cached" : "not cached yet: will be packed to a file of this size");
        sum += m->weights[p];
    }
    for (int p = 0; p < (c->one_pool ? 1 : 2); p++) {
        printf("kv %-7s %-7s %9.1f MiB, pages of %u tokens:",
               c->one_pool ? "shared"
               : p == 0    ? "prefill"
                           : "decode",
               tr_kv_format_name(c->layout[p].format), mib(m->kv[p]), c->layout[p].page_tok);
        for (uint32_t g = 0; g < c->layout[p].n_groups; g++) {
            const tr_kv_group *group = &c->layout[p].group[g];
            if (group->window)
                printf(" %u (window %u)", group->n_pages, group->window);
            else
                printf(" %u", group->n_pages);
        }
        putchar('\n');
    }
    printf("hand-off   %s\n", c->one_pool                       ? "pages change owner, nothing is copied"
                              : c->resharder == c->resharder_to ? "copied by the resharder"
                                                                : "sent from host to host by the resharders");
    printf("other      shared %9.1f MiB (rings, tables, journal, rows of tp ranks)\n", mib(m->other));
    printf("in all     %17.1f MiB of %.1f MiB\n", mib(sum), mib(s->machine.memory_bytes));
}

/* ---- JSON -----------------------------------------------------------------------------------------------------------
 */

static json_t *stage_json(const tr_company *c, const tr_company_actor *a, const tr_placement_rank *at) {
    json_t *j = json_object(), *cores = json_array(), *dtype = json_object();
    for (uint32_t i = 0; i < at->n_cpus; i++) json_array_append_new(cores, json_integer(at->cpus[i]));
    if (a->phase[0].active)
        json_object_set_new(dtype, "prefill", json_string(tr_precision_name((tr_precision)a->phase[0].precision)));
    if (a->phase[1].active)
        json_object_set_new(dtype, "decode", json_string(tr_precision_name((tr_precision)a->phase[1].precision)));
    json_object_set_new(j, "name", json_string(a->name));
    json_object_set_new(j, "layers", json_pack("[i,i]", (int)a->lo, (int)a->hi));
    json_object_set_new(j, "tp", json_pack("[i,i]", (int)a->rank, (int)a->tp));
    json_object_set_new(j, "dtype", dtype);
    json_object_set_new(j, "cores", cores);
    if (c->n_nodes > 1) json_object_set_new(j, "host", json_string(c->node[a->node].name));
    json_object_set_new(j, "numa", at->numa_node >= 0 ? json_integer(at->numa_node) : json_null());
    return j;
}

static json_t *pool_json(const tr_company *c, int p) {
    json_t *pages = json_array();
    for (uint32_t g = 0; g < c->layout[p].n_groups; g++)
        json_array_append_new(pages, json_pack("{s:i,s:i,s:i}", "pages", (int)c->layout[p].group[g].n_pages, "window",
                                               (int)c->layout[p].group[g].window, "layers",
                                               (int)c->layout[p].group[g].n_layers));
    return json_pack("{s:s,s:s,s:i,s:I,s:o}", "name",
                     c->one_pool ? "shared"
                     : p == 0    ? "prefill"
                                 : "decode",
                     "format", tr_kv_format_name(c->layout[p].format), "page", (int)c->layout[p].page_tok, "bytes",
                     (json_int_t)c->layout[p].pool_bytes, "groups", pages);
}

static json_t *hosts_json(const tr_cli_session *s) {
    const tr_hosts *h = &s->topology.hosts;
    json_t *list = json_array();
    for (uint32_t i = 0; i < h->n; i++)
        json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s}", "name", h->host[i].name, "address",
                                              h->host[i].address, "ssh", h->host[i].ssh, "netns", h->host[i].netns));
    return list;
}

static void print_json(const tr_cli_session *s, const tr_placement *placement, const memory *m,
                       const tr_cli_plan_predict *predicted) {
    const tr_company *c = &s->company;
    json_t *root = json_object(), *stages = json_array(), *pools = json_array(), *weights = json_object();
    json_t *cached = json_object();
    for (uint32_t a = 0; a < c->n_actors; a++)
        if (c->actor[a].role == TR_ROLE_STAGE)
            json_array_append_new(stages, stage_json(c, &c->actor[a], placed(placement, &c->actor[a])));
    for (int p = 0; p < (c->one_pool ? 1 : 2); p++) json_array_append_new(pools, pool_json(c, p));
    for (int p = 1; p < TR_PRECISION_END; p++) {
        const char *name = tr_precision_name((tr_precision)p);
        if (!m->weights[p]) continue;
        json_object_set_new(weights, name, json_integer((json_int_t)m->weights[p]));
        json_object_set_new(cached, name, json_boolean(m->cached[p]));
    }
    json_object_set_new(root, "model", json_string(c->model_path));
    json_object_set_new(root, "this_system", json_boolean(s->machine.is_this_system));
    json_object_set_new(root, "kernels", json_string(c->ops));
    json_object_set_new(root, "context", json_integer(c->context));
    json_object_set_new(root, "chunk", json_integer(c->chunk));
    json_object_set_new(root, "exclusive", json_boolean(c->exclusive));
    json_object_set_new(root, "in_flight", json_pack("[i,i]", (int)c->max_in_flight[0], (int)c->max_in_flight[1]));
    json_object_set_new(root, "transport", json_string(c->transport_zmq ? "zmq" : "shm"));
    json_object_set_new(root, "stages", stages);
    json_object_set_new(root, "pools", pools);
    json_object_set_new(root, "weights", weights);
    json_object_set_new(root, "cached", cached);
    json_object_set_new(root, "shared_bytes", json_integer((json_int_t)m->other));
    json_object_set_new(root, "hosts", hosts_json(s));
    json_object_set_new(root, "keys", json_string(s->topology.keys_dir));
    if (predicted->n) json_object_set_new(root, "prediction", tr_cli_plan_predict_json(predicted));
    char *text = json_dumps(root, JSON_COMPACT);
    if (text) puts(text);
    free(text);
    json_decref(root);
}

/* ---- command
 * --------------------------------------------------------------------------------------------------------- */

/* Several hosts: every one is taken for a machine like this one. */
static void as_planned(const tr_company *c, tr_placement *out) {
    memset(out, 0, sizeof *out);
    for (uint32_t a = 0; a < c->n_actors; a++) {
        const tr_company_actor *actor = &c->actor[a];
        if (actor->role != TR_ROLE_STAGE) continue;
        tr_placement_rank *to = &out->rank[actor->pipeline][actor->stage * actor->tp + actor->rank];
        to->n_cpus = actor->n_cpus;
        to->numa_node = actor->numa_node;
        memcpy(to->cpus, actor->cpus, sizeof to->cpus);
    }
}

static tr_status print_result(tr_cli_session *s, const tr_options *o, const tr_placement *placement, const memory *m,
                              const tr_costs *costs, tr_error *err) {
    static tr_cli_plan_predict predicted;
    if (tr_cli_plan_predict_wanted(o)) TR_TRY(tr_cli_plan_predict_make(s, o, costs, &predicted, err));
    if (tr_options_flag(o, TR_OPTION_JSON)) {
        print_json(s, placement, m, &predicted);
    } else {
        print_text(s, placement, m);
        tr_cli_plan_predict_print(&predicted);
    }
    return tr_options_flag(o, TR_OPTION_VERIFY) ? tr_cli_verify(&s->company, err) : TR_OK;
}

static tr_status show(tr_cli_session *s, tr_options *o, tr_error *err) {
    static tr_placement placement;
    static tr_costs costs;
    memory m;
    const tr_company_build_want *w = &s->topology.want;
    if (tr_cli_plan_predict_wanted(o)) TR_TRY(tr_cli_plan_predict_costs(s, o, &costs, err));
    TR_TRY(tr_cli_session_plan(s, err));
    TR_TRY(measure(s, &m, err));
    if (w->n_nodes > 1) return as_planned(&s->company, &placement), print_result(s, o, &placement, &m, &costs, err);
    tr_placement_want want = {.n_pipelines = w->unified ? 1 : 2,
                              .n_stages = {w->side[0].pp, w->unified ? 0 : w->side[1].pp},
                              .tp = {w->side[0].tp, w->side[1].tp},
                              .max_cores = w->threads,
                              .cores = w->cores};
    TR_TRY(tr_placement_compute(&s->machine, &want, &placement, err));
    return print_result(s, o, &placement, &m, &costs, err);
}

int tr_cli_plan(tr_options *o) {
    static tr_cli_session session;
    tr_error err = {0};
    tr_status status = tr_cli_session_load(&session, o, &err);
    if (status == TR_OK) status = show(&session, o, &err);
    tr_cli_session_fini(&session);
    return status == TR_OK ? 0 : tr_cli_fail(&err, status);
}
