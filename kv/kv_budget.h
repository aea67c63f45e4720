/* kv/kv_budget.h - reservations: pages that admitted sequences may come to hold, of both pools and all groups.
 * Why: until preemption exists a sequence that is let in must be able to end, so its worst case is set aside first.
 * I1: reserved <= total for each pool and group. I2: what a sequence holds <= what it reserved (the scheduler keeps
 * it). Pure counters, memory of the caller. */
#ifndef TR_KV_BUDGET_H
#define TR_KV_BUDGET_H
#include "kv/kv_layout.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_KV_BUDGET_POOLS = 2 };

typedef struct tr_kv_budget_need {
    uint32_t pages[TR_KV_BUDGET_POOLS][TR_KV_GROUPS_MAX];
} tr_kv_budget_need;

typedef struct tr_kv_budget {
    uint32_t total[TR_KV_BUDGET_POOLS][TR_KV_GROUPS_MAX];
    uint32_t reserved[TR_KV_BUDGET_POOLS][TR_KV_GROUPS_MAX];
} tr_kv_budget;

/* layout[1] NULL: one pool for both phases. */
void tr_kv_budget_init(tr_kv_budget *b, const tr_kv_layout *prefill, const tr_kv_layout *decode);
/* Pages of a group for positions [first, end), never more than `ahead` positions beyond the confirmed ones at once. A
 * global group (window 0) holds all; a sliding one holds window - 1 positions behind and `ahead` before the next one,
 * at any alignment. */
uint32_t tr_kv_budget_pages(uint32_t window, uint32_t page_tok, uint32_t first, uint32_t end, uint32_t ahead);
/* Could ever be granted, when nothing else is reserved. */
bool tr_kv_budget_possible(const tr_kv_budget *b, const tr_kv_budget_need *need);
/* All or nothing; false: no room now. */
bool tr_kv_budget_reserve(tr_kv_budget *b, const tr_kv_budget_need *need);
/* Give the part of one pool back and zero it in need, so that a second call is harmless. */
void tr_kv_budget_release(tr_kv_budget *b, tr_kv_budget_need *need, uint32_t pool);
#endif
