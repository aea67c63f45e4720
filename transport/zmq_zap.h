/* transport/zmq_zap.h - who may connect: answers libzmq's question (ZAP) for every CURVE handshake of this context.
 * Why: CURVE alone is encryption without authentication, libzmq lets in any key. Here an allow-list of public keys
 * decides, and everything else (unknown keys, other mechanisms, malformed questions) is refused. A refusal is logged
 * once a second at most. The name of an allowed key is the "User-Id" of the messages of its connection.
 * One thread of its own, as long as the context lives: end with tr_zmq_zap_close before the context is terminated. */
#ifndef TR_ZMQ_ZAP_H
#define TR_ZMQ_ZAP_H
#include "base/status.h"
#include "transport/curve_key.h"

#include <stdint.h>

enum { TR_ZMQ_ZAP_PEERS_MAX = 16, TR_ZMQ_ZAP_NAME = 32 };
#define TR_ZMQ_ZAP_DOMAIN "troupe"

typedef struct tr_zmq_zap_peer {
    char name[TR_ZMQ_ZAP_NAME];
    char key[TR_CURVE_KEY_TEXT]; /* public, Z85 */
} tr_zmq_zap_peer;

typedef struct tr_zmq_zap tr_zmq_zap;
/* Before the first CURVE socket of the context is bound. */
tr_status tr_zmq_zap_open(void *context, const tr_zmq_zap_peer *peer, uint32_t n_peers, tr_zmq_zap **out,
                          tr_error *err);
void tr_zmq_zap_close(tr_zmq_zap **zap);
/* Handshakes refused so far. */
uint64_t tr_zmq_zap_refused(const tr_zmq_zap *zap);
#endif
