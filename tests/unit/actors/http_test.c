/* The HTTP server by itself: bodies that come slowly, in chunks, broken, without an end; what is answered, and whether
 * the connection goes on. The server and its client are one thread. */
#include "actors/gateway/http.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { BODY_MAX = 4096, WAIT_S = 30 };

static tr_http *http;
static uint32_t asked;

/* Answers with what it got. */
static void on_request(void *self, const tr_http_request *r) {
    (void)self;
    asked++;
    if (r->refused)
        tr_http_reply(http, r->id, r->refused, "text/plain", NULL, "no", 2);
    else
        tr_http_reply(http, r->id, 200, "text/plain", NULL, r->body, r->body_len);
}
static void on_gone(void *self, tr_http_id id) { (void)self, (void)id; }

static int open_http(void **state) {
    (void)state;
    tr_error err = {0};
    const tr_http_config config = {.host = "127.0.0.1",
                                   .body_max = BODY_MAX,
                                   .unsent_max = 65536,
                                   .connections_max = 16,
                                   .idle_s = 20,
                                   .body_s = 1,
                                   .request = on_request,
                                   .gone = on_gone};
    return tr_http_open(&config, &http, &err) != TR_OK;
}

static int close_http(void **state) {
    (void)state;
    tr_http_close(&http);
    return 0;
}

static int dial(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(tr_http_port(http))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

/* Until an answer with that end is there, or the connection is closed. True: it is closed. */
static bool answer(int fd, char *out, size_t cap, const char *end) {
    size_t n = 0;
    out[0] = 0;
    for (const uint64_t until = tr_clock_now_ns() + WAIT_S * TR_NS_PER_S; tr_clock_now_ns() < until;) {
        tr_http_service(http, 10);
        const ssize_t got = recv(fd, out + n, cap - 1 - n, MSG_DONTWAIT);
        if (got == 0) return true;
        if (got > 0) out[n += (size_t)got] = 0;
        if (n > 0 && end && strstr(out, end)) return false;
    }
    fail_msg("no end of: %s", out);
    return false;
}

static void say(int fd, const char *text, size_t len) {
    while (len > 0) {
        const ssize_t n = send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) text += n, len -= (size_t)n;
        if (n < 0) return; /* it was refused meanwhile */
        tr_http_service(http, 0);
    }
}

#define HEAD   "POST /x HTTP/1.1\r\nHost: a\r\n"
#define CHUNKS HEAD "Transfer-Encoding: chunked\r\n\r\n"

static void answers(void **state) {
    (void)state;
    static const struct {
        const char *request, *status, *body;
        bool closed;
    } all[] = {
        {HEAD "Content-Length: 5\r\n\r\nhello", " 200 ", "hello", false},
        {CHUNKS "5\r\nhello\r\n0\r\n\r\n", " 200 ", "hello", true},
        {CHUNKS "0\r\n\r\n", " 200 ", "", true},
        {CHUNKS "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: a\r\n\r\n", " 200 ", "hello", true},
        {HEAD "transfer-encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", " 200 ", "a", true},
        {CHUNKS "x\r\n", " 400 ", "no", true},
        {CHUNKS "5\r\nhelloo\r\n0\r\n\r\n", " 400 ", "no", true},
        {CHUNKS "1001\r\n", " 408 ", "no", true}, /* nothing comes after it */
        {HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", " 400 ", "no", true},
        {HEAD "Transfer-Encoding: identity\r\n\r\n", " 400 ", "no", true},
        {HEAD "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", " 400 ", "no", true},
        {"GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", " 400 ", "no", true},
        {CHUNKS "5\r\nhel", " 408 ", "no", true},
        {HEAD "Content-Length: 5\r\n\r\nhel", " 408 ", "no", true},
    };
    char got[8192];
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        int fd = dial();
        say(fd, all[i].request, strlen(all[i].request));
        const bool closed = answer(fd, got, sizeof got, all[i].closed ? NULL : all[i].body);
        const char *body = strstr(got, "\r\n\r\n");
        if (!strstr(got, all[i].status) || closed != all[i].closed || !body || strcmp(body + 4, all[i].body) != 0)
            fail_msg("case %zu: %s", i, got);
        if (closed && !strstr(got, "connection: close\r\n")) fail_msg("case %zu: %s", i, got);
        close(fd);
    }
}

static void too_long(void **state) {
    (void)state;
    static char request[3 * BODY_MAX], got[2 * BODY_MAX];
    for (int more = 0; more < 2; more++) {
        size_t at = (size_t)snprintf(request, sizeof request, "%s", CHUNKS);
        for (int i = 0; i < BODY_MAX / 16 + more; i++)
            at += (size_t)snprintf(request + at, sizeof request - at, "10\r\n0123456789abcdef\r\n");
        at += (size_t)snprintf(request + at, sizeof request - at, "0\r\n\r\n");
        int fd = dial();
        say(fd, request, at);
        assert_true(answer(fd, got, sizeof got, NULL));
        assert_non_null(strstr(got, more ? " 413 " : " 200 "));
        close(fd);
    }
}

/* Byte by byte; then the server still answers others. */
static void drops(void **state) {
    (void)state;
    static const char request[] = CHUNKS "5\r\nhello\r\n0\r\n\r\n";
    char got[1024];
    int fd = dial();
    for (size_t i = 0; i < sizeof request - 1; i++) {
        say(fd, request + i, 1);
        tr_http_service(http, 1);
    }
    assert_true(answer(fd, got, sizeof got, NULL));
    assert_non_null(strstr(got, "\r\n\r\nhello"));
    close(fd);
    const uint32_t before = asked;
    for (size_t end = 1; end < sizeof request - 1; end += 7) { /* leavers */
        fd = dial();
        say(fd, request, end);
        close(fd);
    }
    for (int i = 0; i < 20; i++) tr_http_service(http, 5);
    assert_int_equal(asked, before);
    assert_int_equal(tr_http_connections(http), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers), cmocka_unit_test(too_long), cmocka_unit_test(drops)};
    return cmocka_run_group_tests(tests, open_http, close_http);
}
