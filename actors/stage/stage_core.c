/* I1: at most one computation runs; its slot is not reused before COMPUTED.
 * I2: step ids in the queue rise; all are of the current epoch.
 * I3: fed is what the last confirmed decode step sampled; a step that waits for it follows it directly.
 * I4: RESET_DONE(e) is sent only when nothing of an older epoch runs or waits. */
#include "actors/stage/stage_core.h"

#include "base/checked.h"
#include "base/rng.h"

#include <string.h>

#define NO_SLOT UINT32_MAX
enum { COPIES_A_SPAN = TR_MAX_COPIES / TR_MAX_SPANS };

/* A STEP of our own: the message views point into the arrays of the slot. */
typedef struct slot {
    tr_msg_step msg;
    tr_msg_span *spans;
    uint32_t *tokens;
    uint32_t *copies;
    bool used;
} slot;

struct tr_stage_core {
    tr_stage_core_config config;
    uint32_t epoch;
    uint64_t last_step; /* highest id taken in this epoch */
    uint64_t last_done; /* highest id that left the queue in this epoch */
    bool any_step;      /* last_step counts */
    bool any_done;
    bool has_room, has_input;
    bool stale;   /* the running step is of an older epoch */
    bool aborted; /* the step at hand has ended without a result and waits for the RESET */
    bool reset_waiting;
    tr_wire_header input;
    uint32_t fed_epoch, n_fed; /* first stage */
    uint64_t fed_step;
    tr_wire_token fed[TR_MAX_SPANS];
    uint32_t current; /* slot that computes or NO_SLOT */
    uint32_t n_queued;
    uint32_t n_slots;
    uint32_t *queue; /* [config.queue] slots in order */
    slot *slots;     /* [n_slots] = queue + the one that computes */
    uint32_t sampled[TR_MAX_SPANS];
    char error[TR_MAX_ERROR_BYTES];
    tr_stage_core_stats stats;
};

static bool sane(const tr_stage_core_config *c) {
    return c->queue >= 1 && c->queue <= TR_STAGE_CORE_QUEUE_MAX && c->max_spans >= 1 && c->max_spans <= TR_MAX_SPANS &&
           c->max_rows >= 1 && c->max_rows <= TR_MAX_STEP_ROWS;
}

size_t tr_stage_core_bytes(const tr_stage_core_config *config) {
    if (!sane(config)) return 0;
    size_t n = config->queue + 1;
    return tr_align_up(sizeof(tr_stage_core), 64) + tr_align_up(n * sizeof(slot), 64) +
           tr_align_up(n * config->max_spans * sizeof(tr_msg_span), 64) +
           tr_align_up(n * config->max_rows * sizeof(uint32_t), 64) +
           tr_align_up(n * COPIES_A_SPAN * config->max_spans * sizeof(uint32_t), 64) +
           tr_align_up(config->queue * sizeof(uint32_t), 64);
}

static void *carve(char **at, size_t bytes) {
    void *here = *at;
    *at += tr_align_up(bytes, 64);
    return here;
}

tr_status tr_stage_core_init(tr_stage_core *s, const tr_stage_core_config *config) {
    if (!sane(config)) return TR_CONFIG;
    char *at = (char *)s + tr_align_up(sizeof *s, 64);
    memset(s, 0, sizeof *s);
    s->config = *config;
    s->current = NO_SLOT;
    s->n_slots = config->queue + 1;
    s->slots = carve(&at, s->n_slots * sizeof(slot));
    tr_msg_span *spans = carve(&at, (size_t)s->n_slots * config->max_spans * sizeof(tr_msg_span));
    uint32_t *tokens = carve(&at, (size_t)s->n_slots * config->max_rows * sizeof(uint32_t));
    const size_t copies_a_slot = (size_t)COPIES_A_SPAN * config->max_spans;
    uint32_t *copies = carve(&at, s->n_slots * copies_a_slot * sizeof(uint32_t));
    s->queue = carve(&at, config->queue * sizeof(uint32_t));
    for (uint32_t i = 0; i < s->n_slots; i++)
        s->slots[i] = (slot){.spans = spans + (size_t)i * config->max_spans,
                             .tokens = tokens + (size_t)i * config->max_rows,
                             .copies = copies + i * copies_a_slot};
    return TR_OK;
}

static tr_effect *emit(tr_effects *fx, tr_effect_kind kind) {
    tr_check(fx->n < TR_EFFECTS_MAX);
    tr_effect *e = &fx->item[fx->n++];
    memset(e, 0, sizeof *e);
    e->kind = kind;
    return e;
}

static tr_msg *send(tr_stage_core *s, tr_effects *fx, tr_msg_type type) {
    tr_effect *e = emit(fx, TR_EFFECT_SEND);
    e->to = s->config.scheduler;
    e->msg.type = type;
    return &e->msg;
}

static void release_input(tr_stage_core *s, tr_effects *fx) {
    s->has_input = false;
    emit(fx, TR_EFFECT_RELEASE_INPUT);
}

/* The record at the head is of no use any more: older epoch, or a step that left the queue. */
static bool input_is_old(const tr_stage_core *s) {
    if (s->input.epoch != s->epoch) return s->input.epoch < s->epoch;
    if (s->any_done && s->input.step <= s->last_done) return true;
    return s->n_queued > 0 && s->input.step < s->slots[s->queue[0]].msg.step;
}

static void take_tokens(tr_stage_core *s, uint32_t epoch, uint64_t step, const tr_wire_token *data, uint32_t n) {
    if (epoch != s->epoch || n > TR_MAX_SPANS) {
        s->stats.dropped_inputs++;
        return;
    }
    s->fed_epoch = epoch;
    s->fed_step = step;
    s->n_fed = n;
    if (n > 0) memcpy(s->fed, data, n * sizeof *data);
}

/* The step before has ended, and what it sampled is here. */
static bool source_is_here(const tr_stage_core *s, const tr_msg_step *m) {
    return !s->config.first || m->source_step == 0 || (s->fed_epoch == s->epoch && s->fed_step == m->source_step);
}

/* The first stage computes from it, the last one may need it to draw the next. A token that was not fed stays what no
 * vocabulary holds: the forward pass refuses it. */
static void fill_in(const tr_stage_core *s, slot *k) {
    if (!(s->config.first || s->config.last) || k->msg.source_step == 0 || s->fed_epoch != s->epoch ||
        s->fed_step != k->msg.source_step)
        return;
    for (uint32_t i = 0, row = 0; i < k->msg.spans.len; row += k->spans[i++].rows) {
        if (k->tokens[row] != TR_TOKEN_OF_STEP) continue;
        for (uint32_t f = 0; f < s->n_fed; f++)
            if (s->fed[f].slot == k->spans[i].slot) k->tokens[row] = s->fed[f].token;
    }
}

/* Start the head of the queue when everything is there. */
static void pump(tr_stage_core *s, tr_effects *fx) {
    if (s->current != NO_SLOT) return;
    if (s->has_input && input_is_old(s)) {
        s->stats.dropped_inputs++;
        release_input(s, fx); /* the driver announces the next one */
    }
    if (s->n_queued == 0) return;
    slot *head = &s->slots[s->queue[0]];
    if (!s->config.first && !(s->has_input && s->input.epoch == s->epoch && s->input.step == head->msg.step)) return;
    if ((!s->config.last && !s->has_room) || !source_is_here(s, &head->msg)) return;
    fill_in(s, head);
    s->current = s->queue[0];
    s->n_queued--;
    memmove(s->queue, s->queue + 1, s->n_queued * sizeof *s->queue);
    tr_effect *e = emit(fx, TR_EFFECT_COMPUTE);
    e->msg.type = TR_MSG_STEP;
    e->msg.as.step = head->msg;
}

/* Entries of `sampled` in the answer. */
static uint32_t tokens_drawn(const tr_msg_step *m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->spans.len; i++) n += m->spans.data[i].draws > 1 ? m->spans.data[i].draws : 1;
    return n;
}

/* Entries of its lists of log-probabilities. */
static uint32_t logprobs_drawn(const tr_msg_step *m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->spans.len; i++) {
        const tr_msg_span *s = &m->spans.data[i];
        if (s->flags & 1) n += (s->draws > 1 ? s->draws : 1) * s->logprobs;
    }
    return n;
}

static bool step_is_sound(const tr_stage_core *s, const tr_msg_step *m) {
    if (m->spans.len == 0 || m->spans.len > s->config.max_spans || m->tokens.len > s->config.max_rows) return false;
    if (m->phase != TR_PHASE_PREFILL && m->phase != TR_PHASE_DECODE) return false;
    if (m->copies.len > COPIES_A_SPAN * m->spans.len) return false;
    if (m->source_step != 0 && m->source_step + 1 != m->step) return false;
    uint64_t rows = 0;
    for (uint32_t i = 0; i < m->spans.len; i++) {
        if (m->spans.data[i].rows == 0) return false;
        if (m->phase == TR_PHASE_DECODE && m->spans.data[i].draws > 1) return false; /* one token a span is fed */
        rows += m->spans.data[i].rows;
    }
    return rows == m->tokens.len && tokens_drawn(m) <= TR_MAX_SPANS;
}

static void on_step(tr_stage_core *s, const tr_msg_step *m) {
    if (m->epoch != s->epoch || (s->any_step && m->step <= s->last_step)) {
        s->stats.dropped_steps++;
        return;
    }
    if (!step_is_sound(s, m) || s->n_queued == s->config.queue) {
        s->stats.protocol_errors++;
        return;
    }
    uint32_t i = 0;
    while (s->slots[i].used) i++; /* one more slot than the queue holds: there is one */
    slot *k = &s->slots[i];
    k->used = true;
    k->msg = *m;
    memcpy(k->spans, m->spans.data, m->spans.len * sizeof *k->spans);
    memcpy(k->tokens, m->tokens.data, m->tokens.len * sizeof *k->tokens);
    if (m->copies.len > 0) memcpy(k->copies, m->copies.data, m->copies.len * sizeof *k->copies);
    k->msg.copies.data = k->copies;
    k->msg.spans.data = k->spans;
    k->msg.tokens.data = k->tokens;
    s->queue[s->n_queued++] = i;
    s->last_step = m->step;
    s->any_step = true;
}

static void reset_done(tr_stage_core *s, tr_effects *fx) {
    s->reset_waiting = false;
    send(s, fx, TR_MSG_RESET_DONE)->as.reset_done.epoch = s->epoch;
}

/* The step at hand leaves without a trace. */
static void discard_current(tr_stage_core *s, tr_effects *fx) {
    s->slots[s->current].used = false;
    s->current = NO_SLOT;
    s->stale = s->aborted = false;
    if (!s->config.first) release_input(s, fx);
}

static void on_reset(tr_stage_core *s, const tr_msg_reset *m, tr_effects *fx) {
    if (m->epoch < s->epoch || m->epoch == 0) {
        s->stats.dropped_steps++;
        return;
    }
    if (m->epoch > s->epoch) {
        s->epoch = m->epoch;
        for (uint32_t i = 0; i < s->n_queued; i++) s->slots[s->queue[i]].used = false;
        s->n_queued = 0;
        s->last_step = s->last_done = 0;
        s->any_step = s->any_done = false;
        if (s->aborted) discard_current(s, fx);
        s->stale = s->current != NO_SLOT;
    }
    if (s->stale)
        s->reset_waiting = true;
    else
        reset_done(s, fx);
}

static void step_done(tr_stage_core *s, const tr_event *ev, const tr_msg_step *step, tr_effects *fx) {
    tr_msg_step_done *m = &send(s, fx, TR_MSG_STEP_DONE)->as.step_done;
    m->epoch = step->epoch;
    m->step = step->step;
    m->phase = step->phase;
    m->status = ev->as.computed.status;
    m->kernel_ns = ev->as.computed.kernel_ns;
    m->total_ns = ev->as.computed.total_ns;
    if (m->status != 0) {
        size_t n = ev->as.computed.error ? strnlen(ev->as.computed.error, sizeof s->error - 1) : 0;
        if (n > 0) memcpy(s->error, ev->as.computed.error, n);
        m->error = (tr_str){s->error, (uint32_t)n};
        return;
    }
    uint32_t n = tokens_drawn(step);
    for (uint32_t i = 0; i < n; i++) s->sampled[i] = ev->as.computed.sampled ? ev->as.computed.sampled[i] : 0;
    m->sampled = (tr_u32v){s->sampled, n};
    const uint32_t logprobs = logprobs_drawn(step);
    if (ev->as.computed.logprobs == NULL) return; /* a step that asks for them is then refused by the scheduler */
    m->logprob_ids = (tr_u32v){ev->as.computed.logprob_ids, logprobs};
    m->logprobs = (tr_realv){ev->as.computed.logprobs, logprobs};
}

/* After the answer: with shared cores the first stage goes on where this one stands. */
static void feed(tr_stage_core *s, const tr_event *ev, const tr_msg_step *step, tr_effects *fx) {
    if (!s->config.last || step->phase != TR_PHASE_DECODE) return;
    if (!s->config.first) emit(fx, TR_EFFECT_FEED);
    tr_wire_token own[TR_MAX_SPANS];
    for (uint32_t i = 0; i < step->spans.len; i++)
        own[i] = (tr_wire_token){step->spans.data[i].slot, ev->as.computed.sampled ? ev->as.computed.sampled[i] : 0};
    take_tokens(s, step->epoch, step->step, own, step->spans.len);
}

static void on_computed(tr_stage_core *s, const tr_event *ev, tr_effects *fx) {
    if (s->current == NO_SLOT || s->aborted) {
        s->stats.protocol_errors++;
        return;
    }
    if (s->stale) {
        discard_current(s, fx);
        if (s->reset_waiting) reset_done(s, fx);
        return;
    }
    if (ev->as.computed.aborted) {
        s->aborted = true;
        return;
    }
    slot *k = &s->slots[s->current];
    s->current = NO_SLOT;
    k->used = false;
    s->last_done = k->msg.step;
    s->any_done = true;
    bool failed = ev->as.computed.status != 0;
    if (failed) {
        s->stats.failed_steps++;
    } else {
        s->stats.steps++;
        if (!s->config.last) {
            emit(fx, TR_EFFECT_PUBLISH);
            s->has_room = false;
        }
    }
    if (!s->config.first) release_input(s, fx);
    if (failed || s->config.last) step_done(s, ev, &k->msg, fx);
    if (!failed) feed(s, ev, &k->msg, fx);
}

static void on_layers(tr_stage_core *s, const tr_event *ev, tr_effects *fx) {
    if (s->current == NO_SLOT || s->stale || s->slots[s->current].msg.phase != TR_PHASE_PREFILL) return;
    tr_msg_step_layers *m = &send(s, fx, TR_MSG_STEP_LAYERS)->as.step_layers;
    m->epoch = s->epoch;
    m->step = s->slots[s->current].msg.step;
    m->lo = ev->as.layers.lo;
    m->hi = ev->as.layers.hi;
}

static void on_msg(tr_stage_core *s, const tr_event *ev, tr_effects *fx) {
    if (ev->from != s->config.scheduler) {
        s->stats.protocol_errors++;
        return;
    }
    switch (ev->msg->type) {
    case TR_MSG_STEP: on_step(s, &ev->msg->as.step); break;
    case TR_MSG_RESET: on_reset(s, &ev->msg->as.reset, fx); break;
    default: s->stats.protocol_errors++;
    }
}

void tr_stage_core_step(tr_stage_core *s, const tr_event *event, tr_effects *fx) {
    fx->n = 0;
    switch (event->kind) {
    case TR_EVENT_MSG: on_msg(s, event, fx); break;
    case TR_EVENT_INPUT:
        s->has_input = true;
        s->input = event->as.input;
        break;
    case TR_EVENT_TOKENS:
        take_tokens(s, event->as.tokens.epoch, event->as.tokens.step, event->as.tokens.data, event->as.tokens.n);
        break;
    case TR_EVENT_OUTPUT_ROOM: s->has_room = true; break;
    case TR_EVENT_COMPUTED: on_computed(s, event, fx); break;
    case TR_EVENT_LAYERS: on_layers(s, event, fx); break;
    default: return;
    }
    pump(s, fx);
}

void tr_stage_core_get_stats(const tr_stage_core *s, tr_stage_core_stats *out) {
    *out = s->stats;
    out->epoch = s->epoch;
    out->queued = s->n_queued;
    out->computing = s->current != NO_SLOT;
}

bool tr_stage_core_busy(const tr_stage_core *s) { return s->current != NO_SLOT; }

bool tr_stage_core_followed(const tr_stage_core *s) {
    return s->current != NO_SLOT && s->n_queued > 0 &&
           s->slots[s->queue[0]].msg.source_step == s->slots[s->current].msg.step;
}

uint64_t tr_stage_core_digest(const tr_stage_core *s) {
    uint64_t h = tr_rng_hash(s->epoch, s->any_step ? s->last_step + 1 : 0);
    h = tr_rng_hash(h, s->any_done ? s->last_done + 1 : 0);
    h = tr_rng_hash(h, (uint64_t)s->has_room | (uint64_t)s->has_input << 1 | (uint64_t)s->stale << 2 |
                           (uint64_t)s->aborted << 3);
    h = tr_rng_hash(h, s->has_input ? s->input.step : 0);
    h = tr_rng_hash(h, s->fed_epoch == s->epoch ? s->fed_step : 0);
    h = tr_rng_hash(h, s->current == NO_SLOT ? 0 : s->slots[s->current].msg.step + 1);
    for (uint32_t i = 0; i < s->n_queued; i++) h = tr_rng_hash(h, s->slots[s->queue[i]].msg.step);
    return h;
}
