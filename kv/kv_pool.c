#include "kv/kv_pool.h"

#include "base/checked.h"
#include "kv/kv_prefix.h"

static uint32_t words_of(uint32_t n_pages) { return (uint32_t)tr_div_up(n_pages, 64); }

static size_t bits_bytes(const tr_kv_layout *layout) {
    size_t words = 0;
    for (uint32_t g = 0; g < layout->n_groups; g++) words += words_of(layout->group[g].n_pages);
    return tr_align_up(words * sizeof(uint64_t), 64);
}

size_t tr_kv_pool_bitmap_bytes(const tr_kv_layout *layout) {
    size_t pages = 0;
    for (uint32_t g = 0; g < layout->n_groups; g++) pages += layout->group[g].n_pages;
    return bits_bytes(layout) + tr_align_up(pages * sizeof(uint32_t), 64);
}

/* Clear bits of word w of the group that are pages. */
static uint64_t free_bits(const tr_kv_pool *p, uint32_t group, uint32_t w) {
    uint32_t n_pages = p->layout->group[group].n_pages, first = w * 64;
    uint64_t pages = n_pages - first >= 64 ? UINT64_MAX : (UINT64_C(1) << (n_pages - first)) - 1;
    return ~atomic_load_explicit(&p->bitmap[p->word0[group] + w], memory_order_relaxed) & pages;
}

uint32_t tr_kv_pool_count_free(const tr_kv_pool *p, uint32_t group) {
    uint32_t n = 0, words = words_of(p->layout->group[group].n_pages);
    for (uint32_t w = 0; w < words; w++) n += (uint32_t)__builtin_popcountll(free_bits(p, group, w));
    return n;
}

void tr_kv_pool_attach(tr_kv_pool *p, const tr_kv_layout *layout, _Atomic uint64_t *bitmap) {
    *p = (tr_kv_pool){.layout = layout, .bitmap = bitmap};
    p->holders = (_Atomic uint32_t *)(void *)((char *)bitmap + bits_bytes(layout));
    for (uint32_t g = 0; g < layout->n_groups; g++) {
        p->word0[g + 1] = p->word0[g] + words_of(layout->group[g].n_pages);
        p->page0[g + 1] = p->page0[g] + layout->group[g].n_pages;
        p->n_free[g] = tr_kv_pool_count_free(p, g);
    }
}

void tr_kv_pool_clear(tr_kv_pool *p) {
    const uint32_t groups = p->layout->n_groups;
    for (uint32_t w = 0; w < p->word0[groups]; w++) atomic_store_explicit(&p->bitmap[w], 0, memory_order_relaxed);
    for (uint32_t i = 0; i < p->page0[groups]; i++) atomic_store_explicit(&p->holders[i], 0, memory_order_relaxed);
    for (uint32_t g = 0; g < groups; g++) {
        p->n_free[g] = p->layout->group[g].n_pages;
        p->hint[g] = 0;
    }
}

/* The only writer changes a bit: load and store, no read-modify-write needed. */
static void set_bit(tr_kv_pool *p, uint32_t group, uint32_t page, bool taken) {
    _Atomic uint64_t *word = &p->bitmap[p->word0[group] + page / 64];
    uint64_t bit = UINT64_C(1) << (page % 64), old = atomic_load_explicit(word, memory_order_relaxed);
    atomic_store_explicit(word, taken ? old | bit : old & ~bit, memory_order_relaxed);
    if (taken)
        p->n_free[group]--;
    else
        p->n_free[group]++;
}

bool tr_kv_pool_taken(const tr_kv_pool *p, uint32_t group, uint32_t page) {
    return atomic_load_explicit(&p->bitmap[p->word0[group] + page / 64], memory_order_relaxed) >> (page % 64) & 1;
}

uint32_t tr_kv_pool_holders(const tr_kv_pool *p, uint32_t group, uint32_t page) {
    return atomic_load_explicit(&p->holders[p->page0[group] + page], memory_order_relaxed);
}

static void set_holders(tr_kv_pool *p, uint32_t group, uint32_t page, uint32_t n) {
    atomic_store_explicit(&p->holders[p->page0[group] + page], n, memory_order_relaxed);
}

bool tr_kv_pool_hold(tr_kv_pool *p, uint32_t group, uint32_t page) {
    if (group >= p->layout->n_groups || page >= p->layout->group[group].n_pages) return false;
    uint32_t n = tr_kv_pool_holders(p, group, page);
    if (n == 0) {
        set_bit(p, group, page, true);
        if (p->cache) tr_kv_prefix_pin(p->cache, group, page);
    }
    set_holders(p, group, page, n + 1);
    return true;
}

/* The next page that nobody holds and that holds nothing; there is one. */
static uint32_t find_empty(tr_kv_pool *p, uint32_t group) {
    uint32_t words = words_of(p->layout->group[group].n_pages);
    for (uint32_t w = p->hint[group];; w = w + 1 < words ? w + 1 : 0) {
        uint64_t bits = free_bits(p, group, w);
        if (p->cache) bits &= ~tr_kv_prefix_cached_word(p->cache, group, w);
        if (bits == 0) continue;
        p->hint[group] = w;
        return w * 64 + (uint32_t)__builtin_ctzll(bits);
    }
}

tr_status tr_kv_pool_take(tr_kv_pool *p, uint32_t group, uint32_t n, uint32_t *pages_out) {
    if (n > p->n_free[group]) return TR_EXHAUSTED;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t cached = p->cache ? tr_kv_prefix_cached(p->cache, group) : 0;
        pages_out[i] = p->n_free[group] > cached ? find_empty(p, group) : tr_kv_prefix_evict(p->cache, group);
        set_bit(p, group, pages_out[i], true);
        set_holders(p, group, pages_out[i], 1);
    }
    return TR_OK;
}

void tr_kv_pool_free(tr_kv_pool *p, uint32_t group, uint32_t page) {
    tr_check(page < p->layout->group[group].n_pages);
    uint32_t n = tr_kv_pool_holders(p, group, page);
    tr_check(n > 0);
    set_holders(p, group, page, n - 1);
    if (n > 1) return;
    set_bit(p, group, page, false);
    if (p->cache) tr_kv_prefix_park(p->cache, group, page);
}
