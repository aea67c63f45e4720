/* Two processes and their deaths. Producer and consumer are forked children; the parent kills and replaces them.
 * Shared words: SENT = records committed, SEEN = records released, HOLD = an end stands where it is to be killed. */
#include "tests/contract/contract_link.h"

#include "base/clock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 4, MAX = 3000, PATIENCE_MS = 10000 };
enum { SENT, SEEN, HOLD, DUPLICATES };

typedef void (*role)(contract_link *l, uint64_t total);

static pid_t start(contract_link *l, role run, uint64_t total) {
    pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    run(l, total);
    _exit(0);
}

static void end_well(pid_t pid) {
    int status;
    uint64_t deadline = tr_clock_now_ns() + 60 * TR_NS_PER_S;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (tr_clock_now_ns() > deadline) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            fail_msg("a process hangs");
        }
        usleep(1000);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("a process failed: status %d", status);
}

static void end_killed(pid_t pid) {
    int status;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void wait_word(contract_link *l, int word, uint64_t value) {
    uint64_t deadline = tr_clock_now_ns() + PATIENCE_MS * TR_NS_PER_MS;
    while (atomic_load(&l->shared->word[word]) < value) {
        if (tr_clock_now_ns() > deadline) fail_msg("word %d stays below %llu", word, (unsigned long long)value);
        usleep(200);
    }
}

/* Sends from SENT on. Killed between commit and the count, it sends one record twice: at least once, as documented. */
static void produce(contract_link *l, uint64_t total) {
    contract_open_producer(l);
    for (uint64_t seq; (seq = atomic_load(&l->shared->word[SENT])) < total;) {
        CONTRACT_REQUIRE(contract_send(l, seq, PATIENCE_MS));
        atomic_store(&l->shared->word[SENT], seq + 1);
    }
    /* A ZeroMQ end drops what is unsent when it closes. */
    while (!l->durable && atomic_load(&l->shared->word[SEEN]) < total) usleep(1000);
    contract_close_producer(l);
}

/* Durable link: every record comes, in order; the last one again only where an end was killed. */
static void consume(contract_link *l, uint64_t total) {
    contract_open_consumer(l);
    for (uint64_t seq, want; (want = atomic_load(&l->shared->word[SEEN])) < total;) {
        const void *data;
        size_t bytes;
        CONTRACT_REQUIRE(contract_peek(l, &data, &bytes, PATIENCE_MS));
        seq = contract_record_check(data, bytes, l->record_max);
        if (l->durable) CONTRACT_REQUIRE(seq == want || seq + 1 == want);
        if (seq < want)
            atomic_fetch_add(&l->shared->word[DUPLICATES], 1);
        else
            atomic_store(&l->shared->word[SEEN], seq + 1);
        tr_channel_release(l->consumer);
    }
    contract_close_consumer(l);
}

static contract_link *create(void **state) { return contract_create((contract_kind)(intptr_t)*state, RECORDS, MAX); }

static void test_stream(void **state) {
    contract_link *l = create(state);
    pid_t c = start(l, consume, 30000), p = start(l, produce, 30000);
    end_well(p);
    end_well(c);
    assert_int_equal(atomic_load(&l->shared->word[SEEN]), 30000);
    assert_int_equal(atomic_load(&l->shared->word[DUPLICATES]), 0);
    contract_destroy(l);
}

static void hold_reservation(contract_link *l, uint64_t total) {
    (void)total;
    void *data;
    contract_open_producer(l);
    for (uint64_t seq = 0; seq < 2; seq++) CONTRACT_REQUIRE(contract_send(l, seq, PATIENCE_MS));
    atomic_store(&l->shared->word[SENT], 2);
    if (!l->durable)
        while (atomic_load(&l->shared->word[SEEN]) < 2) usleep(1000);
    CONTRACT_REQUIRE(contract_reserve(l, MAX, &data, PATIENCE_MS));
    memset(data, 0xbd, MAX);
    atomic_store(&l->shared->word[HOLD], 1);
    for (;;) pause();
}

static void test_producer_killed_in_reservation(void **state) {
    contract_link *l = create(state);
    pid_t c = start(l, consume, 500), p = start(l, hold_reservation, 0);
    wait_word(l, HOLD, 1);
    end_killed(p);
    p = start(l, produce, 500);
    end_well(p);
    end_well(c);
    assert_int_equal(atomic_load(&l->shared->word[DUPLICATES]), 0);
    contract_destroy(l);
}

static void hold_record(contract_link *l, uint64_t total) {
    const void *data;
    size_t bytes;
    contract_open_consumer(l);
    for (uint64_t seq = 0; seq < total; seq++) {
        uint64_t got;
        CONTRACT_REQUIRE(contract_receive(l, &got, PATIENCE_MS) && got == seq);
        atomic_store(&l->shared->word[SEEN], seq + 1);
    }
    CONTRACT_REQUIRE(contract_peek(l, &data, &bytes, PATIENCE_MS));
    CONTRACT_REQUIRE(contract_record_check(data, bytes, l->record_max) == total);
    atomic_store(&l->shared->word[HOLD], 1);
    for (;;) pause();
}

static void test_consumer_killed_with_record(void **state) {
    contract_link *l = create(state);
    pid_t p = start(l, produce, 500), c = start(l, hold_record, 7);
    wait_word(l, HOLD, 1);
    end_killed(c);
    c = start(l, consume, 500); /* fails unless record 7 comes again */
    end_well(c);
    end_well(p);
    assert_int_equal(atomic_load(&l->shared->word[DUPLICATES]), 0);
    contract_destroy(l);
}

/* A new ZeroMQ consumer takes what comes, whole and in order, until it has seen the last record or one behind it. */
static void consume_lossy(contract_link *l, uint64_t total) {
    contract_open_consumer(l);
    while (atomic_load(&l->shared->word[SEEN]) < total) {
        uint64_t seq;
        if (!contract_receive(l, &seq, PATIENCE_MS)) break;
        CONTRACT_REQUIRE(seq >= atomic_load(&l->shared->word[SEEN]));
        atomic_store(&l->shared->word[SEEN], seq + 1);
    }
    contract_close_consumer(l);
}

static void produce_for_ever(contract_link *l, uint64_t total) {
    (void)total;
    contract_open_producer(l);
    for (uint64_t seq = 0;; seq++) CONTRACT_REQUIRE(contract_send(l, seq, PATIENCE_MS));
}

static void test_zmq_consumer_killed(void **state) {
    (void)state;
    contract_link *l = contract_create(CONTRACT_ZMQ, RECORDS, MAX);
    pid_t p = start(l, produce_for_ever, 0);
    tr_rng r = {5};
    for (int life = 0; life < 6; life++) {
        pid_t c = start(l, consume_lossy, UINT64_MAX);
        wait_word(l, SEEN, atomic_load(&l->shared->word[SEEN]) + 200);
        usleep((useconds_t)tr_rng_below(&r, 5000));
        end_killed(c);
    }
    end_killed(p);
    contract_destroy(l);
}

/* Either end killed at any moment, again and again. A lost wake (killed between commit and bell) is what the
 * supervisor repairs by ringing everybody: done here too. */
static void test_ring_random_kills(void **state) {
    (void)state;
    enum { TOTAL = 400000, KILLS = 60 };
    int kills = 0;
    contract_link *l = contract_create(CONTRACT_RING, RECORDS, MAX);
    tr_rng r = {2026};
    pid_t p = start(l, produce, TOTAL), c = start(l, consume, TOTAL);
    for (; kills < KILLS && atomic_load(&l->shared->word[SEEN]) < TOTAL / 10 * 9; kills++) {
        usleep((useconds_t)(500 + tr_rng_below(&r, 4000)));
        if (tr_rng_below(&r, 2)) {
            end_killed(p);
            p = start(l, produce, TOTAL);
        } else {
            end_killed(c);
            c = start(l, consume, TOTAL);
        }
        tr_bell_ring(&l->shared->producer_bell);
        tr_bell_ring(&l->shared->consumer_bell);
    }
    end_well(p);
    end_well(c);
    assert_int_equal(atomic_load(&l->shared->word[SEEN]), TOTAL);
    assert_true(kills >= KILLS / 2);
    assert_true(atomic_load(&l->shared->word[DUPLICATES]) <= (uint64_t)kills);
    contract_destroy(l);
}

int main(void) {
#define BOTH(f)                                                                                                        \
    {.name = "ring: " #f, .test_func = f, .initial_state = (void *)CONTRACT_RING}, {                                   \
        .name = "zmq: " #f, .test_func = f, .initial_state = (void *)CONTRACT_ZMQ                                      \
    }
    const struct CMUnitTest tests[] = {BOTH(test_stream),
                                       BOTH(test_producer_killed_in_reservation),
                                       {.name = "ring: test_consumer_killed_with_record",
                                        .test_func = test_consumer_killed_with_record,
                                        .initial_state = (void *)CONTRACT_RING},
                                       cmocka_unit_test(test_ring_random_kills),
                                       cmocka_unit_test(test_zmq_consumer_killed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
