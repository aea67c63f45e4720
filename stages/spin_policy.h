/* stages/spin_policy.h - whether a worker spins at a barrier before it sleeps. Pure: a worker tells how its waits
 * ended. Why: a barrier of a decode step is reached by all workers within a few microseconds, a sleep costs ten times
 * that. But a wait for somebody who has no core (more threads than cores, of whatever process) takes milliseconds, and
 *      spinning then keeps him from it.
 * Learns from its own waits, so that it needs no system call to know the load: when more than one wait in
 * TR_SPIN_POLICY_MISS outlasts the budget, there is no spinning but for a probe now and then. A wait that is long in
 * every step (a sampler that one worker runs alone) changes nothing.
 * Zeroed memory is a fresh policy. Threads: one policy, one worker. */
#ifndef TR_SPIN_POLICY_H
#define TR_SPIN_POLICY_H
#include <stdint.h>

enum {
    TR_SPIN_POLICY_NS = 50000, /* of spinning in one wait; what operations of a layer take */
    TR_SPIN_POLICY_MISS = 8,   /* a miss weighs as much as so many hits */
    TR_SPIN_POLICY_FULL = 24,  /* weight at which spinning ends */
    TR_SPIN_POLICY_PROBE = 64  /* waits from one probe to the next */
};

typedef struct tr_spin_policy {
    uint32_t weight; /* of recent misses */
    uint32_t sleeps; /* waits without spinning that are left */
} tr_spin_policy;

/* Nanoseconds to spin in the wait that begins; 0: sleep at once. */
static inline uint32_t tr_spin_policy_budget(const tr_spin_policy *p) { return p->sleeps > 0 ? 0 : TR_SPIN_POLICY_NS; }

/* The others came while it was spinning. */
static inline void tr_spin_policy_hit(tr_spin_policy *p) { p->weight -= p->weight > 0; }

/* They did not come within the budget, which may have been 0. */
static inline void tr_spin_policy_miss(tr_spin_policy *p) {
    if (p->sleeps > 0) {
        p->sleeps--;
        return;
    }
    p->weight += TR_SPIN_POLICY_MISS;
    if (p->weight < TR_SPIN_POLICY_FULL) return;
    p->weight = TR_SPIN_POLICY_FULL - 1; /* a probe that misses says enough */
    p->sleeps = TR_SPIN_POLICY_PROBE;
}
#endif
