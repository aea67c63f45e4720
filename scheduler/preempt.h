/* scheduler/preempt.h - promises of KV pages that grow, and who gives way when there is nothing left to promise. Part
 * of the scheduler's core.
 * Who is let in has pages for what is known of it and a few tokens more; the promise grows while it decodes. When
 * nothing is left to promise, the last of those that run (order.h: by priority, then by arrival) gives way: its pages
 * are given back, its tokens stay in the journal, and it waits again at its place in the queue. When it is let in again
 * its prompt is prefilled (what the pools still hold of it is not) and its generated tokens are computed by the decode
 * path, several rows a step, as after a death: the same numbers, so the same text.
 *
 * Why it always ends: a sequence only ever gives way to one before it, and nobody is let in while a running one waits
 * for pages. So the first of those that run never gives way, but to one that is let in and comes before it: a chain
 * that ends, as there are finitely many, whatever order the queue has. It grows as soon as those behind it have nothing
 * in flight; alone it fits, or SUBMIT refused it. What it has left to do is bounded, and each of its steps does some.
 * When nobody runs, who comes next is let in.
 *
 * With a swap space its KV may be carried there instead, and back (scheduler/swap.h): that takes a job each way, during
 * which it counts as running and stopped; nothing else changes, and a job that fails only means computing again.
 *
 * What is in flight for a victim is waited for (I3): it is stopped, nothing new is issued for it. Who is stopped is
 * decided anew at every event, from nothing but what is there. */
#ifndef TR_PREEMPT_H
#define TR_PREEMPT_H
#include "kv/kv_budget.h"
#include "scheduler/scheduler.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum tr_preempt_how {
    TR_PREEMPT_COMPUTE,   /* it is computed again */
    TR_PREEMPT_TO_IMAGE,  /* what it had lies in the swap space */
    TR_PREEMPT_IMAGE_LOST /* it did not come back from there, and is computed again */
} tr_preempt_how;

/* Position up to which an admission promises pages. */
uint32_t tr_preempt_first_end(const tr_scheduler *s, uint32_t slot);
/* Every event: grow what decodes, first ones first; evict, or begin to carry out, where there is nothing to grow into.
 */
void tr_preempt_pump(tr_scheduler *s, tr_effects *fx);
/* Give back all pages of a sequence of which nothing is in flight, and let it wait again. */
void tr_preempt_evict(tr_scheduler *s, uint32_t slot, tr_preempt_how how);
/* What an admission must leave for those that grow. */
void tr_preempt_leave_room(const tr_scheduler *s, tr_kv_budget *b);
/* Who gives way to `slot`: UINT32_MAX, or a running sequence behind it that may (tr_preempt_may). */
uint32_t tr_preempt_victim(const tr_scheduler *s, uint32_t slot);
bool tr_preempt_may(const tr_scheduler *s, uint32_t slot);
/* Start: an eviction that a death interrupted is finished in the journal. True: there was one; the caller clears the
 * tables and then makes the word even. */
bool tr_preempt_mend(tr_scheduler *s, uint32_t slot);
#endif
