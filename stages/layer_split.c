#include "stages/layer_split.h"

static tr_status check_stages(const tr_model_config *m, uint32_t pp, tr_error *err) {
    if (pp == 0) return tr_error_set(err, TR_CONFIG, "pp: a pipeline has at least one stage");
    if (pp > m->n_layers)
        return tr_error_set(err, TR_CONFIG, "pp: %u stages, but the model has only %u layers", pp, m->n_layers);
    return TR_OK;
}

uint64_t tr_layer_split_head_milli(const tr_model_config *m) {
    uint64_t q = (uint64_t)m->n_heads * m->head_dim, kv = (uint64_t)m->n_kv_heads * m->head_dim;
    uint64_t layer = m->hidden * (q + 2 * kv) + q * m->hidden + 3ull * m->hidden * m->ffn;
    return (uint64_t)m->vocab * m->hidden * 1000 / (layer ? layer : 1);
}

tr_status tr_layer_split_auto(const tr_model_config *m, uint32_t pp, uint32_t rows_a_head, uint32_t *begin_out,
                              tr_error *err) {
    TR_TRY(check_stages(m, pp, err));
    const uint64_t head = tr_layer_split_head_milli(m) / (rows_a_head ? rows_a_head : 1);
    /* Layers of the last stage: the most that give the lightest heaviest stage. */
    uint32_t last = m->n_layers;
    uint64_t lightest = UINT64_MAX;
    for (uint32_t n = pp > 1 ? m->n_layers - (pp - 1) : 0; n > 0; n--) {
        uint64_t others = (uint64_t)(m->n_layers - n + pp - 2) / (pp - 1) * 1000, own = n * 1000ull + head;
        uint64_t heaviest = own > others ? own : others;
        if (heaviest < lightest) lightest = heaviest, last = n;
    }
    uint32_t rest = m->n_layers - last, begin = 0;
    for (uint32_t i = 0; i + 1 < pp; i++) {
        begin_out[i] = begin;
        begin += rest / (pp - 1) + (i < rest % (pp - 1) ? 1 : 0);
    }
    begin_out[pp - 1] = begin;
    begin_out[pp] = m->n_layers;
    return TR_OK;
}

tr_status tr_layer_split_given(const tr_model_config *m, uint32_t pp, const uint32_t *count, uint32_t *begin_out,
                               tr_error *err) {
    TR_TRY(check_stages(m, pp, err));
    uint64_t sum = 0;
    for (uint32_t i = 0; i < pp; i++) {
        if (count[i] == 0)
            return tr_error_set(err, TR_CONFIG, "layers: stage %u has none, each stage runs at least one", i);
        sum += count[i];
    }
    if (sum != m->n_layers)
        return tr_error_set(err, TR_CONFIG, "layers: the stages add up to %llu, the model has %u",
                            (unsigned long long)sum, m->n_layers);
    begin_out[0] = 0;
    for (uint32_t i = 0; i < pp; i++) begin_out[i + 1] = begin_out[i] + count[i];
    return TR_OK;
}
