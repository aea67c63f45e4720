/* actors/stage/follower_core.h - what a tensor parallel rank other than 0 says to the scheduler: that it is in no step
 * of an older epoch any more. Steps reach its workers through the team (stages/team.h), not through messages. Pure core
 * (transport/event.h).
 * In: RESET (scheduler) · COMPUTED (driver: no worker is in a run, nor will enter one that was started; to be raised
 * while the core waits for it). Out: SEND of RESET_DONE. Other events are ignored. */
#ifndef TR_FOLLOWER_CORE_H
#define TR_FOLLOWER_CORE_H
#include "transport/event.h"

typedef struct tr_follower_core {
    uint32_t scheduler; /* actor index */
    uint32_t epoch;     /* 0 at birth */
    bool waits;         /* a RESET is to be answered once all is quiet */
    uint64_t protocol_errors;
} tr_follower_core;

void tr_follower_core_init(tr_follower_core *f, uint32_t scheduler);
/* One event in, effects out (fx->n is reset first). */
void tr_follower_core_step(tr_follower_core *f, const tr_event *event, tr_effects *fx);
uint64_t tr_follower_core_digest(const tr_follower_core *f);
#endif
