/* kv/kv_table.h - page tables of the sequences of one pool: (slot, group, logical page) -> page id.
 * Written by the scheduler's core alone, append-only at the end and cleared from the front (sliding windows) or as a
 * whole; a reader (stage, resharder) uses only entries that a message it received speaks of.
 * Several rows may name one page: what lies in it is complete then, and nobody writes it any more.
 * Order of writes that a death in between survives: a page is held before its entry is written, and its entry is
 * cleared before it is given back; tables are the truth, bitmaps and counts are rebuilt from them. Borrows: layout,
 * entries (shared memory), pool. */
#ifndef TR_KV_TABLE_H
#define TR_KV_TABLE_H
#include "base/status.h"
#include "kv/kv_layout.h"
#include "kv/kv_pool.h"

#include <stdbool.h>
#include <stdint.h>

/* What one sequence holds in one pool. Private memory of the owner; tr_kv_table_scan rebuilds it. */
typedef struct tr_kv_table_row {
    uint32_t first[TR_KV_GROUPS_MAX]; /* logical pages [first, end) are held */
    uint32_t end[TR_KV_GROUPS_MAX];
} tr_kv_table_row;

/* Set every entry to TR_KV_NO_PAGE (fresh memory). */
void tr_kv_table_clear(const tr_kv_layout *l, uint32_t *table);
/* Read a slot's held ranges back. False when the row is not one range a group or names no page: it is damaged. */
bool tr_kv_table_scan(const tr_kv_layout *l, const uint32_t *table, uint32_t slot, tr_kv_table_row *row_out);
/* Hold all pages of a scanned row. */
void tr_kv_table_mark(const tr_kv_layout *l, const uint32_t *table, uint32_t slot, const tr_kv_table_row *row,
                      tr_kv_pool *pool);
/* Hold pages for positions [from, to) of the group, appending what is missing; the first append of an empty group
 * starts at from. TR_EXHAUSTED: nothing changed. */
tr_status tr_kv_table_extend(const tr_kv_layout *l, uint32_t *table, uint32_t slot, tr_kv_table_row *row,
                             uint32_t group, uint32_t from, uint32_t to, tr_kv_pool *pool);
/* Append page `logical`, which others may hold too; an empty group starts with it. */
void tr_kv_table_share(const tr_kv_layout *l, uint32_t *table, uint32_t slot, tr_kv_table_row *row, uint32_t group,
                       uint32_t logical, uint32_t page, tr_kv_pool *pool);
/* Pages that extend would take. */
uint32_t tr_kv_table_missing(const tr_kv_layout *l, const tr_kv_table_row *row, uint32_t group, uint32_t from,
                             uint32_t to);
/* Give back the pages that lie wholly below position `below`; number of them. */
uint32_t tr_kv_table_drop(const tr_kv_layout *l, uint32_t *table, uint32_t slot, tr_kv_table_row *row, uint32_t group,
                          uint32_t below, tr_kv_pool *pool);
/* Give back all pages of the slot, the last ones first: of what is cached the ends go first. */
void tr_kv_table_drop_all(const tr_kv_layout *l, uint32_t *table, uint32_t slot, tr_kv_table_row *row,
                          tr_kv_pool *pool);
static inline uint32_t tr_kv_table_held(const tr_kv_table_row *row, uint32_t group) {
    return row->end[group] - row->first[group];
}
#endif
