/* transport/sim_channel.h - the channel contract inside one process, for the simulator: a ring in private memory.
 * Faults are the owner's: with a hook set, a committed record goes to the hook instead of the consumer, and the owner
 * enqueues it never, once, twice or later. Threads: one. */
#ifndef TR_SIM_CHANNEL_H
#define TR_SIM_CHANNEL_H
#include "base/status.h"
#include "transport/channel.h"

typedef struct tr_sim_channel tr_sim_channel;
/* data is valid during the call, also while it enqueues. */
typedef void (*tr_sim_channel_hook)(void *self, const void *data, size_t bytes);

/* n_records of at most record_max bytes fit at any time. */
tr_status tr_sim_channel_create(size_t n_records, size_t record_max, tr_sim_channel **out, tr_error *err);
void tr_sim_channel_destroy(tr_sim_channel **c);
/* Views, valid until destroy or the restart of that end; closing them does nothing. */
tr_channel *tr_sim_channel_producer(tr_sim_channel *c);
tr_channel *tr_sim_channel_consumer(tr_sim_channel *c);
void tr_sim_channel_set_hook(tr_sim_channel *c, tr_sim_channel_hook hook, void *self); /* NULL: deliver at once */
/* Append a record behind all others. TR_AGAIN: full. TR_INVALID: 0 bytes or above record_max. */
tr_status tr_sim_channel_enqueue(tr_sim_channel *c, const void *data, size_t bytes);
size_t tr_sim_channel_pending(const tr_sim_channel *c);
/* The process at that end died: a reservation is gone, a peeked record is seen again. */
void tr_sim_channel_restart_producer(tr_sim_channel *c);
void tr_sim_channel_restart_consumer(tr_sim_channel *c);
/* Forget all records, as a link over the network does when an end dies. */
void tr_sim_channel_clear(tr_sim_channel *c);

#endif
