/* Which pages are worth knowing: those that hold only positions that the prefill path wrote, and, where both paths are
 * one, generated ones too. A page is known from the moment on at which its last position is confirmed; from then on
 * nobody writes it. At least one position of a prompt is always computed, and a request that wants the logits of every
 * position computes them all. */
#include "scheduler/reuse.h"

static tr_kv_prefix_tenant tenant_of(const tr_journal_entry *e) {
    return (tr_kv_prefix_tenant){{e->tenant[0], e->tenant[1]}};
}

/* First page of a group that a query at this position sees. */
static uint32_t first_page(const tr_kv_layout *l, uint32_t g, uint32_t query) {
    return window_begin(&l->group[g], query) / l->page_tok;
}

/* What pool p has of the first `most` positions. query: position from which on the pages are read, 0: right behind. */
static void find_in(tr_scheduler *s, uint32_t slot, uint32_t p, uint32_t most, uint32_t query, tr_reuse *r) {
    const tr_kv_layout *l = &s->config.layout[p];
    tr_kv_prefix *c = s->prefix[p];
    tr_journal_entry *e = entry_of(s, slot);
    tr_kv_prefix_find(c, tenant_of(e), e->tokens, most);
    uint32_t end = r->pages[p] = tr_kv_prefix_usable(c, most / l->page_tok, query);
    r->start[p] = end * l->page_tok;
    r->node[p] = end > 0 ? tr_kv_prefix_node(c, end - 1) : 0;
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t i = first_page(l, g, query > 0 ? query : r->start[p]); i < end; i++) {
            r->known.pages[p][g]++;
            r->parked.pages[p][g] += tr_kv_pool_holders(&s->pool[p], g, tr_kv_prefix_page(c, i, g)) == 0;
        }
}

bool tr_reuse_allowed(const tr_scheduler *s, uint32_t slot) {
    const tr_journal_entry *e = entry_of(s, slot);
    return s->config.prefix_cache && e->logits != TR_LOGITS_ALL && e->logits != TR_LOGITS_HIDDEN && !e->restore[0];
}

void tr_reuse_find(tr_scheduler *s, uint32_t slot, tr_reuse *r) {
    const tr_sequence *q = &s->sequence[slot];
    *r = (tr_reuse){.leader = NO_SLOT};
    if (tr_sample_find_fork(s, slot, r)) return;
    if (!tr_reuse_allowed(s, slot)) return;
    find_in(s, slot, 0, q->prefill_end - 1, 0, r);
    if (s->config.one_pool)
        r->start[1] = r->start[0];
    else if (q->decode_end > q->prefill_end && r->start[0] > 0)
        find_in(s, slot, 1, r->start[0], q->prefill_end, r);
}

static void share(tr_scheduler *s, uint32_t slot, uint32_t p, const tr_reuse *r) {
    const tr_kv_layout *l = &s->config.layout[p];
    tr_sequence *q = &s->sequence[slot];
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t i = r->pages[p] - r->known.pages[p][g]; i < r->pages[p]; i++)
            tr_kv_table_share(l, s->config.table[p], slot, &q->row[p], g, i, tr_kv_prefix_page(s->prefix[p], i, g),
                              &s->pool[p]);
    q->known[p].node = r->node[p];
    q->known[p].pages = r->pages[p];
}

static void count(tr_scheduler *s, uint32_t queried, uint32_t hit) {
    tr_journal *j = s->config.journal;
    atomic_fetch_add_explicit(&j->prefix_query_tokens, queried, memory_order_relaxed);
    atomic_fetch_add_explicit(&j->prefix_hit_tokens, hit, memory_order_relaxed);
    atomic_fetch_add_explicit(&j->prefix_hits, hit > 0, memory_order_relaxed);
}

/* kv_prefilled is what makes the whole of it count; a death before that leaves table entries that a start clears, one
 * behind it what a start makes whole. */
void tr_reuse_take(tr_scheduler *s, uint32_t slot, const tr_reuse *r) {
    tr_journal_entry *e = entry_of(s, slot);
    tr_sequence *q = &s->sequence[slot];
    if (load(&e->evictions) == 0) { /* else it finds what it left itself */
        if (s->config.prefix_cache && r->leader == NO_SLOT) count(s, q->prefill_end, r->start[0]);
        e->cached = r->leader == NO_SLOT ? r->start[0] : 0;
    }
    q->put_end = r->start[0] - r->start[0] % s->config.layout[0].page_tok;
    if (r->start[0] == 0) return;
    publish(&e->start[0], r->start[0]);
    publish(&e->start[1], r->start[1]);
    if (r->leader != NO_SLOT) tr_sample_share(s, slot, r);
    for (uint32_t p = 0; p < (s->config.one_pool ? 1 : 2) && r->leader == NO_SLOT; p++)
        if (r->pages[p] > 0) share(s, slot, p, r);
    publish(&e->kv_prefilled, r->start[0]);
    publish(&e->kv_moved, r->start[1]);
    publish(&e->kv_decoded, r->start[1]);
    q->issued = r->start[0];
    q->move_issued = r->start[1];
    q->table_version++;
}

uint32_t tr_reuse_complete(const tr_scheduler *s, uint32_t slot, uint32_t p) {
    tr_journal_entry *e = entry_of(s, slot);
    if (p == 1) return load(&e->kv_moved);
    return s->config.one_pool && s->config.one_path ? load(&e->kv_decoded) : load(&e->kv_prefilled);
}

static void learn_in(tr_scheduler *s, uint32_t slot, uint32_t p) {
    const tr_kv_layout *l = &s->config.layout[p];
    tr_journal_entry *e = entry_of(s, slot);
    tr_sequence *q = &s->sequence[slot];
    uint32_t end = tr_reuse_complete(s, slot, p) / l->page_tok;
    for (; q->known[p].pages < end && !q->known[p].ends; q->known[p].pages++) {
        uint32_t at = q->known[p].pages, page[TR_KV_GROUPS_MAX] = {TR_KV_NO_PAGE, TR_KV_NO_PAGE};
        for (uint32_t g = 0; g < l->n_groups; g++) {
            if (p == 1 && at * l->page_tok < moved_from(s, g, q)) continue; /* not all of it was moved */
            page[g] = s->config.table[p][tr_kv_layout_entry(l, slot, g, at)];
        }
        q->known[p].node =
            tr_kv_prefix_insert(s->prefix[p], q->known[p].node, tenant_of(e), e->tokens + at * l->page_tok, page);
        q->known[p].ends = q->known[p].node == 0;
    }
}

void tr_reuse_learn(tr_scheduler *s, uint32_t slot) {
    if (s->sequence[slot].state != SEQUENCE_RUNNING || !s->config.prefix_cache) return;
    if (load(&entry_of(s, slot)->restored) == TR_JOURNAL_FILE_DONE) return; /* who knows which arithmetic made them */
    for (uint32_t p = 0; p < (s->config.one_pool ? 1 : 2); p++) learn_in(s, slot, p);
}
