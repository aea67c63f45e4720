/* kv/kv_budget.h - what may be promised to one more sequence: pages that it may come to hold, of both pools and all
 * groups. Why: what a sequence was promised it can take at any time, so nothing that runs ever meets a full pool; who
 * is promised how much, and when, is the caller's rule (scheduler/preempt.c).
 * Global groups (window 0) only grow until they are given back as a whole: promised is what admitted sequences may
 * still take, so a page that several share counts once, as one that is not free. Sliding groups give back and take
 * again: there each sequence counts with the most that it may hold, shared or not. Nothing is kept: the caller adds up
 * what is there (tr_kv_budget_begin, then one claim a sequence), so there is nothing to lose at a restart. Then: I1
 * what is promised is free (or held by whom it is promised to). I2 what a sequence holds
 * <= its need (the caller keeps it). Pure counters, memory of the caller. */
#ifndef TR_KV_BUDGET_H
#define TR_KV_BUDGET_H
#include "kv/kv_layout.h"
#include "kv/kv_pool.h"
#include "kv/kv_table.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_KV_BUDGET_POOLS = 2 };

/* The most that one sequence holds at once. */
typedef struct tr_kv_budget_need {
    uint32_t pages[TR_KV_BUDGET_POOLS][TR_KV_GROUPS_MAX];
} tr_kv_budget_need;

typedef struct tr_kv_budget {
    const tr_kv_layout *layout[TR_KV_BUDGET_POOLS]; /* NULL: no such pool */
    uint32_t spare[TR_KV_BUDGET_POOLS][TR_KV_GROUPS_MAX];
    uint32_t keep[TR_KV_BUDGET_POOLS][TR_KV_GROUPS_MAX]; /* the watermark */
    bool alone;                                          /* nobody has claimed anything */
} tr_kv_budget;

/* Begin to add up. pool[1] NULL: one pool for both phases. watermark: per cent of each group that stay unpromised while
 * anybody runs. */
void tr_kv_budget_begin(tr_kv_budget *b, const tr_kv_pool *prefill, const tr_kv_pool *decode, uint32_t watermark);
/* An admitted sequence that holds `row` (of each pool) and may come to hold `need`. False: I1 does not hold. */
bool tr_kv_budget_claim(tr_kv_budget *b, const tr_kv_budget_need *need, const tr_kv_table_row *row);
/* Pages of a group for positions [first, end), never more than `ahead` positions beyond the confirmed ones at once. A
 * global group (window 0) holds all; a sliding one holds window - 1 positions behind and `ahead` before the next one,
 * at any alignment. */
uint32_t tr_kv_budget_pages(uint32_t window, uint32_t page_tok, uint32_t first, uint32_t end, uint32_t ahead);
/* Could ever be granted, when nobody else is there. */
bool tr_kv_budget_possible(const tr_kv_layout *prefill, const tr_kv_layout *decode, const tr_kv_budget_need *need);
/* Is there room for one more that takes over `known` pages (of which `parked` are held by nobody now) and needs `need`
 * in all? It claims them then. All or nothing. */
bool tr_kv_budget_admit(tr_kv_budget *b, const tr_kv_budget_need *need, const tr_kv_budget_need *known,
                        const tr_kv_budget_need *parked);
#endif
