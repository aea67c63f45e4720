/* actors/store/store_core.h - queue of jobs of the store, one at a time. Pure core (transport/event.h).
 * In: STORE_GET, STORE_PUT, RESET (scheduler) · COMPUTED (driver; status, positions and bytes of the job).
 * Out: COMPUTE (the STORE_GET or STORE_PUT to run) · SEND of STORE_DONE and RESET_DONE to the scheduler.
 * Epoch rules are those of a resharder: 0 at birth, raised by RESET alone, other epochs are dropped, a repeated or
 * older job id of the epoch is dropped. Between COMPUTE and COMPUTED the driver may read (STORE_PUT) or write
 * (STORE_GET with fetch) the pages that the job names, and at no other time. The message of a COMPUTE effect stays
 * valid until its COMPUTED event. */
#ifndef TR_STORE_CORE_H
#define TR_STORE_CORE_H
#include "base/status.h"
#include "transport/event.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_STORE_CORE_QUEUE = 32, TR_STORE_CORE_GROUPS = 8 };

typedef struct tr_store_core_job {
    tr_msg msg; /* its list points to tok_min while it is current */
    uint32_t tok_min[TR_STORE_CORE_GROUPS];
} tr_store_core_job;

/* Memory of the caller; fields are private. */
typedef struct tr_store_core {
    uint32_t scheduler, epoch;
    uint64_t last_job; /* highest id taken in this epoch */
    uint32_t head, count;
    uint32_t computing;     /* 1: job current runs */
    uint32_t stale;         /* 1: the running job is of an older epoch */
    uint32_t reset_waiting; /* 1: RESET_DONE is owed when idle */
    tr_store_core_job current;
    tr_store_core_job queue[TR_STORE_CORE_QUEUE];
    uint64_t jobs, dropped, protocol_errors;
} tr_store_core;

void tr_store_core_init(tr_store_core *s, uint32_t scheduler);
void tr_store_core_step(tr_store_core *s, const tr_event *event, tr_effects *fx);
/* The running job is of an older epoch: its COMPUTED may come at once. */
bool tr_store_core_stale(const tr_store_core *s);
uint64_t tr_store_core_digest(const tr_store_core *s);
#endif
