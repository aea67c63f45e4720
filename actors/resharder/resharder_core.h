/* actors/resharder/resharder_core.h - queue of hand-off jobs, one at a time. Pure core (transport/event.h).
 * In: RESHARD, RESET (scheduler) · COMPUTED (driver; as.computed.bytes = bytes written, total_ns = time of the job).
 * Out: COMPUTE (the RESHARD to run) · SEND of RESHARD_DONE and RESET_DONE to the scheduler.
 * Epoch rules are those of a stage: 0 at birth, raised by RESET alone, other epochs are dropped, a repeated or older
 * job id of the epoch is dropped. Jobs are idempotent overwrites, so one that ran half before a death is run again. The
 * message of a COMPUTE effect stays valid until its COMPUTED event. */
#ifndef TR_RESHARDER_CORE_H
#define TR_RESHARDER_CORE_H
#include "base/status.h"
#include "transport/event.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TR_RESHARDER_CORE_QUEUE = 64, TR_RESHARDER_CORE_GROUPS = 8 };

typedef struct tr_resharder_core_job {
    tr_msg_reshard msg;
    uint32_t tok_min[TR_RESHARDER_CORE_GROUPS];
} tr_resharder_core_job;

/* Memory of the caller; fields are private. */
typedef struct tr_resharder_core {
    uint32_t scheduler, epoch;
    uint64_t last_job; /* highest id taken in this epoch */
    uint32_t head, count;
    uint32_t computing;     /* 1: job current runs */
    uint32_t stale;         /* 1: the running job is of an older epoch */
    uint32_t reset_waiting; /* 1: RESET_DONE is owed when idle */
    char note[TR_MAX_NOTE_BYTES + 1];
    uint32_t quiet; /* 1: the other half of the hand-off tells success; set after init */
    tr_resharder_core_job current;
    tr_resharder_core_job queue[TR_RESHARDER_CORE_QUEUE];
    uint64_t jobs, dropped, protocol_errors;
} tr_resharder_core;

void tr_resharder_core_init(tr_resharder_core *r, uint32_t scheduler);
void tr_resharder_core_step(tr_resharder_core *r, const tr_event *event, tr_effects *fx);
bool tr_resharder_core_busy(const tr_resharder_core *r);
/* The running job is of an older epoch: its COMPUTED may come at once. */
bool tr_resharder_core_stale(const tr_resharder_core *r);
uint64_t tr_resharder_core_digest(const tr_resharder_core *r);
#endif
