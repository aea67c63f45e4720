/* scheduler/slots.h - sets of slots as bits, in order of the slots, and slots by the id of their request; private to
 * scheduler/. Memory of the caller. */
#ifndef TR_SLOTS_H
#define TR_SLOTS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_slots {
    uint64_t *word; /* [tr_slots_words(n)] */
    uint32_t n;
} tr_slots;

static inline size_t tr_slots_words(uint32_t n) { return n / 64 + 1; }
static inline void tr_slots_add(tr_slots *s, uint32_t slot) { s->word[slot / 64] |= 1ull << slot % 64; }
static inline void tr_slots_remove(tr_slots *s, uint32_t slot) { s->word[slot / 64] &= ~(1ull << slot % 64); }
/* The first one from `from` on that is in the set, or n. */
static inline uint32_t tr_slots_next(const tr_slots *s, uint32_t from) {
    if (from >= s->n) return s->n;
    uint32_t i = from / 64;
    uint64_t left = s->word[i] & ~0ull << from % 64;
    while (left == 0 && ++i <= s->n / 64) left = s->word[i];
    return left != 0 ? i * 64 + (uint32_t)__builtin_ctzll(left) : s->n;
}
/* The first one from `from` on that is not, or n. */
static inline uint32_t tr_slots_next_free(const tr_slots *s, uint32_t from) {
    while (from < s->n && s->word[from / 64] >> from % 64 & 1) from++;
    return from;
}

/* Chains, one a bucket; a slot is in one chain at most. */
typedef struct tr_slots_index {
    uint32_t *first, *next; /* [buckets], [n]; slot or UINT32_MAX */
    uint32_t buckets;       /* a power of two */
} tr_slots_index;

static inline uint32_t tr_slots_buckets(uint32_t n) {
    uint32_t b = 64;
    while (b < n && b < 1u << 30) b *= 2;
    return b;
}
static inline uint32_t *tr_slots_chain(const tr_slots_index *x, uint64_t rid) {
    return &x->first[(rid ^ rid >> 32) * 0x9E3779B97F4A7C15ull >> 32 & (x->buckets - 1)];
}
static inline void tr_slots_enter(tr_slots_index *x, uint64_t rid, uint32_t slot) {
    uint32_t *chain = tr_slots_chain(x, rid);
    x->next[slot] = *chain;
    *chain = slot;
}
static inline void tr_slots_leave(tr_slots_index *x, uint64_t rid, uint32_t slot) {
    for (uint32_t *at = tr_slots_chain(x, rid); *at != UINT32_MAX; at = &x->next[*at]) {
        if (*at != slot) continue;
        *at = x->next[slot];
        return;
    }
}
#endif
