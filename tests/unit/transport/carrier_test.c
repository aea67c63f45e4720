/* A carrier believes nothing that comes in: sessions, windows, sizes and checksums decide, and what is wrong ends the
 * session with a text. The contract of its links is in tests/contract. */
#include "transport/carrier.h"

#include "transport/ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include <cmocka.h>

enum { MAX = 512, WINDOW = 4, RECORDS = 32, WIRE = 64, SESSION = 9, PLAIN = 3, CHECKED = 7 };

/* What one side has sent. */
typedef struct wire {
    zmq_msg_t frame[WIRE];
    uint32_t n;
} wire;

typedef struct side {
    tr_carrier *carrier;
    wire out;
    void *memory[2];                    /* of PLAIN and CHECKED */
    tr_channel *carried[2], *actors[2]; /* the carrier's end, the test's end */
} side;

static side a, b; /* a sends, b receives */
static tr_error err;

static tr_status keep(void *arg, void *message) {
    wire *w = arg;
    assert_true(w->n < WIRE);
    zmq_msg_init(&w->frame[w->n]);
    zmq_msg_move(&w->frame[w->n++], message);
    zmq_msg_close(message);
    return TR_OK;
}

static void open_side(side *s, bool out) {
    size_t capacity = tr_ring_capacity(RECORDS, MAX);
    tr_carrier_link link[2];
    memset(s, 0, sizeof *s);
    for (int i = 0; i < 2; i++) {
        s->memory[i] = aligned_alloc(64, tr_ring_bytes(capacity));
        tr_ring_init(s->memory[i], capacity);
        assert_int_equal(
            tr_ring_attach_producer(s->memory[i], capacity, NULL, out ? &s->actors[i] : &s->carried[i], &err), TR_OK);
        assert_int_equal(
            tr_ring_attach_consumer(s->memory[i], capacity, NULL, out ? &s->carried[i] : &s->actors[i], &err), TR_OK);
        link[i] = (tr_carrier_link){.id = i ? CHECKED : PLAIN,
                                    .channel = s->carried[i],
                                    .out = out,
                                    .checked = i == 1,
                                    .window = WINDOW,
                                    .record_max = MAX};
    }
    tr_carrier_config config = {.n_links = 2, .link = link, .arg = &s->out, .send = keep};
    assert_int_equal(tr_carrier_create(&config, &s->carrier, &err), TR_OK);
    tr_carrier_begin(s->carrier, SESSION);
}

static void close_side(side *s) {
    for (uint32_t i = 0; i < s->out.n; i++) zmq_msg_close(&s->out.frame[i]);
    tr_carrier_destroy(&s->carrier);
    for (int i = 0; i < 2; i++) {
        tr_channel_close(s->carried[i]);
        tr_channel_close(s->actors[i]);
        free(s->memory[i]);
    }
}

static int fresh(void **state) {
    (void)state;
    open_side(&a, true);
    open_side(&b, false);
    return 0;
}
static int clean(void **state) {
    (void)state;
    close_side(&a);
    close_side(&b);
    return 0;
}

static void put(int link, uint8_t byte) {
    void *data;
    assert_int_equal(tr_channel_reserve(a.actors[link], 100, &data), TR_OK);
    memset(data, byte, 100);
    assert_int_equal(tr_channel_commit(a.actors[link], 100), TR_OK);
}

static bool pump(side *s) {
    bool any = false;
    assert_int_equal(tr_carrier_pump(s->carrier, &any), TR_OK);
    return any;
}

static tr_status take(side *s, zmq_msg_t *frame) {
    const void *control;
    size_t bytes;
    memset(&err, 0, sizeof err);
    tr_status status = tr_carrier_take(s->carrier, frame, &control, &bytes, &err);
    assert_null(control);
    return status;
}

/* All that `from` has sent goes to `to`. */
static void deliver(side *from, side *to) {
    for (uint32_t i = 0; i < from->out.n; i++)
        if (take(to, &from->out.frame[i]) != TR_OK) fail_msg("%s", err.text);
    from->out.n = 0;
}

static void expect(int link, uint8_t byte) {
    const void *data;
    size_t n;
    assert_int_equal(tr_channel_peek(b.actors[link], &data, &n), TR_OK);
    assert_int_equal(n, 100);
    assert_int_equal(((const uint8_t *)data)[99], byte);
    tr_channel_release(b.actors[link]);
}

static void expect_nothing(int link) {
    const void *data;
    size_t n;
    assert_int_equal(tr_channel_peek(b.actors[link], &data, &n), TR_AGAIN);
}

static void test_a_window(void **state) {
    (void)state;
    for (uint8_t i = 0; i < 10; i++) put(0, i);
    while (pump(&a)) continue;
    assert_int_equal(a.out.n, WINDOW); /* no more before they have been put into the ring over there */
    deliver(&a, &b);
    pump(&b);
    deliver(&b, &a);
    while (pump(&a)) continue;
    assert_int_equal(a.out.n, WINDOW);
    for (uint8_t i = 0; i < 10; i++) {
        deliver(&a, &b);
        pump(&b);
        deliver(&b, &a);
        pump(&a);
        expect(0, i);
    }
    expect_nothing(0);
    assert_int_equal(tr_carrier_get_stats(a.carrier)->frames_out, 10);
    assert_int_equal(tr_carrier_get_stats(b.carrier)->bytes_in, 1000);
}

static void test_another_session(void **state) {
    (void)state;
    put(0, 1);
    pump(&a);
    tr_carrier_begin(b.carrier, SESSION + 1);
    deliver(&a, &b);
    pump(&b);
    expect_nothing(0);
    assert_int_equal(tr_carrier_get_stats(b.carrier)->dropped, 1);
    tr_carrier_begin(a.carrier, SESSION + 1); /* counts begin anew on both sides */
    put(0, 2);
    pump(&a);
    deliver(&a, &b);
    pump(&b);
    expect(0, 2);
    tr_carrier_end(a.carrier);
    put(0, 3);
    assert_false(pump(&a)); /* stays in its ring */
}

/* One frame of a record of that link with byte `at` changed. */
static tr_status changed(int link, size_t at, uint8_t bits) {
    put(link, 1);
    pump(&a);
    uint32_t last = a.out.n - 1;
    ((uint8_t *)zmq_msg_data(&a.out.frame[last]))[at] ^= bits;
    a.out.n = last;
    return take(&b, &a.out.frame[last]);
}

static void test_damage(void **state) {
    (void)state;
    for (size_t at = 0; at < TR_CARRIER_HEAD_BYTES + 100; at += 3) {
        clean(NULL);
        fresh(NULL);
        tr_status status = changed(0, at, 0x10);
        bool session = at >= 4 && at < 8; /* of another session: dropped, no matter what else */
        assert_int_equal(status, session ? TR_OK : TR_PROTO);
        pump(&b);
        expect_nothing(0);
    }
    clean(NULL);
    fresh(NULL);
    /* A record with checks of its own comes through as it is; its head does not. */
    assert_int_equal(changed(1, TR_CARRIER_HEAD_BYTES + 99, 0x10), TR_OK);
    pump(&b);
    expect(1, 0x11);
    assert_int_equal(changed(1, 16, 1), TR_PROTO);
}

static void test_out_of_turn(void **state) {
    (void)state;
    put(0, 1);
    put(0, 2);
    pump(&a);
    assert_int_equal(a.out.n, 2);
    a.out.n = 0;
    assert_int_equal(take(&b, &a.out.frame[1]), TR_PROTO);
    assert_non_null(strstr(err.text, "out of turn"));
    zmq_msg_close(&a.out.frame[0]);
    /* What only comes in on one side does not come in on the other. */
    put(0, 3);
    pump(&a);
    a.out.n--;
    assert_int_equal(take(&a, &a.out.frame[a.out.n]), TR_PROTO);
    assert_non_null(strstr(err.text, "no such link comes in here"));
}

static void test_no_frames(void **state) {
    (void)state;
    static const char *const texts[] = {"", "x", "CRPT", "a text that is longer than the head of a frame of ours"};
    for (size_t i = 0; i < 4; i++) {
        zmq_msg_t m;
        assert_int_equal(zmq_msg_init_size(&m, strlen(texts[i])), 0);
        memcpy(zmq_msg_data(&m), texts[i], strlen(texts[i]));
        assert_int_equal(take(&b, &m), TR_PROTO);
    }
}

/* Acks of what was never sent. */
static void test_false_acks(void **state) {
    (void)state;
    put(0, 1);
    pump(&a);
    deliver(&a, &b);
    pump(&b);
    assert_int_equal(b.out.n, 1);
    tr_carrier_begin(a.carrier, SESSION); /* as if nothing had been sent */
    b.out.n = 0;
    assert_int_equal(take(&a, &b.out.frame[0]), TR_PROTO);
    assert_non_null(strstr(err.text, "ack of what was not sent"));
}

static void test_messages(void **state) {
    (void)state;
    zmq_msg_t m;
    const void *data;
    size_t bytes;
    uint32_t session;
    tr_msg ping = {.type = TR_MSG_PING, .as.ping.nonce = 77}, got;
    assert_int_equal(tr_carrier_send(a.carrier, &ping), TR_OK);
    assert_int_equal(tr_carrier_take(b.carrier, &a.out.frame[0], &data, &bytes, &err), TR_OK);
    a.out.n = 0;
    assert_non_null(data);
    assert_int_equal(tr_codec_decode(data, bytes, NULL, &got, &err), TR_OK);
    assert_int_equal(got.as.ping.nonce, 77);
    assert_int_equal(tr_carrier_wrap(&ping, 0, &m), TR_OK);
    assert_int_equal(tr_carrier_unwrap(zmq_msg_data(&m), zmq_msg_size(&m), &data, &bytes, &session), TR_OK);
    assert_int_equal(session, 0);
    ((uint8_t *)zmq_msg_data(&m))[zmq_msg_size(&m) - 1] ^= 1;
    assert_int_equal(tr_carrier_unwrap(zmq_msg_data(&m), zmq_msg_size(&m), &data, &bytes, &session), TR_PROTO);
    zmq_msg_close(&m);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, clean)
    const struct CMUnitTest tests[] = {TEST(test_a_window),    TEST(test_another_session), TEST(test_damage),
                                       TEST(test_out_of_turn), TEST(test_no_frames),       TEST(test_false_acks),
                                       TEST(test_messages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
