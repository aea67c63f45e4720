#include "kv/kv_table.h"

#include "base/checked.h"
#include "kv/crash_point.h"

void tr_kv_table_clear(const tr_kv_layout *l, uint32_t *table) {
    size_t n = (size_t)l->n_slots * l->n_groups * l->pages_per_seq;
    for (size_t i = 0; i < n; i++) table[i] = TR_KV_NO_PAGE;
}

bool tr_kv_table_scan(const tr_kv_layout *l, const uint32_t *table, uint32_t slot, tr_kv_table_row *row_out) {
    *row_out = (tr_kv_table_row){0};
    for (uint32_t g = 0; g < l->n_groups; g++) {
        const uint32_t *entry = table + tr_kv_layout_entry(l, slot, g, 0);
        bool any = false;
        for (uint32_t i = 0; i < l->pages_per_seq; i++) {
            if (entry[i] == TR_KV_NO_PAGE) continue;
            if (entry[i] >= l->group[g].n_pages || (any && row_out->end[g] != i)) return false;
            if (!any) row_out->first[g] = i;
            row_out->end[g] = i + 1;
            any = true;
        }
    }
    return true;
}

void tr_kv_table_mark(const tr_kv_layout *l, const uint32_t *table, uint32_t slot, const tr_kv_table_row *row,
                      tr_kv_pool *pool) {
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t i = row->first[g]; i < row->end[g]; i++)
            tr_check(tr_kv_pool_hold(pool, g, table[tr_kv_layout_entry(l, slot, g, i)]));
}

void tr_kv_table_share(const tr_kv_layout *l, uint32_t *table, uint32_t slot, tr_kv_table_row *row, uint32_t group,
                       uint32_t logical, uint32_t page, tr_kv_pool *pool) {
    if (row->first[group] == row->end[group]) row->first[group] = row->end[group] = logical;
    tr_check(row->end[group] == logical && logical < l->pages_per_seq);
    tr_check(tr_kv_pool_hold(pool, group, page));
    tr_crash_point();
    table[tr_kv_layout_entry(l, slot, group, logical)] = page;
    row->end[group]++;
}

/* First logical page to append; an empty row starts at the page of `from`. */
static uint32_t append_at(const tr_kv_layout *l, const tr_kv_table_row *row, uint32_t group, uint32_t from) {
    return row->first[group] == row->end[group] ? from / l->page_tok : row->end[group];
}

uint32_t tr_kv_table_missing(const tr_kv_layout *l, const tr_kv_table_row *row, uint32_t group, uint32_t from,
                             uint32_t to) {
    uint32_t at = append_at(l, row, group, from), end = (uint32_t)tr_div_up(to, l->page_tok);
    return from < to && end > at ? end - at : 0;
}

tr_status tr_kv_table_extend(const tr_kv_layout *l, uint32_t *table, uint32_t slot, tr_kv_table_row *row,
                             uint32_t group, uint32_t from, uint32_t to, tr_kv_pool *pool) {
    uint32_t n = tr_kv_table_missing(l, row, group, from, to), at = append_at(l, row, group, from);
    if (n == 0) return TR_OK;
    tr_check(at + n <= l->pages_per_seq);
    if (n > pool->n_free[group]) return TR_EXHAUSTED;
    if (row->first[group] == row->end[group]) row->first[group] = row->end[group] = at;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t page;
        tr_check(tr_kv_pool_take(pool, group, 1, &page) == TR_OK);
        tr_crash_point();
        table[tr_kv_layout_entry(l, slot, group, at + i)] = page;
        row->end[group]++;
    }
    return TR_OK;
}

static void give_back(const tr_kv_layout *l, uint32_t *table, uint32_t slot, uint32_t group, uint32_t logical,
                      tr_kv_pool *pool) {
    uint32_t *entry = &table[tr_kv_layout_entry(l, slot, group, logical)], page = *entry;
    *entry = TR_KV_NO_PAGE;
    tr_crash_point();
    tr_kv_pool_free(pool, group, page);
}

uint32_t tr_kv_table_drop(const tr_kv_layout *l, uint32_t *table, uint32_t slot, tr_kv_table_row *row, uint32_t group,
                          uint32_t below, tr_kv_pool *pool) {
    uint32_t n = 0;
    for (; row->first[group] < row->end[group] && row->first[group] < below / l->page_tok; n++)
        give_back(l, table, slot, group, row->first[group]++, pool);
    return n;
}

void tr_kv_table_drop_all(const tr_kv_layout *l, uint32_t *table, uint32_t slot, tr_kv_table_row *row,
                          tr_kv_pool *pool) {
    for (uint32_t g = 0; g < l->n_groups; g++) {
        while (row->first[g] < row->end[g]) give_back(l, table, slot, g, --row->end[g], pool);
        row->first[g] = row->end[g] = 0;
    }
}
