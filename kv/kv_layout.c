#include "kv/kv_layout.h"

#include "base/checked.h"

#include <inttypes.h>
#include <string.h>

enum { PAGE_ALIGN = 4096 };

static tr_status check_model(const tr_kv_model *m, uint32_t page_tok, tr_error *err) {
    if (m->n_layers == 0 || m->n_layers > TR_KV_LAYERS_MAX)
        return tr_error_set(err, TR_CONFIG, "the KV cache takes 1 to %d layers, the model has %u", TR_KV_LAYERS_MAX,
                            m->n_layers);
    if (m->n_kv_heads == 0 || m->n_kv_heads > 1024 || m->head_dim == 0 || m->head_dim % 16 ||
        m->head_dim > TR_KV_HEAD_DIM_MAX)
        return tr_error_set(err, TR_CONFIG, "%u kv heads of %u dimensions are not supported", m->n_kv_heads,
                            m->head_dim);
    for (uint32_t i = 0; i < m->n_layers; i++)
        if (!m->layer_is_global[i] && m->window == 0)
            return tr_error_set(err, TR_CONFIG, "layer %u is a sliding one, but the model has no window", i);
    if (page_tok != 16 && page_tok != 32 && page_tok != 64)
        return tr_error_set(err, TR_CONFIG, "page: %u is not 16, 32 or 64 tokens", page_tok);
    return TR_OK;
}

static tr_status check_context(uint32_t n_slots, uint32_t context, tr_error *err) {
    if (n_slots == 0 || n_slots > 65536 || context == 0 || context > (1u << 24))
        return tr_error_set(err, TR_CONFIG, "%u sequences of %u tokens are out of bounds", n_slots, context);
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
    TR_TRY(check_context(n_slots, context, err));
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

/* A pool of `parts` / FIT_PARTS full sequences: what is left over holds shorter ones. */
enum { FIT_PARTS = 64 };
static uint32_t fit_pages(uint32_t one, uint64_t parts) {
    uint64_t pages = one * parts / FIT_PARTS;
    return pages < TR_KV_NO_PAGE ? (uint32_t)pages : TR_KV_NO_PAGE - 1;
}
static uint64_t fit_bytes(const tr_kv_layout *l, const tr_kv_model *m, uint64_t page_bytes, const uint32_t *one,
                          uint64_t parts) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < l->n_groups; i++) {
        uint64_t bytes = UINT64_MAX;
        if (!tr_checked_mul(fit_pages(one[i], parts), page_bytes * m->n_kv_heads, &bytes) ||
            !tr_checked_mul(bytes, l->group[i].n_layers, &bytes) || !tr_checked_add(sum, bytes, &sum))
            return UINT64_MAX;
    }
    return sum;
}

tr_status tr_kv_layout_fit(const tr_kv_model *m, tr_kv_format format, uint32_t page_tok, uint32_t context,
                           uint32_t chunk, uint64_t budget_bytes, uint32_t n_slots,
                           uint32_t pages_out[TR_KV_GROUPS_MAX], tr_error *err) {
    TR_TRY(check_model(m, page_tok, err));
    TR_TRY(check_context(n_slots, context, err));
    tr_kv_layout l;
    memset(&l, 0, sizeof l);
    assign_groups(&l, m);
    uint32_t one[TR_KV_GROUPS_MAX] = {0};
    for (uint32_t i = 0; i < l.n_groups; i++)
        one[i] = tr_kv_layout_pages_needed(m, l.group[i].window, page_tok, context, chunk);
    const uint64_t page_bytes = tr_kv_page_bytes(format, m->head_dim, page_tok);
    uint64_t parts = FIT_PARTS, limit = (uint64_t)FIT_PARTS * n_slots; /* of a full sequence */
    if (fit_bytes(&l, m, page_bytes, one, parts) > budget_bytes)
        return tr_error_set(err, TR_CONFIG,
                            "one sequence of %u tokens needs %" PRIu64 " MiB of %s KV, the budget is %" PRIu64
                            " MiB: raise --kv-memory or lower -c",
                            context, (fit_bytes(&l, m, page_bytes, one, parts) >> 20) + 1, tr_kv_format_name(format),
                            budget_bytes >> 20);
    while (parts < limit) { /* the largest that fits */
        uint64_t middle = parts + (limit - parts + 1) / 2;
        if (fit_bytes(&l, m, page_bytes, one, middle) <= budget_bytes)
            parts = middle;
        else
            limit = middle - 1;
    }
    for (uint32_t i = 0; i < l.n_groups; i++) pages_out[i] = fit_pages(one[i], parts);
    return TR_OK;
}
