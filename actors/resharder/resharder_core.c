#include "actors/resharder/resharder_core.h"

#include "base/rng.h"
#include "base/status.h"

#include <string.h>

void tr_resharder_core_init(tr_resharder_core *r, uint32_t scheduler) {
    memset(r, 0, sizeof *r);
    r->scheduler = scheduler;
}

static tr_effect *emit(tr_effects *fx, tr_effect_kind kind, uint32_t to, tr_msg_type type) {
    tr_check(fx->n < TR_EFFECTS_MAX);
    tr_effect *e = &fx->item[fx->n++];
    memset(e, 0, sizeof *e);
    e->kind = kind;
    e->to = to;
    e->msg.type = type;
    return e;
}

static void on_reshard(tr_resharder_core *r, const tr_msg_reshard *m) {
    if (m->epoch != r->epoch || m->job <= r->last_job) {
        r->dropped++;
        return;
    }
    if (m->tok_min.len > TR_RESHARDER_CORE_GROUPS || m->tok0 > m->tok1 || r->count == TR_RESHARDER_CORE_QUEUE) {
        r->protocol_errors++;
        return;
    }
    tr_resharder_core_job *job = &r->queue[(r->head + r->count++) % TR_RESHARDER_CORE_QUEUE];
    job->msg = *m;
    if (m->tok_min.len > 0) memcpy(job->tok_min, m->tok_min.data, m->tok_min.len * sizeof *job->tok_min);
    r->last_job = m->job;
}

static void reset_done(tr_resharder_core *r, tr_effects *fx) {
    r->reset_waiting = 0;
    emit(fx, TR_EFFECT_SEND, r->scheduler, TR_MSG_RESET_DONE)->msg.as.reset_done.epoch = r->epoch;
}

static void on_reset(tr_resharder_core *r, const tr_msg_reset *m, tr_effects *fx) {
    if (m->epoch < r->epoch || m->epoch == 0) {
        r->dropped++;
        return;
    }
    if (m->epoch > r->epoch) {
        r->epoch = m->epoch;
        r->count = 0;
        r->last_job = 0;
        r->stale = r->computing;
    }
    if (r->stale)
        r->reset_waiting = 1;
    else
        reset_done(r, fx);
}

static void on_computed(tr_resharder_core *r, const tr_event *ev, tr_effects *fx) {
    if (!r->computing) {
        r->protocol_errors++;
        return;
    }
    r->computing = 0;
    if (r->stale) {
        r->stale = 0;
        if (r->reset_waiting) reset_done(r, fx);
        return;
    }
    r->jobs++;
    if (r->quiet && ev->as.computed.status == 0) return;
    tr_msg_reshard_done *m = &emit(fx, TR_EFFECT_SEND, r->scheduler, TR_MSG_RESHARD_DONE)->msg.as.reshard_done;
    m->epoch = r->current.msg.epoch;
    m->job = r->current.msg.job;
    m->status = ev->as.computed.status;
    m->bytes = ev->as.computed.bytes;
    m->ns = ev->as.computed.total_ns;
    size_t n = ev->as.computed.error ? strnlen(ev->as.computed.error, sizeof r->note - 1) : 0;
    if (n > 0) memcpy(r->note, ev->as.computed.error, n);
    m->note = (tr_str){r->note, (uint32_t)n};
}

static void pump(tr_resharder_core *r, tr_effects *fx) {
    if (r->computing || r->count == 0) return;
    r->current = r->queue[r->head];
    r->current.msg.tok_min.data = r->current.tok_min;
    r->head = (r->head + 1) % TR_RESHARDER_CORE_QUEUE;
    r->count--;
    r->computing = 1;
    emit(fx, TR_EFFECT_COMPUTE, TR_NOBODY, TR_MSG_RESHARD)->msg.as.reshard = r->current.msg;
}

void tr_resharder_core_step(tr_resharder_core *r, const tr_event *event, tr_effects *fx) {
    fx->n = 0;
    if (event->kind == TR_EVENT_COMPUTED) {
        on_computed(r, event, fx);
    } else if (event->kind == TR_EVENT_MSG && event->from == r->scheduler) {
        switch (event->msg->type) {
        case TR_MSG_RESHARD: on_reshard(r, &event->msg->as.reshard); break;
        case TR_MSG_RESET: on_reset(r, &event->msg->as.reset, fx); break;
        default: r->protocol_errors++;
        }
    } else if (event->kind == TR_EVENT_MSG) {
        r->protocol_errors++;
    }
    pump(r, fx);
}

bool tr_resharder_core_busy(const tr_resharder_core *r) { return r->computing; }
bool tr_resharder_core_stale(const tr_resharder_core *r) { return r->computing && r->stale; }

uint64_t tr_resharder_core_digest(const tr_resharder_core *r) {
    uint64_t h = tr_rng_hash(r->epoch, r->last_job);
    h = tr_rng_hash(h, (uint64_t)r->count << 8 | r->computing << 2 | r->stale << 1 | r->reset_waiting);
    if (r->computing) h = tr_rng_hash(h, r->current.msg.job);
    for (uint32_t i = 0; i < r->count; i++)
        h = tr_rng_hash(h, r->queue[(r->head + i) % TR_RESHARDER_CORE_QUEUE].msg.job);
    return h;
}
