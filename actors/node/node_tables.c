#include "actors/node/node_tables.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define UNKNOWN (TR_KV_NO_PAGE - 1) /* no page id: layouts have fewer pages */

static uint32_t n_pools(const tr_company *c) { return c->one_pool ? 1 : 2; }

tr_status tr_node_tables_init(tr_node_tables *t, const tr_company *c, const void *segment, tr_error *err) {
    memset(t, 0, sizeof *t);
    t->company = c;
    t->segment = segment;
    for (uint32_t p = 0; p < n_pools(c); p++) {
        t->told[p] = malloc(c->layout[p].table_bytes);
        if (!t->told[p]) {
            tr_node_tables_fini(t);
            return tr_error_set(err, TR_UNAVAILABLE, "no memory for the page tables of a node");
        }
    }
    tr_node_tables_forget(t);
    return TR_OK;
}

void tr_node_tables_fini(tr_node_tables *t) {
    free(t->told[0]);
    free(t->told[1]);
    t->told[0] = t->told[1] = NULL;
}

void tr_node_tables_forget(tr_node_tables *t) {
    for (uint32_t p = 0; p < 2 && t->told[p]; p++)
        for (size_t i = 0; i < t->company->layout[p].table_bytes / sizeof(uint32_t); i++) t->told[p][i] = UNKNOWN;
}

/* The scheduler may be writing: each entry is read once. */
static uint32_t entry(const tr_node_tables *t, uint32_t pool, size_t i) {
    const _Atomic uint32_t *table =
        (const _Atomic uint32_t *)(const void *)(t->segment + t->company->table_offset[pool]);
    return atomic_load_explicit(&table[i], memory_order_relaxed);
}

/* Entries [first, end) as one message. */
static tr_status tell(tr_node_tables *t, uint32_t pool, uint32_t slot, uint32_t group, uint32_t first, uint32_t end,
                      tr_node_tables_send send, void *arg) {
    const tr_kv_layout *l = &t->company->layout[pool];
    uint32_t *told = t->told[pool] + tr_kv_layout_entry(l, slot, group, 0);
    for (uint32_t i = first; i < end; i++) told[i] = entry(t, pool, tr_kv_layout_entry(l, slot, group, i));
    tr_msg m = {.type = TR_MSG_NODE_TABLE,
                .as.node_table = {
                    .pool = pool, .slot = slot, .group = group, .first = first, .pages = {told + first, end - first}}};
    t->updates++;
    return send(arg, &m);
}

static tr_status update_row(tr_node_tables *t, uint32_t pool, uint32_t slot, uint32_t group, tr_node_tables_send send,
                            void *arg) {
    const tr_kv_layout *l = &t->company->layout[pool];
    const size_t row = tr_kv_layout_entry(l, slot, group, 0);
    for (uint32_t i = 0; i < l->pages_per_seq;) {
        if (entry(t, pool, row + i) == t->told[pool][row + i]) {
            i++;
            continue;
        }
        uint32_t end = i + 1; /* a run of entries that differ */
        while (end < l->pages_per_seq && end - i < TR_MAX_STEP_ROWS &&
               entry(t, pool, row + end) != t->told[pool][row + end])
            end++;
        TR_TRY(tell(t, pool, slot, group, i, end, send, arg));
        i = end;
    }
    return TR_OK;
}

tr_status tr_node_tables_update(tr_node_tables *t, uint32_t slot, tr_node_tables_send send, void *arg) {
    for (uint32_t p = 0; p < n_pools(t->company); p++) {
        const tr_kv_layout *l = &t->company->layout[p];
        if (slot >= l->n_slots) return TR_PROTO;
        for (uint32_t g = 0; g < l->n_groups; g++) TR_TRY(update_row(t, p, slot, g, send, arg));
    }
    return TR_OK;
}

tr_status tr_node_tables_apply(const tr_company *c, void *segment, const tr_msg_node_table *m) {
    if (m->pool >= n_pools(c)) return TR_PROTO;
    const tr_kv_layout *l = &c->layout[m->pool];
    if (m->slot >= l->n_slots || m->group >= l->n_groups || m->first > l->pages_per_seq ||
        m->pages.len > l->pages_per_seq - m->first)
        return TR_PROTO;
    for (uint32_t i = 0; i < m->pages.len; i++)
        if (m->pages.data[i] != TR_KV_NO_PAGE && m->pages.data[i] >= l->group[m->group].n_pages) return TR_PROTO;
    _Atomic uint32_t *to = (_Atomic uint32_t *)(void *)((uint8_t *)segment + c->table_offset[m->pool]) +
                           tr_kv_layout_entry(l, m->slot, m->group, m->first);
    for (uint32_t i = 0; i < m->pages.len; i++) atomic_store_explicit(&to[i], m->pages.data[i], memory_order_release);
    return TR_OK;
}
