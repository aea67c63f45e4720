/* I1: a child is spawned only when no process of it exists. I2: PEERS up of an incarnation is followed by PEERS down of
 * it before the next SPAWN. I3: EXIT is the last effect ever. */
#include "actors/supervisor/supervisor_core.h"

#include "base/rng.h"
#include "base/status.h"

#include <signal.h>
#include <string.h>

/* A timer that is this late says that the whole process slept (laptop lid, SIGSTOP of all): no verdict then. */
#define LATE_NS   500000000ull
#define POLL_NS   100000000ull
#define KILL_NS   1000000000ull
#define EXIT_SOFT 70

typedef tr_supervisor_core_child child;

tr_status tr_supervisor_core_init(tr_supervisor_core *s, const tr_supervisor_core_config *config) {
    if (config->n_children == 0 || config->n_children > TR_SUPERVISOR_CORE_CHILDREN) return TR_CONFIG;
    memset(s, 0, sizeof *s);
    s->config = *config;
    s->culprit = TR_NOBODY;
    for (uint32_t i = 0; i < config->n_children; i++) {
        for (uint32_t k = 0; k < i; k++)
            if (config->child[k] == config->child[i]) return TR_CONFIG;
        s->child[i] = (child){.actor = config->child[i], .state = TR_ACTOR_DEAD};
    }
    return TR_OK;
}

static tr_effect *emit(tr_effects *fx, tr_effect_kind kind, uint32_t to) {
    tr_check(fx->n < TR_EFFECTS_MAX);
    tr_effect *e = &fx->item[fx->n++];
    memset(e, 0, sizeof *e);
    e->kind = kind;
    e->to = to;
    return e;
}

static void spawn(child *c, uint64_t now, tr_effects *fx) {
    c->incarnation++;
    c->alive = 1;
    c->state = TR_ACTOR_INIT;
    c->busy = c->kill_sent = 0;
    c->respawn_ns = 0;
    c->spawned_ns = c->progress_ns = c->alive_ns = now;
    emit(fx, TR_EFFECT_SPAWN, c->actor)->incarnation = c->incarnation;
}

static void kill_child(child *c, int signal, tr_effects *fx) {
    tr_effect *e = emit(fx, TR_EFFECT_KILL, c->actor);
    e->incarnation = c->incarnation;
    e->signal = signal;
    if (signal == SIGKILL) c->kill_sent = 1;
}

static void peers(const child *c, bool up, bool counted, tr_effects *fx) {
    tr_effect *e = emit(fx, TR_EFFECT_PEERS, c->actor);
    e->incarnation = c->incarnation;
    e->up = up;
    e->counted = counted;
}

static bool any_alive(const tr_supervisor_core *s) {
    for (uint32_t i = 0; i < s->config.n_children; i++)
        if (s->child[i].alive) return true;
    return false;
}

static void leave(tr_supervisor_core *s, tr_effects *fx) {
    if (s->state == TR_ACTOR_DEAD) return;
    s->state = TR_ACTOR_DEAD;
    emit(fx, TR_EFFECT_EXIT, s->culprit)->exit_code = s->exit_code;
}

/* Begin the end; the first reason counts. */
static void end(tr_supervisor_core *s, int exit_code, uint32_t culprit, uint64_t now, tr_effects *fx) {
    if (s->state == TR_ACTOR_DRAINING || s->state == TR_ACTOR_DEAD) return;
    s->state = TR_ACTOR_DRAINING;
    s->exit_code = exit_code;
    s->culprit = culprit;
    s->deadline_ns = now + s->config.term_ns;
    for (uint32_t i = s->config.n_children; i-- > 0;) {
        child *c = &s->child[i];
        c->respawn_ns = 0;
        if (!c->alive) continue;
        c->state = TR_ACTOR_DRAINING;
        kill_child(c, SIGTERM, fx);
    }
    if (!any_alive(s)) leave(s, fx);
}

/* Remember a counted death; true when the budget is spent. */
static bool over_budget(child *c, uint64_t now) {
    uint32_t keep = 0;
    for (uint32_t i = 0; i < c->n_deaths; i++)
        if (now - c->death_ns[i] < TR_SUPERVISOR_CORE_WINDOW_NS) c->death_ns[keep++] = c->death_ns[i];
    c->n_deaths = keep;
    if (c->n_deaths < TR_SUPERVISOR_CORE_BUDGET) c->death_ns[c->n_deaths++] = now;
    return c->n_deaths >= TR_SUPERVISOR_CORE_BUDGET;
}

/* Wait before the next life: none after the first death in a row, then doubling. */
static uint64_t backoff(const tr_supervisor_core *s, const child *c) {
    if (c->n_deaths < 2) return 0;
    uint32_t doublings = c->n_deaths - 2 < 5 ? c->n_deaths - 2 : 5;
    return s->config.backoff_ns << doublings;
}

static child *find(tr_supervisor_core *s, uint32_t actor) {
    for (uint32_t i = 0; i < s->config.n_children; i++)
        if (s->child[i].actor == actor) return &s->child[i];
    return NULL;
}

static void on_exit_of(tr_supervisor_core *s, child *c, const tr_event *ev, tr_effects *fx) {
    if (!c->alive) return;
    bool was_ready = c->state == TR_ACTOR_READY;
    bool ours = ev->as.child_exit.ours || c->kill_sent;
    bool counted = !(ev->as.child_exit.signal == SIGKILL && !ours);
    c->alive = 0;
    c->busy = 0;
    c->state = TR_ACTOR_DEAD;
    if (s->state == TR_ACTOR_DRAINING) {
        if (!any_alive(s)) leave(s, fx);
        return;
    }
    if (was_ready) peers(c, false, counted, fx);
    if (!c->ready_once && ev->as.child_exit.signal == 0) {
        int code = ev->as.child_exit.exit_code;
        end(s, code > 0 ? code : EXIT_SOFT, c->actor, ev->now_ns, fx);
        return;
    }
    if (counted && over_budget(c, ev->now_ns)) {
        end(s, EXIT_SOFT, c->actor, ev->now_ns, fx);
        return;
    }
    c->restarts++;
    uint64_t wait = counted ? backoff(s, c) : 0;
    if (wait == 0)
        spawn(c, ev->now_ns, fx);
    else
        c->respawn_ns = ev->now_ns + wait;
}

static void company_ready(tr_supervisor_core *s) {
    for (uint32_t i = 0; i < s->config.n_children; i++)
        if (!s->child[i].ready_once) return;
    if (s->state == TR_ACTOR_INIT) s->state = TR_ACTOR_READY;
}

static void on_state_of(tr_supervisor_core *s, child *c, const tr_event *ev, tr_effects *fx) {
    if (!c->alive) return;
    uint64_t progress = ev->as.child_state.progress;
    if (progress != c->progress) {
        c->progress = progress;
        c->progress_ns = c->alive_ns = ev->now_ns;
        c->n_deaths = 0; /* it does useful work between its deaths */
    }
    if (ev->as.child_state.busy && !c->busy) c->progress_ns = c->alive_ns = ev->now_ns;
    if (ev->as.child_state.runs) c->alive_ns = ev->now_ns;
    c->busy = ev->as.child_state.busy;
    if (c->state == TR_ACTOR_INIT && ev->as.child_state.state == TR_ACTOR_READY) {
        c->state = TR_ACTOR_READY;
        c->ready_once = 1;
        peers(c, true, false, fx);
        company_ready(s);
    }
}

static bool lapsed(uint64_t since, uint64_t limit, uint64_t now) { return limit && now - since >= limit; }

static bool watched(const tr_supervisor_core *s, const child *c) {
    return c->state == TR_ACTOR_READY && c->busy && (s->config.lease_ns || s->config.hang_ns);
}

static void watch(tr_supervisor_core *s, child *c, uint64_t now, tr_effects *fx) {
    if (!c->alive) {
        if (c->respawn_ns != 0 && now >= c->respawn_ns) spawn(c, now, fx);
        return;
    }
    if (c->kill_sent) return;
    bool hangs = watched(s, c) && (lapsed(c->progress_ns, s->config.hang_ns, now) ||
                                   (c->busy == 1 && lapsed(c->alive_ns, s->config.lease_ns, now)));
    bool never = c->state == TR_ACTOR_INIT && lapsed(c->spawned_ns, s->config.start_ns, now);
    if (hangs || never) kill_child(c, SIGKILL, fx);
}

static void on_timer(tr_supervisor_core *s, uint64_t now, tr_effects *fx) {
    bool slept = s->timer_ns != 0 && now > s->timer_ns + LATE_NS;
    s->timer_ns = 0;
    for (uint32_t i = 0; slept && i < s->config.n_children; i++)
        s->child[i].progress_ns = s->child[i].alive_ns = s->child[i].spawned_ns = now;
    if (s->state == TR_ACTOR_DRAINING && now >= s->deadline_ns) {
        if (s->killed) {
            leave(s, fx); /* something that even SIGKILL does not end: do not wait for ever */
            return;
        }
        s->killed = 1;
        s->deadline_ns = now + KILL_NS;
        for (uint32_t i = s->config.n_children; i-- > 0;)
            if (s->child[i].alive) kill_child(&s->child[i], SIGKILL, fx);
        return;
    }
    for (uint32_t i = 0; s->state < TR_ACTOR_DRAINING && i < s->config.n_children; i++) watch(s, &s->child[i], now, fx);
}

/* Often enough for the shortest lease. */
static uint64_t poll_ns(const tr_supervisor_core *s) {
    uint64_t tenth = s->config.lease_ns / 10;
    return tenth != 0 && tenth < POLL_NS ? tenth : POLL_NS;
}

/* One timer serves all: the nearest respawn or deadline, else the poll of hangs. */
static void set_timer(tr_supervisor_core *s, uint64_t now, tr_effects *fx) {
    uint64_t at = UINT64_MAX;
    if (s->state == TR_ACTOR_DEAD) return;
    if (s->state == TR_ACTOR_DRAINING) at = s->deadline_ns;
    for (uint32_t i = 0; s->state < TR_ACTOR_DRAINING && i < s->config.n_children; i++) {
        const child *c = &s->child[i];
        bool timed = watched(s, c) || (c->state == TR_ACTOR_INIT && c->alive && s->config.start_ns);
        uint64_t want = c->respawn_ns ? c->respawn_ns : timed ? now + poll_ns(s) : UINT64_MAX;
        if (want < at) at = want;
    }
    if (at == UINT64_MAX || (s->timer_ns != 0 && s->timer_ns <= at)) return;
    s->timer_ns = at;
    emit(fx, TR_EFFECT_TIMER, TR_NOBODY)->delay_ns = at > now ? at - now : 0;
}

void tr_supervisor_core_step(tr_supervisor_core *s, const tr_event *event, tr_effects *fx) {
    fx->n = 0;
    child *c = find(s, event->from);
    switch (event->kind) {
    case TR_EVENT_START:
        for (uint32_t i = 0; i < s->config.n_children; i++)
            if (!s->child[i].alive && s->state == TR_ACTOR_INIT) spawn(&s->child[i], event->now_ns, fx);
        break;
    case TR_EVENT_CHILD_EXIT:
        if (c) on_exit_of(s, c, event, fx);
        break;
    case TR_EVENT_CHILD_STATE:
        if (c) on_state_of(s, c, event, fx);
        break;
    case TR_EVENT_TIMER: on_timer(s, event->now_ns, fx); break;
    case TR_EVENT_STOP: end(s, event->as.child_exit.exit_code, TR_NOBODY, event->now_ns, fx); break;
    default: return;
    }
    set_timer(s, event->now_ns, fx);
}

uint64_t tr_supervisor_core_digest(const tr_supervisor_core *s) {
    uint64_t h = tr_rng_hash(s->state, s->killed);
    for (uint32_t i = 0; i < s->config.n_children; i++) {
        const child *c = &s->child[i];
        h = tr_rng_hash(h, (uint64_t)c->incarnation << 32 | c->state << 8 | c->alive << 4 | c->busy);
        h = tr_rng_hash(tr_rng_hash(h, c->progress), (uint64_t)c->n_deaths << 32 | c->kill_sent);
    }
    return h;
}
