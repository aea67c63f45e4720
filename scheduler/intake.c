#include "kv/kv_block.h"
#include "scheduler/order.h"
#include "scheduler/preempt.h"
#include "scheduler/reuse.h"
#include "scheduler/swap.h"

#include <string.h>

uint32_t tr_intake_find(const tr_scheduler *s, uint64_t rid) {
    uint32_t i = *tr_slots_chain(&s->by_rid, rid);
    while (i != NO_SLOT && entry_of(s, i)->rid != rid) i = s->by_rid.next[i];
    return i;
}

void tr_intake_open(tr_scheduler *s, uint32_t slot) {
    const tr_journal_entry *e = entry_of(s, slot);
    tr_slots_add(&s->open, slot);
    tr_slots_enter(&s->by_rid, e->rid, slot);
    if (e->save[0] || e->restore[0]) tr_slots_add(&s->kept, slot);
    if (e->deadline_ns > 0 && e->deadline_ns < s->deadline_ns) s->deadline_ns = e->deadline_ns;
    tr_order_open(s, slot);
}

void tr_intake_close(tr_scheduler *s, uint32_t slot) {
    tr_slots_remove(&s->open, slot);
    tr_slots_remove(&s->ended, slot);
    tr_slots_remove(&s->kept, slot);
    tr_slots_remove(&s->tell, slot);
    tr_slots_leave(&s->by_rid, entry_of(s, slot)->rid, slot);
    tr_fair_close(&s->fair, s->turn[slot].client);
}

void tr_intake_insert(const tr_scheduler *s, uint32_t *list, uint32_t *n, uint32_t slot) {
    uint32_t i = (*n)++;
    for (; i > 0 && tr_order_before(s, slot, list[i - 1]); i--) list[i] = list[i - 1];
    list[i] = slot;
}

static uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Pages of one group: as many as pipelined chunks can use, at least what one chunk at a time needs. */
static uint32_t pages_wanted(const tr_kv_layout *l, uint32_t group, uint32_t first, uint32_t end, uint32_t chunk,
                             uint32_t depth) {
    const tr_kv_group *g = &l->group[group];
    uint64_t ahead = (uint64_t)chunk * depth;
    uint32_t least = tr_kv_budget_pages(g->window, l->page_tok, first, end, chunk);
    uint32_t best = tr_kv_budget_pages(g->window, l->page_tok, first, end, ahead < end ? (uint32_t)ahead : end);
    uint32_t most = best < g->n_pages ? best : g->n_pages;
    return least > most ? least : most;
}

static uint32_t max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }

void tr_intake_measure(const tr_scheduler *s, const tr_journal_entry *e, tr_sequence *q, uint32_t end) {
    const tr_scheduler_config *c = &s->config;
    q->prefill_end = e->prompt_len - e->forced;
    q->decode_end = e->max_tokens > 0 ? e->prompt_len + e->max_tokens - 1 : e->prompt_len;
    q->promised = max_u32(q->prefill_end, min_u32(q->decode_end, end));
    q->need = (tr_kv_budget_need){0};
    uint32_t depth = s->component[PREFILL].max_in_flight;
    for (uint32_t g = 0; g < c->layout[0].n_groups; g++) {
        if (c->one_pool) {
            q->need.pages[0][g] = pages_wanted(&c->layout[0], g, 0, q->promised, c->chunk, depth);
            continue;
        }
        q->need.pages[0][g] = pages_wanted(&c->layout[0], g, 0, q->prefill_end, c->chunk, depth);
        if (q->decode_end > q->prefill_end)
            q->need.pages[1][g] = pages_wanted(&c->layout[1], g, window_begin(&c->layout[1].group[g], q->prefill_end),
                                               q->promised, c->chunk, 1);
    }
}

/* Answers go out even before PEER_UP of the frontend: it is there, it asked. */
static void refuse(tr_scheduler *s, uint64_t rid, uint32_t code, tr_effects *fx) {
    tr_msg_output *m = &tr_scheduler_send(fx, s->config.frontend, TR_MSG_OUTPUT)->as.output;
    m->rid = rid;
    m->finish = TR_FINISH_ERROR;
    m->refused = 1;
    m->code = code;
    m->error = (tr_str){s->refusal.text, (uint32_t)strlen(s->refusal.text)};
}

static void accept(const tr_scheduler *s, uint64_t rid, uint32_t slot, tr_effects *fx) {
    tr_msg_accepted *m = &tr_scheduler_send(fx, s->config.frontend, TR_MSG_ACCEPTED)->as.accepted;
    m->rid = rid;
    m->slot = slot;
}

static uint32_t samples_of(const tr_msg_submit *m) { return m->n > 1 ? m->n : 1; }

/* 0, or the code of the refusal (text in s->refusal). The frontend validated; this is the second look. */
static uint32_t check(tr_scheduler *s, const tr_msg_submit *m) {
    const tr_scheduler_config *c = &s->config;
    tr_error *err = &s->refusal;
    bool bad = m->client.len > TR_MAX_CLIENT_ID_BYTES || m->stop.len > TR_MAX_STOPS || m->logits > TR_LOGITS_HIDDEN ||
               m->cache_salt.len > TR_MAX_SALT_BYTES || m->save.len > TR_MAX_FILE_NAME_BYTES ||
               m->restore.len > TR_MAX_FILE_NAME_BYTES || m->timeout_ms > TR_MAX_TIMEOUT_MS;
    bad = bad || (m->restore.len > 0 && (m->restore_end >= m->tokens.len || m->logits ||
                                         m->restore_end + (uint64_t)m->forced < m->tokens.len));
    bad = bad || (m->save.len + m->restore.len > 0 && (m->n > 1 || m->sample > 0));
    bad = bad || m->bias_tokens.len != m->bias.len || m->bias.len > TR_MAX_BIAS ||
          m->stop_tokens.len > TR_MAX_STOP_TOKENS || m->logprobs > TR_MAX_LOGPROBS + 1 ||
          (m->logits == TR_LOGITS_HIDDEN && m->max_tokens > 0);
    for (uint32_t i = 0; !bad && i < m->bias.len; i++) bad = m->bias_tokens.data[i] >= c->vocab;
    for (uint32_t i = 0; !bad && i < m->stop_tokens.len; i++) bad = m->stop_tokens.data[i] >= c->vocab;
    for (uint32_t i = 0; !bad && i < m->stop.len; i++) bad = m->stop.data[i].len > TR_MAX_STOP_BYTES;
    for (uint32_t i = 0; !bad && i < m->tokens.len; i++) bad = m->tokens.data[i] >= c->vocab;
    if (bad)
        return tr_error_set(err, TR_USAGE, "request: a field is out of bounds; send it within docs/protocol.md"), 64;
    bool many = m->n > 1 || m->sample > 0;
    if (m->n > TR_MAX_SAMPLES || m->sample >= TR_MAX_SAMPLES || (m->n > 1 && m->sample > 0) ||
        (many && (m->logits > 0 || m->max_tokens == 0 || m->rid % TR_MAX_SAMPLES != 0)))
        return tr_error_set(err, TR_USAGE, "request: %u samples are not possible here", m->n), 64;
    if (m->tokens.len == 0) return tr_error_set(err, TR_USAGE, "request: no token in the prompt; send one or more"), 64;
    if (m->tokens.len > c->context)
        return tr_error_set(err, TR_USAGE, "prompt of %u tokens is longer than the context of %u; shorten it",
                            m->tokens.len, c->context),
               64;
    if (m->forced >= m->tokens.len)
        return tr_error_set(err, TR_USAGE, "forced %u of %u prompt tokens; leave at least one for prefill", m->forced,
                            m->tokens.len),
               64;
    if (s->draining) return tr_error_set(err, TR_UNAVAILABLE, "the company is ending; nothing new is accepted"), 69;
    if (samples_of(m) > c->max_waiting)
        return tr_error_set(err, TR_UNAVAILABLE, "%u samples, but only %u requests may wait; ask for fewer", m->n,
                            c->max_waiting),
               69;
    if (samples_of(m) > c->max_waiting - s->n_waiting)
        return tr_error_set(err, TR_UNAVAILABLE, "%u requests wait already; try again later", s->n_waiting), 69;
    return 0;
}

/* The first n free slots; false: there are fewer. */
static bool free_slots(const tr_scheduler *s, uint32_t n, uint32_t *slots) {
    uint32_t found = 0;
    for (uint32_t i = tr_slots_next_free(&s->open, 0); i < s->n_slots && found < n;
         i = tr_slots_next_free(&s->open, i + 1))
        slots[found++] = i;
    return found == n;
}

static void write_sampling(tr_journal_entry *e, const tr_msg_submit *m) {
    e->min_p = m->min_p;
    e->presence_penalty = m->presence_penalty;
    e->frequency_penalty = m->frequency_penalty;
    e->repetition_penalty = m->repetition_penalty > 0 ? m->repetition_penalty : 1;
    e->min_tokens = m->min_tokens;
    e->n_bias = m->bias.len;
    e->n_stop_tokens = m->stop_tokens.len;
    if (m->bias.len > 0) memcpy(e->bias_token, m->bias_tokens.data, m->bias.len * sizeof *e->bias_token);
    if (m->bias.len > 0) memcpy(e->bias, m->bias.data, m->bias.len * sizeof *e->bias);
    if (m->stop_tokens.len > 0) memcpy(e->stop_token, m->stop_tokens.data, m->stop_tokens.len * sizeof *e->stop_token);
    e->include_stop = m->include_stop;
    e->show_special = m->show_special;
    e->logprobs = m->logprobs;
}

static void write_entry(tr_scheduler *s, tr_journal_entry *e, const tr_msg_submit *m, uint32_t sample) {
    uint32_t left = s->config.context - m->tokens.len;
    memset(e, 0, sizeof *e); /* state FREE */
    e->rid = m->rid + sample;
    e->id = m->id;
    e->order = s->next_order + sample - m->sample;
    e->sample = sample;
    e->n_samples = samples_of(m);
    atomic_store_explicit(&e->whole, e->n_samples == 1, memory_order_relaxed);
    e->client_len = m->client.len;
    if (m->client.len > 0) memcpy(e->client, m->client.data, m->client.len);
    e->prompt_len = m->tokens.len;
    e->forced = m->forced;
    e->max_tokens = min_u32(m->max_tokens, left);
    e->priority = (int32_t)m->priority; /* two's complement, as it was sent */
    e->temperature = m->temperature;
    e->top_p = m->top_p;
    e->top_k = m->top_k;
    e->seed = m->seed;
    e->ignore_eos = m->ignore_eos;
    write_sampling(e, m);
    e->logits = m->logits;
    e->n_stops = m->stop.len;
    for (uint32_t i = 0; i < m->stop.len; i++) {
        e->stop_len[i] = (uint16_t)m->stop.data[i].len;
        if (m->stop.data[i].len > 0) memcpy(e->stop[i], m->stop.data[i].data, m->stop.data[i].len);
    }
    e->restore_end = m->restore_end;
    if (m->save.len > 0) memcpy(e->save, m->save.data, m->save.len);
    if (m->restore.len > 0) memcpy(e->restore, m->restore.data, m->restore.len);
    const tr_kv_prefix_tenant tenant =
        tr_kv_prefix_tenant_of(s->config.prefix_key, m->cache_salt.data, m->cache_salt.len);
    memcpy(e->tenant, tenant.h, sizeof e->tenant);
    tr_kv_block_tenant(m->cache_salt.data, m->cache_salt.len, e->store_tenant);
    e->accepted_ns = s->now_ns;
    if (m->timeout_ms > 0) e->deadline_ns = s->now_ns + m->timeout_ms * 1000000ull;
    memcpy(e->tokens, m->tokens.data, m->tokens.len * sizeof *e->tokens);
    atomic_store_explicit(&e->n_tokens, m->tokens.len, memory_order_relaxed);
}

/* Slot of the first sample that is left of a request, or NO_SLOT. */
static uint32_t find_any(const tr_scheduler *s, const tr_msg_submit *m) {
    uint32_t slot = NO_SLOT;
    for (uint32_t k = 0; k < samples_of(m) && slot == NO_SLOT; k++) slot = tr_intake_find(s, m->rid + m->sample + k);
    return slot;
}

/* The leader comes last: with it they are all accepted (tr_recovery_start drops what died before). */
static void open_entries(tr_scheduler *s, uint32_t n, const uint32_t *slots) {
    for (uint32_t k = n; k-- > 0;) {
        publish(&entry_of(s, slots[k])->state, TR_JOURNAL_OPEN);
        s->sequence[slots[k]].state = SEQUENCE_WAITING;
        tr_intake_open(s, slots[k]);
    }
    for (uint32_t k = 0; k < n; k++) {
        if (k > 0) publish(&entry_of(s, slots[k])->whole, 1);
        tr_intake_insert(s, s->waiting, &s->n_waiting, slots[k]);
    }
    s->next_order += n;
}

void tr_intake_submit(tr_scheduler *s, const tr_msg_submit *m, tr_effects *fx) {
    uint32_t slot = find_any(s, m), slots[TR_MAX_SAMPLES];
    if (slot != NO_SLOT) {
        accept(s, m->rid + m->sample, slot, fx);
        return;
    }
    uint32_t code = check(s, m), n = samples_of(m);
    if (code == 0 && !free_slots(s, n, slots)) {
        tr_error_set(&s->refusal, TR_UNAVAILABLE, "all %u request slots are taken; try again later", s->n_slots);
        code = 69;
    }
    for (uint32_t k = 0; k < n && code == 0; k++) {
        tr_journal_entry *e = entry_of(s, slots[k]);
        tr_sequence *q = &s->sequence[slots[k]];
        write_entry(s, e, m, m->sample + k);
        *q = (tr_sequence){.table_version = q->table_version};
        tr_intake_measure(s, e, q, UINT32_MAX);
        if (tr_kv_budget_possible(&s->config.layout[0], s->config.one_pool ? NULL : &s->config.layout[1], &q->need))
            continue;
        tr_error_set(&s->refusal, TR_UNAVAILABLE,
                     "%u prompt and %u output tokens never fit into the KV memory; ask for fewer or raise it",
                     e->prompt_len, e->max_tokens);
        code = 69;
    }
    if (code != 0) {
        refuse(s, m->rid + m->sample, code, fx);
        return;
    }
    open_entries(s, n, slots);
    accept(s, m->rid + m->sample, slots[0], fx);
}

void tr_intake_cancel(tr_scheduler *s, const tr_msg_cancel *m) {
    uint32_t slot = tr_intake_find(s, m->rid);
    if (slot == NO_SLOT || s->sequence[slot].state == SEQUENCE_ENDED) return; /* its end is on the way */
    tr_finish finish =
        m->finish >= TR_FINISH_STOP && m->finish <= TR_FINISH_ERROR ? (tr_finish)m->finish : TR_FINISH_ABORT;
    tr_progress_end(s, slot, finish, m->keep, 0, NULL, 0);
}

void tr_intake_release(tr_scheduler *s, const tr_msg_release *m) {
    uint32_t slot = tr_intake_find(s, m->rid);
    /* of an open one: the answer to a refusal, overtaken by a repeat of the SUBMIT that got in */
    if (slot == NO_SLOT || s->sequence[slot].state != SEQUENCE_ENDED) return;
    s->sequence[slot].released = true;
    tr_progress_tidy(s, slot);
}

/* What admitted sequences hold and may still take; what has ended holds its pages until nothing can touch them. */
bool tr_intake_claims(tr_scheduler *s, tr_kv_budget *b) {
    tr_kv_budget_begin(b, &s->pool[0], s->config.one_pool ? NULL : &s->pool[1], s->config.watermark);
    for (uint32_t i = 0; i < s->n_running; i++) {
        const tr_sequence *q = &s->sequence[s->running[i]];
        if (!tr_kv_budget_claim(b, &q->need, q->row)) return false;
    }
    for (uint32_t i = tr_slots_next(&s->ended, 0); i < s->n_slots; i = tr_slots_next(&s->ended, i + 1))
        if (!tr_kv_budget_claim(b, &s->sequence[i].need, s->sequence[i].row)) return false;
    return true;
}

/* Let one in that fits; false: no room now. */
static bool admit(tr_scheduler *s, uint32_t slot, tr_kv_budget *budget) {
    tr_sequence *q = &s->sequence[slot];
    tr_reuse reuse = {.leader = NO_SLOT};
    const bool swapped = tr_swap_is_out(s, slot);
    tr_intake_measure(s, entry_of(s, slot), q, tr_preempt_first_end(s, slot));
    tr_kv_budget_need need = q->need;
    if (!swapped) tr_reuse_find(s, slot, &reuse);
    const bool asks = !swapped && reuse.leader == NO_SLOT && tr_stored_asks(s, slot, reuse.start[0]);
    if (asks) reuse = (tr_reuse){.leader = NO_SLOT};
    if ((reuse.leader != NO_SLOT || swapped) && !s->config.one_pool) memset(need.pages[0], 0, sizeof need.pages[0]);
    if (!tr_kv_budget_admit(budget, &need, &reuse.known, &reuse.parked)) return false;
    q->need = need;
    if (asks)
        q->fetch = TR_STORED_ASK;
    else
        tr_reuse_take(s, slot, &reuse);
    q->state = SEQUENCE_RUNNING;
    s->suspects |= entry_of(s, slot)->deaths > 0;
    q->issued_ns = s->now_ns;
    if (load(&entry_of(s, slot)->evictions) == 0) tr_order_charge(s, slot, q->prefill_end - q->issued, 0);
    tr_intake_insert(s, s->running, &s->n_running, slot);
    return true;
}

/* Who comes first is let in first: one that does not fit keeps all behind it waiting. Samples that wait for their
 * leader keep nobody waiting. Until something changes that could make room, nobody is looked at again. */
void tr_intake_admit(tr_scheduler *s) {
    tr_kv_budget budget;
    const bool closed = s->policy->whole && s->n_running > 0;
    if (s->n_waiting == 0 || s->starving || !s->admission_due) return;
    s->admission_due = false;
    tr_check(tr_intake_claims(s, &budget));
    tr_preempt_leave_room(s, &budget);
    for (;;) {
        const uint32_t next = tr_order_next(s, closed);
        if (next == NO_SLOT || !admit(s, s->waiting[next], &budget)) return;
        s->n_waiting--;
        memmove(s->waiting + next, s->waiting + next + 1, (s->n_waiting - next) * sizeof *s->waiting);
    }
}
