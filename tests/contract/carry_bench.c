/* carry_bench [MIB] [NETNS_A ADDRESS_A NETNS_B]: speed of a hand-off's way between two nodes: records of 128 KiB out of
 * a ring, through two carriers and tcp, into a ring, and from there into memory; two processes, as on two hosts.
 * Printed against memcpy of the same bytes in the same run. On loopback without and with keys; with two namespaces that
 * reach each other (ip netns) also between them. */
#include "base/clock.h"
#include "transport/carrier.h"
#include "transport/curve_key.h"
#include "transport/ring.h"
#include "transport/zmq_socket.h"
#include "transport/zmq_zap.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

enum { RECORD = 128 << 10, WINDOW = 8, SESSION = 1, PORT = 25570 };

typedef struct route {
    const char *name, *ns[2], *address;
    bool keys;
} route;

static void need(bool ok, const char *what, const tr_error *err) {
    if (ok) return;
    fprintf(stderr, "carry_bench: %s: %s\n", what, err && err->text[0] ? err->text : strerror(errno));
    exit(70);
}

static tr_curve_key key[2];
static uint8_t *memory; /* what is moved, and where to */
static size_t total;

static void enter(const char *ns) {
    char path[128];
    if (!ns) return;
    snprintf(path, sizeof path, "/var/run/netns/%s", ns);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    need(fd >= 0 && setns(fd, CLONE_NEWNET) == 0, path, NULL);
}

static tr_status send_frame(void *arg, void *message) { return zmq_msg_send(message, arg, 0) >= 0 ? TR_OK : TR_PEER; }

typedef struct end {
    void *context, *socket, *ring;
    tr_zmq_zap *zap;
    tr_channel *actor, *carried;
    tr_carrier *carrier;
} end;

static void open_end(end *e, const route *r, bool sends) {
    tr_error err = {0};
    char endpoint[128];
    size_t capacity = tr_ring_capacity(WINDOW, RECORD);
    tr_zmq_zap_peer peer = {.name = "a"};
    memcpy(peer.key, key[0].public_text, sizeof peer.key);
    enter(r->ns[sends ? 0 : 1]);
    need(tr_zmq_socket_context(&e->context, &err) == TR_OK, "context", &err);
    if (r->keys && !sends) need(tr_zmq_zap_open(e->context, &peer, 1, &e->zap, &err) == TR_OK, "keys", &err);
    tr_zmq_socket_curve curve = {.public_text = key[sends ? 0 : 1].public_text,
                                 .secret_text = key[sends ? 0 : 1].secret_text,
                                 .server_text = sends ? key[1].public_text : NULL};
    tr_zmq_socket_options o = {.type = ZMQ_DEALER,
                               .bind = !sends,
                               .max_message_bytes = RECORD + 4096,
                               .linger_ms = 1000,
                               .curve = r->keys ? &curve : NULL};
    snprintf(endpoint, sizeof endpoint, "tcp://%s:%d", r->address, PORT);
    need(tr_zmq_socket_open(e->context, endpoint, &o, &e->socket, &err) == TR_OK, endpoint, &err);
    e->ring = aligned_alloc(64, tr_ring_bytes(capacity));
    need(e->ring != NULL, "memory", NULL);
    memset(e->ring, 0, tr_ring_bytes(capacity));
    tr_ring_init(e->ring, capacity);
    need(tr_ring_attach_producer(e->ring, capacity, NULL, sends ? &e->actor : &e->carried, &err) == TR_OK, "ring",
         &err);
    need(tr_ring_attach_consumer(e->ring, capacity, NULL, sends ? &e->carried : &e->actor, &err) == TR_OK, "ring",
         &err);
    tr_carrier_link link = {
        .id = 0, .channel = e->carried, .out = sends, .checked = true, .window = WINDOW, .record_max = RECORD};
    tr_carrier_config config = {.n_links = 1, .link = &link, .arg = e->socket, .send = send_frame};
    need(tr_carrier_create(&config, &e->carrier, &err) == TR_OK, "carrier", &err);
    tr_carrier_begin(e->carrier, SESSION);
}

static void turn(end *e, bool moved) {
    zmq_msg_t m;
    const void *control;
    size_t bytes;
    tr_error err = {0};
    bool any = moved;
    need(tr_carrier_pump(e->carrier, &any) == TR_OK, "pump", NULL);
    zmq_pollitem_t item = {.socket = e->socket, .events = ZMQ_POLLIN};
    zmq_poll(&item, 1, any ? 0 : 20);
    zmq_msg_init(&m);
    while (zmq_msg_recv(&m, e->socket, ZMQ_DONTWAIT) >= 0) {
        need(tr_carrier_take(e->carrier, &m, &control, &bytes, &err) == TR_OK, "frame", &err);
        zmq_msg_init(&m);
    }
    zmq_msg_close(&m);
}

static void close_end(end *e) {
    tr_carrier_destroy(&e->carrier);
    tr_channel_close(e->actor);
    tr_channel_close(e->carried);
    tr_zmq_socket_close(&e->socket);
    tr_zmq_zap_close(&e->zap);
    zmq_ctx_term(e->context);
    free(e->ring);
}

/* Ends when it is killed: the last records are on their way as long as it lives. */
_Noreturn static void run_sender(const route *r) {
    end e = {0};
    open_end(&e, r, true);
    for (size_t at = 0;;) {
        void *to;
        bool moved = at < total && tr_channel_reserve(e.actor, RECORD, &to) == TR_OK;
        if (moved) {
            memcpy(to, memory + at, RECORD);
            tr_channel_commit(e.actor, RECORD);
            at += RECORD;
        }
        turn(&e, moved);
    }
}

/* Seconds from the first record to the last. */
static double run_receiver(const route *r) {
    end e = {0};
    uint64_t begin = 0;
    open_end(&e, r, false);
    for (size_t at = 0; at < total;) {
        const void *data;
        size_t n;
        bool moved = tr_channel_peek(e.actor, &data, &n) == TR_OK;
        if (moved) {
            if (!begin) begin = tr_clock_now_ns();
            memcpy(memory + at, data, n);
            tr_channel_release(e.actor);
            at += n;
        }
        turn(&e, moved);
    }
    double s = (double)(tr_clock_now_ns() - begin) / 1e9;
    turn(&e, false);
    close_end(&e);
    return s;
}

static double copy_rate(void) {
    uint8_t *to = malloc(total);
    need(to != NULL, "memory", NULL);
    memset(to, 1, total);
    uint64_t begin = tr_clock_now_ns();
    for (size_t at = 0; at < total; at += RECORD) memcpy(to + at, memory + at, RECORD);
    double s = (double)(tr_clock_now_ns() - begin) / 1e9;
    volatile uint8_t sink = to[total / 2];
    (void)sink;
    free(to);
    return (double)total / s / 1e6;
}

int main(int argc, char **argv) {
    const route all[] = {
        {"loopback, no keys", {NULL, NULL}, "127.0.0.1", false},
        {"loopback, keys", {NULL, NULL}, "127.0.0.1", true},
        {"namespaces, keys", {argc > 4 ? argv[2] : NULL, argc > 4 ? argv[4] : NULL}, argc > 4 ? argv[3] : "", true}};
    long mib = argc > 1 ? strtol(argv[1], NULL, 10) : 256;
    if (mib < 1 || mib > 4096) return fprintf(stderr, "usage: carry_bench [MIB [NETNS_A ADDRESS_B NETNS_B]]\n"), 64;
    total = (size_t)mib << 20;
    memory = malloc(total);
    need(memory != NULL, "memory", NULL);
    memset(memory, 0x5a, total);
    for (int i = 0; i < 2; i++) need(zmq_curve_keypair(key[i].public_text, key[i].secret_text) == 0, "keys", NULL);
    for (size_t i = 0; i < (argc > 4 ? 3u : 2u); i++) {
        double copy = copy_rate();
        fflush(stdout);
        pid_t pid = fork();
        need(pid >= 0, "fork", NULL);
        if (pid == 0) run_sender(&all[i]);
        int pipe_fd[2], status;
        double s = 0;
        need(pipe(pipe_fd) == 0, "pipe", NULL);
        pid_t other = fork(); /* a namespace is entered for good */
        if (other == 0) {
            s = run_receiver(&all[i]);
            _exit(write(pipe_fd[1], &s, sizeof s) == (ssize_t)sizeof s ? 0 : 70);
        }
        need(read(pipe_fd[0], &s, sizeof s) == (ssize_t)sizeof s, "receiver", NULL);
        waitpid(other, &status, 0);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        close(pipe_fd[0]);
        close(pipe_fd[1]);
        double rate = (double)total / s / 1e6;
        printf("%-18s %8.0f MB/s, memcpy %8.0f MB/s, %.3f of it\n", all[i].name, rate, copy, rate / copy);
    }
    free(memory);
    return 0;
}
