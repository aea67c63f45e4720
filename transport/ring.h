/* transport/ring.h - one-way link in shared memory: ring of variable-length records, one producer, one consumer.
 * Why: activations are computed straight into the ring and read in place; no copy, no system call while the peer is
 * awake. Positions lie in the memory: either end may die at any moment and its next incarnation attaches and goes on. A
 * record that was not committed never existed; a record that was not released is seen again.
 * A record costs 64 bytes of head, is rounded up to 64, and is contiguous: what does not fit before the end of the
 * memory starts at its beginning. Largest record: capacity - 64; n records of at most m bytes in flight for sure:
 * tr_ring_capacity(n, m).
 * Owns: only the end (heap, at attach). Borrows: the memory and the bell of the peer.
 * Threads: each end by one thread; one live producer and one live consumer. Blocks: never.
 * Errors: reserve TR_AGAIN (full; the consumer rings the producer's bell when it releases), TR_INVALID (0 bytes or
 * larger than the ring takes); peek TR_AGAIN (empty), TR_PROTO (the memory was damaged: nothing is read beyond it). */
#ifndef TR_RING_H
#define TR_RING_H
#include "base/status.h"
#include "transport/bell.h"
#include "transport/channel.h"

/* Bytes of memory for a ring of that capacity (rounded up to 64). */
size_t tr_ring_bytes(size_t capacity);
/* Capacity that holds n_records records of at most record_max bytes at any time, whatever their sizes are. */
size_t tr_ring_capacity(size_t n_records, size_t record_max);
/* mem: tr_ring_bytes(capacity), 64-byte aligned. Once, before either end attaches. */
void tr_ring_init(void *mem, size_t capacity);
/* peer: rung after commit (producer) or after a release that a full producer waits for (consumer); NULL: nobody. */
tr_status tr_ring_attach_producer(void *mem, size_t capacity, tr_bell *peer, tr_channel **out, tr_error *err);
tr_status tr_ring_attach_consumer(void *mem, size_t capacity, tr_bell *peer, tr_channel **out, tr_error *err);
/* commit of a producer that wakes nobody: the consumer finds the record when something else wakes him. */
tr_status tr_ring_commit_quiet(tr_channel *producer, size_t bytes);
/* Records committed and not released, seen from either end; O(records). */
size_t tr_ring_pending(const tr_channel *c);

#endif
