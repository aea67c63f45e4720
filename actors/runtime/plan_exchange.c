#include "actors/runtime/plan_exchange.h"

#include "transport/schema.h"

#include <string.h>

/* A byte that is neither 0 nor 1 in a bool is no value of C. */
static bool is_bool(const void *bytes, size_t offset) { return ((const uint8_t *)bytes)[offset] <= 1; }

static tr_status bad(const char *what, tr_error *err) {
    return tr_error_set(err, TR_PROTO, "the plan of the other node is not to be believed: %s", what);
}

bool tr_plan_exchange_name_valid(const char *name, size_t cap) {
    size_t n = strnlen(name, cap);
    if (n == 0 || n == cap || n >= TR_COMPANY_NODE_NAME_BYTES || name[0] < 'a' || name[0] > 'z') return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static tr_status check_side(const tr_company_build_side *s, tr_error *err) {
    uint32_t dtype = (uint32_t)s->dtype;
    if (dtype == 0 || dtype >= TR_PRECISION_END || !tr_kv_describe(s->kv)) return bad("dtype", err);
    if (s->pp == 0 || s->pp > TR_COMPANY_BUILD_STAGES_MAX || s->tp == 0 || s->tp > TR_COMPANY_BUILD_RANKS_MAX ||
        s->n_layers > TR_COMPANY_BUILD_STAGES_MAX)
        return bad("stages", err);
    for (uint32_t i = 0; i < s->n_layers; i++)
        if (s->layers[i] > TR_KV_LAYERS_MAX) return bad("layers", err);
    return TR_OK;
}

static tr_status check_nodes(const tr_company_build_want *w, tr_error *err) {
    if (w->n_nodes < 2 || w->n_nodes > TR_COMPANY_NODES_MAX) return bad("number of hosts", err);
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        if (!tr_plan_exchange_name_valid(w->node[i], sizeof w->node[i])) return bad("name of a host", err);
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(w->node[k], w->node[i]) == 0) return bad("one host twice", err);
    }
    return w->side_node[0] < w->n_nodes && w->side_node[1] < w->n_nodes ? TR_OK : bad("host of a pipeline", err);
}

/* What tr_company_build checks itself (chunk, context, page, memory) is left to it. */
tr_status tr_plan_exchange_want(const void *bytes, size_t n, tr_company_build_want *out, tr_error *err) {
    if (n != sizeof *out) return bad("made by another version of troupe", err);
    if (!is_bool(bytes, offsetof(tr_company_build_want, unified)) ||
        !is_bool(bytes, offsetof(tr_company_build_want, zmq)) ||
        !is_bool(bytes, offsetof(tr_company_build_want, logits)) ||
        !is_bool(bytes, offsetof(tr_company_build_want, http)) ||
        !is_bool(bytes, offsetof(tr_company_build_want, prefix_cache)) ||
        !is_bool(bytes, offsetof(tr_company_build_want, fair)) ||
        !is_bool(bytes, offsetof(tr_company_build_want, store)) ||
        !is_bool(bytes, offsetof(tr_company_build_want, reserve_full)) ||
        !is_bool(bytes, offsetof(tr_company_build_want, swap_file)))
        return bad("flags", err);
    tr_company_build_want w;
    memcpy(&w, bytes, sizeof w);
    for (int i = 0; i < 2; i++) TR_TRY(check_side(&w.side[i], err));
    TR_TRY(check_nodes(&w, err));
    if ((uint32_t)w.cores > TR_PLACEMENT_SHARED || w.threads > 1024) return bad("cores", err);
    if (w.max_batch > TR_MAX_SPANS || w.max_waiting > 4096 || w.n_requests > 4096) return bad("requests", err);
    if ((uint32_t)w.policy >= TR_POLICY_END) return bad("policy", err);
    if (w.context > TR_MAX_TOKENS || w.request_tokens > TR_MAX_TOKENS || w.chunk > TR_MAX_STEP_ROWS)
        return bad("tokens", err);
    if (w.lease.actor_ms > 600000 || w.lease.link_ms > 60000 || w.lease.away_s > 3600) return bad("leases", err);
    if (w.watermark > 100 || w.kv_memory > 1ull << 50) return bad("memory", err);
    *out = w;
    return TR_OK;
}

static tr_status check_machine(const tr_machine *m, tr_error *err) {
    if (m->n_cores == 0 || m->n_cores > TR_MACHINE_CORES_MAX || m->n_nodes == 0 || m->n_nodes > TR_MACHINE_NODES_MAX)
        return bad("number of cores", err);
    if (m->quota > TR_MACHINE_CORES_MAX || m->memory_bytes > 1ull << 50) return bad("memory of a machine", err);
    for (uint32_t i = 0; i < m->n_cores; i++)
        if (m->core[i].node >= m->n_nodes || m->core[i].cpu > UINT16_MAX ||
            (i > 0 && m->core[i].node < m->core[i - 1].node))
            return bad("core of a machine", err);
    for (uint32_t i = 0; i < m->n_nodes; i++)
        if (m->node[i].os_index > UINT16_MAX || m->node[i].memory_bytes > 1ull << 50) return bad("NUMA node", err);
    return TR_OK;
}

tr_status tr_plan_exchange_machines(const void *bytes, size_t n, tr_machine *out, uint32_t n_machines, tr_error *err) {
    if (n_machines > TR_COMPANY_NODES_MAX || n != n_machines * sizeof *out)
        return bad("made by another version of troupe", err);
    for (uint32_t i = 0; i < n_machines; i++) {
        const uint8_t *at = (const uint8_t *)bytes + i * sizeof *out;
        if (!is_bool(at, offsetof(tr_machine, is_this_system))) return bad("flags", err);
        memcpy(&out[i], at, sizeof *out);
        TR_TRY(check_machine(&out[i], err));
    }
    return TR_OK;
}
