#include "transport/sim_channel.h"
#include "base/checked.h"
#include "transport/ring.h"

#include <stdlib.h>
#include <string.h>

enum { LINE = 64 };

struct tr_sim_channel {
    tr_channel producer, consumer; /* what the actors hold; forward to the ring's ends */
    tr_channel *ring_producer, *ring_consumer;
    void *memory;
    size_t capacity, record_max;
    uint8_t *staging; /* [record_max], aligned: the record between reserve and commit */
    size_t reserved;
    tr_sim_channel_hook hook;
    void *hook_self;
};

static tr_sim_channel *of_producer(tr_channel *c) {
    return (tr_sim_channel *)((uint8_t *)c - offsetof(tr_sim_channel, producer));
}
static tr_sim_channel *of_consumer(tr_channel *c) {
    return (tr_sim_channel *)((uint8_t *)c - offsetof(tr_sim_channel, consumer));
}

/* Room is the ring's, so that back-pressure is real also with a hook. */
static tr_status reserve(tr_channel *c, size_t bytes, void **data_out) {
    tr_sim_channel *s = of_producer(c);
    void *slot;
    s->reserved = 0;
    if (bytes > s->record_max) return TR_INVALID;
    TR_TRY(tr_channel_reserve(s->ring_producer, bytes, &slot));
    s->reserved = bytes;
    *data_out = s->staging;
    return TR_OK;
}

static tr_status commit(tr_channel *c, size_t bytes) {
    tr_sim_channel *s = of_producer(c);
    if (bytes == 0 || bytes > s->reserved) return TR_INVALID;
    s->reserved = 0;
    if (!s->hook) return tr_sim_channel_enqueue(s, s->staging, bytes);
    s->hook(s->hook_self, s->staging, bytes);
    return TR_OK;
}

static tr_status peek(tr_channel *c, const void **data_out, size_t *bytes_out) {
    return tr_channel_peek(of_consumer(c)->ring_consumer, data_out, bytes_out);
}
static void release(tr_channel *c) { tr_channel_release(of_consumer(c)->ring_consumer); }

static void close_end(tr_channel *c) { (void)c; }
static int no_fd(tr_channel *c) {
    (void)c;
    return -1;
}
static const tr_channel_ops producer_ops = {"sim",     reserve, commit, tr_channel_not_peek, tr_channel_not_release,
                                            close_end, no_fd};
static const tr_channel_ops consumer_ops = {
    "sim", tr_channel_not_reserve, tr_channel_not_commit, peek, release, close_end, no_fd};

tr_status tr_sim_channel_create(size_t n_records, size_t record_max, tr_sim_channel **out, tr_error *err) {
    tr_sim_channel *s = calloc(1, sizeof *s);
    if (!s) return tr_error_set(err, TR_UNAVAILABLE, "no memory for a simulated link");
    s->producer.ops = &producer_ops;
    s->consumer.ops = &consumer_ops;
    s->record_max = record_max;
    s->capacity = tr_ring_capacity(n_records, record_max);
    s->memory = aligned_alloc(LINE, tr_ring_bytes(s->capacity));
    s->staging = aligned_alloc(LINE, tr_align_up(record_max, LINE));
    if (!s->memory || !s->staging) {
        tr_sim_channel_destroy(&s);
        return tr_error_set(err, TR_UNAVAILABLE, "no memory for a simulated link");
    }
    tr_ring_init(s->memory, s->capacity);
    tr_status status = tr_ring_attach_producer(s->memory, s->capacity, NULL, &s->ring_producer, err);
    if (status == TR_OK) status = tr_ring_attach_consumer(s->memory, s->capacity, NULL, &s->ring_consumer, err);
    if (status != TR_OK)
        tr_sim_channel_destroy(&s);
    else
        *out = s;
    return status;
}

void tr_sim_channel_destroy(tr_sim_channel **c) {
    tr_sim_channel *s = *c;
    if (!s) return;
    if (s->ring_producer) tr_channel_close(s->ring_producer);
    if (s->ring_consumer) tr_channel_close(s->ring_consumer);
    free(s->memory);
    free(s->staging);
    free(s);
    *c = NULL;
}

tr_channel *tr_sim_channel_producer(tr_sim_channel *c) { return &c->producer; }
tr_channel *tr_sim_channel_consumer(tr_sim_channel *c) { return &c->consumer; }

void tr_sim_channel_set_hook(tr_sim_channel *c, tr_sim_channel_hook hook, void *self) {
    c->hook = hook;
    c->hook_self = self;
}

tr_status tr_sim_channel_enqueue(tr_sim_channel *c, const void *data, size_t bytes) {
    void *slot;
    if (bytes > c->record_max) return TR_INVALID;
    TR_TRY(tr_channel_reserve(c->ring_producer, bytes, &slot));
    memcpy(slot, data, bytes);
    return tr_channel_commit(c->ring_producer, bytes);
}

size_t tr_sim_channel_pending(const tr_sim_channel *c) { return tr_ring_pending(c->ring_producer); }

/* Memory was allocated at create: attaching to it again fails only for lack of a few bytes of heap. */
void tr_sim_channel_restart_producer(tr_sim_channel *c) {
    c->reserved = 0;
    tr_channel_close(c->ring_producer);
    tr_check(tr_ring_attach_producer(c->memory, c->capacity, NULL, &c->ring_producer, NULL) == TR_OK);
}

void tr_sim_channel_restart_consumer(tr_sim_channel *c) {
    tr_channel_close(c->ring_consumer);
    tr_check(tr_ring_attach_consumer(c->memory, c->capacity, NULL, &c->ring_consumer, NULL) == TR_OK);
}

void tr_sim_channel_clear(tr_sim_channel *c) {
    const void *data;
    size_t bytes;
    while (tr_channel_peek(c->ring_consumer, &data, &bytes) == TR_OK) tr_channel_release(c->ring_consumer);
}
