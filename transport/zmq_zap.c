#include "transport/zmq_zap.h"

#include "base/clock.h"
#include "base/log.h"
#include "transport/zmq_socket.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

/* version, request id, domain, address, identity, mechanism, key */
enum { FRAMES = 7, FRAME_BYTES = 256, KEY_BYTES = 32 };

typedef struct frame {
    size_t bytes;
    char data[FRAME_BYTES];
} frame;

struct tr_zmq_zap {
    void *handler; /* ZAP's REP socket: of the thread */
    void *quit[2]; /* PAIR: [0] of the opener */
    pthread_t thread;
    uint32_t n_peers;
    char name[TR_ZMQ_ZAP_PEERS_MAX][TR_ZMQ_ZAP_NAME];
    uint8_t key[TR_ZMQ_ZAP_PEERS_MAX][KEY_BYTES];
    uint64_t logged_ns;
    _Atomic uint64_t refused;
};

/* Number of frames taken; 0: nothing there. All of the message are read, whatever they hold. */
static uint32_t receive(void *socket, frame f[FRAMES]) {
    uint32_t n = 0;
    for (int more = 1; more;) {
        frame spare, *to = n < FRAMES ? &f[n] : &spare;
        int got = zmq_recv(socket, to->data, FRAME_BYTES, n == 0 ? ZMQ_DONTWAIT : 0);
        if (got < 0) return 0;
        to->bytes = (size_t)got; /* larger than FRAME_BYTES: cut */
        n++;
        size_t size = sizeof more;
        if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) != 0) return 0;
    }
    return n;
}

static bool is(const frame *f, const char *text) {
    return f->bytes == strlen(text) && memcmp(f->data, text, f->bytes) == 0;
}

/* Index of the peer whose key this is, or n_peers. */
static uint32_t find(const tr_zmq_zap *z, const frame f[FRAMES], uint32_t n) {
    if (n != FRAMES || !is(&f[0], "1.0") || !is(&f[2], TR_ZMQ_ZAP_DOMAIN) || !is(&f[5], "CURVE") ||
        f[6].bytes != KEY_BYTES)
        return z->n_peers;
    uint32_t i = 0;
    while (i < z->n_peers && memcmp(f[6].data, z->key[i], KEY_BYTES) != 0) i++;
    return i;
}

static void log_refusal(tr_zmq_zap *z, const frame f[FRAMES], uint32_t n) {
    uint64_t now = tr_clock_now_ns();
    atomic_fetch_add(&z->refused, 1);
    if (now - z->logged_ns < TR_NS_PER_S) return;
    z->logged_ns = now;
    bool told = n > 3 && f[3].bytes < 64;
    tr_log(TR_LOG_WARN, "key_refused", "address=%.*s refused=%llu", told ? (int)f[3].bytes : 1, told ? f[3].data : "?",
           (unsigned long long)atomic_load(&z->refused));
}

static void answer(tr_zmq_zap *z) {
    frame f[FRAMES] = {{0}};
    uint32_t n = receive(z->handler, f);
    if (n == 0) return;
    uint32_t peer = find(z, f, n);
    bool known = peer < z->n_peers;
    if (!known) log_refusal(z, f, n);
    const char *name = known ? z->name[peer] : "";
    zmq_send(z->handler, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(z->handler, f[1].data, f[1].bytes < FRAME_BYTES ? f[1].bytes : 0, ZMQ_SNDMORE);
    zmq_send(z->handler, known ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(z->handler, known ? "OK" : "no", 2, ZMQ_SNDMORE);
    zmq_send(z->handler, name, strlen(name), ZMQ_SNDMORE);
    zmq_send(z->handler, "", 0, 0);
}

static void *serve(void *arg) {
    tr_zmq_zap *z = arg;
    zmq_pollitem_t item[2] = {{.socket = z->handler, .events = ZMQ_POLLIN},
                              {.socket = z->quit[1], .events = ZMQ_POLLIN}};
    while (zmq_poll(item, 2, -1) >= 0 || zmq_errno() == EINTR) {
        if (item[1].revents) break;
        if (item[0].revents & ZMQ_POLLIN) answer(z);
    }
    tr_zmq_socket_close(&z->handler);
    tr_zmq_socket_close(&z->quit[1]);
    return NULL;
}

static tr_status open_sockets(tr_zmq_zap *z, void *context, tr_error *err) {
    tr_zmq_socket_options rep = {.type = ZMQ_REP, .bind = true, .max_message_bytes = 4096};
    tr_zmq_socket_options pair = {.type = ZMQ_PAIR, .bind = true, .max_message_bytes = 16};
    TR_TRY(tr_zmq_socket_open(context, "inproc://zeromq.zap.01", &rep, &z->handler, err));
    TR_TRY(tr_zmq_socket_open(context, "inproc://troupe-zap-quit", &pair, &z->quit[1], err));
    pair.bind = false;
    return tr_zmq_socket_open(context, "inproc://troupe-zap-quit", &pair, &z->quit[0], err);
}

/* Signals are for the thread that runs the actor. */
static bool start(tr_zmq_zap *z) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    bool ok = pthread_create(&z->thread, NULL, serve, z) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ok;
}

tr_status tr_zmq_zap_open(void *context, const tr_zmq_zap_peer *peer, uint32_t n_peers, tr_zmq_zap **out,
                          tr_error *err) {
    if (n_peers > TR_ZMQ_ZAP_PEERS_MAX) return tr_error_set(err, TR_INVALID, "%u keys are too many", n_peers);
    tr_zmq_zap *z = calloc(1, sizeof *z);
    if (!z) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the list of keys");
    tr_status status = TR_OK;
    z->n_peers = n_peers;
    for (uint32_t i = 0; i < n_peers && status == TR_OK; i++) {
        memcpy(z->name[i], peer[i].name, sizeof z->name[i]);
        z->name[i][TR_ZMQ_ZAP_NAME - 1] = 0;
        if (!zmq_z85_decode(z->key[i], peer[i].key))
            status = tr_error_set(err, TR_CONFIG, "the key of %.31s is no Z85", peer[i].name);
    }
    if (status == TR_OK) status = open_sockets(z, context, err);
    if (status == TR_OK && !start(z)) status = tr_error_set(err, TR_UNAVAILABLE, "cannot start the thread of the keys");
    if (status == TR_OK) {
        *out = z;
        return TR_OK;
    }
    tr_zmq_socket_close(&z->handler);
    tr_zmq_socket_close(&z->quit[0]);
    tr_zmq_socket_close(&z->quit[1]);
    free(z);
    return status;
}

void tr_zmq_zap_close(tr_zmq_zap **zap) {
    tr_zmq_zap *z = *zap;
    if (!z) return;
    zmq_send(z->quit[0], "q", 1, 0);
    pthread_join(z->thread, NULL);
    tr_zmq_socket_close(&z->quit[0]);
    free(z);
    *zap = NULL;
}

uint64_t tr_zmq_zap_refused(const tr_zmq_zap *zap) { return atomic_load(&zap->refused); }
