#include "tests/sim/sim.h"

#include "scheduler/scheduler_state.h"

#include <string.h>

/* Nobody writes what several hold: each holder's text is the same up to the end of the page, of one tenant, and all of
 * it was confirmed before. */
static void check_shared(world *w, uint32_t p, uint32_t group, uint32_t page, uint32_t slot, uint32_t i,
                         uint32_t first_slot, uint32_t first_i) {
    const tr_kv_layout *l = &w->scheduler.layout[p];
    tr_journal_entry *a = tr_journal_at(w->journal_mem, first_slot), *b = tr_journal_at(w->journal_mem, slot);
    uint32_t end = (i + 1) * l->page_tok;
    if (i != first_i || memcmp(a->tenant, b->tenant, sizeof a->tenant) != 0 ||
        memcmp(a->tokens, b->tokens, end * sizeof *a->tokens) != 0)
        sim_fail(w, "pool %u group %u page %u: slots %u and %u are not of one prefix", p, group, page, first_slot,
                 slot);
    for (uint32_t k = 0; k < 2; k++) {
        tr_journal_entry *e = k == 0 ? a : b;
        uint32_t have = atomic_load(p == 1 ? &e->kv_moved : w->scheduler.one_path ? &e->kv_decoded : &e->kv_prefilled);
        if (have < end)
            sim_fail(w, "pool %u group %u page %u: slot %u may write it", p, group, page, k ? slot : first_slot);
    }
}

/* Every page has as many holders as table entries, and its bit; nothing else has a bit. */
static void check_holders(world *w, uint32_t p) {
    const tr_kv_layout *l = &w->scheduler.layout[p];
    static _Atomic uint64_t bits[8192];
    static uint32_t first_slot[1 << 13], first_i[1 << 13];
    tr_kv_pool want;
    if (tr_kv_pool_bitmap_bytes(l) > sizeof bits) sim_fail(w, "pool too large for the check");
    memset((void *)bits, 0, tr_kv_pool_bitmap_bytes(l));
    tr_kv_pool_attach(&want, l, bits);
    for (uint32_t s = 0; s < l->n_slots; s++)
        for (uint32_t g = 0; g < l->n_groups; g++)
            for (uint32_t i = 0; i < l->pages_per_seq; i++) {
                uint32_t page = w->table[p][tr_kv_layout_entry(l, s, g, i)], at = want.page0[g] + page;
                if (page == TR_KV_NO_PAGE) continue;
                if (!tr_kv_pool_hold(&want, g, page)) sim_fail(w, "pool %u slot %u: no such page %u", p, s, page);
                if (tr_kv_pool_holders(&want, g, page) == 1) {
                    first_slot[at] = s;
                    first_i[at] = i;
                } else {
                    check_shared(w, p, g, page, s, i, first_slot[at], first_i[at]);
                }
            }
    if (memcmp((const void *)bits, (const void *)w->bitmap[p], tr_kv_pool_bitmap_bytes(l)) != 0)
        sim_fail(w, "pool %u: tables and holders differ", p);
}

/* No table holds a page; with check_holders: no bit is left either. */
static void check_empty(world *w, uint32_t p) {
    const tr_kv_layout *l = &w->scheduler.layout[p];
    for (uint32_t s = 0; s < l->n_slots; s++)
        for (uint32_t g = 0; g < l->n_groups; g++)
            for (uint32_t i = 0; i < l->pages_per_seq; i++)
                if (w->table[p][tr_kv_layout_entry(l, s, g, i)] != TR_KV_NO_PAGE)
                    sim_fail(w, "pool %u slot %u: page %u is still held", p, s, i);
}

void sim_check_pages(world *w) {
    tr_scheduler_stats stats;
    tr_scheduler_get_stats(w->process[SCHEDULER].core, &stats);
    for (uint32_t p = 0; p < (w->scheduler.one_pool ? 1u : 2u); p++) {
        check_holders(w, p);
        if (stats.pool_cached[p] > stats.pool_free[p]) sim_fail(w, "pool %u: a page is held and cached", p);
    }
}

/* ---- quarantine ---- */
static void touch(world *w, process *p, uint32_t pool, uint32_t slot, uint64_t rid, uint32_t group, uint32_t from,
                  uint32_t end) {
    const tr_kv_layout *l = &w->scheduler.layout[pool];
    for (uint32_t i = from / l->page_tok; i * l->page_tok < end; i++) {
        const uint32_t entry = (uint32_t)tr_kv_layout_entry(l, slot, group, i), page = w->table[pool][entry];
        if (page == TR_KV_NO_PAGE) continue;
        if (p->n_touched == MAX_TOUCHED) sim_fail(w, "a computation touches too many pages");
        p->touched[p->n_touched++] = (touched){pool, slot, entry, page, rid};
    }
}

void sim_check_begin(world *w, uint32_t actor) {
    process *p = &w->process[actor];
    const tr_msg_reshard *job = &p->compute.as.reshard;
    p->n_touched = 0;
    if (p->compute.type == TR_MSG_STEP) {
        const tr_msg_step *m = &p->compute.as.step;
        const uint32_t pool = w->scheduler.one_pool ? 0 : m->phase - 1;
        const tr_kv_layout *l = &w->scheduler.layout[pool];
        for (uint32_t i = 0; i < m->spans.len; i++) {
            const tr_msg_span *span = &m->spans.data[i];
            for (uint32_t g = 0; g < l->n_groups; g++)
                touch(w, p, pool, span->slot, span->rid, g, window_begin(&l->group[g], span->pos0),
                      span->pos0 + span->rows);
        }
        return;
    }
    if (p->compute.type == TR_MSG_STORE_PUT || p->compute.type == TR_MSG_STORE_GET) {
        const tr_msg_store_get *get = &p->compute.as.store_get;
        const tr_msg_store_put *put = &p->compute.as.store_put;
        const bool puts = p->compute.type == TR_MSG_STORE_PUT;
        const tr_u32v *min = puts ? &put->tok_min : &get->tok_min;
        for (uint32_t g = 0; g < min->len && (puts || get->fetch); g++)
            touch(w, p, 0, puts ? put->slot : get->slot, puts ? put->rid : get->rid, g, min->data[g],
                  puts ? put->tok1 : get->tok1);
        return;
    }
    for (uint32_t pool = job->file ? job->pool : 0; pool < (job->file ? job->pool + 1 : 2); pool++)
        for (uint32_t g = 0; g < job->tok_min.len; g++) {
            const uint32_t min = job->tok_min.data[g], from = !job->file && job->tok0 > min ? job->tok0 : min;
            touch(w, p, pool, job->dst_slot, job->rid, g, from, job->tok1);
        }
}

void sim_check_flight(world *w) {
    const tr_scheduler *s = w->process[SCHEDULER].core;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        const tr_sequence *q = &s->sequence[i];
        const uint64_t deadline = entry_of(s, i)->deadline_ns;
        if ((q->state == SEQUENCE_WAITING || q->state == SEQUENCE_RUNNING) && deadline && w->now >= deadline)
            sim_fail(w, "slot %u: its timeout has passed", i);
        if (tr_transfer_ended(q->transfer) != (q->state == SEQUENCE_ENDED) ||
            (q->jobs > 0 ? !tr_transfer_flies(q->transfer)
                         : tr_transfer_flies(q->transfer) && !tr_transfer_lost(q->transfer)))
            sim_fail(w, "slot %u: %u jobs in state %s", i, q->jobs, tr_transfer_state_name(q->transfer));
    }
    for (uint32_t a = RESHARDER_ACTOR; a < w->n_actors; a++) {
        const process *p = &w->process[a];
        for (uint32_t i = 0; p->state == ALIVE && p->computing && i < p->n_touched; i++) {
            const touched *t = &p->touched[i];
            const tr_journal_entry *e = tr_journal_at(w->journal_mem, t->slot);
            if (w->table[t->pool][t->entry] != t->page || e->rid != t->rid)
                sim_fail(w, "pool %u page %u of slot %u was given back while actor %u is at work on it", t->pool,
                         t->page, t->slot, a);
        }
    }
}

static void rising(world *w, uint32_t i, const char *name, uint32_t *seen, uint32_t now) {
    if (now < *seen) sim_fail(w, "request %u: %s fell from %u to %u", i, name, *seen, now);
    *seen = now;
}

/* What an open entry says only grows, is the oracle's text, and never exceeds what can have been computed; between two
 * steps of the scheduler a done entry is whole. Holds at any moment, also after a death in the middle of a step. */
void sim_check_journal(world *w, bool whole_step) {
    tr_journal *j = w->journal_mem;
    for (uint32_t s = 0; s < j->n_slots; s++) {
        tr_journal_entry *e = tr_journal_at(j, s);
        uint32_t state = atomic_load(&e->state), n = atomic_load(&e->n_tokens), i = e->client[0] + e->sample;
        if (state == TR_JOURNAL_FREE) continue;
        request *r = &w->request[i];
        if (i >= w->n_requests || r->rid != e->rid) sim_fail(w, "slot %u: entry of nobody", s);
        if (state == TR_JOURNAL_DONE) {
            if (whole_step && n != e->prompt_len + e->kept) sim_fail(w, "request %u: done with %u tokens", i, n);
            r->seen_tokens = r->seen_prefilled = r->seen_moved = r->seen_decoded = 0;
            continue;
        }
        if (r->seen_evictions != atomic_load(&e->evictions)) r->seen_prefilled = r->seen_moved = r->seen_decoded = 0;
        r->seen_evictions = atomic_load(&e->evictions);
        if (whole_step && r->seen_evictions % 2 != 0) sim_fail(w, "request %u: an eviction was not finished", i);
        if (r->seen_evictions / 2 > MAX_EVICTIONS)
            sim_fail(w, "request %u gave way %u times", i, r->seen_evictions / 2);
        rising(w, i, "n_tokens", &r->seen_tokens, n);
        rising(w, i, "kv_prefilled", &r->seen_prefilled, atomic_load(&e->kv_prefilled));
        rising(w, i, "kv_moved", &r->seen_moved, atomic_load(&e->kv_moved));
        rising(w, i, "kv_decoded", &r->seen_decoded, atomic_load(&e->kv_decoded));
        if (n - e->prompt_len > r->n_oracle ||
            memcmp(e->tokens + e->prompt_len, r->oracle, (n - e->prompt_len) * sizeof(uint32_t)) != 0)
            sim_fail(w, "request %u: the journal holds a wrong text", i);
        if (r->seen_moved > r->seen_prefilled || r->seen_decoded > n || r->seen_prefilled > e->prompt_len - e->forced)
            sim_fail(w, "request %u: prefilled %u moved %u decoded %u of %u tokens", i, r->seen_prefilled,
                     r->seen_moved, r->seen_decoded, n);
    }
}

/* At its end, a client's tokens are the oracle's, as far as the way it ended says. */
void sim_check_client_end(world *w, const request *r) {
    uint32_t i = (uint32_t)(r - w->request), n = r->n_got;
    const request *lead = &w->request[r->lead];
    if (n > r->n_oracle || memcmp(r->got, r->oracle, n * sizeof *r->got) != 0) sim_fail(w, "request %u: wrong text", i);
    switch (r->finish) {
    case TR_FINISH_LENGTH:
    case TR_FINISH_STOP:
        if (r->stop_at && r->stop_at <= r->n_oracle) {
            if (n != r->stop_at) sim_fail(w, "request %u: %u tokens, stop text after %u", i, n, r->stop_at);
        } else if (n != r->n_oracle || r->finish != r->oracle_finish) {
            sim_fail(w, "request %u: %u of %u tokens, finish %u not %u", i, n, r->n_oracle, r->finish,
                     r->oracle_finish);
        }
        return;
    case TR_FINISH_ABORT:
        if (!r->cancelled) sim_fail(w, "request %u: aborted by nobody", i);
        return;
    default: break;
    }
    bool lost = r->code == 99 && (w->faults & CRASH_FRONTEND) && !r->accepted;
    /* a refusal meant for an earlier frontend may meet the repeat that got in: then the repeat is cancelled */
    bool refused = (r->code == 69 || r->code == 64) && (!r->accepted || w->process[FRONTEND].incarnation > 1);
    bool crashed = r->code == 70 && strstr(r->error, "two crashes") != NULL &&
                   ((lead->poison && w->poison_deaths >= 2) || (w->chaos_counted >= 1 && w->counted_deaths >= 2));
    bool bad = r->code == 70 && lead->bad && strstr(r->error, "bad request") != NULL;
    bool late = r->code == 75 && r->timeout_ms && w->now >= r->submit_ns + r->timeout_ms * MS;
    if (!lost && !refused && !crashed && !bad && !late)
        sim_fail(w, "request %u: error %u '%s' without a cause", i, r->code, r->error);
}

void sim_check_end(world *w) {
    tr_scheduler *s = w->process[SCHEDULER].core;
    tr_scheduler_stats stats;
    tr_journal *j = w->journal_mem;
    for (uint32_t i = 0; i < w->n_requests; i++)
        if (!w->request[i].ended) sim_fail(w, "request %u never ended", i);
    for (uint32_t i = 0; i < j->n_slots; i++)
        if (atomic_load(&tr_journal_at(j, i)->state) != TR_JOURNAL_FREE) sim_fail(w, "journal slot %u is not free", i);
    tr_scheduler_get_stats(s, &stats);
    for (uint32_t p = 0; p < 2; p++)
        if (stats.pool_free[p] != stats.pool_pages[p]) sim_fail(w, "pool %u: pages leaked", p);
    w->total_hits += stats.prefix_hits;
    w->total_hit_tokens += stats.prefix_hit_tokens;
    w->total_preemptions += stats.preemptions;
    w->total_preempted_tokens += stats.preempted_tokens;
    w->total_swapped_out += stats.swapped_out;
    w->total_swapped_in += stats.swapped_in;
    if (atomic_load(&j->swap_used) != 0) sim_fail(w, "swap space leaked");
    if (stats.preemptions > 0 && !w->tight) sim_fail(w, "preempted although everything was promised");
    w->total_fetched += atomic_load(&j->store.hits);
    for (uint32_t p = 0; p < 2; p++)
        if (stats.pool_quarantined[p] != 0) sim_fail(w, "pool %u: pages in quarantine", p);
    if (!tr_scheduler_idle(s)) sim_fail(w, "scheduler is not idle");
    if (stats.protocol_errors != 0)
        sim_fail(w, "scheduler counted %lu protocol errors", (unsigned long)stats.protocol_errors);
    sim_check_pages(w);
    for (uint32_t p = 0; p < (w->scheduler.one_pool ? 1u : 2u); p++) check_empty(w, p);
}
