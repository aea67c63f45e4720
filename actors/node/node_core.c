#include "actors/node/node_core.h"

#include <string.h>

enum { LATE_TICKS = 3 }; /* a tick later than this many ping intervals: this process slept */
enum { GAPS = 3, LIMIT_TIMES = 4 };
#define STRETCH_NS 5000000000ull

void tr_node_core_init(tr_node_core *c, uint64_t ping_ns, uint64_t silent_ns, uint64_t lost_ns, uint64_t now_ns) {
    memset(c, 0, sizeof *c);
    c->ping_ns = ping_ns;
    c->silent_ns = silent_ns;
    c->lost_ns = lost_ns;
    c->down_ns = c->tick_ns = now_ns;
}

void tr_node_core_up(tr_node_core *c, uint64_t now_ns) {
    c->up = true;
    c->lost = false;
    c->heard_ns = c->said_ns = now_ns;
}

void tr_node_core_heard(tr_node_core *c, uint64_t now_ns) {
    const uint64_t gap = now_ns > c->heard_ns ? now_ns - c->heard_ns : 0;
    if (now_ns - c->rotated_ns >= STRETCH_NS) {
        c->gap_ns[1] = c->gap_ns[0];
        c->gap_ns[0] = 0;
        c->rotated_ns = now_ns;
    }
    if (gap > c->gap_ns[0]) c->gap_ns[0] = gap;
    c->heard_ns = now_ns;
}

uint64_t tr_node_core_limit(const tr_node_core *c) {
    const uint64_t gap = c->gap_ns[0] > c->gap_ns[1] ? c->gap_ns[0] : c->gap_ns[1], want = GAPS * gap;
    if (want <= c->silent_ns) return c->silent_ns;
    return want < LIMIT_TIMES * c->silent_ns ? want : LIMIT_TIMES * c->silent_ns;
}

void tr_node_core_down(tr_node_core *c, uint64_t now_ns) {
    if (c->up) c->outages++;
    c->up = false;
    c->down_ns = now_ns;
}

tr_node_core_verdict tr_node_core_tick(tr_node_core *c, uint64_t now_ns) {
    uint64_t slept = now_ns - c->tick_ns;
    c->tick_ns = now_ns;
    if (slept > LATE_TICKS * c->ping_ns) {
        c->heard_ns += slept;
        c->down_ns += slept;
    }
    if (!c->up) {
        if (c->lost || now_ns < c->down_ns || now_ns - c->down_ns < c->lost_ns) return TR_NODE_CORE_FINE;
        c->lost = true;
        return TR_NODE_CORE_LOST;
    }
    if (now_ns > c->heard_ns && now_ns - c->heard_ns >= tr_node_core_limit(c)) return TR_NODE_CORE_DOWN;
    return now_ns - c->said_ns >= c->ping_ns ? TR_NODE_CORE_PING : TR_NODE_CORE_FINE;
}
