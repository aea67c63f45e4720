/* stages/crowd.h - how many workers of a team take part, and how long they spin. Pure: time comes in as numbers.
 * Why: workers meet a hundred times in a decode step. With a core for each they are there within microseconds and a
 *      wait spins, because a sleep costs ten times that. Beside a busy process the worker on its core runs half of the
 *      time and all others wait for him: their cores do nothing, whether they spin or sleep. So one worker stays away:
 *      the rest and the busy process are as many as the cores, and each gets one. Now and then he tries again.
 * Spinning while he who is waited for has no core keeps it from him: every wait that spun in vain halves the time that
 * the next ones spin, one that did not doubles it again.
 * Judged by what the workers see themselves: the share of the time of runs that went by in waits so long that he who is
 * waited for has no core. Zeroed memory: all take part. Threads: one. */
#ifndef TR_CROWD_H
#define TR_CROWD_H
#include <stdbool.h>
#include <stdint.h>

/* Of spinning, then a worker sleeps: shorter than a time slice of the kernel, longer than workers are apart in one
 * operation. */
#define TR_CROWD_WAIT_NS   1000000ull
#define TR_CROWD_WINDOW_NS 200000000ull /* of runs, for one verdict */
enum {
    TR_CROWD_LOST = 2, /* one worker fewer when more than 1/2 is lost */
    TR_CROWD_TRY = 10, /* windows until one more takes part */
    TR_CROWD_CUT = 5   /* halvings of the time to spin at most: what operations of a layer take is left */
};

typedef struct tr_crowd {
    uint32_t away;    /* workers that do not take part */
    uint32_t windows; /* since that changed */
    uint64_t run_ns, lost_ns;
} tr_crowd;

/* Of spinning in a wait, after this many halvings. */
static inline uint64_t tr_crowd_spin_ns(uint32_t cut) { return TR_CROWD_WAIT_NS >> cut; }
/* Halvings after a wait. came: the others came while it was spinning. */
static inline uint32_t tr_crowd_spin_cut(uint32_t cut, bool came) {
    return came ? cut - (cut > 0) : cut + (cut < TR_CROWD_CUT);
}

/* A run took run_ns, of which a worker lost lost_ns in waits longer than TR_CROWD_WAIT_NS. n: workers there are. */
static inline void tr_crowd_add(tr_crowd *c, uint32_t n, uint64_t run_ns, uint64_t lost_ns) {
    c->run_ns += run_ns;
    c->lost_ns += lost_ns;
    if (c->run_ns < TR_CROWD_WINDOW_NS && c->lost_ns <= TR_CROWD_WINDOW_NS / TR_CROWD_LOST) return;
    if (c->lost_ns > c->run_ns / TR_CROWD_LOST && c->away + 1 < n)
        c->away++, c->windows = 0;
    else if (c->away > 0 && ++c->windows >= TR_CROWD_TRY)
        c->away--, c->windows = 0;
    c->run_ns = c->lost_ns = 0;
}
#endif
