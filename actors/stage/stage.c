/* actors/stage/stage.c - real driver of stage_core.h: layers [lo, hi) of the model on pinned workers. With tensor
 * parallelism this is rank 0, which alone has channels; follower.c is the others.
 * Activations arrive in a record of the input channel and leave in a record of the output channel that the forward pass
 * works in directly. */
#include "actors/actors.h"
#include "actors/stage/passes.h"
#include "actors/stage/stage_core.h"
#include "affinity/bind.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "model/sampler.h"
#include "scheduler/journal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of one span. */
typedef struct stage_edit {
    tr_sampler_edit of;
    uint32_t banned[TR_MAX_STOP_TOKENS + sizeof(((tr_company *)0)->eos) / sizeof(uint32_t)];
} stage_edit;

typedef struct driver {
    tr_runtime *rt;
    const tr_company_actor *me;
    tr_passes passes;
    tr_channel *in, *out, *logits, *fed, *feed; /* fed, feed: sampled tokens, of the first and of the last stage */
    float *x;                                   /* last stage: residual stream of its own [max_rows, hidden] */
    tr_span *spans;                             /* [TR_MAX_SPANS] */
    stage_edit *edits;                          /* [TR_MAX_SPANS], last stage */
    uint32_t *sampled;                          /* [TR_MAX_SPANS] */
    tr_control_block *next, *first;             /* readers of out and of feed, or NULL */
    uint8_t *out_record;                        /* reserved record of the output channel, or NULL */
    bool input_announced, room_announced;
    bool pending; /* step is to be run */
    tr_msg_step step;
    uint64_t step_began_ns;
    uint32_t layers_told; /* of the step that runs */
    tr_stage_core *core;
    tr_effects effects;
    const tr_journal *journal; /* waits; NULL on other hosts than the scheduler's */
} driver;

static tr_ledger *ledger_of(driver *d) { return &d->rt->block->ledger; }

/* The scheduler's word. It may be older than the STEP that waits here. */
static tr_ledger_kind kind_of_waiting(driver *d) {
    const uint32_t word = d->journal ? atomic_load_explicit(&d->journal->waits[d->me->pipeline], memory_order_relaxed)
                                     : TR_LEDGER_STARVATION;
    tr_stage_core_stats stats;
    tr_stage_core_get_stats(d->core, &stats);
    const bool dry = word == TR_LEDGER_STARVATION || word == TR_LEDGER_KV_WAIT;
    return dry && stats.queued > 0 ? TR_LEDGER_FILL_DRAIN : (tr_ledger_kind)word;
}

/* The ring holds more than can be in flight; what is lost with a dead stage is sampled again after the reset. */
static void feed(driver *d) {
    const tr_msg_step *m = &d->step;
    const size_t bytes = sizeof(tr_wire_header) + m->spans.len * sizeof(tr_wire_token);
    void *record;
    tr_status status = tr_channel_reserve(d->feed, bytes, &record);
    if (status == TR_OK) {
        tr_wire_header h = {.kind = TR_WIRE_TOKENS,
                            .epoch = m->epoch,
                            .step = m->step,
                            .rows = m->spans.len,
                            .phase = m->phase,
                            .payload_bytes = m->spans.len * sizeof(tr_wire_token)};
        memcpy(record, &h, sizeof h);
        tr_wire_token *token = (tr_wire_token *)(void *)((uint8_t *)record + sizeof h);
        for (uint32_t i = 0; i < m->spans.len; i++) token[i] = (tr_wire_token){m->spans.data[i].slot, d->sampled[i]};
        status = tr_channel_commit(d->feed, bytes);
    }
    if (status != TR_OK) tr_log(TR_LOG_ERROR, "feed_failed", "%s", tr_status_text(status));
}

static void on_event(void *self, const tr_event *event) {
    driver *d = self;
    tr_stage_core_step(d->core, event, &d->effects);
    for (uint32_t i = 0; i < d->effects.n; i++) {
        const tr_effect *e = &d->effects.item[i];
        switch (e->kind) {
        case TR_EFFECT_COMPUTE:
            d->step = e->msg.as.step; /* its lists stay valid until COMPUTED */
            d->pending = true;
            break;
        case TR_EFFECT_PUBLISH: {
            const tr_wire_header *h = (const tr_wire_header *)(const void *)d->out_record;
            tr_status status = tr_channel_commit(d->out, sizeof *h + h->payload_bytes);
            if (status != TR_OK) tr_log(TR_LOG_ERROR, "publish_failed", "%s", tr_status_text(status));
            d->out_record = NULL;
            d->room_announced = false;
            break;
        }
        case TR_EFFECT_FEED: feed(d); break;
        case TR_EFFECT_RELEASE_INPUT:
            tr_channel_release(d->in);
            d->input_announced = false;
            break;
        case TR_EFFECT_SEND:
            if (tr_runtime_send(d->rt, e->to, &e->msg) == TR_AGAIN)
                tr_log(TR_LOG_ERROR, "link_full", "to=%s", d->rt->company->actor[e->to].name);
            break;
        default: break;
        }
    }
}

/* What the last stage sampled; the core keeps what it needs. */
static bool pump_tokens(driver *d) {
    bool any = false;
    const void *data;
    size_t bytes;
    while (d->fed && tr_channel_peek(d->fed, &data, &bytes) == TR_OK) {
        tr_wire_header h = {0};
        if (bytes >= sizeof h) memcpy(&h, data, sizeof h);
        if (bytes >= sizeof h && bytes - sizeof h == h.rows * sizeof(tr_wire_token)) {
            tr_event e = {.kind = TR_EVENT_TOKENS, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()};
            e.as.tokens.epoch = h.epoch;
            e.as.tokens.step = h.step;
            e.as.tokens.n = h.rows;
            e.as.tokens.data = (const tr_wire_token *)(const void *)((const uint8_t *)data + sizeof h);
            on_event(d, &e);
        }
        tr_channel_release(d->fed);
        any = true;
    }
    return any;
}

/* Head of the input channel and room in the output channel become events. True when something was new. */
static bool pump_channels(driver *d) {
    bool any = false;
    const void *data;
    size_t bytes;
    if (d->in && !d->input_announced && tr_channel_peek(d->in, &data, &bytes) == TR_OK) {
        tr_event e = {.kind = TR_EVENT_INPUT, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()};
        if (bytes >= sizeof e.as.input) memcpy(&e.as.input, data, sizeof e.as.input);
        d->input_announced = true;
        any = true;
        on_event(d, &e);
    }
    size_t largest = sizeof(tr_wire_header) + (size_t)d->rt->company->max_rows * d->rt->company->hidden * sizeof(float);
    void *record;
    if (d->out && !d->room_announced && tr_channel_reserve(d->out, largest, &record) == TR_OK) {
        d->out_record = record;
        d->room_announced = true;
        any = true;
        on_event(d, &(tr_event){.kind = TR_EVENT_OUTPUT_ROOM, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()});
    }
    return any;
}

/* What edits the logits is in the journal, and so are the tokens before the span: others change neither while a step of
 * the entry is out. The span's own tokens come with the step: the newest may not be journaled yet. */
static tr_status fill_edit(driver *d, const tr_msg_step *m, uint32_t i, const tr_span *span, stage_edit *edit,
                           tr_error *err) {
    uint32_t n = 0;
    tr_journal *journal = d->rt->segment[TR_SEGMENT_JOURNAL];
    const tr_company *c = d->rt->company;
    const uint32_t end = span->pos0 + span->rows;
    if (!journal || span->slot >= journal->n_slots || span->pos0 >= journal->context ||
        span->rows > journal->context - span->pos0)
        return tr_error_set(err, TR_INVALID, "penalties and bias need the journal, which is on another host");
    tr_journal_entry *e = tr_journal_at(journal, span->slot);
    const uint32_t known = atomic_load_explicit(&e->n_tokens, memory_order_acquire);
    /* a request that has ended meanwhile may have lost its last tokens; what it draws now is thrown away */
    const bool open = atomic_load_explicit(&e->state, memory_order_acquire) == TR_JOURNAL_OPEN;
    if (e->rid != m->spans.data[i].rid || (open && known < span->pos0))
        return tr_error_set(err, TR_INVALID, "the journal does not hold the tokens before position %u", span->pos0);
    edit->of = (tr_sampler_edit){.bias_id = e->bias_token,
                                 .bias = e->bias,
                                 .n_bias = e->n_bias,
                                 .repetition = e->repetition_penalty,
                                 .frequency = e->frequency_penalty,
                                 .presence = e->presence_penalty,
                                 .tokens = {e->tokens, m->tokens.data + span->row0},
                                 .n_tokens = {span->pos0, span->rows},
                                 .n_prompt = e->prompt_len < end ? e->prompt_len : end};
    if (end >= (uint64_t)e->prompt_len + e->min_tokens) return TR_OK;
    for (uint32_t k = 0; k < e->n_stop_tokens; k++) edit->banned[n++] = e->stop_token[k];
    for (uint32_t k = 0; k < c->n_eos && !e->ignore_eos; k++) edit->banned[n++] = c->eos[k];
    edit->of.banned = edit->banned, edit->of.n_banned = n;
    return TR_OK;
}

static tr_status convert_spans(driver *d, const tr_msg_step *m, tr_error *err) {
    tr_span *out = d->spans;
    uint32_t row = 0;
    for (uint32_t i = 0; i < m->spans.len; i++) {
        const tr_msg_span *s = &m->spans.data[i];
        out[i] = (tr_span){.slot = s->slot, .pos0 = s->pos0, .rows = s->rows, .row0 = row, .flags = s->flags};
        out[i].sampling = (tr_sampling){.temperature = s->temperature,
                                        .top_p = s->top_p > 0 ? s->top_p : 1,
                                        .top_k = s->top_k,
                                        .min_p = s->min_p,
                                        .logprobs = s->logprobs,
                                        .draws = s->draws,
                                        .sample = s->sample,
                                        .seed = s->seed};
        row += s->rows;
        if (!(s->flags & TR_SPAN_EDIT) || d->out) continue;
        TR_TRY(fill_edit(d, m, i, &out[i], &d->edits[i], err));
        out[i].sampling.edit = &d->edits[i].of;
    }
    return TR_OK;
}

/* Hand the logits of each asking span to the frontend, a few rows a record. Waits for room as long as the company
 * lives. */
static void send_logits(driver *d, const tr_msg_step *m, const float *logits) {
    const uint32_t vocab = d->rt->company->vocab, stride = (uint32_t)tr_align_up(vocab, 16);
    for (uint32_t i = 0; i < m->spans.len && logits && d->logits; i++) {
        const tr_msg_span *s = &m->spans.data[i];
        const bool hidden = (s->flags & TR_SPAN_HIDDEN) != 0, all = hidden || (s->flags & TR_SPAN_LOGITS) != 0;
        const uint32_t cols = hidden ? d->rt->company->hidden : vocab;
        uint32_t rows = all ? s->rows : (s->flags & TR_SPAN_SAMPLE) ? 1 : 0;
        for (uint32_t r = 0; r < rows; r++, logits += stride) {
            if (!all) continue;
            tr_wire_header h = {.kind = hidden ? TR_WIRE_HIDDEN : TR_WIRE_LOGITS,
                                .epoch = m->epoch,
                                .step = m->step,
                                .rid = s->rid,
                                .pos0 = s->pos0 + r,
                                .rows = 1,
                                .cols = cols,
                                .phase = m->phase,
                                .payload_bytes = (uint64_t)cols * sizeof(float)};
            size_t bytes = sizeof h + h.payload_bytes;
            void *record;
            for (;;) {
                uint32_t seen = tr_bell_read(&d->rt->block->bell);
                if (tr_channel_reserve(d->logits, bytes, &record) == TR_OK) break;
                if (tr_runtime_stopping(d->rt)) return;
                /* A slow client is no hang. */
                atomic_store(&d->rt->block->busy, 0);
                tr_runtime_wait(d->rt, seen, 10 * TR_NS_PER_MS, NULL);
                atomic_store(&d->rt->block->busy, 1);
            }
            memcpy(record, &h, sizeof h);
            memcpy((uint8_t *)record + sizeof h, logits, h.payload_bytes);
            tr_channel_commit(d->logits, bytes);
        }
    }
}

/* Where the residual stream of this step lives, filled with the input. NULL: the input record is malformed. */
static float *residual(driver *d, uint32_t rows) {
    const size_t bytes = (size_t)rows * d->rt->company->hidden * sizeof(float);
    float *x = d->out ? (float *)(void *)(d->out_record + sizeof(tr_wire_header)) : d->x;
    if (d->in) {
        const void *data;
        size_t have;
        if (tr_channel_peek(d->in, &data, &have) != TR_OK || have != sizeof(tr_wire_header) + bytes) return NULL;
        memcpy(x, (const uint8_t *)data + sizeof(tr_wire_header), bytes);
    }
    return x;
}

/* Layers of a prefill step go to the resharder while the rest of it is computed: a few times a step. */
enum { PARTS = 4, PART_ROWS_MIN = 32 };
static void on_layers(void *arg, uint32_t end) {
    driver *d = arg;
    const uint32_t part = (d->me->hi - d->me->lo + PARTS - 1) / PARTS;
    if (d->step.tokens.len < PART_ROWS_MIN || (end < d->me->hi && end - d->layers_told < part)) return;
    d->layers_told = end;
    tr_event e = {.kind = TR_EVENT_LAYERS, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()};
    e.as.layers.lo = d->me->lo;
    e.as.layers.hi = end;
    on_event(d, &e);
}

static tr_status run_step(driver *d, const tr_msg_step *m, tr_event *done, tr_error *err) {
    uint32_t rows = m->tokens.len;
    tr_forward *forward = m->phase >= 1 && m->phase <= 2 ? d->passes.forward[m->phase - 1] : NULL;
    if (!forward || rows > d->rt->company->max_rows || m->spans.len > TR_MAX_SPANS)
        return tr_error_set(err, TR_INVALID, "step %" PRIu64 " does not fit this stage", m->step);
    float *x = residual(d, rows);
    if (!x) return tr_error_set(err, TR_INVALID, "step %" PRIu64 ": activations do not have its shape", m->step);
    TR_TRY(convert_spans(d, m, err));
    memset(d->sampled, 0, TR_MAX_SPANS * sizeof *d->sampled);
    tr_micro_batch batch = {.n_rows = rows,
                            .n_spans = m->spans.len,
                            .spans = d->spans,
                            .tokens = m->tokens.data,
                            .copies = m->copies.data,
                            .n_copies = m->copies.len};
    tr_forward_output output = {.sampled = d->sampled};
    tr_ledger_turn(ledger_of(d), TR_LEDGER_COMPUTE);
    tr_status status = tr_forward_run(forward, &batch, x, &output);
    tr_ledger_turn(ledger_of(d), TR_LEDGER_COMMUNICATION);
    done->as.computed.aborted = status == TR_PEER;
    if (done->as.computed.aborted) return TR_OK;
    if (status != TR_OK) return tr_error_set(err, status, "step %" PRIu64 " was refused by the forward pass", m->step);
    if (d->out) {
        tr_wire_header h = {.kind = TR_WIRE_ACTIVATION,
                            .epoch = m->epoch,
                            .step = m->step,
                            .rows = rows,
                            .cols = d->rt->company->hidden,
                            .phase = m->phase,
                            .payload_bytes = (uint64_t)rows * d->rt->company->hidden * sizeof(float)};
        memcpy(d->out_record, &h, sizeof h);
    } else
        send_logits(d, m, output.logits);
    done->as.computed.sampled = d->sampled;
    done->as.computed.logprob_ids = output.logprob_ids;
    done->as.computed.logprobs = output.logprobs;
    done->as.computed.kernel_ns = output.kernel_ns;
    return TR_OK;
}

/* Whose workers go on when this step has ended. */
static tr_team_lobby *successor(const driver *d) {
    if (d->next) return &d->next->lobby;
    return d->first && tr_stage_core_followed(d->core) ? &d->first->lobby : NULL;
}

static void compute(driver *d) {
    tr_control_block *block = d->rt->block;
    tr_error err = {0};
    tr_event done = {.kind = TR_EVENT_COMPUTED, .from = TR_NOBODY};
    uint64_t begin = tr_clock_now_ns();
    d->pending = false;
    d->layers_told = d->me->lo;
    atomic_store(&block->busy, 1);
    tr_team_hand_on(d->passes.team, successor(d));
    if (run_step(d, &d->step, &done, &err) != TR_OK) {
        done.as.computed.status = 1;
        done.as.computed.error = err.text;
        tr_log(TR_LOG_ERROR, "step_failed", "%s", err.text);
    }
    done.now_ns = tr_clock_now_ns();
    done.as.computed.total_ns = done.now_ns - begin;
    atomic_fetch_add(&block->kernel_ns, done.as.computed.kernel_ns);
    atomic_fetch_add(&block->step_ns, done.as.computed.total_ns);
    if (!done.as.computed.aborted) atomic_fetch_add(&block->progress, 1);
    atomic_store(&block->busy, 0);
    on_event(d, &done);
}

static tr_status open_core(driver *d, tr_error *err) {
    tr_stage_core_config config = {.scheduler = d->rt->company->scheduler,
                                   .first = d->me->stage == 0,
                                   .last = d->me->stage + 1 == d->me->n_stages,
                                   .queue = TR_STAGE_CORE_QUEUE_MAX / 4,
                                   .max_spans = TR_MAX_SPANS,
                                   .max_rows = d->rt->company->max_rows};
    size_t bytes = tr_stage_core_bytes(&config);
    d->core = bytes ? aligned_alloc(64, tr_align_up(bytes, 64)) : NULL;
    if (!d->core) return tr_error_set(err, TR_UNAVAILABLE, "cannot set up the stage's queue");
    memset(d->core, 0, bytes);
    return tr_stage_core_init(d->core, &config);
}

static tr_status open_stage(driver *d, tr_error *err) {
    tr_runtime *rt = d->rt;
    d->in = tr_runtime_data_in(rt, TR_LINK_ACTIVATION);
    d->out = tr_runtime_data_out(rt, TR_LINK_ACTIVATION);
    d->logits = tr_runtime_data_out(rt, TR_LINK_LOGITS);
    d->fed = tr_runtime_data_in(rt, TR_LINK_TOKENS);
    d->feed = tr_runtime_data_out(rt, TR_LINK_TOKENS);
    d->next = tr_runtime_data_reader(rt, TR_LINK_ACTIVATION);
    d->first = tr_runtime_data_reader(rt, TR_LINK_TOKENS);
    TR_TRY(tr_passes_open(rt, NULL, NULL, &d->passes, err));
    if (d->passes.forward[0] && !rt->company->one_pool) tr_forward_on_layers(d->passes.forward[0], on_layers, d);
    atomic_store(&rt->block->placed, d->me->n_cpus && tr_bind_thread_verify(d->me->cpus, 1) ? 1 : 2);
    d->x = aligned_alloc(64, tr_align_up((size_t)rt->company->max_rows * rt->company->hidden * sizeof(float), 64));
    d->spans = calloc(TR_MAX_SPANS, sizeof *d->spans);
    d->sampled = calloc(TR_MAX_SPANS, sizeof *d->sampled);
    d->edits = calloc(TR_MAX_SPANS, sizeof *d->edits);
    if (!d->x || !d->spans || !d->sampled || !d->edits)
        return tr_error_set(err, TR_UNAVAILABLE, "no memory for %s", d->me->name);
    return open_core(d, err);
}

static void close_stage(driver *d) {
    tr_passes_close(&d->passes);
    free(d->core);
    free(d->x);
    free(d->spans);
    free(d->sampled);
    free(d->edits);
    free(d);
}

tr_status tr_stage_run(tr_runtime *rt, tr_error *err) {
    driver *d = calloc(1, sizeof *d);
    if (!d) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %s", rt->me->name);
    d->rt = rt;
    d->me = rt->me;
    d->journal = rt->segment[TR_SEGMENT_JOURNAL];
    tr_status status = open_stage(d, err);
    if (status == TR_OK) {
        on_event(d, &(tr_event){.kind = TR_EVENT_START, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()});
        tr_ledger_turn(ledger_of(d), TR_LEDGER_COMMUNICATION);
        tr_runtime_ready(rt);
        while (!tr_runtime_stopping(rt)) {
            uint32_t seen = tr_bell_read(&rt->block->bell);
            bool any = tr_runtime_pump(rt, on_event, d);
            any |= pump_tokens(d);
            any |= pump_channels(d);
            if (d->pending) {
                compute(d);
                tr_team_settle(d->passes.team); /* the answer is out */
            } else if (!any) {
                tr_ledger_turn(ledger_of(d), kind_of_waiting(d));
                tr_runtime_wait(rt, seen, UINT64_MAX, NULL);
                tr_ledger_turn(ledger_of(d), TR_LEDGER_COMMUNICATION);
            }
        }
    }
    close_stage(d);
    return status;
}
