/* Time, processes, links, and the loop. Events of one moment keep the order in which they were pushed. */
#include "tests/sim/sim.h"

#include "transport/codec.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

uint64_t sim_random(world *w, uint64_t n) { return tr_rng_below(&w->rng, n); }
bool sim_chance(world *w, uint32_t per_mille) { return sim_random(w, 1000) < per_mille; }
bool sim_faults_on(const world *w, fault f) { return (w->faults & f) && w->now < w->faults_until; }

uint64_t sim_delay(world *w) {
    if (sim_faults_on(w, STRAGGLER) && sim_chance(w, 10)) return sim_random(w, 10 * MS);
    return 100 + sim_random(w, w->delay_max);
}

/* ---- heap of events ---- */
static bool before(const event *a, const event *b) { return a->at != b->at ? a->at < b->at : a->seq < b->seq; }

void sim_push(world *w, uint64_t delay, what kind, uint32_t actor, uint32_t other, uint64_t arg) {
    if (w->n_heap == MAX_EVENTS) sim_fail(w, "too many events");
    event e = {.at = w->now + delay, .seq = w->seq++, .kind = kind, .actor = actor, .other = other, .arg = arg};
    if (actor < MAX_ACTORS) e.life = w->process[actor].life;
    uint32_t i = w->n_heap++;
    for (; i > 0 && before(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
}

static event pop(world *w) {
    event top = w->heap[0], last = w->heap[--w->n_heap];
    uint32_t i = 0;
    for (;;) {
        uint32_t c = 2 * i + 1;
        if (c >= w->n_heap) break;
        if (c + 1 < w->n_heap && before(&w->heap[c + 1], &w->heap[c])) c++;
        if (!before(&w->heap[c], &last)) break;
        w->heap[i] = w->heap[c];
        i = c;
    }
    w->heap[i] = last;
    return top;
}

/* ---- links ---- */
static link_t *link_of(world *w, uint32_t from, uint32_t to) {
    if (w->link[from][to] == NULL) w->link[from][to] = calloc(1, sizeof(link_t));
    if (w->link[from][to] == NULL) abort();
    return w->link[from][to];
}

static void enqueue(world *w, uint32_t from, uint32_t to, const uint8_t *data, uint32_t len) {
    link_t *k = link_of(w, from, to);
    if (k->n == MAX_LINK) sim_fail(w, "link %u -> %u is full", from, to);
    uint64_t at = w->now + sim_delay(w);
    if (at < k->last_at) at = k->last_at;
    k->last_at = at;
    message *m = &k->queue[(k->head + k->n++) % MAX_LINK];
    *m = (message){.at = at, .len = len, .data = malloc(len)};
    if (m->data == NULL) abort();
    memcpy(m->data, data, len);
    sim_push(w, at - w->now, W_MESSAGE, to, from, 0);
}

void sim_send(world *w, uint32_t from, uint32_t to, const tr_msg *msg) {
    static uint8_t buf[1 << 17];
    size_t len;
    tr_status st = tr_codec_encode(msg, buf, sizeof buf, &len);
    if (st != TR_OK) sim_fail(w, "message %u does not encode: %s", msg->type, tr_status_text(st));
    if (w->trace) {
        char text[160];
        sim_trace(w, "%u -> %u %s", from, to, tr_codec_log(msg, text, sizeof text));
    }
    w->digest = tr_rng_hash(w->digest, (uint64_t)from << 48 | (uint64_t)to << 32 | len);
    if (w->zmq && w->process[to].state == GONE) return; /* nobody is connected */
    if (w->cut == CUT_UNSEEN && sim_nodes_cross(w, from, to)) return;
    enqueue(w, from, to, buf, (uint32_t)len);
    if (sim_faults_on(w, DUPLICATE) && sim_chance(w, 60)) enqueue(w, from, to, buf, (uint32_t)len);
}

/* In zmq mode what is in flight from or to a dead process is lost: all towards it, a tail of what it sent. */
static void lose(world *w, uint32_t from, uint32_t to, uint32_t keep) {
    link_t *k = w->link[from][to];
    while (k != NULL && k->n > keep) free(k->queue[(k->head + --k->n) % MAX_LINK].data);
}

static void deliver(world *w, uint32_t from, uint32_t to) {
    static uint8_t arena_mem[1 << 17];
    link_t *k = link_of(w, from, to);
    if (w->process[to].state != ALIVE || k->n == 0) return;
    if (w->cut == CUT_SEEN && sim_nodes_cross(w, from, to)) return; /* its end delivers */
    message m = k->queue[k->head];
    if (m.at > w->now) {
        sim_push(w, m.at - w->now, W_MESSAGE, to, from, 0);
        return;
    }
    k->head = (k->head + 1) % MAX_LINK;
    k->n--;
    tr_codec_arena arena;
    tr_msg msg;
    tr_error err;
    uint8_t *copy = malloc(m.len); /* exact size: a reader beyond its end meets the sanitizer */
    if (copy == NULL) abort();
    memcpy(copy, m.data, m.len);
    free(m.data);
    tr_codec_arena_init(&arena, arena_mem, sizeof arena_mem);
    if (tr_codec_decode(copy, m.len, &arena, &msg, &err) != TR_OK) sim_fail(w, "decode: %s", err.text);
    tr_event ev = {.kind = TR_EVENT_MSG, .from = from, .msg = &msg};
    sim_driver_event(w, to, &ev);
    memset(copy, 0xee, m.len); /* whoever kept a view finds garbage */
    memset(arena_mem, 0xee, arena.used);
    free(copy);
}

/* ---- processes ---- */
static sim_kind kind_of(const world *w, uint32_t actor, int signal) {
    if (w->process[actor].dies_in_effects) return SIM_EFFECTS;
    if (w->in_step) return SIM_IN_STEP;
    if (signal != SIGKILL) return SIM_CRASHED;
    if (actor < FIRST_STAGE)
        return actor == FRONTEND ? SIM_FRONTEND : actor == SCHEDULER ? SIM_SCHEDULER : SIM_RESHARDER;
    if (w->store && actor == w->store_actor) return SIM_STORE;
    return actor < w->first_follower ? SIM_STAGE : SIM_RANK;
}

void sim_publish_state(world *w, uint32_t actor) { sim_push(w, sim_delay(w), W_CHILD_STATE, actor, 0, 0); }

void sim_kill(world *w, uint32_t actor, int signal, bool ours) {
    process *p = &w->process[actor];
    if (p->state == GONE) return;
    sim_trace(w, "actor %u dies, signal %d%s", actor, signal, ours ? " (ours)" : "");
    if (p->state == ALIVE && p->computing && !p->done_early) sim_driver_partial(w, actor);
    sim_ranks_died(w, actor);
    bool counted = !(signal == SIGKILL && !ours) && !w->stopped;
    if (!ours && !w->stopped) sim_faults_count(w, kind_of(w, actor, signal));
    if (counted) w->counted_deaths++;
    if (counted && w->counted_left > 0) w->counted_left--;
    w->total_deaths++;
    p->state = GONE;
    p->ready = p->busy = p->hung = p->computing = p->dies_in_effects = false;
    p->life++;
    if (actor == SCHEDULER) {
        w->crash_countdown = -1;
        sim_faults_look(w);
    }
    for (uint32_t a = 0; a < w->n_actors && w->zmq; a++) {
        lose(w, a, actor, 0);
        link_t *k = w->link[actor][a];
        if (k != NULL) lose(w, actor, a, (uint32_t)sim_random(w, k->n + 1));
    }
    if (w->zmq && actor >= FIRST_STAGE && actor < w->first_follower) {
        channel *in = w->channel[actor];
        in->n = 0;
        uint32_t to = actor + 1; /* a last stage writes tokens to the first */
        if (w->hi[actor] == w->model.n_layers)
            for (to = actor; w->lo[to] > 0;) to--;
        if (to != actor) {
            channel *out = w->channel[to];
            uint32_t keep = (uint32_t)sim_random(w, out->n + 1);
            if (out->n > 0 && keep == 0) keep = 1; /* the head may be in use */
            if (out->n > keep) out->n = keep;
        }
        if (w->lo[actor] > 0) sim_push(w, sim_delay(w), W_ROOM, actor - 1, 0, 0);
    }
    sim_push(w, 100 + sim_random(w, 2 * MS), W_CHILD_EXIT, actor, (uint32_t)signal, ours);
}

static void start(world *w, const event *e) {
    process *p = &w->process[e->actor];
    if (p->state != STARTING) return;
    p->state = ALIVE;
    p->present = true;
    sim_trace(w, "actor %u starts, incarnation %u", e->actor, p->incarnation);
    memset(p->seen_up, 0, sizeof p->seen_up);
    memset(p->seen_incarnation, 0, sizeof p->seen_incarnation);
    for (uint32_t a = 0; a < w->n_actors; a++) {
        p->seen_counted[a] = w->published[a].counted;
        sim_push(w, sim_delay(w), W_OBSERVE, e->actor, a, 0);
        link_t *k = w->link[a][e->actor];
        for (uint32_t i = 0; k != NULL && i < k->n; i++) sim_push(w, sim_delay(w), W_MESSAGE, e->actor, a, 0);
    }
    sim_driver_start(w, e->actor);
    if (w->process[e->actor].state == ALIVE) sim_push(w, sim_delay(w), W_READY, e->actor, 0, 0);
}

/* What a driver does when the control block of a peer changed. */
static void observe(world *w, uint32_t actor, uint32_t peer) {
    process *p = &w->process[actor];
    const published view = sim_nodes_view(w, actor, peer), *now = &view;
    if (p->state != ALIVE || actor == peer) return;
    if (p->seen_up[peer] && (!now->up || p->seen_incarnation[peer] != now->incarnation)) {
        tr_event ev = {.kind = TR_EVENT_PEER_DOWN, .from = peer, .incarnation = p->seen_incarnation[peer]};
        ev.as.counted = now->counted != p->seen_counted[peer];
        p->seen_counted[peer] = now->counted;
        p->seen_up[peer] = 0;
        sim_trace(w, "%u sees %u down%s", actor, peer, ev.as.counted ? " (counted)" : "");
        sim_driver_event(w, actor, &ev);
    }
    if (p->state == ALIVE && now->up && !p->seen_up[peer]) {
        tr_event ev = {.kind = TR_EVENT_PEER_UP, .from = peer, .incarnation = now->incarnation};
        ev.as.counted = now->counted != p->seen_counted[peer];
        p->seen_up[peer] = 1;
        sim_trace(w, "%u sees %u up, incarnation %u", actor, peer, now->incarnation);
        p->seen_incarnation[peer] = now->incarnation;
        p->seen_counted[peer] = now->counted;
        sim_driver_event(w, actor, &ev);
    }
}

static void chaos(world *w) {
    if (w->now >= w->faults_until) return;
    sim_push(w, 1 + sim_random(w, 2ull * w->crash_odds * US), W_CHAOS, CLIENTS, 0, 0);
    uint32_t actor = (uint32_t)sim_random(w, w->n_actors);
    fault kind = actor == FRONTEND          ? CRASH_FRONTEND
                 : actor == SCHEDULER       ? CRASH_SCHEDULER
                 : actor == RESHARDER_ACTOR ? CRASH_RESHARDER
                                            : CRASH_STAGE;
    process *p = &w->process[actor];
    if (!(w->faults & kind) || p->state == GONE) return;
    if (actor == SCHEDULER && (w->faults & CRASH_IN_STEP) && sim_random(w, 2) == 0) {
        w->crash_countdown = (int64_t)sim_random(w, 40);
    } else if ((w->faults & CRASH_IN_EFFECTS) && sim_random(w, 2) == 0 && p->state == ALIVE) {
        p->dies_in_effects = true;
    } else if ((w->faults & COUNTED) && w->counted_left > 0 && p->ready) {
        w->chaos_counted++;
        sim_kill(w, actor, SIGSEGV, false);
    } else {
        sim_kill(w, actor, SIGKILL, false);
    }
}

/* ---- the loop ---- */
static void supervisor_event(world *w, const event *e) {
    process *p = &w->process[e->actor];
    tr_event ev = {.from = e->actor};
    if (e->kind == W_CHILD_EXIT) {
        sim_ranks_leave(w, e->actor);
        ev.kind = TR_EVENT_CHILD_EXIT;
        ev.as.child_exit.exit_code = e->other == 0 ? 0 : -1;
        ev.as.child_exit.signal = (int)e->other;
        ev.as.child_exit.ours = e->arg != 0;
    } else {
        if (p->state != ALIVE) return;
        ev.kind = TR_EVENT_CHILD_STATE;
        ev.as.child_state.state = p->ready ? TR_ACTOR_READY : TR_ACTOR_INIT;
        ev.as.child_state.busy = p->busy;
        ev.as.child_state.progress = p->progress;
    }
    sim_driver_supervisor(w, &ev);
}

static void on_signal(world *w, const event *e) {
    process *p = &w->process[e->actor];
    if (p->state == GONE || p->life != e->life) return;
    if (e->other == SIGKILL) {
        if (p->hung || p->computing) w->chaos_counted++; /* one that is merely slow is taken for hung too */
        sim_kill(w, e->actor, SIGKILL, true);
    } else if (sim_random(w, 4) != 0) { /* some do not listen */
        p->state = GONE;
        p->life++;
        sim_push(w, 100 + sim_random(w, MS), W_CHILD_EXIT, e->actor, 0, 1);
    }
}

static void dispatch(world *w, const event *e) {
    process *p = e->actor < MAX_ACTORS ? &w->process[e->actor] : NULL;
    switch (e->kind) {
    case W_MESSAGE: deliver(w, e->other, e->actor); break;
    case W_RECORD:
    case W_ROOM: sim_driver_poll_channels(w, e->actor); break;
    case W_START:
        if (p->life == e->life) start(w, e);
        break;
    case W_READY:
        if (p->life != e->life || p->state != ALIVE) break;
        p->ready = true;
        sim_publish_state(w, e->actor);
        break;
    case W_OBSERVE: observe(w, e->actor, e->other); break;
    case W_LAYERS:
        if (p->life == e->life) sim_driver_layers(w, e->actor, e->arg);
        break;
    case W_COMPUTED:
        if (p->life == e->life) sim_driver_computed(w, e->actor, e->arg);
        break;
    case W_TIMER: {
        tr_event ev = {.kind = TR_EVENT_TIMER, .from = TR_NOBODY};
        if (e->actor == SUPERVISOR) {
            if (e->arg == w->supervisor_timer) sim_driver_supervisor(w, &ev);
        } else if (p->life == e->life && e->arg == p->timer && p->state == ALIVE) {
            sim_driver_event(w, e->actor, &ev);
        }
        break;
    }
    case W_CHILD_EXIT:
    case W_CHILD_STATE: supervisor_event(w, e); break;
    case W_SUBMIT:
        /* an admission writes more to shared memory than anything else */
        if (sim_faults_on(w, CRASH_SCHEDULER) && sim_faults_on(w, CRASH_IN_STEP) && sim_random(w, 3) == 0 &&
            w->crash_countdown < 0)
            w->crash_countdown = (int64_t)sim_random(w, 60);
        sim_frontend_submit(w, e->actor);
        break;
    case W_CANCEL: sim_frontend_cancel(w, e->actor); break;
    case W_CHAOS: chaos(w); break;
    case W_SIGNAL: on_signal(w, e); break;
    case W_ABORT:
        if (p->life == e->life) sim_ranks_abort(w, e->actor);
        break;
    case W_CUT: sim_nodes_cut(w); break;
    case W_CUT_SEEN: sim_nodes_seen(w); break;
    case W_CUT_END: sim_nodes_end(w); break;
    case W_CLIENT_DIES: sim_frontend_client_dies(w, e->actor); break;
    case W_SILENCE: sim_frontend_silence(w, e->actor); break;
    case W_STRIKE: sim_faults_strike(w, e->actor, e->other); break;
    }
}

static bool all_over(const world *w) {
    if (w->now < w->faults_until || w->process[SCHEDULER].state != ALIVE || w->process[FRONTEND].state != ALIVE)
        return false;
    for (uint32_t i = 0; i < w->n_requests; i++)
        if (!w->request[i].ended) return false;
    tr_journal *j = w->journal_mem;
    for (uint32_t i = 0; i < j->n_slots; i++)
        if (atomic_load(&tr_journal_at(j, i)->state) != TR_JOURNAL_FREE) return false;
    return true;
}

static void begin(world *w) {
    tr_supervisor_core_config c = {.n_children = w->n_actors,
                                   .lease_ns = 200 * MS,
                                   .hang_ns = 2 * S,
                                   .start_ns = 5 * S,
                                   .term_ns = 20 * MS,
                                   .backoff_ns = 2 * MS};
    for (uint32_t i = 0; i < w->n_actors; i++) c.child[i] = i;
    if (tr_supervisor_core_init(&w->supervisor, &c) != TR_OK) sim_fail(w, "supervisor configuration");
    tr_event ev = {.kind = TR_EVENT_START, .from = TR_NOBODY};
    sim_driver_supervisor(w, &ev);
    sim_push(w, sim_random(w, MS), W_CHAOS, CLIENTS, 0, 0);
}

bool sim_run(world *w) {
    uint64_t quiet_at = 0;
    begin(w);
    while (w->supervisor.state != TR_ACTOR_DEAD) {
        if (w->n_heap == 0) {
            for (uint32_t i = 0; i < w->n_actors; i++)
                if (w->process[i].state != ALIVE) sim_fail(w, "deadlock: actor %u is not there", i);
            tr_journal *j = w->journal_mem;
            for (uint32_t i = 0; i < j->n_slots; i++) {
                tr_journal_entry *e = tr_journal_at(j, i);
                if (atomic_load(&e->state) != TR_JOURNAL_FREE)
                    sim_fail(w, "deadlock: slot %u rid %lu state %u tokens %u prefilled %u moved %u decoded %u", i,
                             (unsigned long)e->rid, e->state, e->n_tokens, e->kv_prefilled, e->kv_moved, e->kv_decoded);
            }
            for (uint32_t i = 0; i < w->n_requests; i++)
                if (!w->request[i].ended) sim_fail(w, "deadlock: request %u", i);
            sim_fail(w, "deadlock: nothing will ever happen again");
        }
        event e = pop(w);
        w->now = e.at;
        w->n_events++;
        w->digest = tr_rng_hash(w->digest, e.at ^ (uint64_t)e.kind << 56 ^ (uint64_t)e.actor << 48);
        dispatch(w, &e);
        if (w->now > w->limit && !w->stopped) {
            for (uint32_t i = 0; i < w->n_requests; i++)
                if (!w->request[i].ended) sim_fail(w, "stuck: request %u did not end in time", i);
            sim_fail(w, "stuck: entries are not released");
        }
        if (w->stopped || (w->n_events % 16 != 0 && quiet_at == 0 && w->n_heap > 0)) continue;
        if (quiet_at == 0 && all_over(w)) quiet_at = w->now + 300 * MS;
        if (quiet_at == 0) continue;
        if (w->n_heap == 0 || w->now >= quiet_at || w->heap[0].at >= quiet_at) {
            if (!all_over(w)) { /* a late duplicate was at work */
                quiet_at = 0;
                continue;
            }
            sim_check_end(w);
            w->stopped = true;
            tr_event ev = {.kind = TR_EVENT_STOP, .from = TR_NOBODY};
            sim_driver_supervisor(w, &ev);
        }
    }
    for (uint32_t i = 0; i < w->n_actors; i++)
        if (w->process[i].state != GONE) sim_fail(w, "actor %u outlives the company", i);
    return true;
}
