/* What the real driver does around each core: run it, apply its effects, compute. */
#include "tests/sim/sim.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static world *crashing; /* whose scheduler runs now */

void sim_crash_point(void) {
    if (crashing == NULL || crashing->crash_countdown < 0) return;
    if (crashing->crash_countdown-- == 0) longjmp(crashing->crash_env, 1);
}

static void *core_memory(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p == NULL) abort();
    memset(p, 0, (bytes + 63) / 64 * 64);
    return p;
}

static void create_core(world *w, uint32_t actor) {
    process *p = &w->process[actor];
    free(p->core);
    p->core = NULL;
    if (actor == SCHEDULER) {
        size_t n = tr_scheduler_bytes(&w->scheduler);
        if (n == 0) sim_fail(w, "scheduler configuration");
        p->core = core_memory(n);
        if (tr_scheduler_init(p->core, &w->scheduler) != TR_OK) sim_fail(w, "scheduler configuration");
    } else if (actor == RESHARDER_ACTOR) {
        p->core = core_memory(sizeof(tr_resharder_core));
        tr_resharder_core_init(p->core, SCHEDULER);
    } else if (w->store && actor == w->store_actor) {
        p->core = core_memory(sizeof(tr_store_core));
        tr_store_core_init(p->core, SCHEDULER);
    } else if (actor >= w->first_follower) {
        p->core = core_memory(sizeof(tr_follower_core));
        tr_follower_core_init(p->core, SCHEDULER);
    } else if (actor >= FIRST_STAGE) {
        tr_stage_core_config c = {.scheduler = SCHEDULER,
                                  .first = w->lo[actor] == 0,
                                  .last = w->hi[actor] == w->model.n_layers,
                                  .queue = w->queue_depth[w->pipeline_of[actor]],
                                  .max_spans = w->scheduler.max_batch + 1, /* a chunk beside a batch */
                                  .max_rows = w->scheduler.max_rows};
        p->core = core_memory(tr_stage_core_bytes(&c));
        if (tr_stage_core_init(p->core, &c) != TR_OK) sim_fail(w, "stage configuration");
    }
}

void sim_driver_start(world *w, uint32_t actor) {
    process *p = &w->process[actor];
    p->computing = p->input_announced = p->room_announced = false;
    create_core(w, actor);
    if (actor == FRONTEND) sim_frontend_start(w);
    if (actor == SCHEDULER) {
        tr_event ev = {.kind = TR_EVENT_START, .from = TR_NOBODY};
        sim_driver_event(w, actor, &ev);
    }
    if (actor >= FIRST_STAGE && actor < w->first_follower) sim_push(w, sim_delay(w), W_RECORD, actor, 0, 0);
}

static channel *output_of(world *w, uint32_t actor) {
    return w->hi[actor] < w->model.n_layers ? w->channel[actor + 1] : NULL;
}

/* Tokens that the last stage sent to the first. */
static void poll_tokens(world *w, uint32_t actor) {
    channel *in = w->channel[actor];
    record *r = &in->queue[in->head];
    if (in->n == 0 || r->at > w->now) return;
    tr_wire_token data[TR_MAX_SPANS];
    tr_event ev = {.kind = TR_EVENT_TOKENS, .from = TR_NOBODY};
    ev.as.tokens.epoch = r->header.epoch;
    ev.as.tokens.step = r->header.step;
    ev.as.tokens.n = r->header.rows;
    ev.as.tokens.data = data;
    for (uint32_t i = 0; i < r->header.rows; i++)
        data[i] = (tr_wire_token){(uint32_t)(r->act[i] >> 32), (uint32_t)r->act[i]};
    in->head = (in->head + 1) % MAX_RECORDS;
    in->n--;
    if (in->n > 0) {
        uint64_t at = in->queue[in->head].at;
        sim_push(w, at > w->now ? at - w->now : 0, W_RECORD, actor, 0, 0);
    }
    sim_driver_event(w, actor, &ev);
}

void sim_driver_poll_channels(world *w, uint32_t actor) {
    process *p = &w->process[actor];
    if (p->state != ALIVE) return;
    if (w->lo[actor] == 0) poll_tokens(w, actor);
    channel *in = w->channel[actor], *out = output_of(w, actor);
    if (w->lo[actor] > 0 && in->n > 0 && !p->input_announced) {
        record *r = &in->queue[in->head];
        if (r->at <= w->now) {
            tr_event ev = {.kind = TR_EVENT_INPUT, .from = actor - 1, .as.input = r->header};
            p->input_announced = true;
            sim_driver_event(w, actor, &ev);
        }
    }
    if (p->state == ALIVE && out != NULL && out->n < out->cap && !p->room_announced) {
        tr_event ev = {.kind = TR_EVENT_OUTPUT_ROOM, .from = actor + 1};
        p->room_announced = true;
        sim_driver_event(w, actor, &ev);
    }
}

/* ---- computation ---- */
static request *request_of(world *w, uint64_t rid) {
    for (uint32_t i = 0; i < w->n_requests; i++)
        if (w->request[i].rid == rid) return &w->request[i];
    sim_fail(w, "step of an unknown request");
}

/* Span of the step that holds the faulty position of a poisonous or bad request; 0: none, else 1 + index. */
static uint32_t faulty_span(world *w, const tr_msg_step *m, bool poison) {
    for (uint32_t i = 0; i < m->spans.len; i++) {
        const tr_msg_span *s = &m->spans.data[i];
        const request *r = request_of(w, s->rid);
        if (!(poison ? r->poison : r->bad)) continue;
        if (r->fault_pos >= s->pos0 && r->fault_pos < s->pos0 + s->rows) return 1 + i;
    }
    return 0;
}

static void run_step(world *w, uint32_t actor, uint32_t max_rows) {
    process *p = &w->process[actor];
    channel *in = w->channel[actor];
    const tr_msg_step *m = &p->compute.as.step;
    if (w->lo[actor] > 0 && in->n == 0) sim_fail(w, "actor %u computes without input", actor);
    const uint64_t *x = w->lo[actor] > 0 ? in->queue[in->head].act : m->layer0 > 0 ? p->carried : NULL;
    sim_model_step(w, actor, m, x, p->out.act, p->sampled, max_rows);
    p->out.header = (tr_wire_header){.kind = TR_WIRE_ACTIVATION,
                                     .epoch = m->epoch,
                                     .step = m->step,
                                     .rows = m->tokens.len,
                                     .cols = 1,
                                     .phase = m->phase};
}

static uint64_t run(world *w, uint32_t actor, uint32_t limit) {
    process *p = &w->process[actor];
    if (p->compute.type == TR_MSG_STEP) {
        run_step(w, actor, limit);
        return 0;
    }
    if (p->compute.type != TR_MSG_RESHARD) {
        sim_store_run(w, actor, limit);
        return 0;
    }
    if (p->compute.as.reshard.file > 2) {
        p->file_failed = !sim_swap_run(w, &p->compute.as.reshard, limit);
        return 0;
    }
    if (p->compute.as.reshard.file) {
        p->file_failed = !sim_model_file(w, &p->compute.as.reshard, limit);
        return 0;
    }
    return sim_model_reshard(w, &p->compute.as.reshard, limit);
}

void sim_driver_partial(world *w, uint32_t actor) {
    process *p = &w->process[actor];
    if (p->status == 0) run(w, actor, (uint32_t)sim_random(w, 40));
}

static void compute(world *w, uint32_t actor, const tr_msg *m) {
    process *p = &w->process[actor];
    uint64_t duration = 100 + sim_random(w, w->compute_max);
    if (actor == w->slow_actor) duration *= w->slow_factor;
    if (p->computing) sim_fail(w, "actor %u computes twice at once", actor);
    if (sim_faults_on(w, SLOW) && sim_chance(w, 30)) duration *= 40;
    if (duration > 150 * MS) duration = 150 * MS; /* beyond 200 it counts as a hang */
    p->computing = p->busy = true;
    p->compute = *m;
    p->compute_no++;
    p->status = p->positions = 0;
    p->file_failed = false;
    sim_check_begin(w, actor);
    sim_publish_state(w, actor);
    bool stage = m->type == TR_MSG_STEP;
    if (stage) {
        w->total_steps++;
        p->status = faulty_span(w, &m->as.step, false);
        p->done_early = true; /* nothing was written, should it die now */
        if (p->status == 0 && !sim_ranks_begin(w, actor, &m->as.step)) return;
        uint32_t poison = faulty_span(w, &m->as.step, true);
        if (poison != 0 && w->counted_left > 0 && (w->lo[actor] == 0) == (w->seed % 2 == 0)) {
            request *r = request_of(w, m->as.step.spans.data[poison - 1].rid);
            const uint32_t others = CRASH_STAGE | CRASH_RESHARDER | CRASH_SCHEDULER | CRASH_FRONTEND | COUNTED | HANG;
            if (++r->kills > 2 && !(w->faults & others)) sim_fail(w, "a poisonous request runs a third time");
            w->poison_deaths++;
            p->done_early = true;
            sim_kill(w, actor, SIGSEGV, false);
            return;
        }
    }
    /* memory is touched at the beginning or at the end: a page reused too early is noticed either way */
    p->done_early = p->status == 0 && sim_random(w, 2) == 0;
    if (p->done_early) run(w, actor, UINT32_MAX);
    if (sim_faults_on(w, HANG) && w->counted_left > 0 && sim_chance(w, 3)) {
        sim_faults_count(w, SIM_HUNG);
        p->hung = true;
        if (!p->busy) sim_publish_state(w, actor); /* it seemed to wait for another rank */
        p->busy = true;
        return;
    }
    if (stage && m->as.step.phase == TR_PHASE_PREFILL && p->status == 0 && !w->scheduler.one_pool)
        for (uint32_t n = (uint32_t)sim_random(w, 3); n > 0; n--)
            sim_push(w, sim_random(w, duration), W_LAYERS, actor, 0, p->compute_no);
    sim_push(w, duration, W_COMPUTED, actor, 0, p->compute_no);
}

/* Some layers of the running step are complete, and those only. */
void sim_driver_layers(world *w, uint32_t actor, uint64_t compute_no) {
    process *p = &w->process[actor];
    if (p->state != ALIVE || p->hung || !p->computing || p->compute_no != compute_no) return;
    const tr_msg_step *m = &p->compute.as.step;
    const uint32_t lo = m->layer0 > w->lo[actor] ? m->layer0 : w->lo[actor], hi = w->hi[actor];
    const uint32_t end = lo + 1 + (uint32_t)sim_random(w, (m->layer1 > 0 ? m->layer1 : hi) - lo);
    w->hi[actor] = end;
    if (!p->done_early) run_step(w, actor, UINT32_MAX);
    w->hi[actor] = hi;
    tr_event ev = {.kind = TR_EVENT_LAYERS, .from = TR_NOBODY, .as.layers = {w->lo[actor], end}};
    sim_driver_event(w, actor, &ev);
}

void sim_driver_computed(world *w, uint32_t actor, uint64_t compute_no) {
    process *p = &w->process[actor];
    if (p->state != ALIVE || !p->computing || p->compute_no != compute_no) return;
    if (actor >= FIRST_STAGE && actor < w->first_follower && p->status == 0) {
        if (!sim_ranks_whole(w, actor)) return; /* it waits for one that will never come, until W_ABORT */
        sim_ranks_end(w, actor);
    }
    if (!p->done_early && p->status == 0) run(w, actor, UINT32_MAX);
    if (p->compute.type == TR_MSG_STEP && p->compute.as.step.layer1 > 0)
        memcpy(p->carried, p->out.act, p->compute.as.step.tokens.len * sizeof *p->carried);
    p->computing = p->busy = false;
    p->progress++;
    sim_publish_state(w, actor);
    tr_event ev = {.kind = TR_EVENT_COMPUTED, .from = TR_NOBODY};
    ev.as.computed.status = p->status;
    ev.as.computed.error = p->status ? "bad request: a row that no stage can compute" : NULL;
    if (p->file_failed) {
        ev.as.computed.status = 1;
        ev.as.computed.error = "no such file";
    }
    ev.as.computed.sampled = p->sampled;
    ev.as.computed.total_ns = 1000;
    ev.as.computed.bytes = p->compute.type == TR_MSG_RESHARD && p->compute.as.reshard.file > 2
                               ? sim_swap_moved(w, &p->compute.as.reshard)
                               : 64;
    ev.as.computed.positions = p->positions;
    sim_driver_event(w, actor, &ev);
}

/* ---- effects ---- */
static void publish_record(world *w, uint32_t actor) {
    process *p = &w->process[actor];
    channel *c = output_of(w, actor);
    if (c == NULL || c->n == c->cap) sim_fail(w, "actor %u publishes without room", actor);
    record *r = &c->queue[(c->head + c->n++) % MAX_RECORDS];
    r->header = p->out.header;
    memcpy(r->act, p->out.act, r->header.rows * sizeof *r->act);
    r->at = w->now + sim_delay(w);
    if (r->at < c->last_at) r->at = c->last_at;
    c->last_at = r->at;
    p->room_announced = false;
    sim_push(w, r->at - w->now, W_RECORD, actor + 1, 0, 0);
    sim_push(w, sim_delay(w), W_ROOM, actor, 0, 0);
}

static void feed(world *w, uint32_t actor) {
    process *p = &w->process[actor];
    const tr_msg_step *m = &p->compute.as.step;
    uint32_t first = actor;
    while (w->lo[first] > 0) first--;
    channel *c = w->channel[first];
    if (c->n == MAX_RECORDS) sim_fail(w, "actor %u feeds more than can be in flight", actor);
    record *r = &c->queue[(c->head + c->n++) % MAX_RECORDS];
    r->header = (tr_wire_header){.kind = TR_WIRE_TOKENS, .epoch = m->epoch, .step = m->step, .rows = m->spans.len};
    for (uint32_t i = 0; i < m->spans.len; i++) r->act[i] = (uint64_t)m->spans.data[i].slot << 32 | p->sampled[i];
    r->at = w->now + 100 + sim_random(w, w->delay_max); /* no straggler: nobody waits for it but a step ahead */
    if (r->at < c->last_at) r->at = c->last_at;
    c->last_at = r->at;
    sim_push(w, r->at - w->now, W_RECORD, first, 0, 0);
}

static void release_record(world *w, uint32_t actor) {
    channel *c = w->channel[actor];
    if (w->lo[actor] == 0 || !w->process[actor].input_announced || c->n == 0)
        sim_fail(w, "actor %u releases input that it was not shown", actor);
    c->head = (c->head + 1) % MAX_RECORDS;
    c->n--;
    w->process[actor].input_announced = false;
    for (uint32_t i = 0; i < c->n; i++) {
        uint64_t at = c->queue[(c->head + i) % MAX_RECORDS].at;
        sim_push(w, (at > w->now ? at - w->now : 0) + 50, W_RECORD, actor, 0, 0);
    }
    sim_push(w, sim_delay(w), W_ROOM, actor - 1, 0, 0);
}

static void apply(world *w, uint32_t actor, const tr_effect *e) {
    switch (e->kind) {
    case TR_EFFECT_SEND: sim_send(w, actor, e->to, &e->msg); break;
    case TR_EFFECT_COMPUTE: compute(w, actor, &e->msg); break;
    case TR_EFFECT_PUBLISH: publish_record(w, actor); break;
    case TR_EFFECT_FEED: feed(w, actor); break;
    case TR_EFFECT_RELEASE_INPUT: release_record(w, actor); break;
    case TR_EFFECT_TIMER: sim_push(w, e->delay_ns + 1, W_TIMER, actor, 0, ++w->process[actor].timer); break;
    default: sim_fail(w, "effect %d of actor %u", e->kind, actor);
    }
}

static bool step_scheduler(world *w, tr_event *ev) {
    if (ev->kind == TR_EVENT_MSG && ev->msg->type == TR_MSG_CANCEL && ev->msg->as.cancel.finish == TR_FINISH_ABORT)
        sim_faults_client(w, sim_request(w, ev->msg->as.cancel.rid), true);
    sim_faults_timeouts(w);
    crashing = w;
    if (setjmp(w->crash_env) != 0) {
        crashing = NULL;
        sim_check_journal(w, false);
        w->in_step = true;
        sim_kill(w, SCHEDULER, SIGKILL, false);
        w->in_step = false;
        return false;
    }
    tr_scheduler_step(w->process[SCHEDULER].core, ev, w->fx);
    crashing = NULL;
    sim_check_pages(w);
    sim_check_flight(w);
    sim_swap_check(w);
    sim_check_journal(w, true);
    sim_faults_look(w);
    w->digest = tr_rng_hash(w->digest, tr_scheduler_digest(w->process[SCHEDULER].core));
    return true;
}

void sim_driver_event(world *w, uint32_t actor, tr_event *ev) {
    process *p = &w->process[actor];
    if (p->state != ALIVE) return;
    ev->now_ns = w->now;
    w->fx->n = 0;
    if (actor == FRONTEND) {
        sim_frontend_event(w, ev);
    } else if (actor == SCHEDULER) {
        if (!step_scheduler(w, ev)) return;
    } else if (actor == RESHARDER_ACTOR) {
        tr_resharder_core_step(p->core, ev, w->fx);
        w->digest = tr_rng_hash(w->digest, tr_resharder_core_digest(p->core));
    } else if (w->store && actor == w->store_actor) {
        tr_store_core_step(p->core, ev, w->fx);
        w->digest = tr_rng_hash(w->digest, tr_store_core_digest(p->core));
    } else if (actor >= w->first_follower) {
        tr_follower_core_step(p->core, ev, w->fx);
        w->digest = tr_rng_hash(w->digest, tr_follower_core_digest(p->core));
    } else {
        tr_stage_core_step(p->core, ev, w->fx);
        w->digest = tr_rng_hash(w->digest, tr_stage_core_digest(p->core));
    }
    if (actor < RESHARDER_ACTOR) p->progress++;
    uint32_t n = w->fx->n;
    if (p->dies_in_effects && n > 0) n = (uint32_t)sim_random(w, n);
    for (uint32_t i = 0; i < n && p->state == ALIVE; i++) apply(w, actor, &w->fx->item[i]);
    if (p->dies_in_effects && w->fx->n > 0) sim_kill(w, actor, SIGKILL, false);
    if (actor >= w->first_follower && w->lead_of[actor] != actor) sim_ranks_quiet(w, actor);
}

void sim_driver_supervisor(world *w, tr_event *ev) {
    ev->now_ns = w->now;
    tr_supervisor_core_step(&w->supervisor, ev, w->fx);
    w->digest = tr_rng_hash(w->digest, tr_supervisor_core_digest(&w->supervisor));
    for (uint32_t i = 0; i < w->fx->n; i++) {
        const tr_effect *e = &w->fx->item[i];
        process *p = e->to < MAX_ACTORS ? &w->process[e->to] : NULL;
        switch (e->kind) {
        case TR_EFFECT_SPAWN:
            if (p->state != GONE) sim_fail(w, "actor %u is spawned beside itself", e->to);
            p->state = STARTING;
            p->incarnation = e->incarnation;
            sim_push(w, 100 + sim_random(w, 5 * MS), W_START, e->to, 0, 0);
            break;
        case TR_EFFECT_PEERS:
            w->published[e->to].incarnation = e->incarnation;
            w->published[e->to].up = e->up;
            if (e->counted) w->published[e->to].counted++;
            for (uint32_t a = 0; a < w->n_actors; a++) sim_push(w, sim_delay(w), W_OBSERVE, a, e->to, 0);
            break;
        case TR_EFFECT_KILL: sim_push(w, sim_delay(w), W_SIGNAL, e->to, (uint32_t)e->signal, 0); break;
        case TR_EFFECT_TIMER: sim_push(w, e->delay_ns, W_TIMER, SUPERVISOR, 0, ++w->supervisor_timer); break;
        case TR_EFFECT_EXIT:
            if (!w->stopped) sim_fail(w, "the supervisor gave up: exit %d because of actor %u", e->exit_code, e->to);
            if (e->exit_code != 0) sim_fail(w, "exit %d of an orderly end", e->exit_code);
            break;
        default: sim_fail(w, "effect %d of the supervisor", e->kind);
        }
    }
}
