/* The contract of transport/channel.h, every clause, over every implementation; both ends in one thread. */
#include "tests/contract/contract_link.h"
#include "transport/ring.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { RECORDS = 6, MAX = 5000, PATIENCE_MS = 5000 };

static contract_link *create(void **state, size_t records, size_t max) {
    contract_link *l = contract_create((contract_kind)(intptr_t)*state, records, max);
    contract_open_consumer(l);
    contract_open_producer(l);
    return l;
}

static void expect(contract_link *l, uint64_t seq) {
    uint64_t got = 0;
    assert_true(contract_receive(l, &got, PATIENCE_MS));
    assert_int_equal(got, seq);
}

static void expect_nothing(contract_link *l) {
    uint64_t got;
    assert_false(contract_receive(l, &got, 30));
}

/* As many records as promised fit, then AGAIN, then as many come out in order; more than once round. */
static void test_back_pressure(void **state) {
    contract_link *l = create(state, RECORDS, MAX);
    uint64_t in = 0, out = 0;
    for (int round = 0; round < 5; round++) {
        while (contract_send(l, in, 50)) {
            in++;
            assert_true(in - out < 1000000);
        }
        assert_true(in - out >= RECORDS);
        for (uint64_t keep = round & 1 ? 3 : 0; in - out > keep; out++) expect(l, out);
    }
    while (out < in) expect(l, out++);
    expect_nothing(l);
    contract_destroy(l);
}

static void test_sizes(void **state) {
    contract_link *l = create(state, 2, MAX);
    for (size_t bytes = 1; bytes <= MAX; bytes += bytes < 200 || bytes > MAX - 70 ? 1 : 61) {
        void *data;
        assert_true(contract_reserve(l, bytes, &data, PATIENCE_MS));
        assert_int_equal((uintptr_t)data % 64, 0);
        memset(data, (int)(bytes & 255), bytes);
        assert_int_equal(tr_channel_commit(l->producer, bytes), TR_OK);
        const void *got;
        size_t n = 0;
        assert_true(contract_peek(l, &got, &n, PATIENCE_MS));
        assert_int_equal(n, bytes);
        assert_int_equal((uintptr_t)got % 64, 0);
        for (size_t i = 0; i < n; i++)
            if (((const uint8_t *)got)[i] != (bytes & 255)) fail_msg("byte %zu of %zu", i, n);
        tr_channel_release(l->consumer);
    }
    contract_destroy(l);
}

static void test_refusals(void **state) {
    contract_link *l = create(state, 1, MAX);
    void *data;
    const void *got;
    size_t n, largest = l->kind == CONTRACT_RING || l->kind == CONTRACT_CARRIER ? l->capacity - 64 : MAX;
    assert_int_equal(tr_channel_reserve(l->producer, 0, &data), TR_INVALID);
    assert_int_equal(tr_channel_reserve(l->producer, largest + 1, &data), TR_INVALID);
    assert_int_equal(tr_channel_reserve(l->producer, SIZE_MAX, &data), TR_INVALID);
    assert_int_equal(tr_channel_commit(l->producer, 1), TR_INVALID);
    assert_true(contract_reserve(l, 10, &data, PATIENCE_MS));
    assert_int_equal(tr_channel_commit(l->producer, 11), TR_INVALID);
    assert_int_equal(tr_channel_commit(l->producer, 0), TR_INVALID);
    assert_int_equal(tr_channel_peek(l->producer, &got, &n), TR_INVALID);
    assert_int_equal(tr_channel_reserve(l->consumer, 1, &data), TR_INVALID);
    assert_int_equal(tr_channel_commit(l->consumer, 1), TR_INVALID);
    assert_int_equal(tr_channel_peek(l->consumer, &got, &n), TR_AGAIN);
    tr_channel_release(l->consumer); /* nothing held: nothing happens */
    assert_true(contract_send(l, 1, PATIENCE_MS));
    expect(l, 1);
    contract_destroy(l);
}

/* What was not committed never existed; less than reserved may be committed; peek is stable until release. */
static void test_changed_mind(void **state) {
    contract_link *l = create(state, RECORDS, MAX);
    for (uint64_t seq = 0; seq < 300; seq++) {
        void *data;
        assert_true(contract_reserve(l, 1 + seq % MAX, &data, PATIENCE_MS));
        memset(data, 0xee, 1 + seq % MAX);
        size_t bytes = contract_record_bytes(seq, MAX);
        assert_true(contract_reserve(l, MAX, &data, PATIENCE_MS));
        contract_record_fill(seq, data, bytes);
        assert_int_equal(tr_channel_commit(l->producer, bytes), TR_OK);
        const void *first, *second;
        size_t n, m;
        assert_true(contract_peek(l, &first, &n, PATIENCE_MS));
        assert_int_equal(tr_channel_peek(l->consumer, &second, &m), TR_OK);
        assert_ptr_equal(first, second);
        assert_int_equal(n, m);
        expect(l, seq);
    }
    expect_nothing(l);
    contract_destroy(l);
}

/* Random sizes, random fill level: every wrap position is met. */
static void test_random_traffic(void **state) {
    contract_link *l = create(state, 3, MAX);
    tr_rng r = {7};
    uint64_t in = 0, out = 0, total = l->kind == CONTRACT_ZMQ || l->kind == CONTRACT_CARRIER ? 20000 : 100000;
    while (out < total) {
        uint64_t burst = tr_rng_below(&r, 12);
        for (uint64_t i = 0; i < burst && in < total; i++) {
            if (!contract_send(l, in, in == out ? PATIENCE_MS : 0)) break;
            in++;
        }
        burst = tr_rng_below(&r, 12);
        for (uint64_t i = 0; i < burst && out < in; i++) expect(l, out++);
    }
    expect_nothing(l);
    contract_destroy(l);
}

/* A record larger than half of the memory, at every offset: it must fit once the link is empty. */
static void test_large_at_every_offset(void **state) {
    contract_link *l = create(state, 1, MAX);
    size_t large = l->kind == CONTRACT_RING || l->kind == CONTRACT_CARRIER ? l->capacity - 64 : MAX;
    for (uint64_t k = 0; k < 200; k++) {
        void *data;
        const void *got;
        size_t n;
        assert_true(contract_send(l, k, PATIENCE_MS));
        expect(l, k);
        /* Room may need the consumer to pass the end of the memory first. */
        while (tr_channel_reserve(l->producer, large, &data) == TR_AGAIN)
            assert_int_equal(tr_channel_peek(l->consumer, &got, &n), TR_AGAIN);
        memset(data, 0x5a, large);
        assert_int_equal(tr_channel_commit(l->producer, large), TR_OK);
        assert_true(contract_peek(l, &got, &n, PATIENCE_MS));
        assert_int_equal(n, large);
        assert_true(((const uint8_t *)got)[0] == 0x5a && ((const uint8_t *)got)[n - 1] == 0x5a);
        tr_channel_release(l->consumer);
    }
    contract_destroy(l);
}

static void test_restart_producer(void **state) {
    contract_link *l = create(state, RECORDS, MAX);
    uint64_t seq = 0;
    for (int life = 0; life < 20; life++) {
        void *data;
        assert_true(contract_send(l, seq, PATIENCE_MS));
        if (!l->durable) expect(l, seq); /* so that nothing is on its way when the end closes */
        assert_true(contract_reserve(l, MAX, &data, PATIENCE_MS));
        memset(data, 0xdd, MAX);
        contract_close_producer(l);
        contract_open_producer(l);
        if (l->durable) expect(l, seq);
        seq++;
    }
    expect_nothing(l);
    contract_destroy(l);
}

static void test_restart_consumer(void **state) {
    contract_link *l = create(state, RECORDS, MAX);
    uint64_t seq = 0;
    for (int life = 0; life < 20; life++) {
        const void *data;
        size_t n;
        for (int k = 0; k < 3; k++) assert_true(contract_send(l, seq + (uint64_t)k, PATIENCE_MS));
        expect(l, seq++);
        assert_true(contract_peek(l, &data, &n, PATIENCE_MS));
        contract_close_consumer(l);
        contract_open_consumer(l);
        if (l->durable) {
            expect(l, seq++); /* seen again */
            expect(l, seq++);
            continue;
        }
        /* Some may be lost with the process; what comes is whole and in order, and the link works again. */
        uint64_t got = 0, last = seq;
        seq += 2;
        do {
            uint64_t probe = seq++;
            assert_true(contract_send(l, probe, PATIENCE_MS));
            while (last != probe && contract_receive(l, &got, 100)) {
                assert_true(got >= last);
                last = got;
            }
        } while (last + 1 != seq);
    }
    contract_destroy(l);
}

/* Nobody polls: work and room announce themselves. */
static void test_wakes(void **state) {
    contract_link *l = create(state, RECORDS, MAX);
    uint64_t in = 0, out = 0;
    const void *data;
    void *slot;
    size_t n;
    if (l->kind == CONTRACT_ZMQ) {
        assert_int_equal(tr_channel_peek(l->consumer, &data, &n), TR_AGAIN);
        assert_true(contract_send(l, in++, PATIENCE_MS));
        struct pollfd p = {.fd = l->consumer->ops->wait_fd(l->consumer), .events = POLLIN};
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        assert_int_equal(l->producer->ops->wait_fd(l->producer), -1);
        expect(l, out++);
    } else if (l->kind == CONTRACT_RING) {
        uint32_t seen = tr_bell_read(&l->shared->consumer_bell);
        assert_true(contract_send(l, in++, 0));
        assert_int_not_equal(tr_bell_read(&l->shared->consumer_bell), seen);
        seen = tr_bell_read(&l->shared->producer_bell);
        expect(l, out++);
        assert_int_equal(tr_bell_read(&l->shared->producer_bell), seen); /* nobody waited */
        const uint32_t rings = tr_bell_read(&l->shared->consumer_bell);
        assert_int_equal(tr_channel_reserve(l->producer, 8, &slot), TR_OK);
        assert_int_equal(tr_ring_commit_quiet(l->producer, 9), TR_INVALID);
        assert_int_equal(tr_ring_commit_quiet(l->producer, 8), TR_OK);
        assert_int_equal(tr_bell_read(&l->shared->consumer_bell), rings);
        assert_int_equal(tr_channel_peek(l->consumer, &data, &n), TR_OK);
        tr_channel_release(l->consumer);
        while (tr_channel_reserve(l->producer, MAX, &slot) == TR_OK) tr_channel_commit(l->producer, MAX);
        assert_int_equal(tr_bell_read(&l->shared->producer_bell), seen);
        assert_int_equal(tr_channel_peek(l->consumer, &data, &n), TR_OK);
        tr_channel_release(l->consumer);
        assert_int_not_equal(tr_bell_read(&l->shared->producer_bell), seen);
        assert_int_equal(tr_channel_reserve(l->producer, MAX, &slot), TR_OK);
    }
    contract_destroy(l);
}

/* ---- one implementation only ------------------------------------------------------------------------------------- */

static void test_ring_pending(void **state) {
    (void)state;
    void *kind = (void *)(intptr_t)CONTRACT_RING;
    contract_link *l = create(&kind, 4, MAX);
    uint64_t in = 0, out = 0;
    tr_rng r = {3};
    for (int k = 0; k < 3000; k++) {
        if (tr_rng_below(&r, 2) && contract_send(l, in, 0)) in++;
        if (tr_rng_below(&r, 2) && out < in) expect(l, out++);
        assert_int_equal(tr_ring_pending(l->producer), in - out);
        assert_int_equal(tr_ring_pending(l->consumer), in - out);
    }
    contract_destroy(l);
}

/* Whatever the shared memory says, an end stays inside it. */
static void test_ring_damaged(void **state) {
    (void)state;
    tr_rng r = {11};
    for (int k = 0; k < 2000; k++) {
        void *kind = (void *)(intptr_t)CONTRACT_RING;
        contract_link *l = create(&kind, 4, 300);
        for (uint64_t seq = 0; seq < 3; seq++) contract_send(l, seq, 0);
        uint64_t *words = l->ring_memory;
        size_t at = 8 + tr_rng_below(&r, l->ring_bytes / 8 - 8); /* magic and capacity are read at attach */
        words[at] = tr_rng_below(&r, 2) ? tr_rng_next(&r) : (tr_rng_next(&r) >> tr_rng_below(&r, 64)) & ~63ull;
        const void *data;
        size_t n;
        for (int i = 0; i < 8 && tr_channel_peek(l->consumer, &data, &n) == TR_OK; i++) {
            const uint8_t *p = data;
            assert_true(p >= (uint8_t *)words && p + n <= (uint8_t *)words + l->ring_bytes);
            tr_channel_release(l->consumer);
        }
        void *slot;
        if (tr_channel_reserve(l->producer, 300, &slot) == TR_OK)
            assert_true((uint8_t *)slot >= (uint8_t *)words &&
                        (uint8_t *)slot + 300 <= (uint8_t *)words + l->ring_bytes);
        tr_ring_pending(l->consumer);
        words[0] ^= 1;
        tr_channel *end;
        tr_error err;
        assert_int_equal(tr_ring_attach_producer(l->ring_memory, l->capacity, NULL, &end, &err), TR_INTERNAL);
        words[0] ^= 1;
        assert_int_equal(tr_ring_attach_producer(l->ring_memory, l->capacity + 64, NULL, &end, &err), TR_INTERNAL);
        contract_destroy(l);
    }
}

typedef struct hook_log {
    tr_sim_channel *sim;
    uint64_t n;
} hook_log;

static void hook(void *self, const void *data, size_t bytes) {
    hook_log *log = self;
    uint64_t k = log->n++;
    if (k % 3 == 0) return; /* dropped */
    assert_int_equal(tr_sim_channel_enqueue(log->sim, data, bytes), TR_OK);
    if (k % 3 == 2) assert_int_equal(tr_sim_channel_enqueue(log->sim, data, bytes), TR_OK); /* doubled */
}

static void test_sim_hook(void **state) {
    (void)state;
    void *kind = (void *)(intptr_t)CONTRACT_SIM;
    contract_link *l = create(&kind, 8, MAX);
    hook_log log = {l->sim, 0};
    tr_sim_channel_set_hook(l->sim, hook, &log);
    for (uint64_t seq = 0; seq < 6; seq++) assert_true(contract_send(l, seq, 0));
    assert_int_equal(tr_sim_channel_pending(l->sim), 6);
    static const uint64_t want[] = {1, 2, 2, 4, 5, 5};
    for (int i = 0; i < 6; i++) expect(l, want[i]);
    assert_true(contract_send(l, 7, 0) && contract_send(l, 7, 0));
    tr_sim_channel_clear(l->sim);
    expect_nothing(l);
    contract_destroy(l);
}

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction run;
    } suite[] = {{"back_pressure", test_back_pressure},
                 {"sizes", test_sizes},
                 {"refusals", test_refusals},
                 {"changed_mind", test_changed_mind},
                 {"random_traffic", test_random_traffic},
                 {"large_at_every_offset", test_large_at_every_offset},
                 {"restart_producer", test_restart_producer},
                 {"restart_consumer", test_restart_consumer},
                 {"wakes", test_wakes}};
    enum { N = sizeof suite / sizeof *suite };
    static char names[CONTRACT_KINDS * N][64];
    struct CMUnitTest tests[CONTRACT_KINDS * N + 3];
    memset(tests, 0, sizeof tests);
    size_t n = 0;
    for (intptr_t kind = 0; kind < CONTRACT_KINDS; kind++)
        for (size_t i = 0; i < N; i++, n++) {
            snprintf(names[n], sizeof names[n], "%s: %s", contract_kind_names[kind], suite[i].name);
            tests[n] = (struct CMUnitTest){.name = names[n], .test_func = suite[i].run, .initial_state = (void *)kind};
        }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_ring_pending);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_ring_damaged);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_sim_hook);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
