#include "kv/kv_layout.h"

#include "base/checked.h"

#include <inttypes.h>
#include <string.h>

enum { PAGE_ALIGN = 4096 };

static tr_status check_model(const tr_kv_model *m, uint32_t page_tok, tr_error *err) {
    if (m->n_layers == 0 || m->n_layers > TR_KV_LAYERS_MAX)
        return tr_error_set(err, TR_CONFIG, "the KV cache takes 1 to %d layers, the model has %u", TR_KV_LAYERS_MAX,
                            m->n_layers);
    if (m->n_kv_heads == 0 || m->n_kv_heads > 1024 || m->head_dim == 0 || m->head_dim % 16 || m->head_dim > 1024)
        return tr_error_set(err, TR_CONFIG, "%u kv heads of %u dimensions are not supported", m->n_kv_heads,
                            m->head_dim);
    if (page_tok != 16 && page_tok != 32 && page_tok != 64)
        return tr_error_set(err, TR_CONFIG, "page: %u is not 16, 32 or 64 tokens", page_tok);
    return TR_OK;
}

/* Global layers are group 0 when there are any; sliding layers follow. */
static void assign_groups(tr_kv_layout *l, const tr_kv_model *m) {
    uint32_t of_kind[2] = {TR_KV_NO_PAGE, TR_KV_NO_PAGE};
    for (int global = 1; global >= 0; global--)
        for (uint32_t i = 0; i < m->n_layers; i++) {
            if ((m->layer_is_global[i] != 0) != (global != 0)) continue;
            if (of_kind[global] == TR_KV_NO_PAGE) {
                of_kind[global] = l->n_groups++;
                l->group[of_kind[global]].window = global ? 0 : m->window;
            }
            tr_kv_group *g = &l->group[of_kind[global]];
            l->layer_group[i] = (uint8_t)of_kind[global];
            l->layer_index[i] = (uint8_t)g->n_layers++;
        }
}

static tr_status size_groups(tr_kv_layout *l, const uint32_t *pages, tr_error *err) {
    uint64_t offset = 0, bytes;
    for (uint32_t i = 0; i < l->n_groups; i++) {
        tr_kv_group *g = &l->group[i];
        g->n_pages = pages[i];
        g->offset = offset;
        if (g->n_pages == 0 || g->n_pages == TR_KV_NO_PAGE)
            return tr_error_set(err, TR_CONFIG, "KV group %u has no pages: raise --kv-memory", i);
        if (!tr_checked_mul(g->n_pages, l->page_bytes, &bytes) || !tr_checked_mul(bytes, l->n_kv_heads, &bytes) ||
            !tr_checked_align(bytes, PAGE_ALIGN, &g->layer_bytes) ||
            !tr_checked_mul(g->layer_bytes, g->n_layers, &bytes) || !tr_checked_add(offset, bytes, &offset) ||
            offset > INT64_MAX)
            return tr_error_set(err, TR_CONFIG, "a KV pool of %u pages does not fit any memory: lower --kv-memory",
                                g->n_pages);
    }
    l->pool_bytes = offset;
    return TR_OK;
}

tr_status tr_kv_layout_init(tr_kv_layout *layout_out, const tr_kv_model *m, tr_kv_format format, uint32_t page_tok,
                            uint32_t n_slots, uint32_t context, const uint32_t pages[TR_KV_GROUPS_MAX], tr_error *err) {
    TR_TRY(check_model(m, page_tok, err));
    if (n_slots == 0 || n_slots > 65536 || context == 0 || context > (1u << 24))
        return tr_error_set(err, TR_CONFIG, "%u sequences of %u tokens are out of bounds", n_slots, context);
    tr_kv_layout l;
    memset(&l, 0, sizeof l);
    l.format = format;
    l.page_tok = page_tok;
    l.page_bytes = (uint32_t)tr_kv_page_bytes(format, m->head_dim, page_tok);
    l.n_kv_heads = m->n_kv_heads;
    l.head_dim = m->head_dim;
    l.n_layers = m->n_layers;
    l.n_slots = n_slots;
    l.pages_per_seq = (uint32_t)tr_div_up(context, page_tok);
    assign_groups(&l, m);
    TR_TRY(size_groups(&l, pages, err));
    uint64_t entries;
    if (!tr_checked_mul((uint64_t)n_slots * l.n_groups, l.pages_per_seq, &entries) ||
        !tr_checked_mul(entries, 4, &entries) || !tr_checked_align(entries, 64, &l.table_bytes))
        return tr_error_set(err, TR_CONFIG, "page tables of %u sequences of %u tokens are too large", n_slots, context);
    *layout_out = l;
    return TR_OK;
}

uint32_t tr_kv_layout_pages_needed(const tr_kv_model *m, uint32_t group_window, uint32_t page_tok, uint32_t tokens,
                                   uint32_t chunk) {
    (void)m;
    uint32_t all = (uint32_t)tr_div_up(tokens, page_tok);
    if (group_window == 0) return all;
    /* The window of the oldest row of a chunk, the chunk, and a page cut at each end. */
    uint64_t most = (uint64_t)group_window + chunk + 2 * (uint64_t)page_tok;
    uint32_t sliding = (uint32_t)tr_div_up(most, page_tok);
    return all < sliding ? all : sliding;
}

tr_status tr_kv_layout_fit(const tr_kv_model *m, tr_kv_format format, uint32_t page_tok, uint32_t context,
                           uint32_t chunk, uint64_t budget_bytes, uint32_t n_slots,
                           uint32_t pages_out[TR_KV_GROUPS_MAX], tr_error *err) {
    TR_TRY(check_model(m, page_tok, err));
    tr_kv_layout l;
    memset(&l, 0, sizeof l);
    assign_groups(&l, m);
    uint64_t per_sequence = 0, page_bytes = tr_kv_page_bytes(format, m->head_dim, page_tok);
    uint32_t one[TR_KV_GROUPS_MAX] = {0};
    for (uint32_t i = 0; i < l.n_groups; i++) {
        one[i] = tr_kv_layout_pages_needed(m, l.group[i].window, page_tok, context, chunk);
        per_sequence += (uint64_t)one[i] * l.group[i].n_layers * m->n_kv_heads * page_bytes;
    }
    uint64_t sequences = budget_bytes / per_sequence;
    if (sequences == 0)
        return tr_error_set(err, TR_CONFIG,
                            "one sequence of %u tokens needs %" PRIu64 " MiB of %s KV, the budget is %" PRIu64
                            " MiB: raise --kv-memory or lower -c",
                            context, (per_sequence >> 20) + 1, tr_kv_format_name(format), budget_bytes >> 20);
    if (sequences > n_slots) sequences = n_slots;
    for (uint32_t i = 0; i < l.n_groups; i++) {
        uint64_t pages = one[i] * sequences;
        if (pages >= TR_KV_NO_PAGE) pages = TR_KV_NO_PAGE - 1;
        pages_out[i] = (uint32_t)pages;
    }
    return TR_OK;
}
