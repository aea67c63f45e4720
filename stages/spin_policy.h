/* stages/spin_policy.h - how long a worker spins at a barrier before it sleeps. Pure: time comes in as numbers.
 * Why: a barrier of a decode step is reached by all workers within a microsecond or two, a sleep costs ten times that.
 *      But a wait for somebody who has no core (more threads than cores, of whatever process) takes milliseconds, and
 *      spinning then keeps him from it.
 * Learns from its own waits, so that it needs no system call to know the load: the budget is a multiple of what waits
 * take while all have cores; when more than one wait in TR_SPIN_POLICY_MISS outlasts it, there is no spinning but for a
 * probe now and then. A wait that is long in every step (a sampler that one worker runs alone) changes nothing.
 * Zeroed memory is a fresh policy. Threads: one policy, one worker. */
#ifndef TR_SPIN_POLICY_H
#define TR_SPIN_POLICY_H
#include <stdint.h>

enum {
    TR_SPIN_POLICY_LEAST_NS = 8000,
    TR_SPIN_POLICY_MOST_NS = 25000,
    TR_SPIN_POLICY_TIMES = 16, /* budget over the usual wait */
    TR_SPIN_POLICY_MISS = 8,   /* a miss weighs as much as so many hits */
    TR_SPIN_POLICY_FULL = 24,  /* weight at which spinning ends */
    TR_SPIN_POLICY_PROBE = 64  /* waits from one probe to the next */
};

typedef struct tr_spin_policy {
    uint32_t usual_ns; /* moving mean of the waits that ended while spinning */
    uint32_t weight;   /* of recent misses */
    uint32_t sleeps;   /* waits without spinning that are left */
} tr_spin_policy;

/* Nanoseconds to spin in the wait that begins; 0: sleep at once. */
static inline uint32_t tr_spin_policy_budget(const tr_spin_policy *p) {
    if (p->sleeps > 0) return 0;
    uint32_t ns = p->usual_ns * TR_SPIN_POLICY_TIMES;
    if (ns < TR_SPIN_POLICY_LEAST_NS) return TR_SPIN_POLICY_LEAST_NS;
    return ns < TR_SPIN_POLICY_MOST_NS ? ns : TR_SPIN_POLICY_MOST_NS;
}

/* A wait with that budget ended after waited_ns of spinning, in which the others came; or they did not come. */
static inline void tr_spin_policy_hit(tr_spin_policy *p, uint64_t waited_ns) {
    const uint32_t ns = waited_ns < TR_SPIN_POLICY_MOST_NS ? (uint32_t)waited_ns : TR_SPIN_POLICY_MOST_NS;
    p->usual_ns = (15 * p->usual_ns + ns) / 16;
    p->weight -= p->weight > 0;
}
static inline void tr_spin_policy_miss(tr_spin_policy *p, uint32_t budget_ns) {
    if (budget_ns == 0) {
        p->sleeps--;
        return;
    }
    p->weight += TR_SPIN_POLICY_MISS;
    if (p->weight < TR_SPIN_POLICY_FULL) return;
    p->weight = TR_SPIN_POLICY_FULL - 1; /* a probe that misses says enough */
    p->sleeps = TR_SPIN_POLICY_PROBE;
}
#endif
