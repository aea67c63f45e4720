#include "scheduler/simulate/simulate_queue.h"

static bool before(const tr_simulate_event *a, const tr_simulate_event *b) {
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

bool tr_simulate_queue_push(tr_simulate_queue *q, tr_simulate_event event) {
    if (q->n == q->room) return false;
    event.seq = q->pushed++;
    uint32_t i = q->n++;
    for (; i > 0 && before(&event, &q->event[(i - 1) / 2]); i = (i - 1) / 2) q->event[i] = q->event[(i - 1) / 2];
    q->event[i] = event;
    return true;
}

bool tr_simulate_queue_pop(tr_simulate_queue *q, tr_simulate_event *out) {
    if (q->n == 0) return false;
    *out = q->event[0];
    const tr_simulate_event last = q->event[--q->n];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child + 1 < q->n && before(&q->event[child + 1], &q->event[child])) child++;
        if (child >= q->n || !before(&q->event[child], &last)) break;
        q->event[i] = q->event[child];
        i = child;
    }
    q->event[i] = last;
    return true;
}
