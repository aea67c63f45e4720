/* stages/crowd.h - does another process stand on the cores of a team? Pure: time comes in as numbers.
 * Why: with cores to itself a team runs best with one worker bound to each core. Beside a busy process that is the
 *      worst: the worker on its core runs half of the time, all others wait for him, and the cores of those stay idle.
 *      Bound to all cores of the team, the kernel moves whoever is ready to the core that is free.
 * Judged by what the workers see themselves: the share of the time of runs that went by in waits which outlasted their
 * budget (spin_policy.h). Zeroed memory: cores to itself. Threads: one. */
#ifndef TR_CROWD_H
#define TR_CROWD_H
#include <stdbool.h>
#include <stdint.h>

#define TR_CROWD_WINDOW_NS 100000000ull /* of runs, for one verdict */
enum {
    TR_CROWD_ENTER = 4,  /* crowded when more than 1/4 is lost */
    TR_CROWD_LEAVE = 16, /* alone again when less than 1/16 is lost in TR_CROWD_CALM windows in a row */
    TR_CROWD_CALM = 10
};

typedef struct tr_crowd {
    bool crowded;
    uint32_t calm; /* windows */
    uint64_t run_ns, lost_ns;
} tr_crowd;

/* A run took run_ns, of which the worker who lost most lost lost_ns. True when the verdict has changed. */
static inline bool tr_crowd_add(tr_crowd *c, uint64_t run_ns, uint64_t lost_ns) {
    c->run_ns += run_ns;
    c->lost_ns += lost_ns;
    if (c->run_ns < TR_CROWD_WINDOW_NS) return false;
    const bool before = c->crowded;
    if (c->lost_ns > c->run_ns / TR_CROWD_ENTER) c->crowded = true;
    c->calm = c->lost_ns < c->run_ns / TR_CROWD_LEAVE ? c->calm + 1 : 0;
    if (c->calm >= TR_CROWD_CALM) c->crowded = false;
    c->run_ns = c->lost_ns = 0;
    return c->crowded != before;
}
#endif
