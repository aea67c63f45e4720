#include "actors/runtime/company_kv.h"

#include <string.h>

tr_status tr_company_kv_model(const tr_model_config *m, tr_kv_model *out, tr_error *err) {
    memset(out, 0, sizeof *out);
    if (m->n_layers > TR_KV_LAYERS_MAX)
        return tr_error_set(err, TR_UNAVAILABLE, "a model of %u layers is not available yet in this version, %d are",
                            m->n_layers, TR_KV_LAYERS_MAX);
    out->n_layers = m->n_layers;
    out->n_kv_heads = m->n_kv_heads;
    out->head_dim = m->head_dim;
    out->window = m->sliding_window;
    for (uint32_t i = 0; i < m->n_layers; i++)
        out->layer_is_global[i] = m->sliding_window == 0 || m->layer_is_global[i];
    return TR_OK;
}

uint32_t tr_company_kv_windows(const tr_kv_model *m, uint32_t window[TR_KV_GROUPS_MAX],
                               uint32_t layers[TR_KV_GROUPS_MAX]) {
    uint32_t global = 0, n = 0;
    for (uint32_t i = 0; i < m->n_layers; i++) global += m->layer_is_global[i] != 0;
    if (global) {
        window[n] = 0;
        layers[n++] = global;
    }
    if (global < m->n_layers) {
        window[n] = m->window;
        layers[n++] = m->n_layers - global;
    }
    return n;
}

uint64_t tr_company_kv_bytes(const tr_model_config *model, const tr_company_build_side *side, uint32_t tokens,
                             uint32_t chunk) {
    tr_kv_model m;
    uint32_t window[TR_KV_GROUPS_MAX], layers[TR_KV_GROUPS_MAX];
    if (tr_company_kv_model(model, &m, NULL) != TR_OK) return 0;
    uint64_t bytes = 0, page = tr_kv_page_bytes(side->kv, m.head_dim, side->page);
    uint32_t n = tr_company_kv_windows(&m, window, layers);
    for (uint32_t g = 0; g < n; g++)
        bytes += (uint64_t)tr_kv_layout_pages_needed(&m, window[g], side->page, tokens, chunk) * layers[g] *
                 m.n_kv_heads * page;
    return bytes;
}
