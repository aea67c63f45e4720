/* kv/kv_pool.h - who holds which pages of a pool: one bit and one count of holders a page, group after group. A page id
 * is valid in every process that mapped the pool. A page is held (bit set, count > 0), or free; of the free ones some
 * are cached (kv/kv_prefix.h knows what is in them): those are taken last, the least recently used first.
 * Why the bits: to find a free page is one instruction for 64 pages, one cache line for 512.
 * Invariants: I1 a bit is set exactly where the count is not 0. I2 n_free[g] counts the clear bits, cached ones
 * included: what is cached never stands in the way of what is asked for.
 * Borrows: layout and bitmap (shared memory of the supervisor; survives the owner), cache. Threads: one writer (the
 * scheduler's core); others may load bits and counts at any time (status). Errors: TR_EXHAUSTED (not enough pages in
 * the group: back-pressure), nothing is taken then. */
#ifndef TR_KV_POOL_H
#define TR_KV_POOL_H
#include "base/status.h"
#include "kv/kv_layout.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_kv_prefix tr_kv_prefix;

typedef struct tr_kv_pool {
    const tr_kv_layout *layout;
    _Atomic uint64_t *bitmap;             /* 1 = held; bits past n_pages of a group are 0 and never given out */
    _Atomic uint32_t *holders;            /* behind the bitmap */
    tr_kv_prefix *cache;                  /* NULL: nothing is cached */
    uint32_t word0[TR_KV_GROUPS_MAX + 1]; /* first word of each group */
    uint32_t page0[TR_KV_GROUPS_MAX + 1]; /* first count of each group */
    uint32_t n_free[TR_KV_GROUPS_MAX];
    uint32_t hint[TR_KV_GROUPS_MAX]; /* word where the next search begins */
} tr_kv_pool;

/* Bytes of bitmap and counts of a pool, a multiple of 64. */
size_t tr_kv_pool_bitmap_bytes(const tr_kv_layout *layout);
/* Take over bits and counts as they are (zeroed: all free), without a cache. */
void tr_kv_pool_attach(tr_kv_pool *p, const tr_kv_layout *layout, _Atomic uint64_t *bitmap);
/* Nobody holds anything: first half of a rebuild from the tables; tr_kv_pool_hold is the second. */
void tr_kv_pool_clear(tr_kv_pool *p);
/* One more holder of a page, which may be free, cached or held. False: no such page. */
bool tr_kv_pool_hold(tr_kv_pool *p, uint32_t group, uint32_t page);
/* Become the only holder of n pages, all or nothing, lowest numbers near the hint first; pages_out is filled only on
 * TR_OK. What was cached in them is forgotten. */
tr_status tr_kv_pool_take(tr_kv_pool *p, uint32_t group, uint32_t n, uint32_t *pages_out);
/* One holder less (giving back a free page is a bug of ours: tr_check). The last one's page is free; where it is known
 * to the cache it stays cached. */
void tr_kv_pool_free(tr_kv_pool *p, uint32_t group, uint32_t page);
uint32_t tr_kv_pool_holders(const tr_kv_pool *p, uint32_t group, uint32_t page);
bool tr_kv_pool_taken(const tr_kv_pool *p, uint32_t group, uint32_t page);
/* Free pages of a group, counted from the bits (any process). */
uint32_t tr_kv_pool_count_free(const tr_kv_pool *p, uint32_t group);
#endif
