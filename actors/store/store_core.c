#include "actors/store/store_core.h"

#include "base/rng.h"

#include <string.h>

void tr_store_core_init(tr_store_core *s, uint32_t scheduler) {
    memset(s, 0, sizeof *s);
    s->scheduler = scheduler;
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

static void on_job(tr_store_core *s, const tr_msg *m, uint32_t epoch, uint64_t id, const tr_u32v *tok_min) {
    if (epoch != s->epoch || id <= s->last_job) {
        s->dropped++;
        return;
    }
    if (tok_min->len > TR_STORE_CORE_GROUPS || s->count == TR_STORE_CORE_QUEUE) {
        s->protocol_errors++;
        return;
    }
    tr_store_core_job *job = &s->queue[(s->head + s->count++) % TR_STORE_CORE_QUEUE];
    job->msg = *m;
    if (tok_min->len > 0) memcpy(job->tok_min, tok_min->data, tok_min->len * sizeof *job->tok_min);
    s->last_job = id;
}

static void reset_done(tr_store_core *s, tr_effects *fx) {
    s->reset_waiting = 0;
    emit(fx, TR_EFFECT_SEND, s->scheduler, TR_MSG_RESET_DONE)->msg.as.reset_done.epoch = s->epoch;
}

static void on_reset(tr_store_core *s, const tr_msg_reset *m, tr_effects *fx) {
    if (m->epoch < s->epoch || m->epoch == 0) {
        s->dropped++;
        return;
    }
    if (m->epoch > s->epoch) {
        s->epoch = m->epoch;
        s->count = 0;
        s->last_job = 0;
        s->stale = s->computing;
    }
    if (s->stale)
        s->reset_waiting = 1;
    else
        reset_done(s, fx);
}

static void on_computed(tr_store_core *s, const tr_event *ev, tr_effects *fx) {
    if (!s->computing) {
        s->protocol_errors++;
        return;
    }
    s->computing = 0;
    if (s->stale) {
        s->stale = 0;
        if (s->reset_waiting) reset_done(s, fx);
        return;
    }
    s->jobs++;
    const tr_msg *job = &s->current.msg;
    tr_msg_store_done *m = &emit(fx, TR_EFFECT_SEND, s->scheduler, TR_MSG_STORE_DONE)->msg.as.store_done;
    m->epoch = s->epoch;
    m->job = job->type == TR_MSG_STORE_PUT ? job->as.store_put.job : job->as.store_get.job;
    m->status = ev->as.computed.status;
    m->tok1 = ev->as.computed.positions;
    m->bytes = ev->as.computed.bytes;
}

static void pump(tr_store_core *s, tr_effects *fx) {
    if (s->computing || s->count == 0) return;
    tr_store_core_job *job = &s->current;
    *job = s->queue[s->head];
    s->head = (s->head + 1) % TR_STORE_CORE_QUEUE;
    s->count--;
    s->computing = 1;
    if (job->msg.type == TR_MSG_STORE_PUT)
        job->msg.as.store_put.tok_min.data = job->tok_min;
    else
        job->msg.as.store_get.tok_min.data = job->tok_min;
    emit(fx, TR_EFFECT_COMPUTE, TR_NOBODY, job->msg.type)->msg = job->msg;
}

static void on_msg(tr_store_core *s, const tr_msg *m, tr_effects *fx) {
    switch (m->type) {
    case TR_MSG_STORE_GET: on_job(s, m, m->as.store_get.epoch, m->as.store_get.job, &m->as.store_get.tok_min); break;
    case TR_MSG_STORE_PUT: on_job(s, m, m->as.store_put.epoch, m->as.store_put.job, &m->as.store_put.tok_min); break;
    case TR_MSG_RESET: on_reset(s, &m->as.reset, fx); break;
    default: s->protocol_errors++;
    }
}

void tr_store_core_step(tr_store_core *s, const tr_event *event, tr_effects *fx) {
    fx->n = 0;
    if (event->kind == TR_EVENT_COMPUTED)
        on_computed(s, event, fx);
    else if (event->kind == TR_EVENT_MSG && event->from == s->scheduler)
        on_msg(s, event->msg, fx);
    else if (event->kind == TR_EVENT_MSG)
        s->protocol_errors++;
    pump(s, fx);
}

bool tr_store_core_stale(const tr_store_core *s) { return s->computing && s->stale; }

uint64_t tr_store_core_digest(const tr_store_core *s) {
    uint64_t h = tr_rng_hash(s->epoch, s->last_job);
    return tr_rng_hash(h, (uint64_t)s->count << 8 | s->computing << 2 | s->stale << 1 | s->reset_waiting);
}
