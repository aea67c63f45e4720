/* scheduler/simulate/simulate_queue.h - events in the order of their time, those of one time in the order in which they
 * were pushed. A binary heap in memory of the caller. */
#ifndef TR_SIMULATE_QUEUE_H
#define TR_SIMULATE_QUEUE_H
#include <stdbool.h>
#include <stdint.h>

typedef struct tr_simulate_event {
    uint64_t at, seq;
    uint32_t kind, replica, pipeline, index;
    uint64_t a, b; /* what they mean depends on the kind */
} tr_simulate_event;

typedef struct tr_simulate_queue {
    tr_simulate_event *event; /* [room] */
    uint32_t n, room;
    uint64_t pushed;
} tr_simulate_queue;

/* False: full. */
bool tr_simulate_queue_push(tr_simulate_queue *q, tr_simulate_event event);
/* False: empty. */
bool tr_simulate_queue_pop(tr_simulate_queue *q, tr_simulate_event *out);
#endif
