#include "kv/kv_budget.h"

#include "base/checked.h"

static bool slides(const tr_kv_budget *b, uint32_t pool, uint32_t g) { return b->layout[pool]->group[g].window > 0; }
static uint32_t groups_of(const tr_kv_budget *b, uint32_t pool) {
    return b->layout[pool] ? b->layout[pool]->n_groups : 0;
}

void tr_kv_budget_begin(tr_kv_budget *b, const tr_kv_pool *prefill, const tr_kv_pool *decode, uint32_t watermark) {
    const tr_kv_pool *pool[TR_KV_BUDGET_POOLS] = {prefill, decode};
    *b = (tr_kv_budget){.alone = true};
    for (uint32_t p = 0; p < TR_KV_BUDGET_POOLS; p++) {
        b->layout[p] = pool[p] ? pool[p]->layout : NULL;
        for (uint32_t g = 0; g < groups_of(b, p); g++) {
            uint32_t n_pages = b->layout[p]->group[g].n_pages;
            b->spare[p][g] = slides(b, p, g) ? n_pages : pool[p]->n_free[g];
            b->keep[p][g] = (uint32_t)((uint64_t)n_pages * watermark / 100);
        }
    }
}

bool tr_kv_budget_claim(tr_kv_budget *b, const tr_kv_budget_need *need, const tr_kv_table_row *row) {
    b->alone = false;
    for (uint32_t p = 0; p < TR_KV_BUDGET_POOLS; p++)
        for (uint32_t g = 0; g < groups_of(b, p); g++) {
            uint32_t held = tr_kv_table_held(&row[p], g), take = need->pages[p][g];
            if (take < held) return false;
            if (!slides(b, p, g)) take -= held;
            if (take > b->spare[p][g]) return false;
            b->spare[p][g] -= take;
        }
    return true;
}

uint32_t tr_kv_budget_pages(uint32_t window, uint32_t page_tok, uint32_t first, uint32_t end, uint32_t ahead) {
    if (end <= first) return 0;
    uint64_t all = tr_div_up(end, page_tok) - first / page_tok;
    if (window == 0) return (uint32_t)all;
    uint64_t live = tr_div_up((uint64_t)window - 1 + ahead, page_tok) + 1;
    return (uint32_t)(all < live ? all : live);
}

bool tr_kv_budget_possible(const tr_kv_layout *prefill, const tr_kv_layout *decode, const tr_kv_budget_need *need) {
    const tr_kv_layout *layout[TR_KV_BUDGET_POOLS] = {prefill, decode};
    for (uint32_t p = 0; p < TR_KV_BUDGET_POOLS; p++)
        for (uint32_t g = 0; layout[p] && g < layout[p]->n_groups; g++)
            if (need->pages[p][g] > layout[p]->group[g].n_pages) return false;
    return true;
}

bool tr_kv_budget_admit(tr_kv_budget *b, const tr_kv_budget_need *need, const tr_kv_budget_need *known,
                        const tr_kv_budget_need *parked) {
    uint32_t take[TR_KV_BUDGET_POOLS][TR_KV_GROUPS_MAX] = {{0}};
    for (uint32_t p = 0; p < TR_KV_BUDGET_POOLS; p++)
        for (uint32_t g = 0; g < groups_of(b, p); g++) {
            take[p][g] = need->pages[p][g];
            if (!slides(b, p, g)) take[p][g] += parked->pages[p][g] - known->pages[p][g];
            if (take[p][g] > b->spare[p][g]) return false;
            if (!b->alone && take[p][g] > 0 && b->spare[p][g] - take[p][g] < b->keep[p][g]) return false;
        }
    for (uint32_t p = 0; p < TR_KV_BUDGET_POOLS; p++)
        for (uint32_t g = 0; g < groups_of(b, p); g++) b->spare[p][g] -= take[p][g];
    b->alone = false;
    return true;
}
