#include "tests/contract/contract_carrier.h"

#include "tests/contract/contract_link.h"
#include "transport/carrier.h"
#include "transport/curve_key.h"
#include "transport/ring.h"
#include "transport/zmq_socket.h"
#include "transport/zmq_zap.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

struct contract_carrier {
    tr_bell bell;
    _Atomic int stop;
    pthread_t thread;
    void *context, *socket[2];
    tr_zmq_zap *zap;
    tr_channel *channel[2];
    tr_carrier *carrier[2];
};

static tr_status send_frame(void *arg, void *message) {
    return zmq_msg_send(message, arg, 0) >= 0 ? TR_OK : TR_PEER; /* waits for the connection */
}

static void *run(void *arg) {
    contract_carrier *c = arg;
    while (!atomic_load(&c->stop)) {
        uint32_t seen = tr_bell_read(&c->bell);
        bool any = false;
        for (int i = 0; i < 2; i++) {
            zmq_msg_t m;
            const void *control;
            size_t bytes;
            tr_error err = {0};
            zmq_msg_init(&m);
            while (zmq_msg_recv(&m, c->socket[i], ZMQ_DONTWAIT) >= 0) {
                any = true;
                tr_status status = tr_carrier_take(c->carrier[i], &m, &control, &bytes, &err);
                if (status != TR_OK) fprintf(stderr, "%s\n", err.text);
                CONTRACT_REQUIRE(status == TR_OK && !control);
                zmq_msg_init(&m);
            }
            zmq_msg_close(&m);
            CONTRACT_REQUIRE(tr_carrier_pump(c->carrier[i], &any) == TR_OK);
        }
        if (any || !tr_bell_prepare(&c->bell, seen)) continue;
        zmq_pollitem_t item[3] = {{.socket = c->socket[0], .events = ZMQ_POLLIN},
                                  {.socket = c->socket[1], .events = ZMQ_POLLIN},
                                  {.fd = c->bell.event_fd, .events = ZMQ_POLLIN}};
        zmq_poll(item, 3, 100);
        tr_bell_done(&c->bell);
    }
    return NULL;
}

/* DEALER to DEALER, the server with an allow-list of one key. */
static void open_sockets(contract_carrier *c, size_t record_max) {
    char dir[] = "/tmp/tr-contract-XXXXXX", path[64], endpoint[128];
    static const char *const names[] = {"a", "b"};
    tr_curve_key key[2];
    tr_error err = {0};
    CONTRACT_REQUIRE(mkdtemp(dir));
    for (int i = 0; i < 2; i++) {
        CONTRACT_REQUIRE(tr_curve_key_create(dir, names[i], &key[i], &err) == TR_OK);
        snprintf(path, sizeof path, "%s/%s.key", dir, names[i]);
        unlink(path);
        snprintf(path, sizeof path, "%s/%s.pub", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    tr_zmq_zap_peer allowed = {.name = "b"};
    memcpy(allowed.key, key[1].public_text, sizeof allowed.key);
    CONTRACT_REQUIRE(tr_zmq_socket_context(&c->context, &err) == TR_OK);
    CONTRACT_REQUIRE(tr_zmq_zap_open(c->context, &allowed, 1, &c->zap, &err) == TR_OK);
    tr_zmq_socket_curve server = {.public_text = key[0].public_text, .secret_text = key[0].secret_text};
    tr_zmq_socket_curve client = {
        .public_text = key[1].public_text, .secret_text = key[1].secret_text, .server_text = key[0].public_text};
    tr_zmq_socket_options o = {
        .type = ZMQ_DEALER, .bind = true, .max_message_bytes = (int64_t)record_max + 4096, .curve = &server};
    CONTRACT_REQUIRE(tr_zmq_socket_open(c->context, "tcp://127.0.0.1:*", &o, &c->socket[0], &err) == TR_OK);
    CONTRACT_REQUIRE(tr_zmq_socket_endpoint(c->socket[0], endpoint, sizeof endpoint) == TR_OK);
    o.bind = false;
    o.curve = &client;
    CONTRACT_REQUIRE(tr_zmq_socket_open(c->context, endpoint, &o, &c->socket[1], &err) == TR_OK);
}

contract_carrier *contract_carrier_start(void *from, void *to, size_t capacity, tr_bell *producer, tr_bell *consumer) {
    contract_carrier *c = calloc(1, sizeof *c);
    tr_error err = {0};
    CONTRACT_REQUIRE(c);
    tr_bell_init(&c->bell, eventfd(0, EFD_NONBLOCK));
    open_sockets(c, capacity);
    CONTRACT_REQUIRE(tr_ring_attach_consumer(from, capacity, producer, &c->channel[0], &err) == TR_OK);
    CONTRACT_REQUIRE(tr_ring_attach_producer(to, capacity, consumer, &c->channel[1], &err) == TR_OK);
    for (int i = 0; i < 2; i++) {
        tr_carrier_link link = {
            .id = 5, .channel = c->channel[i], .out = i == 0, .window = 4, .record_max = capacity - 64};
        tr_carrier_config config = {.n_links = 1, .link = &link, .arg = c->socket[i], .send = send_frame};
        CONTRACT_REQUIRE(tr_carrier_create(&config, &c->carrier[i], &err) == TR_OK);
        tr_carrier_begin(c->carrier[i], 77);
    }
    CONTRACT_REQUIRE(pthread_create(&c->thread, NULL, run, c) == 0);
    return c;
}

tr_bell *contract_carrier_bell(contract_carrier *c) { return &c->bell; }

void contract_carrier_stop(contract_carrier *c) {
    if (!c) return;
    atomic_store(&c->stop, 1);
    tr_bell_ring(&c->bell);
    pthread_join(c->thread, NULL);
    for (int i = 0; i < 2; i++) {
        tr_carrier_destroy(&c->carrier[i]);
        tr_channel_close(c->channel[i]);
        tr_zmq_socket_close(&c->socket[i]);
    }
    tr_zmq_zap_close(&c->zap);
    zmq_ctx_term(c->context);
    close(c->bell.event_fd);
    free(c);
}
