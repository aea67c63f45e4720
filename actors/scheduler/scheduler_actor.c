/* actors/scheduler/scheduler_actor.c - real driver of scheduler/scheduler.h: links and bell in, messages out.
 * All state that matters lies in the journal, tables and bitmaps of the supervisor; this process may die at any
 * instruction. */
#include "actors/actors.h"
#include "base/clock.h"
#include "base/log.h"
#include "scheduler/scheduler.h"

#include <stdlib.h>
#include <string.h>

/* Prompt tokens that a question must be able to save: computing fewer takes about as long as asking. */
enum { STORE_LEAST = 64 };

typedef struct driver {
    tr_runtime *rt;
    tr_scheduler *core;
    tr_effects effects;
    uint64_t timer_ns;    /* 0: none */
    bool frontend_missed; /* an OUTPUT found its link full: the frontend gets everything again */
} driver;

static void fill_pipeline(const tr_company *c, uint32_t index, tr_scheduler_pipeline *out) {
    for (int lead = 1; lead >= 0; lead--)
        for (uint32_t a = 0; a < c->n_actors; a++) {
            const tr_company_actor *actor = &c->actor[a];
            if (actor->role != TR_ROLE_STAGE || actor->pipeline != index || (actor->rank == 0) != (lead == 1)) continue;
            out->stage[out->n_ranks++] = a; /* the plan has the stages in order */
            out->n_stages += (uint32_t)lead;
            out->feeds |= actor->phase[TR_PHASE_DECODE - 1].active != 0;
        }
    out->max_in_flight = c->max_in_flight[index];
}

static void fill_config(tr_runtime *rt, tr_scheduler_config *config) {
    const tr_company *c = rt->company;
    *config = (tr_scheduler_config){.n_pipelines = c->unified ? 1 : 2,
                                    .exclusive = c->exclusive,
                                    .frontend = c->frontend,
                                    .resharder = c->resharder,
                                    .resharder_to = c->resharder_to,
                                    .two_resharders = c->resharder_to != c->resharder,
                                    .policy = (tr_policy_id)c->policy,
                                    .slo_ns = c->slo_ns,
                                    .fair = c->fair,
                                    .has_store = c->store_actor != TR_NOBODY,
                                    .store = c->store_actor,
                                    .store_least = STORE_LEAST,
                                    .chunk = c->chunk,
                                    .max_rows = c->max_rows,
                                    .max_batch = c->max_batch,
                                    .max_waiting = c->max_waiting,
                                    .one_pool = c->one_pool,
                                    .prefix_cache = c->prefix_cache,
                                    .one_path = c->one_path,
                                    .prefix_key = c->prefix_key,
                                    .watermark = c->watermark,
                                    .promise_tok = c->promise_tok,
                                    .context = c->context,
                                    .vocab = c->vocab,
                                    .n_eos = c->n_eos,
                                    .journal = rt->segment[TR_SEGMENT_JOURNAL]};
    memcpy(config->eos, c->eos, sizeof config->eos);
    uint8_t *tables = rt->segment[TR_SEGMENT_TABLES];
    for (uint32_t p = 0; p < 2; p++) {
        uint32_t pool = c->one_pool ? 0 : p;
        config->layout[p] = c->layout[pool];
        config->table[p] = (uint32_t *)(void *)(tables + c->table_offset[pool]);
        config->bitmap[p] = (_Atomic uint64_t *)(void *)(tables + c->bitmap_offset[pool]);
    }
    for (uint32_t p = 0; p < config->n_pipelines; p++) fill_pipeline(c, p, &config->pipeline[p]);
}

/* Work that was done: between two crashes it says that the next life is worth a try. */
static bool is_progress(const tr_event *e) {
    return e->kind == TR_EVENT_MSG && (e->msg->type == TR_MSG_STEP_DONE || e->msg->type == TR_MSG_RESHARD_DONE ||
                                       e->msg->type == TR_MSG_STORE_DONE);
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
