#include "scheduler/order.h"
#include "scheduler/pace.h"
#include "scheduler/reuse.h"

#include "scheduler/swap.h"

#include <string.h>

void tr_progress_remove(uint32_t *list, uint32_t *n, uint32_t slot) {
    for (uint32_t i = 0; i < *n; i++) {
        if (list[i] != slot) continue;
        memmove(list + i, list + i + 1, (--*n - i) * sizeof *list);
        return;
    }
}

void tr_progress_end(tr_scheduler *s, uint32_t slot, tr_finish finish, uint32_t keep, uint32_t code, const char *error,
                     uint32_t error_len) {
    tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    uint32_t have = generated(s, slot);
    for (uint32_t p = 0; p < 2; p++) /* it takes nothing more */
        for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++) q->need.pages[p][g] = tr_kv_table_held(&q->row[p], g);
    tr_progress_remove(s->waiting, &s->n_waiting, slot);
    tr_progress_remove(s->running, &s->n_running, slot);
    e->finish = finish;
    e->code = code;
    e->kept = keep < have ? keep : have;
    if (error_len >= sizeof e->error) error_len = sizeof e->error - 1;
    if (error_len > 0) memcpy(e->error, error, error_len);
    e->error[error_len] = 0;
    publish(&e->state, TR_JOURNAL_DONE);
    publish(&e->n_tokens, e->prompt_len + e->kept);
    q->state = SEQUENCE_ENDED;
    s->admission_due = true;
    if (e->deadline_ns == s->deadline_ns) s->deadline_ns = s->now_ns; /* look for the next one */
    tr_slots_add(&s->ended, slot);
    tr_slots_add(&s->tell, slot);
    tr_handoff_end(s, slot);
    s->stats.finished++;
    if (finish == TR_FINISH_ERROR) s->stats.failed++;
    if (finish == TR_FINISH_ERROR) tr_sample_failed(s, slot);
    tr_progress_tidy(s, slot);
}

static void drop_behind(tr_scheduler *s, uint32_t slot, uint32_t p, uint32_t pos) {
    const tr_kv_layout *l = &s->config.layout[p];
    tr_sequence *q = &s->sequence[slot];
    for (uint32_t g = 0; g < l->n_groups; g++)
        if (tr_kv_table_drop(l, s->config.table[p], slot, &q->row[p], g, window_begin(&l->group[g], pos), &s->pool[p]) >
            0)
            q->table_version++;
}

static void drop_pool(tr_scheduler *s, uint32_t slot, uint32_t p) {
    tr_sequence *q = &s->sequence[slot];
    tr_kv_table_drop_all(&s->config.layout[p], s->config.table[p], slot, &q->row[p], &s->pool[p]);
    memset(q->need.pages[p], 0, sizeof q->need.pages[p]);
    q->table_version++;
    s->admission_due = true;
}

static void tidy_ended(tr_scheduler *s, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    if (q->steps > 0 || q->unsettled != 0 || tr_transfer_flies(q->transfer) || tr_keep_saving(s, slot) ||
        tr_sample_is_source(s, slot) || tr_stored_holds(s, slot))
        return;
    for (uint32_t p = 0; p < (s->config.one_pool ? 1 : 2); p++) drop_pool(s, slot, p);
    tr_sample_copied(s, slot); /* or never needed any more */
    tr_swap_forget(s, slot);
    if (!q->released) return;
    publish(&entry_of(s, slot)->state, TR_JOURNAL_FREE);
    tr_intake_close(s, slot);
    *q = (tr_sequence){.table_version = q->table_version};
}

/* Prefill: what lies behind the window is never moved either (the destination's window begins at the end of the
 * prompt), so it can go at once; the rest goes when all is moved. */
static void tidy_running(tr_scheduler *s, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    uint32_t prefilled = load(&e->kv_prefilled), decoded = load(&e->kv_decoded);
    bool moved = load(&e->kv_moved) == q->prefill_end;
    if (tr_sample_is_source(s, slot)) return;
    if (s->config.one_pool) {
        uint32_t done = moved && decoded > prefilled ? decoded : prefilled;
        if (settled(q)) drop_behind(s, slot, 0, tr_stored_floor(s, slot, done));
        return;
    }
    if (moved && q->unsettled == 0 && !tr_transfer_flies(q->transfer)) {
        if (q->need.pages[0][0] + q->need.pages[0][1] > 0 && !tr_stored_holds(s, slot)) drop_pool(s, slot, 0);
        drop_behind(s, slot, 1, decoded);
    } else if (!(q->unsettled & (1u << PREFILL | 1u << STORE))) {
        drop_behind(s, slot, 0, tr_stored_floor(s, slot, prefilled));
    }
}

void tr_progress_tidy(tr_scheduler *s, uint32_t slot) {
    switch (s->sequence[slot].state) {
    case SEQUENCE_ENDED: tidy_ended(s, slot); break;
    case SEQUENCE_RUNNING: tidy_running(s, slot); break;
    default: break;
    }
}

void tr_progress_check_end(tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    uint32_t done = load(&e->kv_prefilled), decoded = load(&e->kv_decoded), have = generated(s, slot);
    if (s->sequence[slot].state == SEQUENCE_ENDED) return;
    if (decoded > done) done = decoded;
    if (e->max_tokens > 0 ? have >= e->max_tokens : done >= e->prompt_len)
        tr_progress_end(s, slot, TR_FINISH_LENGTH, have, 0, NULL, 0);
}

static bool is_eos(const tr_scheduler *s, uint32_t token) {
    for (uint32_t i = 0; i < s->config.n_eos; i++)
        if (s->config.eos[i] == token) return true;
    return false;
}

static bool ends(const tr_scheduler *s, const tr_journal_entry *e, uint32_t token) {
    for (uint32_t i = 0; i < e->n_stop_tokens; i++)
        if (e->stop_token[i] == token) return true;
    return !e->ignore_eos && is_eos(s, token);
}

bool tr_progress_append(tr_scheduler *s, uint32_t slot, uint32_t position, const tr_progress_token *t) {
    tr_journal_entry *e = entry_of(s, slot);
    const uint32_t token = t->id;
    if (load(&e->n_tokens) != position) return true; /* known since before a restart */
    if (token >= s->config.vocab) {
        static const char text[] = "a stage sampled a token outside the vocabulary";
        tr_progress_end(s, slot, TR_FINISH_ERROR, UINT32_MAX, 70, text, sizeof text - 1);
        return false;
    }
    if (ends(s, e, token)) {
        tr_progress_end(s, slot, TR_FINISH_STOP, UINT32_MAX, 0, NULL, 0);
        return false;
    }
    if (e->first_token_ns == 0) e->first_token_ns = s->now_ns;
    e->last_token_ns = s->now_ns;
    e->tokens[position] = token;
    if (e->logprobs) {
        uint32_t *kept = tr_journal_logprobs(s->config.journal, e, position - e->prompt_len);
        memcpy(kept, t->logprob_ids, e->logprobs * sizeof *t->logprob_ids);
        memcpy(kept + TR_MAX_LOGPROB_ENTRIES, t->logprobs, e->logprobs * sizeof *t->logprobs);
    }
    publish(&e->n_tokens, position + 1);
    tr_order_charge(s, slot, 0, 1);
    tr_slots_add(&s->tell, slot);
    return true;
}

void tr_progress_clear_suspect(tr_journal_entry *e) {
    uint32_t prefilled = load(&e->kv_prefilled), decoded = load(&e->kv_decoded);
    if ((prefilled > decoded ? prefilled : decoded) >= e->suspect_compute) e->suspect_compute = 0;
    if (load(&e->kv_moved) >= e->suspect_move) e->suspect_move = 0;
    if (e->suspect_compute == 0 && e->suspect_move == 0) e->deaths = 0;
}

/* The token first, then the count of what was computed: a death in between only computes rows again. */
static void apply_span(tr_scheduler *s, const tr_msg_span *span, const tr_progress_token *token) {
    tr_journal_entry *e = entry_of(s, span->slot);
    uint32_t end = span->pos0 + span->rows;
    if (s->sequence[span->slot].state == SEQUENCE_ENDED) return;
    if ((span->flags & SPAN_SAMPLE) && !tr_progress_append(s, span->slot, end, token)) return;
    if (phase_of(s, span) == PREFILL) {
        if (end == s->sequence[span->slot].prefill_end && e->prefilled_ns == 0) e->prefilled_ns = s->now_ns;
        publish(&e->kv_prefilled, end);
        s->admission_due |= e->n_samples > 1; /* others may wait for it */
        if (s->config.one_pool) {
            publish(&e->kv_moved, end);
            publish(&e->kv_decoded, end);
        }
    } else {
        tr_sample_copied(s, span->slot); /* first: to copy again behind this row would undo it */
        publish(&e->kv_decoded, end);
    }
    tr_reuse_learn(s, span->slot);
    tr_progress_clear_suspect(e);
    tr_progress_check_end(s, span->slot);
}

static tr_flight *find_flight(tr_scheduler *s, uint32_t component, uint64_t step) {
    for (uint32_t i = 0; i < s->n_flights; i++)
        if (s->flight[i].used && !s->flight[i].parked && s->flight[i].component == component &&
            s->flight[i].step == step)
            return &s->flight[i];
    return NULL;
}

/* What is confirmed continues exactly at the confirmed position of each sequence. */
static bool in_order(const tr_scheduler *s, const tr_flight *f) {
    for (uint32_t i = 0; i < f->n_spans; i++) {
        tr_journal_entry *e = entry_of(s, f->spans[i].slot);
        if (s->sequence[f->spans[i].slot].state == SEQUENCE_ENDED) continue;
        if (f->spans[i].pos0 != load(phase_of(s, &f->spans[i]) == PREFILL ? &e->kv_prefilled : &e->kv_decoded))
            return false;
    }
    return true;
}

static void fail_spans(tr_scheduler *s, tr_flight *f, uint32_t status, tr_str error) {
    for (uint32_t i = 0; i < f->n_spans; i++) {
        if (status <= f->n_spans && i != status - 1) continue;
        if (s->sequence[f->spans[i].slot].state != SEQUENCE_ENDED)
            tr_progress_end(s, f->spans[i].slot, TR_FINISH_ERROR, UINT32_MAX, 70, error.data, error.len);
    }
}

static uint32_t draws_of(const tr_msg_span *span) { return span->draws > 1 ? span->draws : 1; }

/* As many log-probabilities as the spans ask for, or a broken answer. */
static bool logprobs_fit(const tr_flight *f, const tr_msg_step_done *m) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < f->n_spans; i++)
        if (f->spans[i].flags & SPAN_SAMPLE) n += (uint64_t)draws_of(&f->spans[i]) * f->spans[i].logprobs;
    return m->logprob_ids.len == n && m->logprobs.len == n;
}

/* The tokens of one span; at: what was taken so far. */
static void take_tokens(const tr_msg_step_done *m, const tr_msg_span *span, uint32_t *at, uint32_t *logprob_at,
                        tr_progress_token *tokens) {
    for (uint32_t k = 0; k < draws_of(span); k++) {
        tokens[k] = (tr_progress_token){.id = m->sampled.data[(*at)++]};
        if (!(span->flags & SPAN_SAMPLE) || span->logprobs == 0) continue;
        tokens[k].logprob_ids = m->logprob_ids.data + *logprob_at;
        tokens[k].logprobs = m->logprobs.data + *logprob_at;
        *logprob_at += span->logprobs;
    }
}

void tr_progress_step_done(tr_scheduler *s, uint32_t from, const tr_msg_step_done *m, tr_effects *fx) {
    uint32_t member, index = tr_recovery_component(s, from, &member);
    tr_flight *f = NULL;
    if (index < RESHARDER && m->epoch == s->component[index].epoch) f = find_flight(s, index, m->step);
    if (f == NULL) return; /* of an older epoch, or told already */
    tr_component *c = &s->component[index];
    const bool whole = f->layer_end == 0; /* tokens come with the last slice */
    if (m->status == 0 &&
        (member != c->n_lead - 1 || m->sampled.len != (whole ? f->n_draws : 0) || (whole && !logprobs_fit(f, m)))) {
        s->stats.protocol_errors++;
        return;
    }
    /* One before it was lost with a connection: its reset is on the way and issues this step again too. */
    if (m->status == 0 && !in_order(s, f)) return;
    if (m->status != 0) { /* the others of this step, and all behind it, run again after a reset */
        fail_spans(s, f, m->status, m->error);
        if (c->state == COMPONENT_RUNNING) tr_recovery_reset(s, index, fx);
        return;
    }
    c->in_flight--;
    tr_pace_learn(s, f, m->total_ns);
    f->parked = f->layer_end > 0;
    if (f->parked) {
        f->layer = f->layer_end;
        return;
    }
    f->used = false;
    for (uint32_t i = 0, at = 0, logprob_at = 0; i < f->n_spans; i++) {
        const tr_msg_span *span = &f->spans[i];
        tr_progress_token tokens[TR_MAX_SAMPLES];
        take_tokens(m, span, &at, &logprob_at, tokens);
        s->sequence[span->slot].steps--;
        if (span->draws > 1) tr_sample_drawn(s, span->slot, span->pos0 + span->rows, tokens);
        apply_span(s, span, tokens);
        tr_progress_tidy(s, span->slot);
    }
}

/* Stages of a step tell in order; what comes too early, or of a step that is gone, is moved with the rest. */
void tr_progress_step_layers(tr_scheduler *s, uint32_t from, const tr_msg_step_layers *m) {
    uint32_t member, index = tr_recovery_component(s, from, &member);
    tr_flight *f = NULL;
    if (index < RESHARDER && m->epoch == s->component[index].epoch) f = find_flight(s, index, m->step);
    if (f == NULL || f->phase != PREFILL || m->lo > f->layers || m->hi <= f->layers) return;
    if (m->hi > s->config.layout[0].n_layers) {
        s->stats.protocol_errors++;
        return;
    }
    f->layers = m->hi;
}

void tr_progress_drop_flight(tr_scheduler *s, tr_flight *f) {
    f->used = false;
    if (!f->parked) s->component[f->component].in_flight--;
    f->parked = false;
    f->layer_end = 0;
    s->stats.replays++;
    for (uint32_t i = 0; i < f->n_spans; i++) {
        uint32_t slot = f->spans[i].slot;
        tr_sequence *q = &s->sequence[slot];
        q->steps--;
        const bool prompt = phase_of(s, &f->spans[i]) == PREFILL;
        if (prompt && q->state != SEQUENCE_ENDED) q->issued = load(&entry_of(s, slot)->kv_prefilled);
        if (prompt) q->part_layers = 0;
        tr_progress_tidy(s, slot);
    }
}

void tr_progress_moved(tr_scheduler *s, uint32_t slot, uint32_t end) {
    tr_journal_entry *e = entry_of(s, slot);
    if (end == s->sequence[slot].prefill_end) e->visible_ns = s->now_ns - e->prefilled_ns;
    publish(&e->kv_moved, end);
    publish(&e->kv_decoded, end);
    s->admission_due |= e->n_samples > 1;
    tr_reuse_learn(s, slot);
    tr_progress_clear_suspect(e);
}

uint64_t tr_progress_expire(tr_scheduler *s) {
    enum { TIMEOUT = 75 };
    static const char text[] = "the timeout of this request has passed";
    uint64_t next = UINT64_MAX;
    if (s->now_ns < s->deadline_ns) return s->deadline_ns;
    for (uint32_t i = tr_slots_next(&s->open, 0); i < s->n_slots; i = tr_slots_next(&s->open, i + 1)) {
        const uint64_t at = entry_of(s, i)->deadline_ns;
        if (s->sequence[i].state == SEQUENCE_ENDED || at == 0) continue;
        if (s->now_ns >= at)
            tr_progress_end(s, i, TR_FINISH_ERROR, UINT32_MAX, TIMEOUT, text, sizeof text - 1);
        else if (at < next)
            next = at;
    }
    return s->deadline_ns = next;
}
