/* scheduler/pace.h - how long a step with chunks may take, and what steps took; private to scheduler/. */
#ifndef TR_PACE_H
#define TR_PACE_H
#include "scheduler/scheduler_state.h"

/* Spans that a step may have: a chunk finds room beside a whole batch. */
static inline uint32_t spans_max(const tr_scheduler_config *c) {
    return c->max_batch < TR_MAX_SPANS ? c->max_batch + 1 : TR_MAX_SPANS;
}
/* In the decode phase: all handed over, something left to compute. */
static inline bool decoding(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    return q->decode_end > q->prefill_end && load(&entry_of(s, slot)->kv_moved) == q->prefill_end;
}
/* Path that computes a span. */
static inline uint32_t phase_of(const tr_scheduler *s, const tr_msg_span *span) {
    return span->pos0 < s->sequence[span->slot].prefill_end ? PREFILL : DECODE;
}
uint64_t tr_pace_slot_ns(const tr_scheduler *s); /* that a step with chunks may take */
/* Rows of a chunk from pos0 on that fit into what is left of the flight's slot, `most` at most. */
uint32_t tr_pace_rows(const tr_scheduler *s, const tr_flight *f, uint32_t pos0, uint32_t most);
void tr_pace_add(const tr_scheduler *s, tr_cost_work *work, uint32_t pos0, uint32_t rows);
tr_policy_look tr_pace_look(const tr_scheduler *s);              /* without the streams */
uint32_t tr_pace_share(const tr_scheduler *s, uint32_t streams); /* of so many, those of one decode step */
bool tr_pace_mixes(const tr_scheduler *s);                       /* decode rows join steps with chunks */
void tr_waits_tell(tr_scheduler *s);                             /* waits.c: once an event, at its end */
/* The flight was confirmed now; told_ns: what its last stage says. */
void tr_pace_learn(tr_scheduler *s, tr_flight *f, uint64_t told_ns);
#endif
