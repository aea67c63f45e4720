/* transport/channel.h - one contract for every one-way link between two actors: shared-memory ring, ZeroMQ, simulator.
 * A link has one producer and one consumer. Records arrive whole and in order; a record is contiguous and 64-byte
 * aligned. Producer: reserve -> fill -> commit. Consumer: peek -> use -> release. One record at a time on each side;
 * reserving again before commit gives up the first reservation, so a crashed or changed mind leaves no trace. AGAIN is
 * back-pressure (no room, nothing there), never an error; TR_INVALID: record larger than the channel can ever take.
 * Ring: indices and records lie in memory that survives either process; a new incarnation attaches and goes on.
 * ZeroMQ: records in a dead process are lost; protocols above re-send (epochs, journal), see docs/protocol.md.
 * Threads: each end by one thread. No heap after open for the ring. */
#ifndef TR_CHANNEL_H
#define TR_CHANNEL_H
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tr_channel tr_channel;

typedef struct tr_channel_ops {
    const char *name;
    tr_status (*reserve)(tr_channel *c, size_t bytes, void **data_out);
    tr_status (*commit)(tr_channel *c, size_t bytes); /* bytes <= reserved; wakes the consumer */
    tr_status (*peek)(tr_channel *c, const void **data_out, size_t *bytes_out); /* valid until release */
    void (*release)(tr_channel *c);                                             /* wakes a producer that met AGAIN */
    void (*close)(tr_channel *c);
    int (*wait_fd)(tr_channel *c); /* descriptor to poll for POLLIN now, -1: the doorbell is enough. Ask before each
                                      poll; a consumer only after peek, a producer only after reserve said AGAIN */
} tr_channel_ops;

struct tr_channel {
    const tr_channel_ops *ops;
};

static inline tr_status tr_channel_reserve(tr_channel *c, size_t n, void **data_out) {
    return c->ops->reserve(c, n, data_out);
}
static inline tr_status tr_channel_commit(tr_channel *c, size_t n) { return c->ops->commit(c, n); }
static inline tr_status tr_channel_peek(tr_channel *c, const void **data_out, size_t *n_out) {
    return c->ops->peek(c, data_out, n_out);
}
static inline void tr_channel_release(tr_channel *c) { c->ops->release(c); }
static inline void tr_channel_close(tr_channel *c) { c->ops->close(c); }

/* For the tables of implementations: the calls of the other end. TR_INVALID, nothing happens. */
tr_status tr_channel_not_reserve(tr_channel *c, size_t bytes, void **data_out);
tr_status tr_channel_not_commit(tr_channel *c, size_t bytes);
tr_status tr_channel_not_peek(tr_channel *c, const void **data_out, size_t *bytes_out);
void tr_channel_not_release(tr_channel *c);
#endif
