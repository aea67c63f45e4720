/* actors/node/node_core.h - is the other node there? Pure: time comes in, verdicts go out.
 * Up: something of its session was heard within the limit; whoever says nothing for ping_ns sends a ping. The limit is
 * silent_ns where the other side is punctual; beside busy processes pings come late on either side, so it is three
 * times the longest silence that ended by itself in the last five to ten seconds, at most four times silent_ns. Down:
 * since when, and after lost_ns it is given up, once. A process that slept itself (a late tick) gives no verdict for
 * that time. Threads: one. */
#ifndef TR_NODE_CORE_H
#define TR_NODE_CORE_H
#include <stdbool.h>
#include <stdint.h>

typedef enum tr_node_core_verdict {
    TR_NODE_CORE_FINE,
    TR_NODE_CORE_PING, /* say something */
    TR_NODE_CORE_DOWN, /* it has been silent for too long: the session is over */
    TR_NODE_CORE_LOST  /* it did not come back */
} tr_node_core_verdict;

typedef struct tr_node_core {
    uint64_t ping_ns, silent_ns, lost_ns;
    bool up, lost;
    uint64_t heard_ns, said_ns, down_ns, tick_ns;
    uint64_t gap_ns[2], rotated_ns; /* longest silence of this stretch of time and of the one before */
    uint64_t outages;               /* sessions that ended */
} tr_node_core;

void tr_node_core_init(tr_node_core *c, uint64_t ping_ns, uint64_t silent_ns, uint64_t lost_ns, uint64_t now_ns);
void tr_node_core_up(tr_node_core *c, uint64_t now_ns);
void tr_node_core_down(tr_node_core *c, uint64_t now_ns);
void tr_node_core_heard(tr_node_core *c, uint64_t now_ns);
/* Silence that is borne now. */
uint64_t tr_node_core_limit(const tr_node_core *c);
static inline void tr_node_core_said(tr_node_core *c, uint64_t now_ns) { c->said_ns = now_ns; }
/* At least every ping_ns. DOWN: to be answered by tr_node_core_down. */
tr_node_core_verdict tr_node_core_tick(tr_node_core *c, uint64_t now_ns);
#endif
