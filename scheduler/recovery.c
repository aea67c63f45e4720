#include "scheduler/order.h"

#include "scheduler/preempt.h"
#include "scheduler/swap.h"

#include <string.h>

static uint32_t max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }

uint32_t tr_recovery_component(const tr_scheduler *s, uint32_t actor, uint32_t *member_out) {
    for (uint32_t c = 0; c < COMPONENTS; c++)
        for (uint32_t i = 0; i < s->component[c].n; i++)
            if (s->component[c].actor[i] == actor) {
                *member_out = i;
                return c;
            }
    return COMPONENTS;
}

/* The epoch rises in the journal first: whoever comes after this scheduler starts above it. */
void tr_recovery_reset(tr_scheduler *s, uint32_t component, tr_effects *fx) {
    tr_component *c = &s->component[component];
    if (!room(s, fx, c->n)) return; /* state unchanged: pump tries again */
    uint32_t epoch = load(&s->config.journal->epoch) + 1;
    publish(&s->config.journal->epoch, epoch);
    c->epoch = epoch;
    c->next_id = 1;
    c->state = COMPONENT_RESETTING;
    if (component == RESHARDER) tr_handoff_lost(s);
    for (uint32_t i = 0; i < c->n; i++) {
        c->acked[i] = false;
        tr_scheduler_send(fx, c->actor[i], TR_MSG_RESET)->as.reset.epoch = epoch;
    }
}

static void count_death(tr_scheduler *s, uint32_t slot) {
    static const char text[] =
        "this request was in flight at two crashes of the actor that computes it; not tried again";
    tr_journal_entry *e = entry_of(s, slot);
    s->suspects = true;
    if (s->sequence[slot].state == SEQUENCE_ENDED || ++e->deaths < POISON_DEATHS) return;
    tr_progress_end(s, slot, TR_FINISH_ERROR, UINT32_MAX, 70, text, sizeof text - 1);
}

/* Nothing of the old epoch runs any more: what was in flight is issued again, what waited for this is given back.
 * Deaths are counted here and not at once, because a STEP_DONE sent before the death may still have been on its way. */
static void reset_complete(tr_scheduler *s, uint32_t component) {
    tr_component *c = &s->component[component];
    for (uint32_t i = 0; i < s->n_flights && component != RESHARDER; i++) {
        tr_flight *f = &s->flight[i];
        if (!f->used || f->component != component) continue;
        for (uint32_t k = 0; k < f->n_spans && c->counted_death && !f->parked; k++) {
            tr_journal_entry *e = entry_of(s, f->spans[k].slot);
            s->sequence[f->spans[k].slot].fell = true;
            e->suspect_compute = max_u32(e->suspect_compute, f->spans[k].pos0 + f->spans[k].rows);
        }
        tr_progress_drop_flight(s, f);
    }
    if (component == RESHARDER) tr_handoff_settled(s, c->counted_death);
    if (component == STORE) tr_stored_reset(s);
    c->counted_death = false;
    c->state = COMPONENT_RUNNING;
    for (uint32_t i = 0; i < c->n; i++) c->holds[i] = true;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        s->sequence[i].unsettled &= ~(1u << component);
        if (s->sequence[i].fell) count_death(s, i); /* once, however many steps of it were out */
        s->sequence[i].fell = false;
        tr_progress_tidy(s, i);
    }
}

void tr_recovery_reset_done(tr_scheduler *s, uint32_t actor, const tr_msg_reset_done *m) {
    uint32_t member, index = tr_recovery_component(s, actor, &member);
    if (index == COMPONENTS) {
        s->stats.protocol_errors++;
        return;
    }
    tr_component *c = &s->component[index];
    if (c->state != COMPONENT_RESETTING || m->epoch != c->epoch || !c->up[member]) return;
    c->acked[member] = true;
    c->holds[member] = false;
    for (uint32_t i = 0; i < c->n; i++)
        if (!c->acked[i]) return;
    reset_complete(s, index);
}

/* Other members may be down before it, and a broken link may have hidden it until it is up again. */
static void died(tr_component *c, uint32_t member) {
    if (c->holds[member]) c->counted_death = true;
    c->holds[member] = false;
}

void tr_recovery_peer_down(tr_scheduler *s, uint32_t actor, bool counted) {
    uint32_t member, index = tr_recovery_component(s, actor, &member);
    if (actor == s->config.frontend) s->frontend_up = false;
    if (index == COMPONENTS || !s->component[index].up[member]) return;
    tr_component *c = &s->component[index];
    c->up[member] = false;
    if (index == STORE) atomic_store_explicit(&s->config.journal->store.up, 0, memory_order_relaxed);
    if (counted) died(c, member);
    c->state = COMPONENT_DOWN;
    if (index == RESHARDER) tr_handoff_lost(s);
}

static void frontend_up(tr_scheduler *s) {
    s->frontend_up = true;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        s->sequence[i].sent = 0;
        s->sequence[i].announce = true;
        tr_slots_add(&s->tell, i);
        s->sequence[i].finish_sent = false;
    }
}

void tr_recovery_peer_up(tr_scheduler *s, const tr_event *event, tr_effects *fx) {
    const uint32_t actor = event->from, incarnation = event->incarnation;
    uint32_t member, index = tr_recovery_component(s, actor, &member);
    if (actor == s->config.frontend) frontend_up(s);
    if (index == COMPONENTS) return;
    tr_component *c = &s->component[index];
    if (c->up[member] && c->incarnation[member] == incarnation) return;
    if (c->up[member]) tr_recovery_peer_down(s, actor, false); /* its end was missed */
    c->up[member] = true;
    if (event->as.counted) died(c, member);
    c->incarnation[member] = incarnation;
    tr_recovery_pump(s, fx);
}

void tr_recovery_pump(tr_scheduler *s, tr_effects *fx) {
    for (uint32_t k = 0; k < COMPONENTS; k++) {
        tr_component *c = &s->component[k];
        bool all = c->n > 0 && c->state == COMPONENT_DOWN;
        for (uint32_t i = 0; i < c->n && all; i++) all = c->up[i];
        if (all) tr_recovery_reset(s, k, fx);
    }
}

static void wipe_row(tr_scheduler *s, uint32_t slot, uint32_t p) {
    const tr_kv_layout *l = &s->config.layout[p];
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t i = 0; i < l->pages_per_seq; i++)
            s->config.table[p][tr_kv_layout_entry(l, slot, g, i)] = TR_KV_NO_PAGE;
    s->sequence[slot].row[p] = (tr_kv_table_row){0};
}

static uint32_t pages_held(const tr_scheduler *s, const tr_sequence *q, uint32_t p) {
    uint32_t n = 0;
    for (uint32_t g = 0; g < s->config.layout[p].n_groups; g++) n += tr_kv_table_held(&q->row[p], g);
    return n;
}

/* A death between two words of one change is made whole: the word written first is the truth. */
static void mend(tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    if (load(&e->state) == TR_JOURNAL_DONE) publish(&e->n_tokens, e->prompt_len + e->kept);
    tr_keep_mend(e);
    tr_swap_mend(s, slot);
    publish(&e->kv_moved, max_u32(load(&e->kv_moved), load(&e->start[1])));
    if (s->config.one_pool) publish(&e->kv_moved, load(&e->kv_prefilled));
    publish(&e->kv_decoded, max_u32(load(&e->kv_decoded), load(&e->kv_moved)));
}

/* Its admission was not finished, and nothing of it was issued: others may hold the pages that its table names. */
static bool half_admitted(tr_journal_entry *e) { return load(&e->start[0]) > load(&e->kv_prefilled); }

static bool take_over_rows(tr_scheduler *s, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    bool sound = true;
    for (uint32_t p = 0; p < (s->config.one_pool ? 1 : 2); p++) {
        const tr_kv_layout *l = &s->config.layout[p];
        if (!tr_kv_table_scan(l, s->config.table[p], slot, &q->row[p])) {
            wipe_row(s, slot, p);
            sound = false;
        }
        tr_kv_table_mark(l, s->config.table[p], slot, &q->row[p], &s->pool[p]);
    }
    return sound;
}

static void damaged(tr_scheduler *s, uint32_t slot) {
    static const char text[] = "the page table of this request was damaged";
    tr_progress_end(s, slot, TR_FINISH_ERROR, UINT32_MAX, 70, text, sizeof text - 1);
}

/* What the sequence may still come to hold; it was granted before, so it fits: an admission promises the prompt at
 * least, and what it holds was promised. */
static void measure_again(tr_scheduler *s, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    const tr_kv_layout *l = &s->config.layout[pool_of(s, DECODE)];
    uint32_t end = s->config.promise_tok == TR_SCHEDULER_PROMISE_ALL ? UINT32_MAX : e->prompt_len;
    for (uint32_t g = 0; g < l->n_groups; g++) end = max_u32(end, q->row[pool_of(s, DECODE)].end[g] * l->page_tok);
    if (tr_swap_is_out(s, slot)) end = max_u32(end, e->swap_end);
    tr_intake_measure(s, e, q, end);
    bool done = q->state == SEQUENCE_ENDED;
    for (uint32_t p = 0; p < 2; p++)
        for (uint32_t g = 0; g < TR_KV_GROUPS_MAX && done; g++) q->need.pages[p][g] = tr_kv_table_held(&q->row[p], g);
    const bool moved = load(&e->kv_moved) == q->prefill_end || tr_swap_is_out(s, slot);
    if (!done && !s->config.one_pool && moved && pages_held(s, q, 0) == 0)
        memset(q->need.pages[0], 0, sizeof q->need.pages[0]);
}

static void take_over(tr_scheduler *s, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    bool half = half_admitted(e), sound = true;
    bool evicted = tr_preempt_mend(s, slot);
    for (uint32_t p = 0; p < (s->config.one_pool ? 1 : 2) && (half || evicted); p++) wipe_row(s, slot, p);
    if (evicted) publish(&e->evictions, load(&e->evictions) + 1);
    if (half) publish(&e->fork, 0);
    if (half) publish(&e->start[1], 0);
    if (half) publish(&e->start[0], 0); /* last: until then it is half admitted */
    mend(s, slot);
    sound = take_over_rows(s, slot);
    for (uint32_t c = 0; c < RESHARDER; c++)
        if (s->component[c].n > 0) q->unsettled |= 1u << c;
    q->issued = load(&e->kv_prefilled);
    q->move_issued = load(&e->kv_moved);
    s->next_order = e->order >= s->next_order ? e->order + 1 : s->next_order;
    if (load(&e->state) == TR_JOURNAL_DONE)
        q->state = SEQUENCE_ENDED;
    else if (load(&e->kv_prefilled) == 0 && pages_held(s, q, 0) + pages_held(s, q, 1) == 0 && sound)
        q->state = SEQUENCE_WAITING;
    else
        q->state = SEQUENCE_RUNNING;
    tr_stored_take_over(s, slot);
    tr_handoff_take_over(s, slot);
    measure_again(s, slot);
    tr_intake_open(s, slot);
    s->suspects |= e->deaths > 0;
    if (q->state == SEQUENCE_ENDED) tr_slots_add(&s->ended, slot);
    if (q->state == SEQUENCE_WAITING) tr_intake_insert(s, s->waiting, &s->n_waiting, slot);
    if (q->state == SEQUENCE_RUNNING) tr_intake_insert(s, s->running, &s->n_running, slot);
    if (!sound && q->state == SEQUENCE_RUNNING) damaged(s, slot);
    if (q->state == SEQUENCE_RUNNING) tr_progress_check_end(s, slot);
}

/* More promised than there is: tables that name wrong pages. */
static void check_claims(tr_scheduler *s) {
    tr_kv_budget b;
    tr_kv_budget_begin(&b, &s->pool[0], s->config.one_pool ? NULL : &s->pool[1], 0);
    for (uint32_t i = 0; i < s->n_slots; i++) {
        const tr_sequence *q = &s->sequence[i];
        if (q->state != SEQUENCE_RUNNING && q->state != SEQUENCE_ENDED) continue;
        if (!tr_kv_budget_claim(&b, &q->need, q->row) && q->state == SEQUENCE_RUNNING) damaged(s, i);
    }
}

/* Samples whose leader was not accepted were not either: nobody was told of them. */
static void mend_samples(tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    if (load(&e->state) == TR_JOURNAL_FREE || e->sample == 0 || load(&e->whole)) return;
    bool led = false;
    for (uint32_t i = 0; i < s->n_slots; i++)
        led |= load(&entry_of(s, i)->state) != TR_JOURNAL_FREE && entry_of(s, i)->rid == e->rid - e->sample;
    if (led)
        publish(&e->whole, 1);
    else
        publish(&e->state, TR_JOURNAL_FREE);
}

void tr_recovery_start(tr_scheduler *s) {
    const tr_scheduler_config *c = &s->config;
    bool fresh = load(&c->journal->epoch) == 0;
    for (uint32_t p = 0; p < (c->one_pool ? 1 : 2); p++) {
        if (fresh) tr_kv_table_clear(&c->layout[p], c->table[p]);
        tr_kv_pool_clear(&s->pool[p]);
    }
    for (uint32_t i = 0; i < s->n_slots; i++) mend_samples(s, i);
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (load(&entry_of(s, i)->state) != TR_JOURNAL_FREE) {
            take_over(s, i);
            continue;
        }
        for (uint32_t p = 0; p < (c->one_pool ? 1 : 2); p++) wipe_row(s, i, p);
    }
    check_claims(s);
    tr_swap_take_over(s);
    if (fresh) publish(&c->journal->epoch, 1);
}
