#include "kv/kv_budget.h"

#include "base/checked.h"
#include "base/status.h"

void tr_kv_budget_init(tr_kv_budget *b, const tr_kv_layout *prefill, const tr_kv_layout *decode) {
    const tr_kv_layout *layout[TR_KV_BUDGET_POOLS] = {prefill, decode};
    *b = (tr_kv_budget){0};
    for (uint32_t pool = 0; pool < TR_KV_BUDGET_POOLS; pool++)
        for (uint32_t g = 0; layout[pool] && g < layout[pool]->n_groups; g++)
            b->total[pool][g] = layout[pool]->group[g].n_pages;
}

uint32_t tr_kv_budget_pages(uint32_t window, uint32_t page_tok, uint32_t first, uint32_t end, uint32_t ahead) {
    if (end <= first) return 0;
    uint64_t all = tr_div_up(end, page_tok) - first / page_tok;
    if (window == 0) return (uint32_t)all;
    uint64_t live = tr_div_up((uint64_t)window - 1 + ahead, page_tok) + 1;
    return (uint32_t)(all < live ? all : live);
}

bool tr_kv_budget_possible(const tr_kv_budget *b, const tr_kv_budget_need *need) {
    for (uint32_t pool = 0; pool < TR_KV_BUDGET_POOLS; pool++)
        for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++)
            if (need->pages[pool][g] > b->total[pool][g]) return false;
    return true;
}

bool tr_kv_budget_reserve(tr_kv_budget *b, const tr_kv_budget_need *need) {
    for (uint32_t pool = 0; pool < TR_KV_BUDGET_POOLS; pool++)
        for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++)
            if (need->pages[pool][g] > b->total[pool][g] - b->reserved[pool][g]) return false;
    for (uint32_t pool = 0; pool < TR_KV_BUDGET_POOLS; pool++)
        for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++) b->reserved[pool][g] += need->pages[pool][g];
    return true;
}

void tr_kv_budget_release(tr_kv_budget *b, tr_kv_budget_need *need, uint32_t pool) {
    for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++) {
        tr_check(b->reserved[pool][g] >= need->pages[pool][g]);
        b->reserved[pool][g] -= need->pages[pool][g];
        need->pages[pool][g] = 0;
    }
}
