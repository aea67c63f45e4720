#include "actors/cli/cli_nodes.h"

#include "actors/cli/cli.h"
#include "actors/runtime/plan_exchange.h"
#include "base/clock.h"
#include "kernels/ops.h"
#include "transport/carrier.h"
#include "transport/zmq_socket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define GATHER_NS  (120 * TR_NS_PER_S)
#define PREPARE_NS (900 * TR_NS_PER_S) /* a large model is packed on every host */
enum { MESSAGE_MAX = 1 << 20, POLL_MS = 100, HINT_S = 3, LINGER_MS = 500 };

/* ---- opening ------------------------------------------------------------------------------------------------------
 */

static tr_status open_keys(tr_cli_nodes *n, tr_error *err) {
    const tr_topology *t = n->topology;
    tr_zmq_zap_peer peer[TR_COMPANY_NODES_MAX];
    memset(peer, 0, sizeof peer);
    TR_TRY(tr_curve_key_read(t->keys_dir, t->hosts.host[0].name, &n->key, err));
    for (uint32_t i = 1; i < n->n; i++) {
        snprintf(peer[i - 1].name, sizeof peer[i - 1].name, "%s", t->hosts.host[i].name);
        TR_TRY(tr_curve_key_read_public(t->keys_dir, t->hosts.host[i].name, peer[i - 1].key, err));
    }
    return tr_zmq_zap_open(n->context, peer, n->n - 1, &n->zap, err);
}

static tr_status open_nodes(tr_cli_nodes *n, tr_error *err) {
    const tr_topology *t = n->topology;
    TR_TRY(tr_zmq_socket_context(&n->context, err));
    if (t->keys_dir[0]) TR_TRY(open_keys(n, err));
    tr_zmq_socket_curve curve = {.public_text = n->key.public_text, .secret_text = n->key.secret_text};
    tr_zmq_socket_options o = {.type = ZMQ_ROUTER,
                               .bind = true,
                               .max_message_bytes = MESSAGE_MAX,
                               .heartbeat_ms = 1000,
                               .linger_ms = LINGER_MS,
                               .curve = t->keys_dir[0] ? &curve : NULL};
    TR_TRY(tr_zmq_socket_open(n->context, t->node_endpoint, &o, &n->socket, err));
    n->arena = malloc(tr_codec_arena_bytes(0, 0));
    return n->arena ? TR_OK : tr_error_set(err, TR_UNAVAILABLE, "no memory for the hosts");
}

void tr_cli_nodes_close(tr_cli_nodes *n) {
    tr_zmq_socket_close(&n->socket);
    tr_zmq_zap_close(&n->zap);
    if (n->context) zmq_ctx_term(n->context);
    n->context = NULL;
    free(n->arena);
    n->arena = NULL;
    tr_curve_key_wipe(&n->key);
}

/* ---- messages -----------------------------------------------------------------------------------------------------
 */

static tr_status send_to(tr_cli_nodes *n, const uint8_t *id, uint32_t id_bytes, const tr_msg *m) {
    zmq_msg_t frame;
    TR_TRY(tr_carrier_wrap(m, 0, &frame));
    bool ok = zmq_send(n->socket, id, id_bytes, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 &&
              zmq_msg_send(&frame, n->socket, ZMQ_DONTWAIT) >= 0;
    if (!ok) zmq_msg_close(&frame);
    return ok ? TR_OK : TR_PEER;
}

static void refuse(tr_cli_nodes *n, const uint8_t *id, uint32_t id_bytes, const char *why) {
    tr_msg m = {.type = TR_MSG_NODE_BYE, .as.node_bye = {69, {why, (uint32_t)strlen(why)}}};
    send_to(n, id, id_bytes, &m);
}

static void on_hello(tr_cli_nodes *n, const uint8_t *id, uint32_t id_bytes, const char *user,
                     const tr_msg_node_hello *m) {
    const tr_hosts *h = &n->topology->hosts;
    tr_error err = {0};
    uint32_t i = 1;
    if (m->major != TR_PROTOCOL_MAJOR || m->minor != TR_PROTOCOL_MINOR)
        return refuse(n, id, id_bytes, "the head is of another version of troupe");
    while (i < n->n && (strlen(h->host[i].name) != m->name.len || memcmp(h->host[i].name, m->name.data, m->name.len)))
        i++;
    if (i == n->n) return refuse(n, id, id_bytes, "the topology has no host of this name");
    if (n->topology->keys_dir[0] && (!user || strcmp(user, h->host[i].name) != 0))
        return refuse(n, id, id_bytes, "this key belongs to another host");
    tr_cli_nodes_one *one = &n->one[i];
    if (tr_plan_exchange_machines(m->machine.data, m->machine.len, &n->machine[i], 1, &err) != TR_OK)
        return refuse(n, id, id_bytes, err.text);
    one->n_kernels = 0;
    for (uint32_t k = 0; k < m->kernels.len && k < TR_CLI_NODES_KERNELS; k++)
        snprintf(one->kernels[one->n_kernels++], sizeof one->kernels[0], "%.*s", (int)m->kernels.data[k].len,
                 m->kernels.data[k].data);
    memcpy(one->id, id, id_bytes);
    one->id_bytes = id_bytes;
    one->here = true;
}

static tr_status on_prepared(tr_cli_nodes *n, const uint8_t *id, uint32_t id_bytes, const tr_msg_node_prepared *m,
                             uint64_t model_hash, tr_error *err) {
    for (uint32_t i = 1; i < n->n; i++) {
        if (n->one[i].id_bytes != id_bytes || memcmp(n->one[i].id, id, id_bytes) != 0) continue;
        const char *name = n->topology->hosts.host[i].name;
        if (m->code != 0)
            return tr_error_set(err, TR_UNAVAILABLE, "host %s: %.*s", name, (int)m->error.len, m->error.data);
        if (m->model_hash != model_hash)
            return tr_error_set(err, TR_DATA, "host %s has another model under this name: copy the same file there",
                                name);
        n->one[i].prepared = true;
    }
    return TR_OK;
}

/* One message, if there is one within POLL_MS. *any_out: one came. */
static tr_status receive(tr_cli_nodes *n, uint64_t model_hash, bool *any_out, tr_error *err) {
    zmq_pollitem_t item = {.socket = n->socket, .events = ZMQ_POLLIN};
    uint8_t id[256];
    const void *data;
    size_t bytes;
    uint32_t session;
    tr_codec_arena arena;
    tr_msg m;
    tr_status status = TR_OK;
    *any_out = zmq_poll(&item, 1, POLL_MS) > 0;
    if (!*any_out) return TR_OK;
    int id_bytes = zmq_recv(n->socket, id, sizeof id, ZMQ_DONTWAIT);
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (id_bytes < 0 || zmq_msg_recv(&frame, n->socket, ZMQ_DONTWAIT) < 0) return zmq_msg_close(&frame), TR_OK;
    while (zmq_msg_more(&frame) && zmq_msg_recv(&frame, n->socket, ZMQ_DONTWAIT) >= 0) continue;
    tr_codec_arena_init(&arena, n->arena, tr_codec_arena_bytes(0, 0));
    if (tr_carrier_unwrap(zmq_msg_data(&frame), zmq_msg_size(&frame), &data, &bytes, &session) == TR_OK &&
        tr_codec_decode(data, bytes, &arena, &m, NULL) == TR_OK) {
        if (m.type == TR_MSG_NODE_HELLO)
            on_hello(n, id, (uint32_t)id_bytes, zmq_msg_gets(&frame, "User-Id"), &m.as.node_hello);
        else if (m.type == TR_MSG_NODE_PREPARED)
            status = on_prepared(n, id, (uint32_t)id_bytes, &m.as.node_prepared, model_hash, err);
    }
    zmq_msg_close(&frame);
    return status;
}

/* ---- steps --------------------------------------------------------------------------------------------------------
 */

/* First host that has not come this far, or NULL. */
static const char *missing(const tr_cli_nodes *n, bool prepared) {
    for (uint32_t i = 1; i < n->n; i++)
        if (prepared ? !n->one[i].prepared : !n->one[i].here) return n->topology->hosts.host[i].name;
    return NULL;
}

static tr_status wait_for_all(tr_cli_nodes *n, bool prepared, uint64_t model_hash, uint64_t most_ns, tr_error *err) {
    uint64_t begin = tr_clock_now_ns();
    bool told = false, any;
    while (missing(n, prepared)) {
        if (tr_cli_signalled()) return TR_CANCELLED;
        uint64_t past = tr_clock_now_ns() - begin;
        if (past > most_ns)
            return tr_error_set(err, TR_UNAVAILABLE, "host %s %s: run `troupe node %s %s@%s` there",
                                missing(n, prepared), prepared ? "has not prepared in time" : "did not come",
                                missing(n, prepared), n->topology->hosts.host[0].name,
                                n->topology->hosts.host[0].address);
        if (!told && past > HINT_S * TR_NS_PER_S) {
            tr_cli_say("waiting for host %s at %s%s", missing(n, prepared), n->topology->node_endpoint,
                       prepared ? ", which prepares the model" : "");
            told = true;
        }
        TR_TRY(receive(n, model_hash, &any, err));
    }
    return TR_OK;
}

tr_status tr_cli_nodes_gather(tr_cli_nodes *n, const tr_topology *t, const tr_machine *here, tr_error *err) {
    memset(n, 0, sizeof *n);
    n->topology = t;
    n->n = t->hosts.n;
    n->machine[0] = *here;
    TR_TRY(open_nodes(n, err));
    return wait_for_all(n, false, 0, GATHER_NS, err);
}

static bool everyone_has(const tr_cli_nodes *n, const char *name) {
    for (uint32_t i = 1; i < n->n; i++) {
        bool has = false;
        for (uint32_t k = 0; k < n->one[i].n_kernels; k++) has |= strcmp(n->one[i].kernels[k], name) == 0;
        if (!has) return false;
    }
    return true;
}

tr_status tr_cli_nodes_kernels(const tr_cli_nodes *n, const char *preferred, char out[16], tr_error *err) {
    const char *best = NULL;
    for (const tr_ops *const *o = tr_ops_available(); *o; o++) { /* slowest first */
        if (everyone_has(n, (*o)->name)) best = (*o)->name;
        if (strcmp((*o)->name, preferred) == 0) break;
    }
    if (!best)
        return tr_error_set(err, TR_UNAVAILABLE, "the hosts have no kernel set in common: see troupe doctor on each");
    snprintf(out, 16, "%s", best);
    return TR_OK;
}

tr_status tr_cli_nodes_send(tr_cli_nodes *n, const tr_company *c, tr_error *err) {
    tr_msg m = {.type = TR_MSG_NODE_PLAN};
    tr_msg_node_plan *p = &m.as.node_plan;
    *p = (tr_msg_node_plan){.want = {(const uint8_t *)&n->topology->want, sizeof n->topology->want},
                            .machines = {(const uint8_t *)n->machine, n->n * (uint32_t)sizeof n->machine[0]},
                            .plan_hash = c->plan_hash,
                            .company = c->id,
                            .name = {c->name, (uint32_t)strlen(c->name)},
                            .kernels = {c->ops, (uint32_t)strlen(c->ops)},
                            .model = {c->model_path, (uint32_t)strlen(c->model_path)},
                            .model_name = {c->model_name, (uint32_t)strlen(c->model_name)}};
    for (uint32_t i = 1; i < n->n; i++) {
        p->node = i;
        tr_status status = send_to(n, n->one[i].id, n->one[i].id_bytes, &m);
        if (status != TR_OK)
            return tr_error_set(err, TR_UNAVAILABLE, "host %s is gone again: start it once more",
                                n->topology->hosts.host[i].name);
    }
    return TR_OK;
}

tr_status tr_cli_nodes_wait(tr_cli_nodes *n, uint64_t model_hash, tr_error *err) {
    return wait_for_all(n, true, model_hash, PREPARE_NS, err);
}
