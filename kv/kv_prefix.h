/* kv/kv_prefix.h - which full pages of a pool hold which prefix of which prompt, so that a later prompt that begins the
 * same way uses them instead of computing them again.
 * A node is one logical page of a prefix: (parent node, tenant, page_tok tokens) -> a page id in each group, or none.
 * Nodes of one prefix form a chain from the first page on. A lookup hashes (keyed: base/siphash.h) and then compares
 * parent, tenant and tokens, so a hit is equality, whatever the hash does; a tenant's pages are found by that tenant
 * alone.
 * Who holds a page is told by kv/kv_pool.h: pages that nobody holds lie in a list a group, least recently used first,
 * and go when the pool needs them. A chain is given back from its end, so that ends go first.
 * One index belongs to one pool of one company: one numeric identity, one KV format. Which pages go in (those that the
 * prefill path wrote, or both paths where they are one) is the caller's rule: scheduler/reuse.c.
 * Private memory of the scheduler's core, gone with it. No heap, all arrays bounded by the pages of the pool; find and
 * insert are O(1) a page. Threads: one. */
#ifndef TR_KV_PREFIX_H
#define TR_KV_PREFIX_H
#include "base/siphash.h"
#include "kv/kv_layout.h"
#include "kv/kv_pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of whom: a keyed hash of a name that the client gives; 0 for none. */
typedef struct tr_kv_prefix_tenant {
    uint64_t h[2];
} tr_kv_prefix_tenant;

typedef struct tr_kv_prefix_stats {
    uint64_t inserted, evicted; /* pages */
} tr_kv_prefix_stats;

/* Bytes of an index for the pool; the caller gives memory of that size (64-byte aligned). */
size_t tr_kv_prefix_bytes(const tr_kv_layout *layout);
void tr_kv_prefix_init(tr_kv_prefix *c, const tr_kv_layout *layout, tr_siphash_key key);
tr_kv_prefix_tenant tr_kv_prefix_tenant_of(tr_siphash_key key, const char *name, size_t len);

/* Walk along tokens[0..n): how many full pages in a row are known. They stay the found ones until the next find,
 * insert, evict or flush. */
uint32_t tr_kv_prefix_find(tr_kv_prefix *c, tr_kv_prefix_tenant tenant, const uint32_t *tokens, uint32_t n);
/* Of the found pages the longest run [0, end) of which every group has what a query at position `query` sees, or, with
 * query 0, a query right behind the run; at most max pages. */
uint32_t tr_kv_prefix_usable(const tr_kv_prefix *c, uint32_t max, uint32_t query);
/* Page of the group in found page i, TR_KV_NO_PAGE where it is gone. */
uint32_t tr_kv_prefix_page(const tr_kv_prefix *c, uint32_t i, uint32_t group);

/* The node of found page i. */
uint64_t tr_kv_prefix_node(const tr_kv_prefix *c, uint32_t i);

/* Make known what is in a page of each group (TR_KV_NO_PAGE: none): the tokens behind the node `parent` (0: the first
 * page). Pages that are known already, and groups whose page of this node is known, are left alone. The node, 0 when
 * there is nothing to know of it. */
uint64_t tr_kv_prefix_insert(tr_kv_prefix *c, uint64_t parent, tr_kv_prefix_tenant tenant, const uint32_t *tokens,
                             const uint32_t page[TR_KV_GROUPS_MAX]);
/* Forget everything. Pages that are held stay so. */
void tr_kv_prefix_flush(tr_kv_prefix *c);
void tr_kv_prefix_get_stats(const tr_kv_prefix *c, tr_kv_prefix_stats *out);

/* For kv_pool.c. */
uint32_t tr_kv_prefix_cached(const tr_kv_prefix *c, uint32_t group); /* pages that nobody holds */
uint64_t tr_kv_prefix_cached_word(const tr_kv_prefix *c, uint32_t group, uint32_t word);
void tr_kv_prefix_pin(tr_kv_prefix *c, uint32_t group, uint32_t page);  /* it has a holder */
void tr_kv_prefix_park(tr_kv_prefix *c, uint32_t group, uint32_t page); /* it has none any more */
uint32_t tr_kv_prefix_evict(tr_kv_prefix *c, uint32_t group);           /* forget the oldest; there is one */
bool tr_kv_prefix_knows(const tr_kv_prefix *c, uint32_t group, uint32_t page);
#endif
