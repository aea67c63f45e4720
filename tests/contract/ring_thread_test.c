/* Ring and bell between two threads, for ThreadSanitizer: 1e5 records, both ends sleeping on their bells, then on
 * eventfds. */
#include "tests/contract/contract_link.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX = 1000, PATIENCE_MS = 20000 };

typedef struct run {
    contract_link *link;
    uint64_t total;
} run;

static void *produce(void *arg) {
    run *r = arg;
    for (uint64_t seq = 0; seq < r->total; seq++) CONTRACT_REQUIRE(contract_send(r->link, seq, PATIENCE_MS));
    return NULL;
}

static void test_two_threads(void **state) {
    (void)state;
    run r = {contract_create(CONTRACT_RING, 3, MAX), 100000};
    contract_open_producer(r.link);
    contract_open_consumer(r.link);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, produce, &r), 0);
    for (uint64_t seq = 0, got; seq < r.total; seq++) {
        assert_true(contract_receive(r.link, &got, PATIENCE_MS));
        assert_int_equal(got, seq);
    }
    pthread_join(thread, NULL);
    contract_destroy(r.link);
}

/* The owner sleeps in poll; every ring must be noticed although it is drained at any moment. */
static void test_event_fd(void **state) {
    (void)state;
    run r = {contract_create(CONTRACT_RING, 3, MAX), 20000};
    tr_bell *bell = &r.link->shared->consumer_bell;
    tr_bell_init(bell, eventfd(0, EFD_NONBLOCK));
    contract_open_producer(r.link);
    contract_open_consumer(r.link);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, produce, &r), 0);
    for (uint64_t seq = 0; seq < r.total; seq++) {
        for (;;) {
            const void *data;
            size_t bytes;
            uint32_t seen = tr_bell_read(bell);
            if (tr_channel_peek(r.link->consumer, &data, &bytes) == TR_OK) {
                assert_int_equal(contract_record_check(data, bytes, MAX), seq);
                tr_channel_release(r.link->consumer);
                break;
            }
            struct pollfd p = {.fd = bell->event_fd, .events = POLLIN};
            if (!tr_bell_prepare(bell, seen)) continue;
            int ready = poll(&p, 1, PATIENCE_MS);
            tr_bell_done(bell);
            assert_int_equal(ready, 1);
        }
    }
    pthread_join(thread, NULL);
    close(bell->event_fd);
    contract_destroy(r.link);
}

static void test_bell_timeouts(void **state) {
    (void)state;
    tr_bell bell;
    tr_bell_init(&bell, -1);
    uint32_t seen = tr_bell_read(&bell);
    tr_bell_wait(&bell, seen, 1000, 2000000);
    tr_bell_wait(&bell, seen, 5000000, 1000000); /* spinning ends with the timeout */
    tr_bell_wait(&bell, seen, 0, 0);
    assert_int_equal(tr_bell_read(&bell), seen);
    tr_bell_ring(&bell);
    tr_bell_wait(&bell, seen, 0, UINT64_MAX); /* returns at once */
    assert_int_not_equal(tr_bell_read(&bell), seen);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_two_threads), cmocka_unit_test(test_event_fd),
                                       cmocka_unit_test(test_bell_timeouts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
