/* Prefixes from a store outside of the company, and into it. The store actor does the work; what it holds of a page it
 * holds while a job is out, so the network never keeps a page longer than one fetch that its own clock ends. Whatever
 * goes wrong there costs a request nothing but that time: its prompt is computed.
 * In: a prompt that could win by it is admitted without a page, then the store is asked how much it has (ASK), then
 * pages for exactly that are held and filled (LAY), as if the prefill pipeline had computed them: the hand-off moves
 * them on. fetch_end in the journal says from before the first page to kv_prefilled that the pages hold nothing yet.
 * Out: full pages of the prefill pool as soon as they are confirmed, where the prefix cache would know them too; of a
 * sliding group those that are still held. They stay until the store has copied them. */
#include "kv/kv_block.h"
#include "scheduler/reuse.h"

#include <string.h>

static uint32_t max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }
static uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint32_t whole_pages(const tr_scheduler *s, uint32_t n) { return n - n % s->config.layout[0].page_tok; }
static bool running(const tr_scheduler *s) {
    return s->component[STORE].n > 0 && s->component[STORE].state == COMPONENT_RUNNING;
}

/* The last position of a prompt is computed in any case. */
static uint32_t most(const tr_scheduler *s, uint32_t slot) { return whole_pages(s, s->sequence[slot].prefill_end - 1); }

static void count(_Atomic uint64_t *what, uint64_t n) { atomic_fetch_add_explicit(what, n, memory_order_relaxed); }

/* ---- out -----------------------------------------------------------------------------------------------------------
 */

static const tr_stored_job *put_out(const tr_scheduler *s, uint32_t slot) {
    for (uint32_t i = 0; i < STORE_JOBS; i++)
        if (s->store_job[i].used && s->store_job[i].put && s->store_job[i].slot == slot) return &s->store_job[i];
    return NULL;
}

/* What of it can be stored now. False: nothing. */
static bool put_range(const tr_scheduler *s, uint32_t slot, tr_stored_job *job) {
    const tr_sequence *q = &s->sequence[slot];
    const tr_kv_layout *l = &s->config.layout[0];
    bool any = false;
    if (!running(s) || !s->config.prefix_cache || q->fetch != TR_STORED_NO || q->unsettled != 0) return false;
    if (load(&entry_of(s, slot)->restored) == TR_JOURNAL_FILE_DONE) return false;
    *job = (tr_stored_job){.put = true, .slot = slot, .tok1 = whole_pages(s, tr_reuse_complete(s, slot, 0))};
    for (uint32_t g = 0; g < l->n_groups; g++) {
        const uint32_t first = q->row[0].first[g] * l->page_tok, end = q->row[0].end[g] * l->page_tok;
        job->tok_min[g] = min_u32(max_u32(q->put_end, first), job->tok1);
        if (end < job->tok1) job->tok_min[g] = job->tok1; /* given back */
        any |= job->tok_min[g] < job->tok1;
    }
    return any;
}

bool tr_stored_holds(const tr_scheduler *s, uint32_t slot) {
    tr_stored_job job;
    return s->sequence[slot].store_jobs > 0 || put_range(s, slot, &job);
}

uint32_t tr_stored_floor(const tr_scheduler *s, uint32_t slot, uint32_t pos) {
    const tr_stored_job *out = put_out(s, slot);
    tr_stored_job next;
    for (uint32_t g = 0; out && g < s->config.layout[0].n_groups; g++) pos = min_u32(pos, out->tok_min[g]);
    return put_range(s, slot, &next) ? min_u32(pos, s->sequence[slot].put_end) : pos;
}

/* ---- in ------------------------------------------------------------------------------------------------------------
 */

bool tr_stored_asks(const tr_scheduler *s, uint32_t slot, uint32_t local) {
    if (!running(s) || !tr_reuse_allowed(s, slot)) return false;
    return most(s, slot) >= local + s->config.store_least && most(s, slot) > 0;
}

/* Without the store: what the pools know by now, the rest is computed. */
static void plain(tr_scheduler *s, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    tr_reuse local;
    q->fetch = TR_STORED_NO;
    tr_kv_table_drop_all(&s->config.layout[0], s->config.table[0], slot, &q->row[0], &s->pool[0]);
    publish(&entry_of(s, slot)->fetch_end, 0);
    q->table_version++;
    tr_reuse_find(s, slot, &local);
    tr_reuse_take(s, slot, &local);
}

static void asked(tr_scheduler *s, uint32_t slot, uint32_t found) {
    tr_sequence *q = &s->sequence[slot];
    tr_reuse local;
    tr_reuse_find(s, slot, &local);
    count(&s->config.journal->store.asked, 1);
    q->found = whole_pages(s, found);
    q->fetch = TR_STORED_LAY;
    if (q->found > most(s, slot) || q->found < max_u32(local.start[0] + s->config.store_least, 1)) plain(s, slot);
}

/* Hold pages for the prefix, within the reservation. */
static bool hold(tr_scheduler *s, uint32_t slot, const tr_stored_job *job) {
    const tr_kv_layout *l = &s->config.layout[0];
    tr_sequence *q = &s->sequence[slot];
    for (uint32_t g = 0; g < l->n_groups; g++)
        if (tr_kv_table_missing(l, &q->row[0], g, job->tok_min[g], job->tok1) > q->need.pages[0][g]) return false;
    publish(&entry_of(s, slot)->fetch_end, job->tok1);
    for (uint32_t g = 0; g < l->n_groups; g++)
        tr_check(tr_kv_table_extend(l, s->config.table[0], slot, &q->row[0], g, job->tok_min[g], job->tok1,
                                    &s->pool[0]) == TR_OK);
    q->table_version++;
    return true;
}

static void laid(tr_scheduler *s, uint32_t slot, uint32_t end) {
    tr_journal_entry *e = entry_of(s, slot);
    tr_sequence *q = &s->sequence[slot];
    q->fetch = TR_STORED_NO;
    q->issued = q->put_end = end;
    if (load(&e->evictions) == 0) e->cached = end;
    publish(&e->kv_prefilled, end);
    if (s->config.one_pool) {
        publish(&e->kv_moved, end);
        publish(&e->kv_decoded, end);
        q->move_issued = end;
    }
    count(&s->config.journal->store.hits, 1);
    count(&s->config.journal->store.hit_tokens, end);
    tr_reuse_learn(s, slot);
}

/* ---- jobs ----------------------------------------------------------------------------------------------------------
 */

static tr_stored_job *free_job(tr_scheduler *s) {
    for (uint32_t i = 0; i < STORE_JOBS; i++)
        if (!s->store_job[i].used) return &s->store_job[i];
    return NULL;
}

static void issue(tr_scheduler *s, const tr_stored_job *next, tr_effects *fx) {
    tr_component *c = &s->component[STORE];
    tr_sequence *q = &s->sequence[next->slot];
    tr_stored_job *job = free_job(s);
    const uint64_t rid = entry_of(s, next->slot)->rid;
    *job = *next;
    job->used = true;
    job->job = c->next_id++;
    c->in_flight++;
    q->store_jobs++;
    const tr_u32v tok_min = {job->tok_min, s->config.layout[0].n_groups};
    tr_msg *m = tr_scheduler_send(fx, c->actor[0], job->put ? TR_MSG_STORE_PUT : TR_MSG_STORE_GET);
    if (job->put) {
        q->put_end = job->tok1;
        m->as.store_put = (tr_msg_store_put){
            .epoch = c->epoch, .job = job->job, .rid = rid, .slot = job->slot, .tok1 = job->tok1, .tok_min = tok_min};
        return;
    }
    m->as.store_get = (tr_msg_store_get){.epoch = c->epoch,
                                         .job = job->job,
                                         .rid = rid,
                                         .slot = job->slot,
                                         .fetch = q->fetch == TR_STORED_LAY,
                                         .tok1 = job->tok1,
                                         .tok_min = tok_min};
}

/* The question or the fetch that comes next for this sequence. False: none. */
static bool get_job(tr_scheduler *s, uint32_t slot, tr_stored_job *job) {
    const tr_sequence *q = &s->sequence[slot];
    if (q->state != SEQUENCE_RUNNING || (q->fetch != TR_STORED_ASK && q->fetch != TR_STORED_LAY)) return false;
    *job = (tr_stored_job){.slot = slot, .tok1 = q->fetch == TR_STORED_ASK ? most(s, slot) : q->found};
    if (q->fetch == TR_STORED_ASK) return true;
    for (uint32_t g = 0; g < s->config.layout[0].n_groups; g++)
        job->tok_min[g] = tr_kv_block_first(&s->config.layout[0], g, job->tok1);
    if (hold(s, slot, job)) return true;
    plain(s, slot);
    return false;
}

/* It waits for what will not come, or for pages that are free to go by now. */
static void give_up(tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    if (q->state != SEQUENCE_RUNNING || q->fetch == TR_STORED_NO || q->store_jobs > 0) return;
    if (q->fetch == TR_STORED_VOID ? settled(q) : !running(s)) plain(s, slot);
}

void tr_stored_pump(tr_scheduler *s, tr_effects *fx) {
    tr_stored_job next;
    for (uint32_t slot = 0; slot < s->n_slots && s->component[STORE].n > 0; slot++) {
        const tr_sequence *q = &s->sequence[slot];
        if (q->state != SEQUENCE_RUNNING && q->state != SEQUENCE_ENDED) continue;
        give_up(s, slot);
        if (!running(s) || q->stopped || q->unsettled != 0 || free_job(s) == NULL || !room(s, fx, 1)) continue;
        if (q->fetch != TR_STORED_NO && q->store_jobs > 0) continue;
        if (get_job(s, slot, &next) || (put_out(s, slot) == NULL && put_range(s, slot, &next))) issue(s, &next, fx);
    }
}

void tr_stored_done(tr_scheduler *s, const tr_msg_store_done *m) {
    tr_component *c = &s->component[STORE];
    tr_stored_job *job = NULL;
    for (uint32_t i = 0; i < STORE_JOBS && m->epoch == c->epoch; i++)
        if (s->store_job[i].used && s->store_job[i].job == m->job) job = &s->store_job[i];
    if (job == NULL) return;
    const uint32_t slot = job->slot;
    tr_sequence *q = &s->sequence[slot];
    job->used = false;
    c->in_flight--;
    q->store_jobs--;
    if (q->state == SEQUENCE_RUNNING && !job->put) {
        if (q->fetch == TR_STORED_ASK)
            asked(s, slot, m->status == 0 ? m->tok1 : 0);
        else if (m->status == 0 && m->tok1 == job->tok1)
            laid(s, slot, job->tok1);
        else
            plain(s, slot);
    }
    tr_progress_tidy(s, slot);
}

/* One try: what died over a prompt is not asked for it again. */
void tr_stored_reset(tr_scheduler *s) {
    for (uint32_t i = 0; i < STORE_JOBS; i++) {
        tr_stored_job *job = &s->store_job[i];
        tr_sequence *q = &s->sequence[job->slot];
        if (!job->used) continue;
        job->used = false;
        s->component[STORE].in_flight--;
        q->store_jobs--;
        if (q->state == SEQUENCE_RUNNING && !job->put) plain(s, job->slot);
    }
}

void tr_stored_take_over(tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    tr_sequence *q = &s->sequence[slot];
    if (s->component[STORE].n > 0) q->unsettled |= 1u << STORE;
    q->put_end = whole_pages(s, load(&e->kv_prefilled));
    if (load(&e->fetch_end) <= load(&e->kv_prefilled)) return;
    if (q->state == SEQUENCE_RUNNING)
        q->fetch = TR_STORED_VOID;
    else
        publish(&e->fetch_end, 0);
}

void tr_stored_state(tr_scheduler *s, const tr_msg_store_state *m) {
    tr_journal_store *j = &s->config.journal->store;
    atomic_store_explicit(&j->up, m->up, memory_order_relaxed);
    count(&j->stored, m->stored);
    count(&j->stored_bytes, m->stored_bytes);
    count(&j->refused, m->refused);
    count(&j->failed, m->failed);
    count(&j->dropped, m->dropped);
}
