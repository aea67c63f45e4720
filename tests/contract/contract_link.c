#include "tests/contract/contract_link.h"
#include "base/clock.h"
#include "tests/contract/contract_carrier.h"
#include "transport/ring.h"
#include "transport/zmq_channel.h"
#include "transport/zmq_socket.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

const char *const contract_kind_names[] = {"ring", "zmq", "sim", "carrier"};

_Noreturn void contract_fail(const char *cond, const char *file, int line) {
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, cond);
    abort();
}

static void *shared_memory(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CONTRACT_REQUIRE(p != MAP_FAILED);
    return p;
}

contract_link *contract_create(contract_kind kind, size_t n_records, size_t record_max) {
    contract_link *l = calloc(1, sizeof *l);
    CONTRACT_REQUIRE(l);
    l->kind = kind;
    l->record_max = record_max;
    l->capacity = tr_ring_capacity(n_records, record_max);
    l->durable = kind != CONTRACT_ZMQ;
    l->shared = shared_memory(sizeof *l->shared);
    tr_bell_init(&l->shared->producer_bell, -1);
    tr_bell_init(&l->shared->consumer_bell, -1);
    if (kind == CONTRACT_RING) {
        l->ring_bytes = tr_ring_bytes(l->capacity);
        l->ring_memory = shared_memory(l->ring_bytes);
        tr_ring_init(l->ring_memory, l->capacity);
    } else if (kind == CONTRACT_ZMQ) {
        strcpy(l->dir, "/tmp/tr-contract-XXXXXX");
        CONTRACT_REQUIRE(mkdtemp(l->dir));
        snprintf(l->endpoint, sizeof l->endpoint, "ipc://%s/link", l->dir);
    } else if (kind == CONTRACT_CARRIER) {
        l->ring_bytes = 2 * tr_ring_bytes(l->capacity);
        l->ring_memory = shared_memory(l->ring_bytes);
        for (size_t i = 0; i < 2; i++)
            tr_ring_init((uint8_t *)l->ring_memory + i * tr_ring_bytes(l->capacity), l->capacity);
        l->carrier = contract_carrier_start(l->ring_memory, (uint8_t *)l->ring_memory + tr_ring_bytes(l->capacity),
                                            l->capacity, &l->shared->producer_bell, &l->shared->consumer_bell);
    } else {
        CONTRACT_REQUIRE(tr_sim_channel_create(n_records, record_max, &l->sim, NULL) == TR_OK);
    }
    return l;
}

void contract_destroy(contract_link *l) {
    contract_close_producer(l);
    contract_close_consumer(l);
    contract_carrier_stop(l->carrier);
    tr_sim_channel_destroy(&l->sim);
    if (l->ring_memory) munmap(l->ring_memory, l->ring_bytes);
    munmap(l->shared, sizeof *l->shared);
    if (l->dir[0]) {
        unlink(l->endpoint + strlen("ipc://"));
        rmdir(l->dir);
    }
    free(l);
}

static void open_end(contract_link *l, bool producer, tr_channel **out) {
    tr_error err = {0};
    tr_status status = TR_OK;
    void **context = &l->context[producer ? 0 : 1];
    tr_bell *peer = producer ? &l->shared->consumer_bell : &l->shared->producer_bell;
    switch (l->kind) {
    case CONTRACT_RING:
        status = (producer ? tr_ring_attach_producer : tr_ring_attach_consumer)(l->ring_memory, l->capacity, peer, out,
                                                                                &err);
        break;
    case CONTRACT_CARRIER:
        if (producer)
            status = tr_ring_attach_producer(l->ring_memory, l->capacity, contract_carrier_bell(l->carrier), out, &err);
        else
            status = tr_ring_attach_consumer((uint8_t *)l->ring_memory + tr_ring_bytes(l->capacity), l->capacity,
                                             contract_carrier_bell(l->carrier), out, &err);
        break;
    case CONTRACT_ZMQ:
        CONTRACT_REQUIRE(tr_zmq_socket_context(context, &err) == TR_OK);
        status = (producer ? tr_zmq_channel_open_producer : tr_zmq_channel_open_consumer)(
            *context, l->endpoint, l->record_max, l->capacity, out, &err);
        break;
    case CONTRACT_KINDS: CONTRACT_REQUIRE(false);
    case CONTRACT_SIM: *out = producer ? tr_sim_channel_producer(l->sim) : tr_sim_channel_consumer(l->sim); break;
    }
    if (status != TR_OK) fprintf(stderr, "%s\n", err.text);
    CONTRACT_REQUIRE(status == TR_OK);
}

void contract_open_producer(contract_link *l) { open_end(l, true, &l->producer); }
void contract_open_consumer(contract_link *l) { open_end(l, false, &l->consumer); }

static void close_end(contract_link *l, tr_channel **end, void **context) {
    if (*end) tr_channel_close(*end);
    *end = NULL;
    if (*context) zmq_ctx_term(*context);
    *context = NULL;
    (void)l;
}

void contract_close_producer(contract_link *l) {
    close_end(l, &l->producer, &l->context[0]);
    if (l->sim) tr_sim_channel_restart_producer(l->sim);
}

void contract_close_consumer(contract_link *l) {
    close_end(l, &l->consumer, &l->context[1]);
    if (l->sim) tr_sim_channel_restart_consumer(l->sim);
}

/* As an actor waits: on the descriptor where there is one, else on its bell. */
static void wait_for(tr_channel *c, tr_bell *bell, uint32_t seen, uint64_t timeout_ns) {
    int fd = c->ops->wait_fd(c);
    if (fd >= 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        poll(&p, 1, (int)(timeout_ns / TR_NS_PER_MS) + 1);
    } else {
        tr_bell_wait(bell, seen, 0, timeout_ns);
    }
}

bool contract_reserve(contract_link *l, size_t bytes, void **data_out, int timeout_ms) {
    uint64_t end = tr_clock_now_ns() + (uint64_t)timeout_ms * TR_NS_PER_MS;
    for (;;) {
        uint32_t seen = tr_bell_read(&l->shared->producer_bell);
        tr_status status = tr_channel_reserve(l->producer, bytes, data_out);
        if (status == TR_OK) return true;
        CONTRACT_REQUIRE(status == TR_AGAIN);
        uint64_t now = tr_clock_now_ns();
        if (now >= end) return false;
        wait_for(l->producer, &l->shared->producer_bell, seen, end - now);
    }
}

bool contract_peek(contract_link *l, const void **data_out, size_t *bytes_out, int timeout_ms) {
    uint64_t end = tr_clock_now_ns() + (uint64_t)timeout_ms * TR_NS_PER_MS;
    for (;;) {
        uint32_t seen = tr_bell_read(&l->shared->consumer_bell);
        tr_status status = tr_channel_peek(l->consumer, data_out, bytes_out);
        if (status == TR_OK) return true;
        CONTRACT_REQUIRE(status == TR_AGAIN);
        uint64_t now = tr_clock_now_ns();
        if (now >= end) return false;
        wait_for(l->consumer, &l->shared->consumer_bell, seen, end - now);
    }
}

/* Many small records, some large ones, the largest now and then. */
size_t contract_record_bytes(uint64_t seq, size_t record_max) {
    uint64_t h = tr_rng_mix(seq), span = record_max - CONTRACT_RECORD_MIN + 1;
    if (h % 61 == 0) return record_max;
    uint64_t limit = h % 4 == 0 || span < 200 ? span : 200;
    return CONTRACT_RECORD_MIN + (size_t)(tr_rng_mix(h) % limit);
}

void contract_record_fill(uint64_t seq, void *data, size_t bytes) {
    uint8_t *p = data;
    tr_rng r = {seq ^ 0x5eed};
    memcpy(p, &seq, CONTRACT_RECORD_MIN);
    for (size_t i = CONTRACT_RECORD_MIN; i < bytes; i += 8) {
        uint64_t word = tr_rng_next(&r);
        memcpy(p + i, &word, bytes - i < 8 ? bytes - i : 8);
    }
}

uint64_t contract_record_check(const void *data, size_t bytes, size_t record_max) {
    const uint8_t *p = data;
    uint64_t seq;
    CONTRACT_REQUIRE(bytes >= CONTRACT_RECORD_MIN);
    CONTRACT_REQUIRE(((uintptr_t)data & 63) == 0);
    memcpy(&seq, p, CONTRACT_RECORD_MIN);
    CONTRACT_REQUIRE(bytes == contract_record_bytes(seq, record_max));
    tr_rng r = {seq ^ 0x5eed};
    for (size_t i = CONTRACT_RECORD_MIN; i < bytes; i += 8) {
        uint64_t word = tr_rng_next(&r);
        CONTRACT_REQUIRE(memcmp(p + i, &word, bytes - i < 8 ? bytes - i : 8) == 0);
    }
    return seq;
}

bool contract_send(contract_link *l, uint64_t seq, int timeout_ms) {
    void *data;
    size_t bytes = contract_record_bytes(seq, l->record_max);
    if (!contract_reserve(l, bytes, &data, timeout_ms)) return false;
    CONTRACT_REQUIRE(((uintptr_t)data & 63) == 0);
    contract_record_fill(seq, data, bytes);
    return tr_channel_commit(l->producer, bytes) == TR_OK;
}

bool contract_receive(contract_link *l, uint64_t *seq_out, int timeout_ms) {
    const void *data;
    size_t bytes;
    if (!contract_peek(l, &data, &bytes, timeout_ms)) return false;
    *seq_out = contract_record_check(data, bytes, l->record_max);
    tr_channel_release(l->consumer);
    return true;
}
