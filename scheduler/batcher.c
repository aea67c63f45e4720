#include "scheduler/order.h"
#include "scheduler/pace.h"
#include "scheduler/reuse.h"

#include <string.h>

enum { PROMPT_ROWS = 16 }; /* of a mixed step that decode rows leave, if it has so many */

static uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }

static bool suspect(const tr_scheduler *s, uint32_t slot) { return entry_of(s, slot)->deaths > 0; }

/* Without feedback all are on one level. */
static uint32_t levels(const tr_scheduler *s) { return s->policy->feedback ? TR_POLICY_LEVELS : 1; }
static bool on_level(const tr_scheduler *s, uint32_t slot, uint32_t level) { return tr_order_level(s, slot) == level; }

static bool prefill_ready(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    return (q->unsettled & 1u << component_of(s, PREFILL)) == 0 && !q->stopped && q->issued < q->prefill_end &&
           !tr_keep_restoring(s, slot) && q->fetch == TR_STORED_NO;
}

static bool decode_ready(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    uint32_t done = load(&e->kv_decoded);
    return decoding(s, slot) && settled(q) && !q->stopped && q->steps == 0 && done < q->promised &&
           load(&e->n_tokens) > done;
}

/* Span of the flight that this sequence can go on from before the token that it samples is known, or NULL. */
static const tr_msg_span *followed(const tr_scheduler *s, const tr_flight *source, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    if (source == NULL || q->state != SEQUENCE_RUNNING || q->stopped || q->steps != 1 || !settled(q)) return NULL;
    for (uint32_t i = 0; i < source->n_spans; i++) {
        const tr_msg_span *span = &source->spans[i];
        if (span->slot == slot)
            return (span->flags & SPAN_SAMPLE) && span->pos0 + span->rows < q->promised ? span : NULL;
    }
    return NULL;
}

/* Hold pages for rows [pos, pos + rows) and the window before the confirmed position, within the reservation. */
static bool hold_pages(tr_scheduler *s, uint32_t slot, uint32_t phase, uint32_t confirmed, uint32_t end) {
    tr_sequence *q = &s->sequence[slot];
    uint32_t p = pool_of(s, phase);
    const tr_kv_layout *l = &s->config.layout[p];
    for (uint32_t g = 0; g < l->n_groups; g++) {
        uint32_t from = window_begin(&l->group[g], confirmed);
        uint32_t missing = tr_kv_table_missing(l, &q->row[p], g, from, end);
        if (tr_kv_table_held(&q->row[p], g) + missing > q->need.pages[p][g]) return false;
    }
    for (uint32_t g = 0; g < l->n_groups; g++)
        tr_check(tr_kv_table_extend(l, s->config.table[p], slot, &q->row[p], g, window_begin(&l->group[g], confirmed),
                                    end, &s->pool[p]) == TR_OK);
    q->table_version++;
    return true;
}

static tr_flight *free_flight(tr_scheduler *s) {
    for (uint32_t i = 0; i < s->n_flights; i++)
        if (!s->flight[i].used) return &s->flight[i];
    return NULL;
}

static uint32_t flags_of(const tr_journal_entry *e, uint32_t end, bool sample) {
    const uint32_t all = e->logits == TR_LOGITS_HIDDEN ? SPAN_HIDDEN : e->logits ? SPAN_LOGITS : 0;
    return all | (sample ? SPAN_SAMPLE : 0) | (sample && tr_journal_edits(e, end) ? SPAN_EDIT : 0);
}

static void add_span(tr_scheduler *s, tr_flight *f, uint32_t slot, uint32_t pos0, uint32_t rows, bool sample) {
    tr_journal_entry *e = entry_of(s, slot);
    const bool prompt = pos0 < s->sequence[slot].prefill_end;
    uint32_t draws = sample && prompt && e->n_samples > 1 && e->sample == 0 ? e->n_samples : 1;
    f->n_draws += draws;
    f->spans[f->n_spans++] = (tr_msg_span){
        .rid = e->rid,
        .slot = slot,
        .pos0 = pos0,
        .rows = rows,
        .flags = flags_of(e, pos0 + rows, sample),
        .table_version = s->sequence[slot].table_version,
        .temperature = e->temperature,
        .top_p = e->top_p,
        .top_k = e->top_k,
        .sample = e->sample,
        .draws = draws > 1 ? draws : 0,
        .seed = e->seed,
        .min_p = e->min_p,
        .logprobs = e->logprobs,
    };
    memcpy(f->tokens + f->n_rows, e->tokens + pos0, rows * sizeof *f->tokens);
    if (pos0 >= load(&e->n_tokens)) f->tokens[f->n_rows] = TR_TOKEN_OF_STEP;
    f->n_rows += rows;
    if (prompt) f->prefill_rows += rows;
    tr_pace_add(s, &f->work, pos0, rows);
    s->sequence[slot].steps++;
    s->sequence[slot].issued_ns = s->now_ns;
}

/* False: the slot is full. */
static bool add_prefill(tr_scheduler *s, tr_flight *f, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    uint32_t room = min_u32(s->config.chunk - f->prefill_rows, s->config.max_rows - f->n_rows);
    uint32_t rows = tr_pace_rows(s, f, q->issued, min_u32(q->prefill_end - q->issued, room));
    tr_progress_tidy(s, slot);
    if (rows == 0) return false;
    if (!hold_pages(s, slot, PREFILL, load(&e->kv_prefilled), q->issued + rows)) return true;
    bool last = q->issued + rows == q->prefill_end;
    bool sample = last && e->forced == 0 && e->max_tokens > 0 && load(&e->n_tokens) == e->prompt_len;
    add_span(s, f, slot, q->issued, rows, sample);
    q->issued += rows;
    return true;
}

/* Whose turn in decode steps has been. */
static void served(tr_scheduler *s, const tr_journal_entry *e) {
    s->last_decoded = e->order;
    s->last_priority = e->priority;
}

static void add_decode(tr_scheduler *s, tr_flight *f, uint32_t slot, uint32_t most_rows) {
    tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    uint32_t pos = load(&e->kv_decoded), known = load(&e->n_tokens) - pos;
    uint32_t rows = min_u32(min_u32(known, q->promised - pos), min_u32(s->config.chunk, most_rows - f->n_rows));
    tr_progress_tidy(s, slot);
    if (rows == 0 || !hold_pages(s, slot, DECODE, pos, pos + rows)) return;
    f->n_copies += tr_sample_copies(s, slot, f->copies + f->n_copies);
    add_span(s, f, slot, pos, rows, rows == known && e->max_tokens > 0);
    served(s, e);
}

/* The row behind the one that `span` samples. Copies that a fork begins with are of the step before, or older. */
static void add_ahead(tr_scheduler *s, tr_flight *f, uint32_t slot, const tr_msg_span *span) {
    tr_journal_entry *e = entry_of(s, slot);
    const uint32_t pos = span->pos0 + span->rows;
    tr_progress_tidy(s, slot);
    if (!hold_pages(s, slot, DECODE, load(&e->kv_decoded), pos + 1)) return;
    add_span(s, f, slot, pos, 1, true);
    served(s, e);
}

/* Sequences of one decode step: an even share for every micro-batch that can be in flight. */
static uint32_t decode_share(const tr_scheduler *s) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_running; i++) n += decoding(s, s->running[i]);
    return tr_pace_share(s, n);
}

/* Who was served has another level than before. */
static bool holds(const tr_flight *f, uint32_t slot) {
    for (uint32_t i = 0; i < f->n_spans; i++)
        if (f->spans[i].slot == slot) return true;
    return false;
}

static void fill_prefill(tr_scheduler *s, tr_flight *f) {
    f->slot_ns = tr_pace_slot_ns(s);
    for (uint32_t level = 0; level < levels(s); level++)
        for (uint32_t i = 0; i < s->n_running && f->prefill_rows < s->config.chunk && f->n_rows < s->config.max_rows &&
                             f->n_spans < spans_max(&s->config) && f->n_draws + TR_MAX_SAMPLES <= TR_MAX_SPANS;
             i++)
            if (prefill_ready(s, s->running[i]) && on_level(s, s->running[i], level) &&
                !(s->policy->feedback && holds(f, s->running[i])) && !add_prefill(s, f, s->running[i]))
                return;
}

/* First of the running ones behind the one that was served last. */
static uint32_t first_turn(const tr_scheduler *s) {
    uint32_t at = 0;
    for (; at < s->n_running; at++) {
        const tr_turn *t = &s->turn[s->running[at]];
        if (t->priority != s->last_priority ? t->priority > s->last_priority : t->order > s->last_decoded) break;
    }
    return at;
}

/* source: flight that this one is issued ahead of, or NULL. most_*: in all, with what the flight holds. */
static void fill_decode(tr_scheduler *s, tr_flight *f, const tr_flight *source, uint32_t most_spans,
                        uint32_t most_rows) {
    const uint32_t share = min_u32(decode_share(s), most_spans), at = first_turn(s);
    for (uint32_t level = 0; level < levels(s); level++)
        for (uint32_t i = 0; i < s->n_running && f->n_spans < share && f->n_rows < most_rows; i++) {
            uint32_t slot = s->running[(at + i) % s->n_running];
            if (!on_level(s, slot, level)) continue;
            const tr_msg_span *span = followed(s, source, slot);
            if (span)
                add_ahead(s, f, slot, span);
            else if (decode_ready(s, slot))
                add_decode(s, f, slot, most_rows);
        }
}

/* Decode rows, then as much of the prompts as the slot has room for. */
static void fill_mixed(tr_scheduler *s, tr_flight *f) {
    bool prompts = false;
    for (uint32_t i = 0; i < s->n_running && !prompts; i++) prompts = prefill_ready(s, s->running[i]);
    if (!prompts) return;
    const uint32_t rows = s->config.max_rows, spans = min_u32(spans_max(&s->config) - 1, TR_MAX_SPANS - TR_MAX_SAMPLES);
    fill_decode(s, f, NULL, spans, rows - min_u32(PROMPT_ROWS, (rows + 1) / 2));
    fill_prefill(s, f);
}

/* Send the flight to rank 0 of every stage of its pipeline. To the first one last: the others sleep on until their
 * input comes, and by then they have the step. */
static void issue(tr_scheduler *s, tr_flight *f, tr_effects *fx) {
    tr_component *c = &s->component[f->component];
    f->used = true;
    f->step = c->next_id++;
    c->in_flight++;
    s->last_phase = f->phase;
    s->stats.steps[f->phase]++;
    s->stats.rows[PREFILL] += f->prefill_rows;
    s->stats.rows[DECODE] += f->n_rows - f->prefill_rows;
    f->issued_ns = s->now_ns;
    for (uint32_t i = 0; i < f->n_spans; i++) {
        tr_journal_entry *e = entry_of(s, f->spans[i].slot);
        if (e->first_step_ns == 0) e->first_step_ns = s->now_ns;
    }
    for (uint32_t i = c->n_lead; i-- > 0;) {
        tr_msg_step *m = &tr_scheduler_send(fx, c->actor[i], TR_MSG_STEP)->as.step;
        fx->item[fx->n - 1].quiet = i > 0;
        m->epoch = c->epoch;
        m->step = f->step;
        m->phase = f->phase == PREFILL ? TR_PHASE_PREFILL : TR_PHASE_DECODE;
        m->spans = (tr_spanv){f->spans, f->n_spans};
        m->tokens = (tr_u32v){f->tokens, f->n_rows};
        m->copies = (tr_u32v){f->copies, f->n_copies};
        m->source_step = f->source;
    }
}

static tr_flight *new_flight(tr_scheduler *s, uint32_t phase) {
    tr_flight *f = free_flight(s);
    if (f == NULL) return NULL;
    f->suspect = false;
    f->component = component_of(s, phase);
    f->phase = phase;
    f->n_spans = f->n_rows = f->n_draws = f->n_copies = f->layers = f->prefill_rows = 0;
    f->source = 0;
    f->work = (tr_cost_work){0};
    f->slot_ns = TR_POLICY_NO_LIMIT;
    return f;
}

static bool try_phase(tr_scheduler *s, uint32_t phase, tr_effects *fx) {
    tr_flight *f = new_flight(s, phase);
    if (f == NULL) return false;
    if (phase == DECODE)
        fill_decode(s, f, NULL, s->config.max_batch, s->config.max_rows);
    else if (tr_pace_mixes(s))
        fill_mixed(s, f);
    else
        fill_prefill(s, f);
    if (f->n_spans == 0) return false;
    issue(s, f, fx);
    return true;
}

/* First sequence under suspicion that could run on this component, and in which phase. */
static uint32_t ready_suspect(tr_scheduler *s, uint32_t component, uint32_t *phase_out) {
    bool any = false;
    for (uint32_t i = 0; i < s->n_running && s->suspects; i++) {
        uint32_t slot = s->running[i];
        if (!suspect(s, slot)) continue;
        any = true;
        for (uint32_t phase = PREFILL; phase <= DECODE; phase++) {
            if (component_of(s, phase) != component) continue;
            if (phase == PREFILL ? prefill_ready(s, slot) : decode_ready(s, slot)) {
                *phase_out = phase;
                return slot;
            }
        }
    }
    s->suspects = any;
    return NO_SLOT;
}

/* After a counted death those that were in flight run alone until a step of theirs completes, so that the next death
 * names one. False: no suspect is ready. */
static bool try_suspect(tr_scheduler *s, uint32_t component, bool *issued_out, tr_effects *fx) {
    uint32_t phase, slot = ready_suspect(s, component, &phase);
    *issued_out = false;
    if (slot == NO_SLOT) return false;
    if (s->component[component].in_flight > 0) return true; /* drain first */
    tr_flight *f = new_flight(s, phase);
    if (f == NULL) return true;
    if (phase == PREFILL)
        add_prefill(s, f, slot);
    else
        add_decode(s, f, slot, s->config.max_rows);
    if (f->n_spans == 0) return true;
    f->suspect = true;
    issue(s, f, fx);
    *issued_out = true;
    return true;
}

static bool flying_suspect(const tr_scheduler *s, uint32_t component) {
    for (uint32_t i = 0; i < s->n_flights; i++)
        if (s->flight[i].used && s->flight[i].suspect && s->flight[i].component == component) return true;
    return false;
}

static bool may_issue(tr_scheduler *s, uint32_t component, tr_effects *fx) {
    const tr_component *c = &s->component[component];
    if (c->state != COMPONENT_RUNNING || c->in_flight >= c->max_in_flight || c->drains) return false;
    if (s->config.exclusive && s->component[PREFILL].in_flight + s->component[DECODE].in_flight > 0) return false;
    return !flying_suspect(s, component) && room(s, fx, c->n);
}

/* One more step of this phase, where it may. */
static bool try_issue(tr_scheduler *s, uint32_t phase, tr_effects *fx) {
    uint32_t component = component_of(s, phase);
    bool issued;
    if (!may_issue(s, component, fx)) return false;
    if (try_suspect(s, component, &issued, fx)) return issued;
    return try_phase(s, phase, fx);
}

/* The only flight of a component that is the last one issued to it, or NULL. */
static const tr_flight *last_flight(const tr_scheduler *s, uint32_t component) {
    const tr_component *c = &s->component[component];
    for (uint32_t i = 0; i < s->n_flights && c->in_flight == 1; i++)
        if (s->flight[i].used && s->flight[i].component == component && s->flight[i].step + 1 == c->next_id)
            return &s->flight[i];
    return NULL;
}

/* Somebody else would have the turn after a decode step: a prompt, or who runs alone. */
static bool turn_taken(const tr_scheduler *s) {
    tr_policy_look look = tr_pace_look(s);
    look.last_phase = DECODE;
    const bool meet = s->config.n_pipelines == 1 || s->config.exclusive, prompts = s->policy->first(&look) == PREFILL;
    for (uint32_t i = 0; i < s->n_running; i++) {
        if (s->suspects && suspect(s, s->running[i])) return true;
        if (meet && prompts && prefill_ready(s, s->running[i])) return true;
    }
    return false;
}

/* The next decode step while the last one is still out: the pipeline takes its tokens from there and need not wait for
 * us. A sequence that ends with the step before has computed one row for nothing. One at a time, and only where nothing
 * else is in flight, so that it follows its source directly. */
static void issue_ahead(tr_scheduler *s, tr_effects *fx) {
    const uint32_t component = component_of(s, DECODE);
    const tr_component *c = &s->component[component];
    if (!s->config.pipeline[component].feeds || c->state != COMPONENT_RUNNING || turn_taken(s)) return;
    if (s->config.exclusive && s->component[PREFILL].in_flight + s->component[DECODE].in_flight != 1) return;
    const tr_flight *source = last_flight(s, component);
    if (source == NULL || source->suspect || source->phase != DECODE || !room(s, fx, c->n)) return;
    tr_flight *f = new_flight(s, DECODE);
    if (f == NULL) return;
    f->source = source->step;
    fill_decode(s, f, source, s->config.max_batch, s->config.max_rows);
    if (f->n_spans > 0) issue(s, f, fx);
}

/* A policy that fills and drains: what has something under way is full now, what is empty may be filled. */
static void drain(tr_scheduler *s, bool filled) {
    for (uint32_t i = 0; i < RESHARDER && s->policy->drains; i++)
        s->component[i].drains = s->component[i].in_flight > 0 && (filled || s->component[i].drains);
}

/* The phases take turns wherever they meet: on one pipeline, or on the same cores. */
void tr_batcher_pump(tr_scheduler *s, tr_effects *fx) {
    drain(s, false);
    for (;;) {
        const tr_policy_look look = tr_pace_look(s);
        const uint32_t first = s->policy->first(&look);
        if (try_issue(s, first, fx)) continue;
        if (!try_issue(s, 1 - first, fx)) break;
    }
    issue_ahead(s, fx);
    drain(s, true);
}
