/* kv/kv_layout.h - where every page of a pool lies: pure arithmetic, the same in every process.
 * A pool belongs to one (node, format). Layers form groups by what they see: global layers, and sliding layers of one
 * window. A page id is valid for all layers and kv heads of its group: page p of (layer, kv head) is one run of
 * page_bytes. pool bytes: [group][layer of the group][kv head][page] A sequence slot has one table a group: logical
 * page (position / page_tok) -> page id, TR_KV_NO_PAGE where none is held. table bytes: u32
 * [slot][group][pages_per_seq] Bounds: all sizes are computed checked from a validated model; errors are TR_CONFIG. */
#ifndef TR_KV_LAYOUT_H
#define TR_KV_LAYOUT_H
#include "base/status.h"
#include "kernels/kv_page.h"

#include <stddef.h>
#include <stdint.h>

enum { TR_KV_GROUPS_MAX = 2, TR_KV_LAYERS_MAX = 128 };
#define TR_KV_NO_PAGE UINT32_MAX

/* What the KV bookkeeping needs to know of a model. */
typedef struct tr_kv_model {
    uint32_t n_layers, n_kv_heads, head_dim;
    uint32_t window;                           /* of sliding layers, tokens */
    uint8_t layer_is_global[TR_KV_LAYERS_MAX]; /* all 1 without sliding layers */
} tr_kv_model;

typedef struct tr_kv_group {
    uint32_t window; /* 0: global */
    uint32_t n_layers;
    uint32_t n_pages;     /* page ids 0 .. n_pages-1 */
    uint64_t offset;      /* bytes from the start of the pool */
    uint64_t layer_bytes; /* n_kv_heads * n_pages * page_bytes, rounded up to 4096 */
} tr_kv_group;

typedef struct tr_kv_layout {
    tr_kv_format format;
    uint32_t page_tok, page_bytes, n_kv_heads, head_dim;
    uint32_t n_groups, n_layers;
    uint32_t n_slots, pages_per_seq; /* of the page tables; pages_per_seq = ceil(context / page_tok) */
    tr_kv_group group[TR_KV_GROUPS_MAX];
    uint8_t layer_group[TR_KV_LAYERS_MAX]; /* model layer -> group */
    uint8_t layer_index[TR_KV_LAYERS_MAX]; /* model layer -> index in its group */
    uint64_t pool_bytes, table_bytes;
} tr_kv_layout;

/* Layout for n_slots sequences of up to context tokens, with pages[g] page ids in group g. */
tr_status tr_kv_layout_init(tr_kv_layout *l, const tr_kv_model *m, tr_kv_format format, uint32_t page_tok,
                            uint32_t n_slots, uint32_t context, const uint32_t pages[TR_KV_GROUPS_MAX], tr_error *err);
/* Pages of group g that one sequence can hold at once: all of the context, or window plus chunk for a sliding group. */
uint32_t tr_kv_layout_pages_needed(const tr_kv_model *m, uint32_t group_window, uint32_t page_tok, uint32_t tokens,
                                   uint32_t chunk);
/* Split a budget of bytes into pages[g] for as many full sequences as fit, at most n_slots; what is left over holds
 * shorter ones. The rounding of each layer to 4096 bytes is not counted. TR_CONFIG when not even one fits. */
tr_status tr_kv_layout_fit(const tr_kv_model *m, tr_kv_format format, uint32_t page_tok, uint32_t context,
                           uint32_t chunk, uint64_t budget_bytes, uint32_t n_slots,
                           uint32_t pages_out[TR_KV_GROUPS_MAX], tr_error *err);

/* First byte of page 0 of (layer, kv head), from the start of the pool. */
static inline uint64_t tr_kv_layout_head_offset(const tr_kv_layout *l, uint32_t layer, uint32_t kv_head) {
    const tr_kv_group *g = &l->group[l->layer_group[layer]];
    return g->offset + (uint64_t)l->layer_index[layer] * g->layer_bytes +
           (uint64_t)kv_head * g->n_pages * l->page_bytes;
}
/* Heads [*first_out, *end_out) of a tensor-parallel rank: an even split, at least one; with more ranks than heads,
 * neighbours hold the same one. */
static inline void tr_kv_layout_rank_heads(uint32_t n_heads, uint32_t tp, uint32_t rank, uint32_t *first_out,
                                           uint32_t *end_out) {
    uint32_t first = (uint32_t)((uint64_t)rank * n_heads / tp), end = (uint32_t)((rank + 1ull) * n_heads / tp);
    *first_out = first;
    *end_out = end > first ? end : first + 1;
}
/* Index of table entry (slot, group, logical page). */
static inline size_t tr_kv_layout_entry(const tr_kv_layout *l, uint32_t slot, uint32_t group, uint32_t logical) {
    return ((size_t)slot * l->n_groups + group) * l->pages_per_seq + logical;
}
#endif
