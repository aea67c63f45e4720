/* base/rng.h - counter-based and sequential pseudo-random numbers (splitmix64; Steele, Lea, Flood 2014).
 * Counter-based use (tr_rng_hash) keeps no state: the sampler and the simulator's model depend on that. */
#ifndef TR_RNG_H
#define TR_RNG_H
#include <stdint.h>

/* Mix 64 bits (splitmix64 finalizer). */
static inline uint64_t tr_rng_mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* Order-dependent combination of a running hash and one more word. */
static inline uint64_t tr_rng_hash(uint64_t h, uint64_t word) { return tr_rng_mix(h ^ tr_rng_mix(word)); }

typedef struct tr_rng {
    uint64_t state;
} tr_rng;

static inline uint64_t tr_rng_next(tr_rng *r) {
    uint64_t out = tr_rng_mix(r->state);
    r->state += 0x9e3779b97f4a7c15ull;
    return out;
}
/* Uniform in [0, n); n > 0. */
static inline uint64_t tr_rng_below(tr_rng *r, uint64_t n) {
    return (uint64_t)(((unsigned __int128)tr_rng_next(r) * n) >> 64);
}
/* Uniform in [0, 1). */
static inline double tr_rng_unit(tr_rng *r) { return (double)(tr_rng_next(r) >> 11) * 0x1.0p-53; }
#endif
