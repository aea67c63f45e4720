/* scheduler/stored.h - prefixes from a store outside of the company, and into it: what the other files of the scheduler
 * need to know of stored.c. */
#ifndef TR_STORED_H
#define TR_STORED_H
#include "kv/kv_layout.h"
#include "scheduler/scheduler.h"

/* Where a sequence is with the store. Nothing is computed for it until that is decided. */
enum {
    TR_STORED_NO,   /* not, or not any more */
    TR_STORED_ASK,  /* how much of its prompt is there? */
    TR_STORED_LAY,  /* its first `found` positions come from there */
    TR_STORED_VOID, /* an earlier scheduler was at that: its pages go when nothing can write them any more */
};
enum { STORE_JOBS = 8 };
typedef struct tr_stored_job { /* a STORE_GET or STORE_PUT that is out */
    bool used, put;
    uint64_t job;
    uint32_t slot, tok1;
    uint32_t tok_min[TR_KV_GROUPS_MAX];
} tr_stored_job;

/* At its admission: is the store to be asked first? Then nothing is taken from the pools, which know [0, local) of it,
 * before that is decided. */
bool tr_stored_asks(const tr_scheduler *s, uint32_t slot, uint32_t local);
void tr_stored_pump(tr_scheduler *s, tr_effects *fx);
void tr_stored_done(tr_scheduler *s, const tr_msg_store_done *m);
void tr_stored_state(tr_scheduler *s, const tr_msg_store_state *m);
void tr_stored_reset(tr_scheduler *s); /* nothing of the old epoch runs any more */
/* Pages of it are still to be stored, or being read or written. */
bool tr_stored_holds(const tr_scheduler *s, uint32_t slot);
/* What lies below `pos` may go as far as it is not to be stored or being read: below the returned position. */
uint32_t tr_stored_floor(const tr_scheduler *s, uint32_t slot, uint32_t pos);
void tr_stored_take_over(tr_scheduler *s, uint32_t slot); /* behind the start of a scheduler */
#endif
