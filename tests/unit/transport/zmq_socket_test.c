/* What the socket opener refuses, and that it does not take what is not its own. */
#include "transport/zmq_socket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

static void test_endpoints(void **state) {
    (void)state;
    tr_error err;
    static const char *const good[] = {"ipc:///tmp/x",          "tcp://127.0.0.1:5555", "tcp://127.8.9.1:1",
                                       "tcp://localhost:65535", "tcp://[::1]:80",       "inproc://x"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (tr_zmq_socket_check(good[i], false, false, &err) != TR_OK) fail_msg("%s", err.text);
    static const char *const bad[] = {"",
                                      "x",
                                      "ipc://",
                                      "ipc://relative",
                                      "ipc://@abstract",
                                      "ipc://*",
                                      "inproc://",
                                      "tcp://",
                                      "tcp://127.0.0.1",
                                      "tcp://127.0.0.1:",
                                      "tcp://127.0.0.1:0",
                                      "tcp://127.0.0.1:*",
                                      "tcp://127.0.0.1:65536",
                                      "tcp://127.0.0.1:-1",
                                      "tcp://127.0.0.1:5555x",
                                      "tcp://:5555",
                                      "tcp://*:5555",
                                      "tcp://0.0.0.0:5555",
                                      "tcp://[::]:5555",
                                      "tcp://[::ffff:10.0.0.1]:5555",
                                      "tcp://10.0.0.1:5555",
                                      "tcp://eth0:5555",
                                      "tcp://example.org:5555",
                                      "tcp://127.0.0.1.example.org:5555",
                                      "tcp://127.0.0.1:1;10.0.0.1:5555",
                                      "tcp://10.0.0.1:1;127.0.0.1:5555",
                                      "udp://127.0.0.1:5555",
                                      "pgm://x",
                                      "ws://127.0.0.1:5555"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (tr_zmq_socket_check(bad[i], false, false, &err) != TR_USAGE) fail_msg("accepted: %s", bad[i]);
    assert_int_equal(tr_zmq_socket_check("tcp://127.0.0.1:*", true, false, &err), TR_OK);
    assert_int_equal(tr_zmq_socket_check("tcp://*:5555", true, false, &err), TR_USAGE);
    assert_non_null(strstr(err.text, "keys"));
    char longest[200] = "ipc:///";
    memset(longest + 7, 'a', 106);
    assert_int_equal(tr_zmq_socket_check(longest, true, false, &err), TR_OK);
    longest[113] = 'a';
    assert_int_equal(tr_zmq_socket_check(longest, true, false, &err), TR_USAGE);
}

static tr_status open_at(void *context, const char *endpoint, bool private_dir, void **socket, tr_error *err) {
    tr_zmq_socket_options o = {.type = ZMQ_ROUTER, .bind = true, .private_dir = private_dir, .max_message_bytes = 100};
    return tr_zmq_socket_open(context, endpoint, &o, socket, err);
}

static void test_bind(void **state) {
    (void)state;
    tr_error err;
    void *context, *a = NULL, *b = NULL;
    char dir[] = "/tmp/tr-socket-XXXXXX", endpoint[64], other[64], name[64];
    assert_non_null(mkdtemp(dir));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/a", dir);
    snprintf(other, sizeof other, "ipc://%s/b", dir);
    assert_int_equal(tr_zmq_socket_context(&context, &err), TR_OK);
    /* In use: refused, and the first owner keeps it. A path left behind: taken. A file: left alone. */
    assert_int_equal(open_at(context, endpoint, true, &a, &err), TR_OK);
    struct stat st;
    assert_int_equal(stat(endpoint + 6, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(open_at(context, endpoint, true, &b, &err), TR_UNAVAILABLE);
    assert_null(b);
    assert_int_equal(access(endpoint + 6, F_OK), 0);
    assert_int_equal(rename(endpoint + 6, other + 6), 0); /* so that closing does not remove it */
    tr_zmq_socket_close(&a);
    tr_zmq_socket_close(&a);
    usleep(50000);
    assert_int_equal(open_at(context, other, true, &a, &err), TR_OK);
    tr_zmq_socket_close(&a);
    usleep(50000);
    FILE *file = fopen(endpoint + 6, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(open_at(context, endpoint, true, &a, &err), TR_CANNOT_CREATE);
    assert_int_equal(access(endpoint + 6, F_OK), 0);
    unlink(endpoint + 6);
    assert_int_equal(chmod(dir, 0750), 0);
    assert_int_equal(open_at(context, endpoint, true, &a, &err), TR_CANNOT_CREATE);
    assert_int_equal(open_at(context, "ipc:///nonexistent-folder/a", true, &a, &err), TR_CANNOT_CREATE);
    assert_int_equal(open_at(context, "ipc:///nonexistent-folder/a", false, &a, &err), TR_CANNOT_CREATE);
    /* tcp: the port is known afterwards, and taken. */
    assert_int_equal(open_at(context, "tcp://localhost:*", true, &a, &err), TR_OK);
    assert_int_equal(tr_zmq_socket_endpoint(a, name, sizeof name), TR_OK);
    assert_int_equal(strncmp(name, "tcp://127.0.0.1:", 16), 0);
    assert_int_equal(open_at(context, name, true, &b, &err), TR_UNAVAILABLE);
    tr_zmq_socket_close(&a);
    tr_zmq_socket_options unlimited = {.type = ZMQ_ROUTER, .bind = true};
    assert_int_equal(tr_zmq_socket_open(context, endpoint, &unlimited, &a, &err), TR_INVALID);
    zmq_ctx_term(context);
    unlink(other + 6);
    unlink(endpoint + 6);
    assert_int_equal(rmdir(dir), 0);
}

/* Limits reach the socket: a frame above the limit cuts the sender off, it is not delivered. */
static void test_limits(void **state) {
    (void)state;
    tr_error err;
    void *context, *pull = NULL, *push = NULL;
    char name[64], buffer[200] = {0};
    tr_zmq_socket_options in = {.type = ZMQ_PULL, .bind = true, .hwm = 7, .max_message_bytes = 100};
    tr_zmq_socket_options out = {.type = ZMQ_PUSH, .hwm = 7, .max_message_bytes = 100};
    assert_int_equal(tr_zmq_socket_context(&context, &err), TR_OK);
    assert_int_equal(tr_zmq_socket_open(context, "tcp://127.0.0.1:*", &in, &pull, &err), TR_OK);
    assert_int_equal(tr_zmq_socket_endpoint(pull, name, sizeof name), TR_OK);
    assert_int_equal(tr_zmq_socket_open(context, name, &out, &push, &err), TR_OK);
    static const int options[][2] = {{ZMQ_SNDHWM, 7}, {ZMQ_RCVHWM, 7}, {ZMQ_LINGER, 0}, {ZMQ_HANDSHAKE_IVL, 2000}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        int value = -5;
        size_t size = sizeof value;
        assert_int_equal(zmq_getsockopt(push, options[i][0], &value, &size), 0);
        assert_int_equal(value, options[i][1]);
    }
    assert_int_equal(zmq_send(push, buffer, 101, 0), 101);
    usleep(100000);
    assert_int_equal(zmq_recv(pull, buffer, sizeof buffer, ZMQ_DONTWAIT), -1);
    assert_int_equal(zmq_send(push, buffer, 100, 0), 100); /* after the new connection */
    zmq_pollitem_t item = {.socket = pull, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&item, 1, 5000), 1);
    assert_int_equal(zmq_recv(pull, buffer, sizeof buffer, ZMQ_DONTWAIT), 100);
    tr_zmq_socket_close(&push);
    tr_zmq_socket_close(&pull);
    zmq_ctx_term(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_endpoints), cmocka_unit_test(test_bind),
                                       cmocka_unit_test(test_limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
