/* scheduler/order.h - who comes first, of those that wait and of those that run; private to scheduler/. */
#ifndef TR_ORDER_H
#define TR_ORDER_H
#include "scheduler/scheduler_state.h"

/* Among those that run: a comes before b. */
bool tr_order_before(const tr_scheduler *s, uint32_t a, uint32_t b);
/* Index in `waiting` of who comes next, of those that wait for nobody; closed: of samples whose leader is there.
 * NO_SLOT: none. */
uint32_t tr_order_next(const tr_scheduler *s, bool closed);
uint32_t tr_order_level(const tr_scheduler *s, uint32_t slot); /* of feedback queues; 0: first */
void tr_order_open(tr_scheduler *s, uint32_t slot);            /* an entry of the journal is there */
void tr_order_charge(tr_scheduler *s, uint32_t slot, uint32_t prompt, uint32_t output);
#endif
