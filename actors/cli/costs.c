#include "actors/cli/costs.h"

#include "stages/layer_split.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_US 1000.0

static const char *const phases[2] = {"prefill", "decode"};

static const struct {
    const char *key;
    size_t at;
} step_keys[] = {{"step_us", offsetof(tr_simulate_cost, step)},
                 {"row_us", offsetof(tr_simulate_cost, row)},
                 {"read_us", offsetof(tr_simulate_cost, read)},
                 {"least_us", offsetof(tr_simulate_cost, least)},
                 {"least_row_us", offsetof(tr_simulate_cost, least_row)},
                 {"draw_us", offsetof(tr_simulate_cost, draw)}},
  keys[] = {{"message_us", offsetof(tr_costs, message)},
            {"hop_us", offsetof(tr_costs, hop)},
            {"hop_row_us", offsetof(tr_costs, hop_row)},
            {"move_us", offsetof(tr_costs, move)},
            {"move_cell_us", offsetof(tr_costs, move_cell)},
            {"submit_us", offsetof(tr_costs, submit)},
            {"submit_token_us", offsetof(tr_costs, submit_token)},
            {"output_us", offsetof(tr_costs, output)},
            {"reply_us", offsetof(tr_costs, reply)}};
enum { COUNT_MAX = 1000000 };
enum { STEP_KEYS = sizeof step_keys / sizeof *step_keys, KEYS = sizeof keys / sizeof *keys };

static double *at(void *base, size_t offset) { return (double *)(void *)((char *)base + offset); }

/* ---- reading --------------------------------------------------------------------------------------------------------
 */

static tr_status read_time(const json_t *object, const char *where, const char *key, double *ns, tr_error *err) {
    const json_t *value = json_object_get(object, key);
    if (!value) return TR_OK;
    *ns = json_number_value(value) * NS_PER_US;
    if (json_is_number(value) && *ns >= 0 && *ns < 1e15) return TR_OK;
    return tr_error_set(err, TR_DATA, "%s: %s is no time in microseconds, 0 to 1e12", where, key);
}

static tr_status read_cost(const json_t *object, const char *where, tr_simulate_cost *cost, tr_error *err) {
    if (!json_is_object(object)) return tr_error_set(err, TR_DATA, "%s: no object with step_us, row_us, ...", where);
    for (size_t i = 0; i < STEP_KEYS; i++)
        TR_TRY(read_time(object, where, step_keys[i].key, at(cost, step_keys[i].at), err));
    return TR_OK;
}

static tr_status read_stages(const json_t *root, const char *path, tr_costs *out, tr_error *err) {
    const json_t *stages = json_object_get(root, "stages");
    char where[600];
    for (int p = 0; p < 2 && stages; p++) {
        const json_t *list = json_object_get(stages, phases[p]);
        out->n_stages[p] = (uint32_t)json_array_size(list);
        if (json_array_size(list) > TR_SCHEDULER_STAGES_MAX)
            return tr_error_set(err, TR_DATA, "%s: stages.%s: at most %d", path, phases[p], TR_SCHEDULER_STAGES_MAX);
        for (uint32_t k = 0; k < out->n_stages[p]; k++) {
            snprintf(where, sizeof where, "%.500s: stages.%s[%u]", path, phases[p], k);
            TR_TRY(read_cost(json_array_get(list, k), where, &out->stage[p][k], err));
        }
    }
    return TR_OK;
}

static tr_status read_count(const json_t *root, const char *path, const char *key, uint32_t *out, tr_error *err) {
    const json_t *value = json_object_get(root, key);
    const json_int_t n = json_integer_value(value);
    if (!value) return TR_OK;
    if (!json_is_integer(value) || n < 0 || n > COUNT_MAX)
        return tr_error_set(err, TR_DATA, "%s: %s is no number from 0 to %d", path, key, COUNT_MAX);
    *out = (uint32_t)n;
    return TR_OK;
}

static tr_status read_model(const json_t *root, const char *path, tr_costs *out, tr_error *err) {
    const json_t *model = json_object_get(root, "model");
    if (!json_is_object(model)) return TR_OK; /* a name says where the costs come from */
    char *text = json_dumps(model, JSON_COMPACT);
    if (!text) return tr_error_set(err, TR_SYSTEM, "no memory for %s", path);
    const tr_status status = tr_model_config_from_json(text, strlen(text), path, &out->model, err);
    free(text);
    out->has_model = status == TR_OK;
    return status;
}

static tr_status read_root(const json_t *root, const char *path, tr_costs *out, tr_error *err) {
    char where[600];
    if (!json_is_object(root)) return tr_error_set(err, TR_DATA, "%s: not a file of costs", path);
    for (int p = 0; p < 2; p++) {
        snprintf(where, sizeof where, "%.500s: %s", path, phases[p]);
        TR_TRY(read_cost(json_object_get(root, phases[p]), where, &out->whole[p], err));
    }
    for (size_t i = 0; i < KEYS; i++) TR_TRY(read_time(root, path, keys[i].key, at(out, keys[i].at), err));
    TR_TRY(read_count(root, path, "workers", &out->workers, err));
    TR_TRY(read_count(root, path, "cores", &out->cores, err));
    TR_TRY(read_count(root, path, "memory_gib", &out->memory_gib, err));
    TR_TRY(read_stages(root, path, out, err));
    return read_model(root, path, out, err);
}

tr_status tr_costs_read(const char *path, tr_costs *out, tr_error *err) {
    json_error_t where;
    memset(out, 0, sizeof *out);
    FILE *f = fopen(path, "r");
    if (!f) return tr_error_set(err, TR_NO_INPUT, "cannot open the costs %s", path);
    json_t *root = json_loadf(f, JSON_REJECT_DUPLICATES, &where);
    fclose(f);
    if (!root) return tr_error_set(err, TR_DATA, "%s:%d: %s", path, where.line, where.text);
    const tr_status status = read_root(root, path, out, err);
    json_decref(root);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------------------------
 */

static json_t *times(const void *base, bool of_step) {
    json_t *object = json_object();
    for (size_t i = 0; i < (of_step ? STEP_KEYS : KEYS); i++) {
        const double ns = *at((void *)(uintptr_t)base, of_step ? step_keys[i].at : keys[i].at);
        json_object_set_new(object, of_step ? step_keys[i].key : keys[i].key, json_real(round(ns) / NS_PER_US));
    }
    return object;
}

tr_status tr_costs_write(const char *path, const tr_costs *costs, const char *model_name, tr_error *err) {
    json_t *root = json_object(), *rest = times(costs, false);
    json_object_set_new(root, "model", json_string(model_name));
    json_object_set_new(root, "workers", json_integer(costs->workers));
    for (int p = 0; p < 2; p++) {
        json_t *phase = times(&costs->whole[p], true);
        json_object_set_new(phase, "read_us", json_real(costs->whole[p].read / NS_PER_US)); /* far below a ns */
        json_object_set_new(root, phases[p], phase);
    }
    json_object_update(root, rest);
    json_decref(rest);
    const int failed = json_dump_file(root, path, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(root);
    return failed ? tr_error_set(err, TR_CANNOT_CREATE, "cannot write the costs to %s", path) : TR_OK;
}

/* ---- a plan ---------------------------------------------------------------------------------------------------------
 */

static tr_simulate_cost scaled(const tr_simulate_cost *c, double share) {
    return (tr_simulate_cost){.step = c->step * share,
                              .row = c->row * share,
                              .read = c->read * share,
                              .least = c->least * share,
                              .least_row = c->least_row * share,
                              .draw = c->draw * share};
}

/* What a stage has of the whole model. The head of a prefill step is draw, all of it on the last stage. */
static tr_simulate_cost share_of(const tr_costs *costs, const tr_company_actor *a, uint32_t phase, double head,
                                 uint32_t n_layers) {
    const tr_simulate_cost *whole = &costs->whole[phase];
    const bool last = a->stage + 1 == a->n_stages;
    const double layers = a->hi - a->lo, extra = phase == 1 ? head : 0;
    tr_simulate_cost c = scaled(whole, (layers + (last ? extra : 0)) / (n_layers + extra));
    c.read = whole->read * layers / n_layers;
    c.draw = last ? whole->draw : 0;
    return c;
}

static double workers_of(const tr_company_actor *a) { return a->tp > 1 ? a->team_workers : a->workers; }

void tr_costs_apply(const tr_costs *costs, const tr_company *c, const tr_model_config *model, tr_simulate_config *out) {
    const double head = (double)tr_layer_split_head_milli(model) / 1000;
    for (uint32_t i = 0; i < c->n_actors; i++) {
        const tr_company_actor *a = &c->actor[i];
        if (a->role != TR_ROLE_STAGE || a->rank > 0) continue;
        tr_simulate_stage *stage = &out->stage[a->pipeline][a->stage];
        stage->lo = a->lo;
        stage->hi = a->hi;
        for (uint32_t phase = 0; phase < 2; phase++) {
            const double speed = costs->workers && a->workers ? costs->workers / workers_of(a) : 1;
            const tr_simulate_cost cost = costs->n_stages[phase] == a->n_stages
                                              ? costs->stage[phase][a->stage]
                                              : share_of(costs, a, phase, head, c->layout[0].n_layers);
            stage->phase[phase] = scaled(&cost, speed);
        }
    }
    out->message_ns = costs->message;
    out->hop_ns = costs->hop;
    out->hop_row_ns = costs->hop_row;
    out->move_ns = costs->move;
    out->move_cell_ns = costs->move_cell;
    out->submit_ns = costs->submit;
    out->submit_token_ns = costs->submit_token;
    out->output_ns = costs->output;
    out->reply_ns = costs->reply;
}
