/* kv/kv_pool.h - which pages of a pool are taken: one bit a page, group after group, each group from a word of its own.
 * Why: a page id is valid in every process that mapped the pool, so the bits are the whole state; free counts are
 * caches. Borrows: layout and bitmap (shared memory of the supervisor; survives the owner). Threads: one writer (the
 * scheduler's core); others may load bits and words at any time (status). Errors: TR_EXHAUSTED (not enough pages in the
 * group: back-pressure), nothing is taken then. */
#ifndef TR_KV_POOL_H
#define TR_KV_POOL_H
#include "base/status.h"
#include "kv/kv_layout.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_kv_pool {
    const tr_kv_layout *layout;
    _Atomic uint64_t *bitmap;             /* 1 = taken; bits past n_pages of a group are 0 and never given out */
    uint32_t word0[TR_KV_GROUPS_MAX + 1]; /* first word of each group */
    uint32_t n_free[TR_KV_GROUPS_MAX];
    uint32_t hint[TR_KV_GROUPS_MAX]; /* word where the next search begins */
} tr_kv_pool;

/* Bytes of the bitmap of a pool, a multiple of 64. */
size_t tr_kv_pool_bitmap_bytes(const tr_kv_layout *layout);
/* Take over a bitmap as it is (zeroed: all free) and count. */
void tr_kv_pool_attach(tr_kv_pool *p, const tr_kv_layout *layout, _Atomic uint64_t *bitmap);
/* All pages free: first half of a rebuild from the tables; tr_kv_pool_mark is the second. */
void tr_kv_pool_clear(tr_kv_pool *p);
/* Take this page; false when it is no page of the group or taken already (two owners). */
bool tr_kv_pool_mark(tr_kv_pool *p, uint32_t group, uint32_t page);
/* Take n pages, all or nothing, lowest numbers near the hint first; pages_out is filled only on TR_OK. */
tr_status tr_kv_pool_take(tr_kv_pool *p, uint32_t group, uint32_t n, uint32_t *pages_out);
/* Give a taken page back (giving back a free one is a bug of ours: tr_check). */
void tr_kv_pool_free(tr_kv_pool *p, uint32_t group, uint32_t page);
bool tr_kv_pool_taken(const tr_kv_pool *p, uint32_t group, uint32_t page);
/* Free pages of a group, counted from the bits (any process). */
uint32_t tr_kv_pool_count_free(const tr_kv_pool *p, uint32_t group);
#endif
