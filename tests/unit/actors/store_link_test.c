/* The connection to a store against a server in the same thread: large values of any bytes get out whole where a socket
 * takes only a part at a time. */
#include "actors/store/store_link.h"
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { VALUE = 3 << 20 };

typedef struct server {
    char folder[32], path[64];
    int listens, fd;
} server;

static void serve(server *s) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strcpy(s->folder, "/tmp/store_link_XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->path, sizeof s->path, "%s/s", s->folder);
    strcpy(at.sun_path, s->path);
    s->listens = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(s->listens, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(s->listens, 1), 0);
    s->fd = -1;
}

static void leave(server *s) {
    close(s->fd);
    close(s->listens);
    unlink(s->path);
    rmdir(s->folder);
}

static void say(const server *s, const char *text) { assert_int_equal(write(s->fd, text, strlen(text)), strlen(text)); }

static void on_reply(void *self, const tr_store_reply *r) {
    assert_int_equal(r->kind, TR_STORE_REPLY_STATUS);
    ++*(int *)self;
}

static void step(tr_store_link *l, int *replies) { tr_store_link_step(l, tr_clock_now_ns(), on_reply, replies); }

/* Up, by the server's answer to PING. */
static tr_store_link *connect_to(server *s, int *replies) {
    tr_store_link *l = NULL;
    tr_error err = {0};
    char ping[64];
    const tr_store_link_config c = {.host = s->path, .password = "", .timeout_ns = 10 * TR_NS_PER_S, .value_max = 1024};
    assert_int_equal(tr_store_link_create(&c, &l, &err), TR_OK);
    step(l, replies);
    s->fd = accept(s->listens, NULL, NULL);
    assert_true(s->fd >= 0);
    step(l, replies);
    assert_true(read(s->fd, ping, sizeof ping) > 0);
    say(s, "+PONG\r\n");
    step(l, replies);
    assert_true(tr_store_link_up(l));
    return l;
}

/* What is left after a part was written may begin with any byte, 0 too. */
static void large_values(void **state) {
    (void)state;
    server s;
    int replies = 0;
    serve(&s);
    tr_store_link *l = connect_to(&s, &replies);
    char *value = malloc(VALUE), *got = malloc(VALUE + 256);
    for (unsigned byte = 0; byte < 256; byte += 51) {
        memset(value, (int)byte, VALUE);
        tr_store_link_ask(l, 3, (const char *[]){"SET", "a", value}, (size_t[]){3, 1, VALUE});
        char head[64];
        size_t n = 0;
        const size_t all =
            (size_t)snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%d\r\n", VALUE) + VALUE + 2;
        while (n < all) {
            bool writes;
            uint64_t until;
            tr_store_link_wait(l, &writes, &until);
            assert_true(writes); /* else nobody would go on with it */
            step(l, &replies);
            for (ssize_t k; n < all && (k = recv(s.fd, got + n, VALUE + 256 - n, MSG_DONTWAIT)) > 0;) n += (size_t)k;
        }
        assert_int_equal(n, all);
        assert_memory_equal(got, head, strlen(head));
        assert_memory_equal(got + strlen(head), value, VALUE);
        say(&s, "+OK\r\n");
        step(l, &replies);
        assert_int_equal(tr_store_link_waiting(l), 0);
    }
    assert_int_equal(replies, 6);
    assert_int_equal(tr_store_link_failures(l), 0);
    tr_store_link_destroy(l);
    free(value), free(got);
    leave(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(large_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
