#include "scheduler/preempt.h"

#include "scheduler/order.h"
#include "scheduler/reuse.h"
#include "scheduler/swap.h"

static bool promises_all(const tr_scheduler *s) { return s->config.promise_tok == TR_SCHEDULER_PROMISE_ALL; }
static uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* The promise ends where a page ends: a new scheduler finds it in the table. */
static uint32_t page_end(const tr_scheduler *s, uint32_t pos) {
    const uint32_t page_tok = s->config.layout[pool_of(s, DECODE)].page_tok;
    return (pos + page_tok - 1) / page_tok * page_tok;
}

uint32_t tr_preempt_first_end(const tr_scheduler *s, uint32_t slot) {
    const uint32_t known = load(&entry_of(s, slot)->n_tokens), most = s->config.context;
    return promises_all(s) ? UINT32_MAX : page_end(s, known + min_u32(s->config.promise_tok, most));
}

/* ---- growing ---- */
/* Every sequence that may grow should find a page to grow into: one that is let in too early only gives way again. */
void tr_preempt_leave_room(const tr_scheduler *s, tr_kv_budget *b) {
    const uint32_t p = pool_of(s, DECODE), groups = s->config.layout[p].n_groups;
    uint32_t growing[TR_KV_GROUPS_MAX] = {0};
    for (uint32_t i = 0; i < s->n_running && !promises_all(s); i++) {
        const tr_sequence *q = &s->sequence[s->running[i]];
        tr_sequence whole;
        tr_intake_measure(s, entry_of(s, s->running[i]), &whole, UINT32_MAX);
        for (uint32_t g = 0; g < groups; g++) growing[g] += whole.need.pages[p][g] > q->need.pages[p][g];
    }
    for (uint32_t g = 0; g < groups; g++)
        if (b->keep[p][g] < growing[g]) b->keep[p][g] = growing[g];
}

/* Position that must be promised so that it can go on, one row ahead of the last known token included. */
static uint32_t wanted(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    bool decodes = load(&e->kv_prefilled) == q->prefill_end;
    return decodes ? min_u32(load(&e->n_tokens) + 1, q->decode_end) : q->promised;
}

/* False: there are not enough pages. The watermark does not count: it is kept for this. */
static bool grow(tr_scheduler *s, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    const tr_kv_budget_need need = q->need;
    const uint32_t promised = q->promised;
    tr_kv_budget budget;
    tr_intake_measure(s, entry_of(s, slot), q, page_end(s, wanted(s, slot)));
    if (!s->config.one_pool)
        for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++) q->need.pages[PREFILL][g] = need.pages[PREFILL][g];
    if (tr_intake_claims(s, &budget)) return true;
    q->need = need;
    q->promised = promised;
    return false;
}

/* ---- giving way ---- */
bool tr_preempt_may(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    const uint32_t p = pool_of(s, DECODE);
    uint32_t pages = 0;
    for (uint32_t g = 0; g < s->config.layout[p].n_groups; g++) pages += q->need.pages[p][g];
    return q->state == SEQUENCE_RUNNING && pages > 0 && !tr_sample_is_source(s, slot);
}

/* The last of those that run: who came first, or is more urgent, ends first. */
uint32_t tr_preempt_victim(const tr_scheduler *s, uint32_t slot) {
    for (uint32_t i = s->n_running; i-- > 0 && tr_order_before(s, slot, s->running[i]);)
        if (tr_preempt_may(s, s->running[i])) return s->running[i];
    return NO_SLOT;
}

/* Of an eviction, what the journal says; evictions is odd. What a reader may see is in order at any moment. */
static void forget(tr_journal_entry *e) {
    publish(&e->kv_decoded, 0);
    publish(&e->kv_moved, 0);
    publish(&e->kv_prefilled, 0);
    publish(&e->start[1], 0);
    publish(&e->start[0], 0);
    publish(&e->fork, 0);
    publish(&e->fetch_end, 0);
    if (load(&e->restored) == TR_JOURNAL_FILE_DONE)
        publish(&e->restored, TR_JOURNAL_FILE_OPEN); /* from the file again */
    e->prefilled_ns = 0;
}

bool tr_preempt_mend(tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    if (load(&e->evictions) % 2 == 0) return false;
    forget(e);
    return true;
}

static void count(tr_scheduler *s, uint32_t slot, tr_preempt_how how) {
    tr_journal_entry *e = entry_of(s, slot);
    uint32_t prefilled = load(&e->kv_prefilled), decoded = load(&e->kv_decoded);
    tr_journal *j = s->config.journal;
    if (how == TR_PREEMPT_COMPUTE)
        atomic_fetch_add_explicit(&j->preempted_tokens, prefilled > decoded ? prefilled : decoded,
                                  memory_order_relaxed);
    atomic_fetch_add_explicit(how == TR_PREEMPT_IMAGE_LOST ? &j->swaps_lost : &j->preemptions, 1, memory_order_relaxed);
}

/* Nothing of it is in flight. Its followers, who forked off its pages, hold those themselves. */
void tr_preempt_evict(tr_scheduler *s, uint32_t slot, tr_preempt_how how) {
    tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    const uint32_t fork = load(&e->fork);
    count(s, slot, how);
    publish(&e->evictions, load(&e->evictions) + 1);
    forget(e);
    if (how == TR_PREEMPT_IMAGE_LOST) tr_swap_forget(s, slot);
    for (uint32_t p = 0; p < (s->config.one_pool ? 1 : 2); p++)
        tr_kv_table_drop_all(&s->config.layout[p], s->config.table[p], slot, &q->row[p], &s->pool[p]);
    publish(&e->evictions, load(&e->evictions) + 1);
    tr_progress_remove(s->running, &s->n_running, slot);
    tr_intake_insert(s, s->waiting, &s->n_waiting, slot);
    *q = (tr_sequence){.state = SEQUENCE_WAITING,
                       .table_version = q->table_version + 1,
                       .issued_ns = q->issued_ns,
                       .sent = q->sent,
                       .announce = q->announce};
    tr_intake_measure(s, e, q, 0);
    s->admission_due = true;
    if (fork > 0) tr_progress_tidy(s, fork - 1);
}

static bool at_rest(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    return q->steps == 0 && q->store_jobs == 0 && q->unsettled == 0 && !tr_transfer_flies(q->transfer);
}

/* Until it has grown, or has to wait: for what is in flight of a victim, or, the last one itself, for those before. */
static bool make_room(tr_scheduler *s, uint32_t slot, tr_effects *fx) {
    while (!grow(s, slot)) {
        uint32_t victim = tr_preempt_victim(s, slot);
        if (victim == NO_SLOT) return false;
        s->sequence[victim].stopped = true;
        if (!at_rest(s, victim) || tr_swap_out(s, victim, fx)) return false;
        tr_preempt_evict(s, victim, TR_PREEMPT_COMPUTE);
    }
    return true;
}

/* One that is carried out stays stopped; what an earlier scheduler did not finish of that counts for nothing. */
static void begin(tr_scheduler *s, uint32_t slot) {
    if (tr_swap_writes(s, slot) && at_rest(s, slot)) tr_swap_forget(s, slot);
    s->sequence[slot].stopped = tr_swap_writes(s, slot);
}

void tr_preempt_pump(tr_scheduler *s, tr_effects *fx) {
    s->starving = false;
    if (promises_all(s)) return; /* nobody grows, so nobody gives way */
    for (uint32_t i = 0; i < s->n_running; i++) begin(s, s->running[i]);
    for (uint32_t i = 0; i < s->n_running && !s->starving; i++)
        if (s->sequence[s->running[i]].promised < wanted(s, s->running[i]))
            s->starving = !make_room(s, s->running[i], fx);
}
