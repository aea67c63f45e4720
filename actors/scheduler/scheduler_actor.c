/* actors/scheduler/scheduler_actor.c - real driver of scheduler/scheduler.h: links and bell in, messages out.
 * All state that matters lies in the journal, tables and bitmaps of the supervisor; this process may die at any
 * instruction. */
#include "actors/actors.h"
#include "actors/runtime/company_scheduler.h"
#include "base/clock.h"
#include "base/log.h"
#include "scheduler/scheduler.h"

#include <stdlib.h>
#include <string.h>

typedef struct driver {
    tr_runtime *rt;
    tr_scheduler *core;
    tr_effects effects;
    uint64_t timer_ns;    /* 0: none */
    uint32_t waits[2];    /* as the stages know it */
    bool frontend_missed; /* an OUTPUT found its link full: the frontend gets everything again */
} driver;

static void fill_config(tr_runtime *rt, tr_scheduler_config *config) {
    const tr_company *c = rt->company;
    tr_company_scheduler(c, config);
    config->journal = rt->segment[TR_SEGMENT_JOURNAL];
    uint8_t *tables = rt->segment[TR_SEGMENT_TABLES];
    for (uint32_t p = 0; p < 2; p++) {
        uint32_t pool = c->one_pool ? 0 : p;
        config->table[p] = (uint32_t *)(void *)(tables + c->table_offset[pool]);
        config->bitmap[p] = (_Atomic uint64_t *)(void *)(tables + c->bitmap_offset[pool]);
    }
}

/* Work that was done: between two crashes it says that the next life is worth a try. */
static bool is_progress(const tr_event *e) {
    return e->kind == TR_EVENT_MSG && (e->msg->type == TR_MSG_STEP_DONE || e->msg->type == TR_MSG_RESHARD_DONE ||
                                       e->msg->type == TR_MSG_STORE_DONE);
}

static bool dry(uint32_t kind) { return kind == TR_LEDGER_STARVATION || kind == TR_LEDGER_KV_WAIT; }

/* A waiting stage books its time by the journal's word. Between words of a pipeline with steps in flight it looks soon
 * enough by itself. */
static void tell_waits(driver *d) {
    const tr_company *c = d->rt->company;
    const tr_journal *journal = d->rt->segment[TR_SEGMENT_JOURNAL];
    for (uint32_t p = 0; p < 2; p++) {
        const uint32_t before = d->waits[p], now = atomic_load_explicit(&journal->waits[p], memory_order_relaxed);
        d->waits[p] = now;
        if (now == before || !(dry(before) || dry(now))) continue;
        for (uint32_t a = 0; a < c->n_actors; a++)
            if (c->actor[a].role == TR_ROLE_STAGE && c->actor[a].pipeline == p && c->actor[a].rank == 0 &&
                tr_company_is_local(c, a))
                tr_bell_ring(&d->rt->control->actor[a].bell);
    }
}

static void on_event(void *self, const tr_event *event) {
    driver *d = self;
    tr_scheduler_step(d->core, event, &d->effects);
    for (uint32_t i = 0; i < d->effects.n; i++) {
        const tr_effect *e = &d->effects.item[i];
        if (e->kind == TR_EFFECT_TIMER) d->timer_ns = event->now_ns + e->delay_ns;
        if (e->kind != TR_EFFECT_SEND) continue;
        if ((e->quiet ? tr_runtime_send_quiet : tr_runtime_send)(d->rt, e->to, &e->msg) == TR_AGAIN) {
            if (e->to == d->rt->company->frontend)
                d->frontend_missed = true;
            else /* bounded in flight by design: links are sized for it */
                tr_log(TR_LOG_ERROR, "link_full", "to=%s", d->rt->company->actor[e->to].name);
        }
    }
    tell_waits(d);
    if (is_progress(event)) atomic_fetch_add_explicit(&d->rt->block->progress, 1, memory_order_relaxed);
}

/* What did not fit into the frontend's link is still in the journal: present the frontend as new. */
static void resend(driver *d) {
    if (!d->frontend_missed || !d->rt->peer[d->rt->company->frontend].up) return;
    d->frontend_missed = false;
    tr_event e = {.kind = TR_EVENT_PEER_UP,
                  .from = d->rt->company->frontend,
                  .incarnation = d->rt->peer[d->rt->company->frontend].incarnation,
                  .now_ns = tr_clock_now_ns()};
    on_event(d, &e);
}

static void fire(driver *d) {
    const uint64_t now = tr_clock_now_ns();
    if (d->timer_ns == 0 || now < d->timer_ns) return;
    d->timer_ns = 0;
    on_event(d, &(tr_event){.kind = TR_EVENT_TIMER, .from = TR_NOBODY, .now_ns = now});
}

static uint64_t wait_ns(const driver *d) {
    if (d->frontend_missed) return TR_NS_PER_MS;
    const uint64_t now = tr_clock_now_ns();
    return d->timer_ns == 0 ? UINT64_MAX : d->timer_ns > now ? d->timer_ns - now : 0;
}

tr_status tr_scheduler_actor_run(tr_runtime *rt, tr_error *err) {
    tr_scheduler_config config;
    fill_config(rt, &config);
    size_t bytes = tr_scheduler_bytes(&config);
    driver *d = calloc(1, sizeof *d);
    void *memory = bytes ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
    if (!d || !memory) {
        free(d);
        free(memory);
        return tr_error_set(err, bytes ? TR_UNAVAILABLE : TR_INTERNAL, "cannot set up the scheduler: %s",
                            bytes ? "no memory" : "its configuration is out of bounds");
    }
    memset(memory, 0, bytes);
    d->rt = rt;
    d->core = memory;
    tr_status status = tr_scheduler_init(d->core, &config);
    if (status == TR_OK) {
        tr_event start = {.kind = TR_EVENT_START, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()};
        on_event(d, &start);
        tr_runtime_ready(rt);
        while (!tr_runtime_stopping(rt)) {
            uint32_t seen = tr_bell_read(&rt->block->bell);
            bool any = tr_runtime_pump(rt, on_event, d);
            resend(d);
            fire(d);
            if (!any) tr_runtime_wait(rt, seen, wait_ns(d), NULL);
        }
    } else
        tr_error_set(err, status, "the scheduler refuses its configuration");
    free(memory);
    free(d);
    return status;
}
