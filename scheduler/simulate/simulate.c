#include "scheduler/simulate/simulate_state.h"

#include "base/checked.h"
#include "base/rng.h"
#include "kv/kv_pool.h"

#include <string.h>

enum { TOKEN = 1, RID_STEP = TR_MAX_SAMPLES, EVENTS_A_REPLICA = 4096, NS_PER_MS = 1000000 };

/* ---- memory ---------------------------------------------------------------------------------------------------------
 */

typedef struct carver {
    char *at; /* NULL: only count */
    size_t bytes;
} carver;

static void *carve(carver *c, size_t bytes) {
    void *here = c->at ? c->at + c->bytes : NULL;
    c->bytes += tr_align_up(bytes, 64);
    return here;
}

static uint32_t slots_of(const tr_scheduler_config *c) { return c->layout[0].n_slots; }

/* A step more than can be in flight: one is answered, and not yet known to be. */
static uint32_t steps_of(const tr_scheduler_config *c) {
    uint32_t n = 0;
    for (uint32_t p = 0; p < c->n_pipelines; p++)
        if (c->pipeline[p].max_in_flight > n) n = c->pipeline[p].max_in_flight;
    return n + 2;
}

static void carve_pipeline(carver *c, tr_simulate_pipeline *p, uint32_t n_stages, uint32_t steps) {
    tr_simulate_pipeline made = {.n_stages = n_stages};
    made.stage = carve(c, n_stages * sizeof *made.stage);
    made.step = carve(c, steps * sizeof *made.step);
    for (uint32_t k = 0; k < n_stages; k++) {
        uint32_t *queue = carve(c, steps * sizeof *queue);
        if (p) made.stage[k] = (tr_simulate_server){.current = SIM_NONE, .queue = queue};
    }
    if (p) *p = made;
}

/* r NULL: only count. */
static bool carve_replica(carver *c, const tr_simulate_config *config, tr_simulate_replica *r) {
    tr_scheduler_config made = config->scheduler;
    const size_t journal = tr_journal_bytes(slots_of(&made), made.context);
    if (journal == 0) return false;
    made.journal = carve(c, journal);
    for (uint32_t p = 0; p < 2; p++) {
        if (p == 1 && made.one_pool) {
            made.table[1] = made.table[0];
            made.bitmap[1] = made.bitmap[0];
            break;
        }
        made.table[p] = carve(c, made.layout[p].table_bytes);
        made.bitmap[p] = carve(c, tr_kv_pool_bitmap_bytes(&made.layout[p]));
    }
    for (uint32_t p = 0; p < made.n_pipelines; p++)
        carve_pipeline(c, r ? &r->pipeline[p] : NULL, made.pipeline[p].n_stages, steps_of(&made));
    tr_journal head = {.n_slots = slots_of(&made), .context = made.context};
    if (r)
        tr_journal_init(made.journal, slots_of(&made), made.context);
    else
        made.journal = &head;
    const size_t core = tr_scheduler_bytes(&made);
    if (core == 0) return false;
    void *memory = carve(c, core);
    if (r) {
        r->config = made;
        r->core = memory;
    }
    return true;
}

/* s NULL: only count. */
static bool carve_all(carver *c, const tr_simulate_config *config, uint32_t n_requests, tr_simulate *s) {
    tr_simulate made = {.config = config, .n_requests = n_requests, .steps_max = steps_of(&config->scheduler)};
    carve(c, sizeof made);
    made.replica = carve(c, config->n_replicas * sizeof *made.replica);
    made.effects = carve(c, sizeof *made.effects);
    made.tokens = carve(c, config->scheduler.context * sizeof *made.tokens);
    made.queue.room = 2 * n_requests + EVENTS_A_REPLICA * config->n_replicas;
    made.queue.event = carve(c, made.queue.room * sizeof *made.queue.event);
    if (s) *s = made;
    for (uint32_t i = 0; i < config->n_replicas; i++)
        if (!carve_replica(c, config, s ? &s->replica[i] : NULL)) return false;
    return true;
}

size_t tr_simulate_bytes(const tr_simulate_config *config, uint32_t n_requests) {
    carver c = {0};
    if (config->n_replicas == 0 || config->n_replicas > TR_SIMULATE_REPLICAS_MAX) return 0;
    if (n_requests > TR_SIMULATE_REQUESTS_MAX || config->scheduler.context == 0) return 0;
    return carve_all(&c, config, n_requests, NULL) ? c.bytes : 0;
}

/* ---- the scheduler's messages ---------------------------------------------------------------------------------------
 */

void tr_simulate_push(tr_simulate *s, double delay_ns, tr_simulate_event event) {
    event.at = s->now + (delay_ns > 0 ? (uint64_t)(delay_ns + 0.5) : 0);
    if (!tr_simulate_queue_push(&s->queue, event)) s->overflow = true;
}

static uint64_t tokens_of(const tr_simulate_request *q) { return (uint64_t)q->prompt + q->output; }

static void end(tr_simulate *s, uint32_t replica, uint32_t i, bool ok) {
    tr_simulate_replica *r = &s->replica[replica];
    tr_simulate_request *q = &s->request[i];
    q->ended = true;
    q->ok = ok;
    q->end_ns = s->now + (uint64_t)s->config->output_ns;
    s->n_ended++;
    r->open_tokens -= tokens_of(q);
    if (--r->open == 0) s->result->open_ns += s->now - r->open_since_ns;
}

/* One message is one text for the client, whatever tokens it holds. */
static void on_output(tr_simulate *s, uint32_t replica, const tr_msg_output *m) {
    const uint32_t i = (uint32_t)(m->rid / RID_STEP) - 1;
    tr_simulate_request *q = &s->request[i];
    const uint64_t seen = s->now + (uint64_t)s->config->output_ns;
    if (q->ended) return;
    if (m->index + m->tokens.len > q->got) {
        if (q->got == 0)
            q->first_ns = seen;
        else if (q->gap_ms && q->n_gaps < q->output)
            q->gap_ms[q->n_gaps++] = (float)(seen - q->last_ns) / NS_PER_MS;
        q->last_ns = seen;
        q->got = m->index + m->tokens.len;
    }
    if (m->finish == TR_FINISH_NONE) return;
    q->cached = m->cached_tokens;
    end(s, replica, i, m->finish == TR_FINISH_LENGTH);
    tr_simulate_push(s, s->config->message_ns,
                     (tr_simulate_event){.kind = SIM_RELEASE, .replica = replica, .index = i});
}

static void on_send(tr_simulate *s, uint32_t replica, const tr_effect *e) {
    const tr_scheduler_config *c = &s->replica[replica].config;
    switch (e->msg.type) {
    case TR_MSG_STEP: /* every stage gets it; it takes its way from the first one on */
        for (uint32_t p = 0; p < c->n_pipelines; p++)
            if (c->pipeline[p].stage[0] == e->to) tr_simulate_stage_take(s, replica, p, &e->msg.as.step);
        break;
    case TR_MSG_RESET:
        tr_simulate_push(s, 0,
                         (tr_simulate_event){
                             .kind = SIM_RESET_DONE, .replica = replica, .index = e->to, .a = e->msg.as.reset.epoch});
        break;
    case TR_MSG_RESHARD:
        if (e->to == c->resharder) tr_simulate_stage_move(s, replica, &e->msg.as.reshard);
        break;
    case TR_MSG_OUTPUT: on_output(s, replica, &e->msg.as.output); break;
    default: break; /* ACCEPTED */
    }
}

static void tell(tr_simulate *s, uint32_t replica, tr_event event) {
    tr_simulate_replica *r = &s->replica[replica];
    tr_scheduler_stats stats;
    event.now_ns = s->now + 1; /* 0 is no time */
    tr_scheduler_step(r->core, &event, s->effects);
    for (uint32_t i = 0; i < s->effects->n; i++) {
        const tr_effect *e = &s->effects->item[i];
        if (e->kind == TR_EFFECT_SEND) on_send(s, replica, e);
        if (e->kind == TR_EFFECT_TIMER)
            tr_simulate_push(s, (double)e->delay_ns,
                             (tr_simulate_event){.kind = SIM_TIMER, .replica = replica, .a = ++r->timer});
    }
    if (event.kind != TR_EVENT_MSG || event.msg->type != TR_MSG_SUBMIT) return;
    tr_scheduler_get_stats(r->core, &stats);
    if (stats.running > s->result->most_running) s->result->most_running = stats.running;
    if (stats.waiting > s->result->most_waiting) s->result->most_waiting = stats.waiting;
}

static void tell_msg(tr_simulate *s, uint32_t replica, uint32_t from, const tr_msg *m) {
    tell(s, replica, (tr_event){.kind = TR_EVENT_MSG, .from = from, .msg = m});
}

/* ---- requests -------------------------------------------------------------------------------------------------------
 */

static uint32_t freest(const tr_simulate *s) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < s->config->n_replicas; i++)
        if (s->replica[i].open_tokens < s->replica[best].open_tokens) best = i;
    return best;
}

/* It arrives at a replica; the next one is on its way. */
static void arrive(tr_simulate *s) {
    tr_simulate_request *q = &s->request[s->n_arrived];
    q->replica = freest(s);
    q->start_ns = s->now;
    tr_simulate_replica *r = &s->replica[q->replica];
    if (r->open++ == 0) r->open_since_ns = s->now;
    r->open_tokens += tokens_of(q);
    tr_simulate_push(s, s->config->submit_ns + s->config->submit_token_ns * q->prompt,
                     (tr_simulate_event){.kind = SIM_SUBMIT, .replica = q->replica, .index = s->n_arrived++});
}

static void submit(tr_simulate *s, uint32_t i) {
    const tr_simulate_request *q = &s->request[i];
    const tr_scheduler_config *c = &s->config->scheduler;
    for (uint32_t k = 0; k < q->prompt && k < c->context; k++) {
        const uint32_t b = k / TR_SIMULATE_BLOCK;
        const uint64_t name =
            b < q->n_blocks ? tr_rng_hash(3, q->block[b]) : tr_rng_hash(4, tr_rng_hash(s->config->seed, i));
        s->tokens[k] = (uint32_t)(tr_rng_hash(name, k) % c->vocab);
    }
    tr_msg m = {.type = TR_MSG_SUBMIT};
    m.as.submit = (tr_msg_submit){.rid = (i + 1ull) * RID_STEP,
                                  .id = i + 1ull,
                                  .tokens = {s->tokens, q->prompt < c->context ? q->prompt : c->context},
                                  .max_tokens = q->output,
                                  .ignore_eos = 1};
    tell_msg(s, q->replica, c->frontend, &m);
}

static void step_done(tr_simulate *s, const tr_simulate_event *e) {
    tr_simulate_pipeline *p = &s->replica[e->replica].pipeline[e->pipeline];
    tr_simulate_step *step = &p->step[e->a];
    uint32_t sampled[TR_MAX_SPANS];
    for (uint32_t i = 0; i < step->n_spans; i++) sampled[i] = TOKEN % s->config->scheduler.vocab;
    tr_msg m = {.type = TR_MSG_STEP_DONE};
    m.as.step_done = (tr_msg_step_done){.epoch = step->epoch,
                                        .step = step->id,
                                        .phase = step->phase == 0 ? TR_PHASE_PREFILL : TR_PHASE_DECODE,
                                        .sampled = {sampled, step->cut ? 0 : step->n_spans}};
    m.as.step_done.total_ns = (uint64_t)tr_simulate_stage_ns(s, e->pipeline, p->n_stages - 1, step);
    step->used = false;
    tell_msg(s, e->replica, s->config->scheduler.pipeline[e->pipeline].stage[p->n_stages - 1], &m);
}

static void layers(tr_simulate *s, const tr_simulate_event *e) {
    tr_msg m = {.type = TR_MSG_STEP_LAYERS};
    m.as.step_layers = (tr_msg_step_layers){.epoch = (uint32_t)(e->b >> 32),
                                            .step = e->a,
                                            .lo = s->config->stage[e->pipeline][e->index].lo,
                                            .hi = (uint32_t)e->b};
    tell_msg(s, e->replica, s->config->scheduler.pipeline[e->pipeline].stage[e->index], &m);
}

static void resharded(tr_simulate *s, const tr_simulate_event *e) {
    const tr_scheduler_config *c = &s->config->scheduler;
    tr_msg m = {.type = TR_MSG_RESHARD_DONE};
    m.as.reshard_done =
        (tr_msg_reshard_done){.epoch = s->replica[e->replica].epoch_of_resharder, .job = e->a, .bytes = e->b};
    tell_msg(s, e->replica, c->two_resharders ? c->resharder_to : c->resharder, &m);
}

static void release(tr_simulate *s, const tr_simulate_event *e) {
    const tr_msg m = {.type = TR_MSG_RELEASE, .as.release = {.rid = (e->index + 1ull) * RID_STEP}};
    tell_msg(s, e->replica, s->config->scheduler.frontend, &m);
}

static void dispatch(tr_simulate *s, const tr_simulate_event *e) {
    const tr_msg reset = {.type = TR_MSG_RESET_DONE, .as.reset_done = {.epoch = (uint32_t)e->a}};
    switch ((tr_simulate_kind)e->kind) {
    case SIM_SUBMIT: submit(s, e->index); break;
    case SIM_INPUT: tr_simulate_stage_input(s, e); break;
    case SIM_COMPUTED: tr_simulate_stage_computed(s, e); break;
    case SIM_FED: tr_simulate_stage_fed(s, e); break;
    case SIM_STEP_DONE: step_done(s, e); break;
    case SIM_LAYERS: layers(s, e); break;
    case SIM_RESHARDED: resharded(s, e); break;
    case SIM_RESET_DONE: tell_msg(s, e->replica, e->index, &reset); break;
    case SIM_RELEASE: release(s, e); break;
    case SIM_TIMER:
        if (e->a == s->replica[e->replica].timer) tell(s, e->replica, (tr_event){.kind = TR_EVENT_TIMER});
        break;
    }
}

/* ---- the whole ------------------------------------------------------------------------------------------------------
 */

static tr_status begin(tr_simulate *s, uint32_t replica) {
    tr_simulate_replica *r = &s->replica[replica];
    const tr_scheduler_config *c = &r->config;
    TR_TRY(tr_scheduler_init(r->core, c));
    tell(s, replica, (tr_event){.kind = TR_EVENT_START, .from = TR_NOBODY});
    tell(s, replica, (tr_event){.kind = TR_EVENT_PEER_UP, .from = c->frontend, .incarnation = 1});
    for (uint32_t p = 0; p < c->n_pipelines; p++) {
        const uint32_t n = c->pipeline[p].n_ranks ? c->pipeline[p].n_ranks : c->pipeline[p].n_stages;
        for (uint32_t k = 0; k < n; k++)
            tell(s, replica, (tr_event){.kind = TR_EVENT_PEER_UP, .from = c->pipeline[p].stage[k], .incarnation = 1});
    }
    if (c->resharder == TR_NOBODY) return TR_OK;
    tell(s, replica, (tr_event){.kind = TR_EVENT_PEER_UP, .from = c->resharder, .incarnation = 1});
    if (c->two_resharders)
        tell(s, replica, (tr_event){.kind = TR_EVENT_PEER_UP, .from = c->resharder_to, .incarnation = 1});
    return TR_OK;
}

/* The next request may be sent, and before the next event. */
static bool due(const tr_simulate *s) {
    if (s->n_arrived == s->n_requests) return false;
    if (s->config->max_open > 0 && s->n_arrived - s->n_ended >= s->config->max_open) return false;
    return s->queue.n == 0 || s->request[s->n_arrived].at_ns <= s->queue.event[0].at;
}

/* The next event; false: nothing will happen any more. */
static bool next(tr_simulate *s, tr_simulate_event *e) {
    while (due(s)) {
        if (s->request[s->n_arrived].at_ns > s->now) s->now = s->request[s->n_arrived].at_ns;
        arrive(s);
    }
    if (!tr_simulate_queue_pop(&s->queue, e)) return false;
    s->now = e->at;
    s->result->events++;
    return true;
}

tr_status tr_simulate_run(void *memory, const tr_simulate_config *config, tr_simulate_request *requests,
                          uint32_t n_requests, tr_simulate_result *result_out) {
    carver c = {.at = memory};
    tr_simulate *s = memory;
    tr_simulate_event e;
    *result_out = (tr_simulate_result){0};
    if (!carve_all(&c, config, n_requests, s)) return TR_CONFIG;
    s->request = requests;
    s->result = result_out;
    for (uint32_t i = 0; i < config->n_replicas; i++) TR_TRY(begin(s, i));
    while (s->n_ended < n_requests && !s->overflow && next(s, &e)) dispatch(s, &e);
    result_out->end_ns = s->now;
    for (uint32_t i = 0; i < config->n_replicas; i++)
        for (uint32_t p = 0; p < config->scheduler.n_pipelines; p++)
            if (s->replica[i].pipeline[p].flying > 0) /* rows for nothing behind the last end */
                result_out->flying_ns[p] += s->now - s->replica[i].pipeline[p].since_ns;
    for (uint32_t i = 0; i < config->n_replicas; i++)
        if (s->replica[i].flying > 0) result_out->any_ns += s->now - s->replica[i].any_since_ns;
    return s->n_ended == n_requests ? TR_OK : TR_INTERNAL;
}

double tr_simulate_bubble(const tr_simulate_config *config, const tr_simulate_result *r, uint32_t pipeline,
                          uint32_t stage) {
    uint64_t busy = r->stage[pipeline][stage].busy_ns, wall = r->flying_ns[pipeline];
    if (config->scheduler.exclusive) {
        wall = r->any_ns;
        busy = 0;
        for (uint32_t p = 0; p < config->scheduler.n_pipelines; p++)
            for (uint32_t k = 0; k < config->scheduler.pipeline[p].n_stages; k++) busy += r->stage[p][k].busy_ns;
    }
    return wall > busy ? 1 - (double)busy / (double)wall : 0;
}
