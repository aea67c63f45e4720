/* actors/stage/follower.c - real driver of follower_core.h: a tensor parallel rank other than 0. Its workers wait for
 * the runs of rank 0 and compute their share of each; this thread only answers the scheduler. */
#include "actors/actors.h"
#include "actors/stage/follower_core.h"
#include "actors/stage/passes.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

#define QUIET_NS                                                                                                       \
    TR_NS_PER_MS /* between two looks whether the workers have come to rest, which takes a layer at most               \
                  */

typedef struct driver {
    tr_runtime *rt;
    tr_passes passes;
    _Atomic uint32_t inside; /* workers in a run */
    tr_follower_core core;
    tr_effects effects;
} driver;

/* On each worker. Busy while any is inside; who waits for other ranks raises the beat (stages/team.h). */
static void follow(void *self, uint32_t worker, uint32_t n_workers) {
    driver *d = self;
    tr_control_block *block = d->rt->block;
    if (atomic_fetch_add(&d->inside, 1) == 0) atomic_store(&block->busy, 1);
    tr_forward_follow(d->passes.forward[tr_team_what(d->passes.team) - 1], worker, n_workers);
    if (atomic_fetch_sub(&d->inside, 1) > 1) return;
    atomic_store(&block->busy, 0);
    if (!tr_team_aborted(d->passes.team)) atomic_fetch_add_explicit(&block->progress, 1, memory_order_relaxed);
}

static void on_event(void *self, const tr_event *event) {
    driver *d = self;
    tr_follower_core_step(&d->core, event, &d->effects);
    for (uint32_t i = 0; i < d->effects.n; i++)
        if (tr_runtime_send(d->rt, d->effects.item[i].to, &d->effects.item[i].msg) == TR_AGAIN)
            tr_log(TR_LOG_ERROR, "link_full", "to=%s", d->rt->company->actor[d->effects.item[i].to].name);
}

static void serve(driver *d) {
    tr_runtime *rt = d->rt;
    tr_follower_core_init(&d->core, rt->company->scheduler);
    tr_runtime_ready(rt);
    while (!tr_runtime_stopping(rt)) {
        uint32_t seen = tr_bell_read(&rt->block->bell);
        bool any = tr_runtime_pump(rt, on_event, d);
        if (d->core.waits && tr_team_idle(d->passes.team))
            on_event(d, &(tr_event){.kind = TR_EVENT_COMPUTED, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()});
        if (!any) tr_runtime_wait(rt, seen, d->core.waits ? QUIET_NS : UINT64_MAX, NULL);
    }
}

tr_status tr_follower_run(tr_runtime *rt, tr_error *err) {
    driver *d = calloc(1, sizeof *d);
    if (!d) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %s", rt->me->name);
    d->rt = rt;
    tr_status status = tr_passes_open(rt, follow, d, &d->passes, err);
    if (status == TR_OK) {
        atomic_store(&rt->block->placed, rt->me->n_cpus ? 1 : 2);
        serve(d);
    }
    tr_passes_close(&d->passes);
    free(d);
    return status;
}
