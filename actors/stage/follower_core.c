#include "actors/stage/follower_core.h"

#include "base/rng.h"

#include <string.h>

void tr_follower_core_init(tr_follower_core *f, uint32_t scheduler) { *f = (tr_follower_core){.scheduler = scheduler}; }

static void on_msg(tr_follower_core *f, const tr_event *ev) {
    if (ev->from != f->scheduler || ev->msg->type != TR_MSG_RESET || ev->msg->as.reset.epoch == 0) {
        f->protocol_errors++;
        return;
    }
    if (ev->msg->as.reset.epoch < f->epoch) return;
    f->epoch = ev->msg->as.reset.epoch;
    f->waits = true;
}

void tr_follower_core_step(tr_follower_core *f, const tr_event *event, tr_effects *fx) {
    fx->n = 0;
    if (event->kind == TR_EVENT_MSG) on_msg(f, event);
    if (event->kind != TR_EVENT_COMPUTED || !f->waits) return;
    f->waits = false;
    tr_effect *e = &fx->item[fx->n++];
    memset(e, 0, sizeof *e);
    e->kind = TR_EFFECT_SEND;
    e->to = f->scheduler;
    e->msg.type = TR_MSG_RESET_DONE;
    e->msg.as.reset_done.epoch = f->epoch;
}

uint64_t tr_follower_core_digest(const tr_follower_core *f) { return tr_rng_hash(f->epoch, f->waits); }
