/* The client library against a fake frontend: a ROUTER that this test drives message by message. */
#include "base/clock.h"
#include "base/rng.h"
#include "client/troupe_client.h"
#include "transport/codec.h"
#include "transport/wire.h"
#include "transport/zmq_socket.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

enum { PATIENCE_MS = 5000, VOCAB = 8 };

typedef struct fake {
    void *context, *router;
    char dir[64], endpoint[96];
    uint8_t peer[256];
    size_t peer_len;
    uint64_t company;
    uint32_t major;
    int delay_ms;       /* before it listens */
    const char *refuse; /* answer HELLO with this error */
    tr_client *client;
    uint8_t wire[1 << 16];
    uint64_t memory[1 << 13];
    tr_codec_arena arena;
    bool echo;
} fake;

static void listen_again(fake *f) { /* a socket closed before lets its endpoint go a moment later */
    tr_error err;
    tr_zmq_socket_options o = {.type = ZMQ_ROUTER, .bind = true, .private_dir = true, .max_message_bytes = 1 << 23};
    for (int i = 0; tr_zmq_socket_open(f->context, f->endpoint, &o, &f->router, &err) != TR_OK; i++, usleep(1000))
        if (err.status != TR_UNAVAILABLE || i == PATIENCE_MS) fail_msg("%s", err.text);
}

/* Next message of the client; NONE when there is none now. */
static tr_msg take(fake *f) {
    tr_msg m = {.type = TR_MSG_NONE};
    int n = zmq_recv(f->router, f->peer, sizeof f->peer, ZMQ_DONTWAIT);
    if (n < 0) return m;
    f->peer_len = (size_t)n;
    n = zmq_recv(f->router, f->wire, sizeof f->wire, 0);
    tr_error err;
    assert_true(n >= 0 && n <= (int)sizeof f->wire);
    tr_codec_arena_init(&f->arena, f->memory, sizeof f->memory);
    if (tr_codec_decode(f->wire, (size_t)n, &f->arena, &m, &err) != TR_OK) fail_msg("%s", err.text);
    return m;
}

static void send_raw(fake *f, const void *a, size_t n, const void *b, size_t m) {
    assert_int_equal(zmq_send(f->router, f->peer, f->peer_len, ZMQ_SNDMORE), f->peer_len);
    assert_int_equal(zmq_send(f->router, a, n, b ? ZMQ_SNDMORE : 0), n);
    if (b) assert_int_equal(zmq_send(f->router, b, m, 0), m);
}

static void answer(fake *f, const tr_msg *m, const void *payload, size_t payload_bytes) {
    uint8_t out[4096];
    size_t n;
    assert_int_equal(tr_codec_encode(m, out, sizeof out, &n), TR_OK);
    send_raw(f, out, n, payload, payload_bytes);
}

static void welcome(fake *f) {
    tr_msg m = {
        .type = TR_MSG_WELCOME,
        .as.welcome = {.major = f->major, .model = {"toy", 3}, .vocab = VOCAB, .context = 64, .company = f->company}};
    answer(f, &m, NULL, 0);
}

static void send_error(fake *f, uint64_t id, uint32_t code, const char *text) {
    tr_msg m = {.type = TR_MSG_ERROR, .as.error = {.id = id, .code = code, .text = {text, (uint32_t)strlen(text)}}};
    answer(f, &m, NULL, 0);
}

static void *meet(void *arg) {
    fake *f = arg;
    usleep((useconds_t)f->delay_ms * 1000);
    listen_again(f);
    for (int i = 0; i < PATIENCE_MS; i++, usleep(1000)) {
        tr_msg m = take(f);
        if (m.type != TR_MSG_HELLO) continue;
        if (f->refuse)
            send_error(f, 0, 69, f->refuse);
        else
            welcome(f);
        return NULL;
    }
    return NULL;
}

static tr_status try_connect(fake *f, const tr_client_options *o, tr_error *err) {
    pthread_t thread;
    strcpy(f->dir, "/tmp/tr-client-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->endpoint, sizeof f->endpoint, "ipc://%s/api", f->dir);
    assert_int_equal(tr_zmq_socket_context(&f->context, err), TR_OK);
    if (f->major == 0) f->major = TR_PROTOCOL_MAJOR;
    f->company = 77;
    f->echo = true;
    assert_int_equal(pthread_create(&thread, NULL, meet, f), 0);
    tr_status status = tr_client_connect(f->endpoint, o, &f->client, err);
    pthread_join(thread, NULL);
    return status;
}

static fake *start(const tr_client_options *o) {
    fake *f = calloc(1, sizeof *f);
    tr_error err;
    assert_non_null(f);
    if (try_connect(f, o, &err) != TR_OK) fail_msg("%s", err.text);
    return f;
}

static void stop(fake *f) {
    tr_client_close(&f->client);
    assert_null(f->client);
    tr_zmq_socket_close(&f->router);
    zmq_ctx_term(f->context);
    unlink(f->endpoint + 6);
    rmdir(f->dir);
    free(f);
}

/* Both sides until the client has sent a message of that type; events on the way are a failure. */
static tr_msg expect(fake *f, tr_msg_type type) {
    for (int i = 0; i < PATIENCE_MS; i++) {
        tr_client_event e;
        tr_msg m = take(f);
        if (m.type == TR_MSG_PING && type != TR_MSG_PING) {
            if (f->echo) answer(f, &m, NULL, 0);
            continue;
        }
        if (m.type == type) return m;
        if (m.type != TR_MSG_NONE) fail_msg("message %d instead of %d", (int)m.type, (int)type);
        assert_int_equal(tr_client_poll(f->client, 1, &e, NULL), TR_AGAIN);
    }
    fail_msg("no message of type %d", (int)type);
    return (tr_msg){0};
}

static void poll_event(fake *f, tr_client_event *e) {
    tr_error err;
    uint64_t end = tr_clock_now_ns() + PATIENCE_MS * TR_NS_PER_MS;
    while (tr_clock_now_ns() < end) {
        tr_status s = tr_client_poll(f->client, 20, e, &err);
        if (s == TR_OK) return;
        if (s != TR_AGAIN) fail_msg("%s", err.text);
        tr_msg m = take(f);
        if (m.type == TR_MSG_PING && f->echo) answer(f, &m, NULL, 0);
    }
    fail_msg("no event");
}

static void expect_quiet(fake *f) {
    tr_client_event e;
    for (int i = 0; i < 10; i++) assert_int_equal(tr_client_poll(f->client, 5, &e, NULL), TR_AGAIN);
}

static uint64_t add(fake *f) {
    uint64_t id = 0;
    tr_error err;
    tr_client_params p = {.prompt = "héllo", .prompt_len = 6, .max_tokens = 9, .temperature = 0.5f, .seed = 3};
    if (tr_client_add(f->client, &p, &id, &err) != TR_OK) fail_msg("%s", err.text);
    return id;
}

static void send_sample(fake *f, uint64_t id, uint32_t sample, uint32_t index, uint32_t n, uint64_t offset,
                        const char *text, uint32_t finish) {
    static const uint32_t tokens[] = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
    tr_msg m = {.type = TR_MSG_TEXT,
                .as.text = {.id = id,
                            .sample = sample,
                            .index = index,
                            .tokens = {tokens + index, n},
                            .offset = offset,
                            .text = {(const uint8_t *)text, (uint32_t)strlen(text)},
                            .finish = finish,
                            .prompt_tokens = finish ? 4 : 0,
                            .ttft_ns = finish ? 123 : 0}};
    answer(f, &m, NULL, 0);
}
static void send_text(fake *f, uint64_t id, uint32_t index, uint32_t n, uint64_t offset, const char *text,
                      uint32_t finish) {
    send_sample(f, id, 0, index, n, offset, text, finish);
}

static void expect_text(fake *f, uint32_t index, uint32_t n, const char *text, uint32_t finish) {
    tr_client_event e;
    poll_event(f, &e);
    if (e.kind == TR_CLIENT_ERROR) fail_msg("%s", e.error);
    assert_int_equal(e.kind, finish ? TR_CLIENT_END : TR_CLIENT_TEXT);
    assert_int_equal(e.index, index);
    assert_int_equal(e.n_tokens, n);
    for (uint32_t i = 0; i < n; i++) assert_int_equal(e.tokens[i], 10 + index + i);
    assert_int_equal(e.text_bytes, strlen(text));
    assert_memory_equal(e.text, text, e.text_bytes);
    assert_int_equal(e.finish, finish);
}

static void expect_error(fake *f, uint64_t id, uint32_t code, const char *word) {
    tr_client_event e;
    poll_event(f, &e);
    assert_int_equal(e.kind, TR_CLIENT_ERROR);
    assert_int_equal(e.id, id);
    assert_int_equal(e.code, code);
    if (!strstr(e.error, word)) fail_msg("\"%s\" is not in \"%s\"", word, e.error);
}

/* ---- connection ---------------------------------------------------------------------------------------------------
 */

static void test_connect(void **state) {
    (void)state;
    fake *f = calloc(1, sizeof *f);
    tr_error err;
    f->delay_ms = 300; /* a company that is still starting */
    if (try_connect(f, &(tr_client_options){.name = "test"}, &err) != TR_OK) fail_msg("%s", err.text);
    const tr_client_info *info = tr_client_about(f->client);
    assert_string_equal(info->model, "toy");
    assert_int_equal(info->vocab, VOCAB);
    assert_int_equal(info->context, 64);
    assert_int_equal(info->company, 77);
    assert_true(tr_client_fd(f->client) >= 0);
    stop(f);
}

static void test_connect_fails(void **state) {
    (void)state;
    tr_error err;
    tr_client *c = NULL;
    uint64_t start_ns = tr_clock_now_ns();
    assert_int_equal(
        tr_client_connect("ipc:///tmp/tr-nobody-is-here", &(tr_client_options){.connect_timeout_ms = 120}, &c, &err),
        TR_UNAVAILABLE);
    assert_true(tr_clock_now_ns() - start_ns < 2 * TR_NS_PER_S);
    assert_non_null(strstr(err.text, "no company answers"));
    assert_null(c);
    assert_int_equal(tr_client_connect("tcp://10.0.0.1:5555", NULL, &c, &err), TR_USAGE);
    assert_int_equal(tr_client_connect("nonsense", NULL, &c, &err), TR_USAGE);
    fake *f = calloc(1, sizeof *f);
    f->refuse = "too many clients";
    assert_int_equal(try_connect(f, NULL, &err), TR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "too many clients"));
    stop(f);
    f = calloc(1, sizeof *f);
    f->major = TR_PROTOCOL_MAJOR + 1;
    assert_int_equal(try_connect(f, NULL, &err), TR_PROTO);
    assert_non_null(strstr(err.text, "protocol"));
    stop(f);
}

static void test_pings(void **state) {
    (void)state;
    fake *f = start(&(tr_client_options){.lost_timeout_ms = 400}); /* answered in time, nothing is given up */
    uint64_t start_ns = tr_clock_now_ns();
    add(f);
    expect(f, TR_MSG_ADD);
    for (int i = 0; i < 2; i++) {
        tr_msg m = expect(f, TR_MSG_PING);
        answer(f, &m, NULL, 0);
    }
    uint64_t took = tr_clock_now_ns() - start_ns;
    assert_true(took > TR_NS_PER_S && took < 4 * TR_NS_PER_S);
    stop(f);
}

static void test_silence(void **state) {
    (void)state;
    fake *f = start(&(tr_client_options){.lost_timeout_ms = 300});
    f->echo = false;
    uint64_t a = add(f), b = add(f);
    tr_client_event e;
    tr_error err;
    tr_status s;
    int errors = 0;
    uint64_t end = tr_clock_now_ns() + PATIENCE_MS * TR_NS_PER_MS;
    while (errors < 2 && tr_clock_now_ns() < end) {
        s = tr_client_poll(f->client, 100, &e, &err);
        if (s == TR_AGAIN) continue;
        assert_int_equal(s, TR_OK);
        assert_int_equal(e.kind, TR_CLIENT_ERROR);
        assert_int_equal(e.code, 69);
        assert_int_equal(e.id, errors++ ? b : a);
    }
    assert_int_equal(errors, 2);
    assert_int_equal(tr_client_open_requests(f->client), 0);
    assert_int_equal(tr_client_poll(f->client, 10, &e, &err), TR_AGAIN); /* told once */
    stop(f);
    f = start(&(tr_client_options){.lost_timeout_ms = 300});
    f->echo = false;
    while ((s = tr_client_poll(f->client, 100, &e, &err)) == TR_AGAIN) assert_true(tr_clock_now_ns() < end);
    assert_int_equal(s, TR_PEER);
    assert_int_equal(tr_client_poll(f->client, 10, &e, &err), TR_AGAIN);
    stop(f);
}

/* ---- requests -----------------------------------------------------------------------------------------------------
 */

static void test_stream(void **state) {
    (void)state;
    fake *f = start(NULL);
    uint64_t id = add(f);
    tr_msg m = expect(f, TR_MSG_ADD);
    assert_int_equal(m.as.add.id, id);
    assert_int_equal(m.as.add.prompt.len, 6);
    assert_memory_equal(m.as.add.prompt.data, "héllo", 6);
    assert_int_equal(m.as.add.max_tokens, 9);
    assert_true(m.as.add.temperature == 0.5f);
    assert_int_equal(m.as.add.seed, 3);
    send_text(f, id, 0, 1, 0, "ab", 0);
    send_text(f, id, 1, 0, 0, "", 0); /* nothing in it: no event */
    send_text(f, id, 1, 2, 2, "c", 0);
    send_text(f, id, 3, 1, 3, "d", TR_FINISH_LENGTH);
    expect_text(f, 0, 1, "ab", 0);
    expect_text(f, 1, 2, "c", 0);
    tr_client_event e;
    poll_event(f, &e);
    assert_int_equal(e.kind, TR_CLIENT_END);
    assert_int_equal(e.finish, TR_FINISH_LENGTH);
    assert_int_equal(e.generated_tokens, 4);
    assert_int_equal(e.prompt_tokens, 4);
    assert_int_equal(e.ttft_ns, 123);
    assert_int_equal(tr_client_open_requests(f->client), 0);
    send_text(f, id, 3, 1, 3, "d", TR_FINISH_LENGTH); /* repeats after the end, and ids that never were */
    send_error(f, id, 70, "late");
    send_text(f, 999, 0, 1, 0, "x", 0);
    expect_quiet(f);
    uint64_t tokens_id;
    tr_error err;
    uint32_t tokens[] = {1, 2, 3};
    const char *const stops[] = {"\n\n", "END"};
    tr_client_params p = {.tokens = tokens, .n_tokens = 3, .max_tokens = 1, .stop = stops, .n_stop = 2, .logits = true};
    assert_int_equal(tr_client_add(f->client, &p, &tokens_id, &err), TR_OK);
    assert_true(tokens_id > id);
    m = expect(f, TR_MSG_ADD);
    assert_int_equal(m.as.add.tokens.len, 3);
    assert_int_equal(m.as.add.tokens.data[2], 3);
    assert_int_equal(m.as.add.stop.len, 2);
    assert_memory_equal(m.as.add.stop.data[1].data, "END", 3);
    assert_int_equal(m.as.add.logits, 1);
    send_error(f, tokens_id, 65, "prompt too long");
    expect_error(f, tokens_id, 65, "too long");
    stop(f);
}

/* Overlap of any kind is cut: whole repeats, half repeats, tokens without their text. */
static void test_repeats(void **state) {
    (void)state;
    fake *f = start(NULL);
    uint64_t id = add(f);
    expect(f, TR_MSG_ADD);
    send_text(f, id, 0, 2, 0, "hell", 0);
    send_text(f, id, 0, 2, 0, "hell", 0);
    send_text(f, id, 0, 1, 0, "h", 0);
    send_text(f, id, 0, 4, 0, "hello w", 0);
    send_text(f, id, 3, 2, 7, "", 0);
    send_text(f, id, 4, 1, 5, " world", 0);
    send_text(f, id, 0, 5, 0, "hello world", TR_FINISH_STOP);
    expect_text(f, 0, 2, "hell", 0);
    expect_text(f, 2, 2, "o w", 0);
    expect_text(f, 4, 1, "", 0);
    expect_text(f, 5, 0, "orld", 0);
    expect_text(f, 5, 0, "", TR_FINISH_STOP);
    expect_quiet(f);
    stop(f);
}

static void expect_end(fake *f, tr_client_event_kind kind, uint32_t sample, bool last) {
    tr_client_event e;
    poll_event(f, &e);
    assert_int_equal(e.kind, kind);
    assert_int_equal(e.sample, sample);
    assert_int_equal(e.last, last);
}

static uint64_t add_samples(fake *f, uint32_t n) {
    uint64_t id = 0;
    tr_error err;
    const tr_client_params p = {.prompt = "a", .prompt_len = 1, .max_tokens = 9, .n = n};
    assert_int_equal(tr_client_add(f->client, &p, &id, &err), TR_OK);
    assert_int_equal(expect(f, TR_MSG_ADD).as.add.n, n);
    return id;
}

/* Each sample has a text and an end of its own; the request ends with the last, or with an error of all. */
static void test_samples(void **state) {
    (void)state;
    fake *f = start(NULL);
    uint64_t id = add_samples(f, 3);
    send_sample(f, id, 2, 0, 1, 0, "x", 0);
    send_sample(f, id, 0, 0, 2, 0, "ab", TR_FINISH_STOP);
    send_sample(f, id, 0, 0, 2, 0, "ab", TR_FINISH_STOP); /* a repeat */
    send_sample(f, id, 3, 0, 1, 0, "?", 0);               /* no such sample */
    send_sample(f, id, 2, 0, 2, 0, "xy", 0);
    expect_text(f, 0, 1, "x", 0);
    expect_end(f, TR_CLIENT_END, 0, false);
    expect_text(f, 1, 1, "y", 0);
    tr_msg m = {.type = TR_MSG_ERROR, .as.error = {.id = id, .code = 70, .text = {"no", 2}, .sample = 1}};
    for (int i = 0; i < 2; i++) answer(f, &m, NULL, 0);
    expect_end(f, TR_CLIENT_ERROR, 1, false);
    send_sample(f, id, 2, 2, 1, 2, "z", TR_FINISH_LENGTH);
    expect_end(f, TR_CLIENT_END, 2, true);
    assert_int_equal(tr_client_open_requests(f->client), 0);
    m.as.error.id = add_samples(f, 2);
    m.as.error.sample = TR_MAX_SAMPLES;
    answer(f, &m, NULL, 0);
    expect_end(f, TR_CLIENT_ERROR, TR_MAX_SAMPLES, true);
    expect_quiet(f);
    stop(f);
}

/* The frontend dies and comes back: HELLO and open requests come again, the text goes on where it was. */
static void test_frontend_restart(void **state) {
    (void)state;
    fake *f = start(NULL);
    uint64_t done = add(f), id = add(f);
    assert_int_equal(expect(f, TR_MSG_ADD).as.add.id, done);
    assert_int_equal(expect(f, TR_MSG_ADD).as.add.id, id);
    send_text(f, done, 0, 1, 0, "x", TR_FINISH_STOP);
    send_text(f, id, 0, 2, 0, "once", 0);
    expect_text(f, 0, 1, "x", TR_FINISH_STOP);
    expect_text(f, 0, 2, "once", 0);
    uint8_t peer[256];
    memcpy(peer, f->peer, f->peer_len);
    tr_zmq_socket_close(&f->router);
    uint64_t added_while_down = 0;
    tr_client_event e;
    for (int i = 0; i < 5; i++) assert_int_equal(tr_client_poll(f->client, 10, &e, NULL), TR_AGAIN);
    added_while_down = add(f);
    listen_again(f);
    expect(f, TR_MSG_HELLO);
    assert_memory_equal(peer, f->peer, f->peer_len); /* the routing id is kept */
    send_text(f, id, 0, 3, 0, "once up", 0);         /* adopted from the journal, before the welcome */
    welcome(f);
    expect_text(f, 2, 1, " up", 0);
    tr_msg m = expect(f, TR_MSG_ADD);
    assert_int_equal(m.as.add.id, id);
    m = expect(f, TR_MSG_ADD);
    assert_int_equal(m.as.add.id, added_while_down);
    send_text(f, id, 3, 1, 7, "on", TR_FINISH_LENGTH);
    expect_text(f, 3, 1, "on", TR_FINISH_LENGTH);
    /* So fast that nobody noticed, but it does not know the client: its WELCOME to a ping says so. */
    welcome(f);
    expect(f, TR_MSG_HELLO);
    welcome(f);
    assert_int_equal(expect(f, TR_MSG_ADD).as.add.id, added_while_down);
    /* Down and back while nobody polled: still HELLO before anything else. */
    tr_zmq_socket_close(&f->router);
    usleep(50000);
    listen_again(f);
    usleep(400000);
    add(f);
    expect(f, TR_MSG_HELLO);
    stop(f);
}

static void test_company_restart(void **state) {
    (void)state;
    fake *f = start(NULL);
    uint64_t a = add(f), b = add(f);
    expect(f, TR_MSG_ADD);
    expect(f, TR_MSG_ADD);
    f->company = 78;
    welcome(f);
    expect_error(f, a, 69, "started anew");
    expect_error(f, b, 69, "started anew");
    expect(f, TR_MSG_HELLO);
    welcome(f);
    uint64_t c = add(f);
    assert_int_equal(expect(f, TR_MSG_ADD).as.add.id, c);
    send_text(f, c, 0, 1, 0, "x", TR_FINISH_STOP);
    expect_text(f, 0, 1, "x", TR_FINISH_STOP);
    stop(f);
}

static void test_abort_status_drain(void **state) {
    (void)state;
    fake *f = start(NULL);
    uint64_t id = add(f), status_id;
    expect(f, TR_MSG_ADD);
    assert_int_equal(tr_client_abort(f->client, id), TR_OK);
    assert_int_equal(tr_client_abort(f->client, id + 5), TR_INVALID);
    assert_int_equal(expect(f, TR_MSG_ABORT).as.abort.id, id);
    send_text(f, id, 0, 0, 0, "", TR_FINISH_ABORT);
    expect_text(f, 0, 0, "", TR_FINISH_ABORT);
    assert_int_equal(tr_client_status(f->client, &status_id), TR_OK);
    assert_int_equal(expect(f, TR_MSG_STATUS).as.status.id, status_id);
    tr_msg m = {.type = TR_MSG_STATUS_REPLY, .as.status_reply = {.id = status_id, .json = {"{\"a\":1}", 7}}};
    answer(f, &m, NULL, 0);
    tr_client_event e;
    poll_event(f, &e);
    assert_int_equal(e.kind, TR_CLIENT_STATUS);
    assert_int_equal(e.id, status_id);
    assert_string_equal(e.json, "{\"a\":1}");
    /* What is open is aborted, and a drain just before close still goes out. */
    id = add(f);
    assert_int_equal(tr_client_drain(f->client, true), TR_OK);
    tr_client_close(&f->client);
    static const tr_msg_type want[] = {TR_MSG_ADD, TR_MSG_DRAIN, TR_MSG_ABORT};
    size_t got = 0;
    for (int i = 0; i < PATIENCE_MS && got < 3; i++, usleep(1000)) {
        m = take(f);
        if (m.type == TR_MSG_NONE || m.type == TR_MSG_PING) continue;
        assert_int_equal(m.type, want[got++]);
        if (m.type == TR_MSG_DRAIN) assert_int_equal(m.as.drain.stop, 1);
    }
    assert_int_equal(got, 3);
    stop(f);
}

static void test_logits(void **state) {
    (void)state;
    fake *f = start(NULL);
    uint64_t id = add(f);
    expect(f, TR_MSG_ADD);
    struct {
        tr_wire_header h;
        float rows[2][VOCAB];
    } frame = {.h = {.kind = TR_WIRE_LOGITS, .pos0 = 5, .rows = 2, .cols = VOCAB, .payload_bytes = 8 * VOCAB}};
    frame.rows[1][3] = 2.5f;
    tr_msg m = {.type = TR_MSG_TEXT, .as.text = {.id = id, .index = 7}};
    answer(f, &m, &frame, sizeof frame);
    tr_client_event e;
    poll_event(f, &e);
    assert_int_equal(e.kind, TR_CLIENT_TEXT);
    assert_int_equal(e.pos0, 5);
    assert_int_equal(e.rows, 2);
    assert_int_equal(e.cols, VOCAB);
    assert_true(e.logits[VOCAB + 3] == 2.5f);
    /* Shapes that do not fit the frame end the request, nothing else. */
    static const struct {
        uint32_t kind, rows, cols;
        uint64_t bytes;
        size_t cut;
    } bad[] = {{TR_WIRE_ACTIVATION, 2, VOCAB, 8 * VOCAB, 0}, {TR_WIRE_LOGITS, 3, VOCAB, 8 * VOCAB, 0},
               {TR_WIRE_LOGITS, 2, VOCAB, 4 * VOCAB, 0},     {TR_WIRE_LOGITS, 2, VOCAB + 1, 8 * VOCAB, 0},
               {TR_WIRE_LOGITS, 0, VOCAB, 0, 8 * VOCAB},     {TR_WIRE_LOGITS, 2, VOCAB, 8 * VOCAB, 4},
               {TR_WIRE_LOGITS, 1u << 31, 1u << 31, 0, 0},   {TR_WIRE_LOGITS, 2, VOCAB, 8 * VOCAB, 8 * VOCAB + 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        frame.h.kind = bad[i].kind, frame.h.rows = bad[i].rows, frame.h.cols = bad[i].cols;
        frame.h.payload_bytes = bad[i].bytes;
        m.as.text.id = id;
        answer(f, &m, &frame, sizeof frame - bad[i].cut);
        expect_error(f, id, 70, "logits");
        assert_int_equal(expect(f, TR_MSG_ABORT).as.abort.id, id);
        id = add(f);
        expect(f, TR_MSG_ADD);
    }
    stop(f);
}

static void test_hostile(void **state) {
    (void)state;
    fake *f = start(NULL);
    uint64_t id = add(f);
    expect(f, TR_MSG_ADD);
    tr_rng r = {88};
    for (size_t k = 0; k < 300; k++) {
        uint8_t junk[64];
        for (size_t i = 0; i < sizeof junk; i++) junk[i] = (uint8_t)tr_rng_next(&r);
        send_raw(f, junk, k % sizeof junk, k % 7 ? NULL : junk, 5);
    }
    expect_quiet(f);
    /* Three frames; messages that are not for clients. */
    assert_true(zmq_send(f->router, f->peer, f->peer_len, ZMQ_SNDMORE) > 0);
    zmq_send(f->router, "a", 1, ZMQ_SNDMORE);
    zmq_send(f->router, "b", 1, ZMQ_SNDMORE);
    zmq_send(f->router, "c", 1, 0);
    tr_msg m = {.type = TR_MSG_RESET, .as.reset.epoch = 3};
    answer(f, &m, NULL, 0);
    expect_quiet(f);
    send_text(f, id, 0, 1, 0, "ok", 0);
    expect_text(f, 0, 1, "ok", 0);
    /* Gaps in tokens, in text; a text that is no text, under an open id. */
    send_text(f, id, 2, 1, 2, "", 0);
    expect_error(f, id, 70, "left out");
    assert_int_equal(expect(f, TR_MSG_ABORT).as.abort.id, id);
    id = add(f);
    expect(f, TR_MSG_ADD);
    send_text(f, id, 0, 1, 1, "x", 0);
    expect_error(f, id, 70, "left out");
    expect(f, TR_MSG_ABORT);
    id = add(f);
    expect(f, TR_MSG_ADD);
    char bad[] = "\x83\xa4type\xa4text\xa2id\x00\xa6tokens\xc0";
    bad[14] = (char)id;
    send_raw(f, bad, sizeof bad - 1, NULL, 0);
    expect_error(f, id, 70, "malformed");
    expect(f, TR_MSG_ABORT);
    send_error(f, 0, 64, "unknown message");
    expect_error(f, 0, 64, "unknown message");
    stop(f);
}

static void test_params(void **state) {
    (void)state;
    fake *f = start(NULL);
    uint64_t id = 42;
    tr_error err;
    uint32_t token = 1;
    char big[TR_MAX_STOP_BYTES + 2];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = 0;
    const char *const many[TR_MAX_STOPS + 1] = {"a"}, *const empty[] = {""}, *const longer[] = {big};
    const struct {
        tr_client_params p;
        tr_status status;
        const char *word;
    } bad[] = {{{.prompt = "\xff", .prompt_len = 1}, TR_DATA, "UTF-8"},
               {{.prompt = "", .prompt_len = TR_MAX_TEXT_BYTES + 1}, TR_DATA, "bytes"},
               {{.tokens = &token, .n_tokens = TR_MAX_TOKENS + 1}, TR_DATA, "tokens"},
               {{.tokens = &token, .n_tokens = 1, .prompt = "a", .prompt_len = 1}, TR_USAGE, "both"},
               {{.max_tokens = TR_MAX_TOKENS + 1}, TR_USAGE, "max_tokens"},
               {{.forced = TR_MAX_TOKENS + 1}, TR_USAGE, "forced"},
               {{.temperature = -1}, TR_USAGE, "temperature"},
               {{.temperature = 101}, TR_USAGE, "temperature"},
               {{.top_p = 1.5f}, TR_USAGE, "top_p"},
               {{.stop = many, .n_stop = TR_MAX_STOPS + 1}, TR_USAGE, "stop"},
               {{.stop = empty, .n_stop = 1}, TR_USAGE, "stop"},
               {{.stop = longer, .n_stop = 1}, TR_USAGE, "stop"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(tr_client_add(f->client, &bad[i].p, &id, &err), bad[i].status);
        if (!strstr(err.text, bad[i].word)) fail_msg("\"%s\" is not in \"%s\"", bad[i].word, err.text);
    }
    assert_int_equal(id, 42);
    assert_int_equal(tr_client_open_requests(f->client), 0);
    stop(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connect),         cmocka_unit_test(test_connect_fails),
        cmocka_unit_test(test_pings),           cmocka_unit_test(test_silence),
        cmocka_unit_test(test_stream),          cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_samples),         cmocka_unit_test(test_frontend_restart),
        cmocka_unit_test(test_company_restart), cmocka_unit_test(test_abort_status_drain),
        cmocka_unit_test(test_logits),          cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_params)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
