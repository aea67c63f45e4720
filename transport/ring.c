/* Invariants: (I1) tail is written by the producer alone, head by the consumer alone; both count bytes since init, are
 * multiples of 64, and 0 <= tail - head <= capacity. (I2) bytes in [head, tail) belong to the consumer, all others to
 * the producer: an uncommitted record lies where nobody looks. (I3) the walk from head to tail meets a skip head, which
 * reaches to the end of the memory, or a record. (I4) what the other side wrote is read once into a local, checked, and
 * only the local is used: a mad peer can spoil records but not make this side leave the memory. */
#include "transport/ring.h"
#include "base/checked.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x31676e6972727474ull
enum { LINE = 64 };
#define SKIP UINT64_MAX /* in place of a length: the next record is at the start of the memory */

typedef struct memory {
    uint64_t magic, capacity;
    _Alignas(LINE) _Atomic uint64_t tail;
    _Alignas(LINE) _Atomic uint64_t head;
    _Alignas(LINE) _Atomic uint32_t producer_waits; /* set by a producer that met a full ring */
    _Alignas(LINE) uint8_t data[];
} memory;

typedef struct record_head {
    _Alignas(LINE) _Atomic uint64_t bytes;
} record_head;
_Static_assert(sizeof(record_head) == LINE, "payload is aligned");

/* One end. own and other cache the positions: the shared lines are read only when the cache says full or empty. */
typedef struct ring {
    tr_channel channel;
    memory *mem;
    tr_bell *peer;
    uint64_t capacity;
    uint64_t own;   /* producer: tail, consumer: head */
    uint64_t other; /* last position of the other side that was read */
    uint64_t bytes; /* reserved or peeked; 0: none */
    uint64_t skip;  /* producer: bytes to the end of the memory before the reserved record */
} ring;

static uint64_t footprint(uint64_t bytes) { return LINE + ((bytes + LINE - 1) & ~(uint64_t)(LINE - 1)); }
static size_t rounded(size_t capacity) { return tr_align_up(capacity, LINE); }

size_t tr_ring_bytes(size_t capacity) { return sizeof(memory) + rounded(capacity); }

/* The wrap wastes less than one record's place. */
size_t tr_ring_capacity(size_t n_records, size_t record_max) { return (n_records + 1) * footprint(record_max); }

void tr_ring_init(void *mem, size_t capacity) {
    tr_check(((uintptr_t)mem & (LINE - 1)) == 0);
    memory *m = mem;
    m->capacity = rounded(capacity);
    atomic_init(&m->tail, 0);
    atomic_init(&m->head, 0);
    atomic_init(&m->producer_waits, 0);
    m->magic = MAGIC;
}

static record_head *head_at(const ring *r, uint64_t position) {
    return (record_head *)(r->mem->data + position % r->capacity);
}

static bool positions_valid(uint64_t head, uint64_t tail, uint64_t capacity) {
    return tail - head <= capacity && ((head | tail) & (LINE - 1)) == 0;
}

/* ---- producer ---------------------------------------------------------------------------------------------------- */

/* TR_OK when `bytes` more fit behind the tail. */
static tr_status room(ring *r, uint64_t bytes) {
    if (r->capacity - (r->own - r->other) >= bytes) return TR_OK;
    memory *m = r->mem;
    for (int look = 0; look < 2; look++) {
        uint64_t head = atomic_load(&m->head);
        if (!positions_valid(head, r->own, r->capacity)) return TR_PROTO;
        r->other = head;
        if (r->capacity - (r->own - head) >= bytes) {
            if (look) atomic_store(&m->producer_waits, 0);
            return TR_OK;
        }
        /* Announce first, then look again: a release in between either sees the flag or is seen. */
        if (look == 0) atomic_store(&m->producer_waits, 1);
    }
    return TR_AGAIN;
}

static void publish(ring *r, uint64_t tail) {
    r->own = tail;
    atomic_store_explicit(&r->mem->tail, tail, memory_order_release);
}

static void wake(const ring *r) {
    if (r->peer) tr_bell_ring(r->peer);
}

static void write_head(ring *r, uint64_t position, uint64_t bytes) {
    atomic_store_explicit(&head_at(r, position)->bytes, bytes, memory_order_relaxed);
}

static tr_status reserve(tr_channel *c, size_t bytes, void **data_out) {
    ring *r = (ring *)c;
    r->bytes = 0;
    if (bytes == 0 || bytes > r->capacity - LINE) return TR_INVALID;
    uint64_t need = footprint(bytes), to_end = r->capacity - r->own % r->capacity;
    uint64_t skip = need > to_end ? to_end : 0;
    if (skip + need > r->capacity) {
        /* So large that it fits at the start only: pass the end on its own, else it could never be reserved. */
        TR_TRY(room(r, skip));
        write_head(r, r->own, SKIP);
        publish(r, r->own + skip), wake(r);
        skip = 0;
    }
    TR_TRY(room(r, skip + need));
    r->skip = skip;
    r->bytes = bytes;
    *data_out = (uint8_t *)head_at(r, r->own + skip) + LINE;
    return TR_OK;
}

tr_status tr_ring_commit_quiet(tr_channel *c, size_t bytes) {
    ring *r = (ring *)c;
    if (bytes == 0 || bytes > r->bytes) return TR_INVALID;
    if (r->skip) write_head(r, r->own, SKIP);
    write_head(r, r->own + r->skip, bytes);
    r->bytes = 0;
    publish(r, r->own + r->skip + footprint(bytes));
    return TR_OK;
}

static tr_status commit(tr_channel *c, size_t bytes) {
    TR_TRY(tr_ring_commit_quiet(c, bytes));
    wake((ring *)c);
    return TR_OK;
}

/* ---- consumer ---------------------------------------------------------------------------------------------------- */

static void advance(ring *r, uint64_t bytes) {
    r->own += bytes;
    atomic_store(&r->mem->head, r->own);
    if (atomic_load(&r->mem->producer_waits) && atomic_exchange(&r->mem->producer_waits, 0) && r->peer)
        tr_bell_ring(r->peer);
}

/* What stands at a position before tail: its footprint, and the bytes of its record (0: a skip). */
static tr_status look_at(const ring *r, uint64_t position, uint64_t tail, uint64_t *footprint_out,
                         uint64_t *bytes_out) {
    uint64_t to_end = r->capacity - position % r->capacity;
    uint64_t bytes = atomic_load_explicit(&head_at(r, position)->bytes, memory_order_relaxed);
    uint64_t step = to_end;
    if (bytes != SKIP) {
        if (bytes == 0 || bytes > r->capacity - LINE) return TR_PROTO;
        step = footprint(bytes);
    }
    if (step > to_end || step > tail - position) return TR_PROTO;
    *footprint_out = step;
    *bytes_out = bytes == SKIP ? 0 : bytes;
    return TR_OK;
}

static tr_status peek(tr_channel *c, const void **data_out, size_t *bytes_out) {
    ring *r = (ring *)c;
    while (r->bytes == 0) {
        if (r->own == r->other) {
            uint64_t tail = atomic_load_explicit(&r->mem->tail, memory_order_acquire);
            if (!positions_valid(r->own, tail, r->capacity)) return TR_PROTO;
            if (tail == r->own) return TR_AGAIN;
            r->other = tail;
        }
        uint64_t step;
        TR_TRY(look_at(r, r->own, r->other, &step, &r->bytes));
        if (r->bytes == 0) advance(r, step);
    }
    *data_out = (uint8_t *)head_at(r, r->own) + LINE;
    *bytes_out = r->bytes;
    return TR_OK;
}

static void release(tr_channel *c) {
    ring *r = (ring *)c;
    if (r->bytes == 0) return;
    uint64_t step = footprint(r->bytes);
    r->bytes = 0;
    advance(r, step);
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

static void close_end(tr_channel *c) { free(c); }
static int no_fd(tr_channel *c) {
    (void)c;
    return -1;
}

static const tr_channel_ops producer_ops = {"ring",    reserve, commit, tr_channel_not_peek, tr_channel_not_release,
                                            close_end, no_fd};
static const tr_channel_ops consumer_ops = {
    "ring", tr_channel_not_reserve, tr_channel_not_commit, peek, release, close_end, no_fd};

static tr_status attach(void *mem, size_t capacity, tr_bell *peer, bool producer, tr_channel **out, tr_error *err) {
    memory *m = mem;
    if (((uintptr_t)mem & (LINE - 1)) != 0 || m->magic != MAGIC || m->capacity != rounded(capacity) ||
        m->capacity < 2 * LINE)
        return tr_error_set(err, TR_INTERNAL, "shared memory does not hold a ring of %zu bytes", capacity);
    uint64_t tail = atomic_load(&m->tail), head = atomic_load(&m->head);
    if (!positions_valid(head, tail, m->capacity))
        return tr_error_set(err, TR_INTERNAL, "ring of %zu bytes is damaged (head %llu, tail %llu)", capacity,
                            (unsigned long long)head, (unsigned long long)tail);
    ring *r = calloc(1, sizeof *r);
    if (!r) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the end of a ring");
    r->channel.ops = producer ? &producer_ops : &consumer_ops;
    r->mem = m;
    r->peer = peer;
    r->capacity = m->capacity;
    r->own = producer ? tail : head;
    r->other = head; /* so a consumer reads tail, with acquire, at its first peek */
    *out = &r->channel;
    return TR_OK;
}

tr_status tr_ring_attach_producer(void *mem, size_t capacity, tr_bell *peer, tr_channel **out, tr_error *err) {
    return attach(mem, capacity, peer, true, out, err);
}

tr_status tr_ring_attach_consumer(void *mem, size_t capacity, tr_bell *peer, tr_channel **out, tr_error *err) {
    return attach(mem, capacity, peer, false, out, err);
}

size_t tr_ring_pending(const tr_channel *c) {
    const ring *r = (const ring *)c;
    uint64_t head = atomic_load(&r->mem->head), tail = atomic_load(&r->mem->tail);
    size_t n = 0;
    if (!positions_valid(head, tail, r->capacity)) return 0;
    while (head != tail) {
        uint64_t step, bytes;
        if (look_at(r, head, tail, &step, &bytes) != TR_OK) return n;
        if (bytes) n++;
        head += step;
    }
    return n;
}
