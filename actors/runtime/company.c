#include "actors/runtime/company.h"

#include <string.h>

const tr_company_link *tr_company_find_link(const tr_company *c, tr_link_kind kind, uint32_t from, uint32_t to) {
    for (uint32_t i = 0; i < c->n_links; i++)
        if (c->link[i].kind == (uint32_t)kind && c->link[i].from == from && c->link[i].to == to) return &c->link[i];
    return NULL;
}

const tr_company_actor *tr_company_find_actor(const tr_company *c, const char *name) {
    for (uint32_t i = 0; i < c->n_actors; i++)
        if (strcmp(c->actor[i].name, name) == 0) return &c->actor[i];
    return NULL;
}

uint32_t tr_company_bell_of(const tr_company *c, uint32_t peer) {
    return tr_company_is_local(c, peer) ? peer : c->node[c->self].agent;
}

uint64_t tr_company_segment_bytes(const tr_company *c, uint32_t segment) {
    bool here = true;
    if (segment == TR_SEGMENT_POOL_PREFILL) here = c->pool_node[0] == c->self;
    if (segment == TR_SEGMENT_POOL_DECODE) here = c->pool_node[1] == c->self;
    if (segment == TR_SEGMENT_SWAP) here = c->pool_node[1] == c->self;
    if (segment == TR_SEGMENT_JOURNAL) here = tr_company_is_local(c, c->scheduler);
    return here ? c->segment[segment].bytes : 0;
}

uint64_t tr_company_segment_memory(const tr_company *c, uint32_t segment) {
    uint64_t filled = 0;
    if (segment != TR_SEGMENT_TEAMS) return tr_company_segment_bytes(c, segment) - c->segment[segment].sparse;
    for (uint32_t a = 0; a < c->n_actors; a++)
        if (tr_company_is_local(c, a) && c->actor[a].tp > 1 && c->actor[a].rank == 0) filled += c->actor[a].team_filled;
    return filled;
}

bool tr_company_calibrated(const tr_company *c) {
    return tr_kv_describe(c->layout[0].format)->calibrated || tr_kv_describe(c->layout[1].format)->calibrated;
}

tr_status tr_company_calibration(const tr_company *c, tr_kv_calibration **out, tr_error *err) {
    const tr_kv_layout *l = &c->layout[0];
    *out = NULL;
    if (!tr_company_calibrated(c)) return TR_OK;
    const tr_kv_calibration_model model = {c->model_hash, l->n_layers, l->n_kv_heads, l->head_dim};
    TR_TRY(tr_kv_calibration_open(c->kv_calibration, &model, out, err));
    if (tr_kv_calibration_crc(*out) == c->kv_calibration_crc) return TR_OK;
    tr_kv_calibration_destroy(out);
    return tr_error_set(err, TR_DATA, "%.300s is not the calibration that the plan names", c->kv_calibration);
}
