/* troupe node: this host's part of a company that a command on another host starts. It says what machine this is, gets
 * what the plan is made of, computes the same plan, packs the model's weights here, and becomes the parent of this
 * node's supervisor. It ends with the company, or when the head has gone. */
#include "actors/cli/cli_session.h"
#include "actors/runtime/plan_exchange.h"
#include "base/clock.h"
#include "kernels/ops.h"
#include "transport/carrier.h"
#include "transport/curve_key.h"
#include "transport/zmq_socket.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define HELLO_NS  (500 * TR_NS_PER_MS)
#define ANSWER_NS (120 * TR_NS_PER_S) /* of a head that is not there yet */
enum { MESSAGE_MAX = 1 << 20, POLL_MS = 100, LINGER_MS = 500, RECONNECT_MS = 100, BROKEN_MAX = 30 };

typedef struct node {
    tr_cli_session *session;
    const char *name;
    tr_hosts_entry head;
    char endpoint[160], keys_dir[TR_COMPANY_PATH_MAX];
    void *context, *socket, *monitor;
    uint32_t broken; /* connections that ended in their handshake, one after another */
    tr_curve_key key;
    char server_key[TR_CURVE_KEY_TEXT];
    tr_machine machine[TR_COMPANY_NODES_MAX];
    void *arena;
    zmq_msg_t frame; /* of the message at hand */
    bool have_frame;
} node;

/* ---- the connection -----------------------------------------------------------------------------------------------
 */

static tr_status open_monitor(node *n, tr_error *err) {
    static const char endpoint[] = "inproc://troupe-node-monitor";
    tr_zmq_socket_options o = {.type = ZMQ_PAIR, .max_message_bytes = 4096};
    if (zmq_socket_monitor(n->socket, endpoint,
                           ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_SUCCEEDED) != 0)
        return tr_error_set(err, TR_SYSTEM, "cannot watch the connection: %s", zmq_strerror(errno));
    return tr_zmq_socket_open(n->context, endpoint, &o, &n->monitor, err);
}

static tr_status open_connection(node *n, tr_error *err) {
    tr_zmq_socket_curve curve = {
        .public_text = n->key.public_text, .secret_text = n->key.secret_text, .server_text = n->server_key};
    tr_zmq_socket_options o = {.type = ZMQ_DEALER,
                               .immediate = true,
                               .max_message_bytes = MESSAGE_MAX,
                               .heartbeat_ms = 1000,
                               .linger_ms = LINGER_MS,
                               .reconnect_ms = RECONNECT_MS,
                               .curve = n->keys_dir[0] ? &curve : NULL};
    if (n->keys_dir[0]) {
        TR_TRY(tr_curve_key_read(n->keys_dir, n->name, &n->key, err));
        TR_TRY(tr_curve_key_read_public(n->keys_dir, n->head.name, n->server_key, err));
    }
    TR_TRY(tr_zmq_socket_context(&n->context, err));
    TR_TRY(tr_zmq_socket_open(n->context, n->endpoint, &o, &n->socket, err));
    n->arena = malloc(tr_codec_arena_bytes(0, 0));
    if (!n->arena) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %s", n->name);
    return open_monitor(n, err);
}

static void close_connection(node *n) {
    if (n->have_frame) zmq_msg_close(&n->frame);
    n->have_frame = false;
    if (n->socket) zmq_socket_monitor(n->socket, NULL, 0);
    tr_zmq_socket_close(&n->monitor);
    tr_zmq_socket_close(&n->socket);
    if (n->context) zmq_ctx_term(n->context);
    n->context = NULL;
    free(n->arena);
    n->arena = NULL;
    tr_curve_key_wipe(&n->key);
}

static void send_message(node *n, const tr_msg *m) {
    zmq_msg_t frame;
    if (tr_carrier_wrap(m, 0, &frame) == TR_OK && zmq_msg_send(&frame, n->socket, ZMQ_DONTWAIT) < 0)
        zmq_msg_close(&frame);
}

/* The handshake was refused: by the head (our key), or by us (its key, or no keys there). A connection that just ends
 * before it is through says nothing yet: a head that starts or restarts does that too; one with another key always. */
static tr_status check_monitor(node *n, tr_error *err) {
    uint8_t event[6]; /* u16 event, u32 value; a second frame holds the address */
    char address[256];
    uint16_t kind;
    bool refused = false;
    while (zmq_recv(n->monitor, event, sizeof event, ZMQ_DONTWAIT) == (int)sizeof event) {
        memcpy(&kind, event, sizeof kind);
        zmq_recv(n->monitor, address, sizeof address, ZMQ_DONTWAIT);
        if (kind == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
            n->broken++;
        else if (kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            n->broken = 0;
        else
            refused = true;
    }
    if (!refused && n->broken < BROKEN_MAX) return TR_OK;
    return tr_error_set(
        err, TR_UNAVAILABLE,
        "%s refused the key of %s, or has another key than %s.pub says: give both hosts the keys of one "
        "troupe keygen",
        n->endpoint, n->name, n->head.name);
}

/* One message within POLL_MS; TR_AGAIN: none. Valid until the next. */
static tr_status receive(node *n, tr_msg *out, tr_error *err) {
    zmq_pollitem_t item = {.socket = n->socket, .events = ZMQ_POLLIN};
    const void *data;
    size_t bytes;
    uint32_t session;
    tr_codec_arena arena;
    if (n->have_frame) zmq_msg_close(&n->frame);
    n->have_frame = false;
    TR_TRY(check_monitor(n, err));
    if (zmq_poll(&item, 1, POLL_MS) <= 0) return TR_AGAIN;
    zmq_msg_init(&n->frame);
    n->have_frame = true;
    if (zmq_msg_recv(&n->frame, n->socket, ZMQ_DONTWAIT) < 0) return TR_AGAIN;
    tr_codec_arena_init(&arena, n->arena, tr_codec_arena_bytes(0, 0));
    if (tr_carrier_unwrap(zmq_msg_data(&n->frame), zmq_msg_size(&n->frame), &data, &bytes, &session) != TR_OK ||
        tr_codec_decode(data, bytes, &arena, out, NULL) != TR_OK)
        return TR_AGAIN;
    return TR_OK;
}

/* ---- the plan -----------------------------------------------------------------------------------------------------
 */

static void say_hello(node *n) {
    tr_str kernels[16];
    uint32_t n_kernels = 0;
    const tr_ops *best = NULL;
    if (tr_ops_select(&best, NULL) != TR_OK) return;
    for (const tr_ops *const *o = tr_ops_available(); *o && n_kernels < 16; o++) {
        kernels[n_kernels++] = (tr_str){(*o)->name, (uint32_t)strlen((*o)->name)};
        if (getenv("TROUPE_CPU") && *o == best) break;
    }
    tr_msg m = {.type = TR_MSG_NODE_HELLO,
                .as.node_hello = {.major = TR_PROTOCOL_MAJOR,
                                  .minor = TR_PROTOCOL_MINOR,
                                  .name = {n->name, (uint32_t)strlen(n->name)},
                                  .machine = {(const uint8_t *)&n->session->machine, sizeof n->session->machine},
                                  .kernels = {kernels, n_kernels}}};
    send_message(n, &m);
}

/* Say hello until the plan comes. */
static tr_status wait_for_plan(node *n, tr_msg *plan, tr_error *err) {
    uint64_t begin = tr_clock_now_ns(), said = 0;
    for (;;) {
        uint64_t now = tr_clock_now_ns();
        if (tr_cli_signalled()) return TR_CANCELLED;
        if (now - begin > ANSWER_NS)
            return tr_error_set(err, TR_UNAVAILABLE, "no company was started at %s within %d s", n->endpoint,
                                (int)(ANSWER_NS / TR_NS_PER_S));
        if (now - said >= HELLO_NS) {
            say_hello(n);
            said = now;
        }
        tr_status status = receive(n, plan, err);
        if (status == TR_AGAIN) continue;
        if (status != TR_OK || plan->type == TR_MSG_NODE_PLAN) return status;
        if (plan->type == TR_MSG_NODE_BYE)
            return tr_error_set(err, TR_UNAVAILABLE, "the head refuses: %.*s", (int)plan->as.node_bye.text.len,
                                plan->as.node_bye.text.len ? plan->as.node_bye.text.data : "");
    }
}

static void copy_str(char *out, size_t cap, tr_str s) {
    snprintf(out, cap, "%.*s", (int)(s.len < cap ? s.len : cap - 1), s.len ? s.data : "");
}

static tr_status find_model(node *n, tr_str there, tr_error *err) {
    tr_cli_session *s = n->session;
    char text[TR_COMPANY_PATH_MAX];
    copy_str(text, sizeof text, there);
    if (tr_options_given(s->options, TR_OPTION_MODEL))
        snprintf(text, sizeof text, "%.1000s", tr_options_text(s->options, TR_OPTION_MODEL));
    tr_status status = tr_topology_find_model(text, "", s->topology.model, sizeof s->topology.model, err);
    if (status != TR_OK && !tr_options_given(s->options, TR_OPTION_MODEL)) {
        char why[TR_ERROR_TEXT_BYTES];
        snprintf(why, sizeof why, "%s", err->text);
        return tr_error_set(err, status, "%.300s (the model of the head; --model names it here)", why);
    }
    return status == TR_OK ? tr_model_file_open(s->topology.model, &s->model, err) : status;
}

/* The same computation as on the head, from checked numbers. */
static tr_status compute_plan(node *n, const tr_msg_node_plan *m, tr_error *err) {
    tr_cli_session *s = n->session;
    tr_company *c = &s->company;
    tr_company_build_want want;
    TR_TRY(tr_plan_exchange_want(m->want.data, m->want.len, &want, err));
    TR_TRY(tr_plan_exchange_machines(m->machines.data, m->machines.len, n->machine, want.n_nodes, err));
    if (m->node == 0 || m->node >= want.n_nodes || strcmp(want.node[m->node], n->name) != 0)
        return tr_error_set(err, TR_PROTO, "the plan of the head has another place for %s", n->name);
    TR_TRY(find_model(n, m->model, err));
    TR_TRY(tr_company_build(&want, tr_model_file_config(s->model), n->machine, c, err));
    if (c->plan_hash != m->plan_hash)
        return tr_error_set(err, TR_CONFIG,
                            "this host computes another plan than the head: the same model file and one "
                            "version of troupe are needed on both");
    c->self = m->node;
    c->id = m->company;
    copy_str(c->name, sizeof c->name, m->name);
    copy_str(c->ops, sizeof c->ops, m->kernels);
    copy_str(c->model_name, sizeof c->model_name, m->model_name);
    snprintf(c->model_path, sizeof c->model_path, "%s", tr_model_file_path(s->model));
    snprintf(c->node_endpoint, sizeof c->node_endpoint, "%s", n->endpoint);
    snprintf(c->keys_dir, sizeof c->keys_dir, "%s", n->keys_dir);
    if (!tr_ops_find(c->ops))
        return tr_error_set(err, TR_UNAVAILABLE, "this machine cannot run the kernel set %s of the plan", c->ops);
    return TR_OK;
}

static tr_status prepare(node *n, const tr_msg_node_plan *m, tr_error *err) {
    tr_cli_session *s = n->session;
    char label[64];
    TR_TRY(compute_plan(n, m, err));
    snprintf(label, sizeof label, "%.40s.%s", s->company.name, n->name);
    TR_TRY(tr_cli_home_take(label, &s->home, err));
    snprintf(s->company.runtime_dir, sizeof s->company.runtime_dir, "%s", s->home.path);
    return tr_cli_session_images(s, err);
}

/* ---- the whole ----------------------------------------------------------------------------------------------------
 */

static tr_status read_arguments(node *n, tr_options *o, tr_error *err) {
    tr_hosts head;
    if (o->n_positional != 2 || !tr_plan_exchange_name_valid(o->positional[0], 64))
        return tr_error_set(err, TR_USAGE, "give the name of this host and the head: troupe node b a@10.0.0.1:5570");
    n->name = o->positional[0];
    if (tr_hosts_parse(o->positional[1], &head, NULL) != TR_OK || head.n != 1 || !head.host[0].address[0])
        return tr_error_set(err, TR_USAGE, "'%.60s' is no head of a company: write NAME@ADDRESS:PORT",
                            o->positional[1]);
    n->head = head.host[0];
    snprintf(n->endpoint, sizeof n->endpoint, "tcp://%s", n->head.address);
    if (tr_options_given(o, TR_OPTION_TRANSPORT_KEYS) &&
        !realpath(tr_options_text(o, TR_OPTION_TRANSPORT_KEYS), n->keys_dir))
        return tr_error_set(err, TR_CONFIG, "no folder of keys %.200s: troupe keygen makes it",
                            tr_options_text(o, TR_OPTION_TRANSPORT_KEYS));
    return tr_zmq_socket_check(n->endpoint, false, n->keys_dir[0] != 0, err);
}

static tr_status join(node *n, tr_error *err) {
    static tr_msg plan;
    TR_TRY(open_connection(n, err));
    TR_TRY(wait_for_plan(n, &plan, err));
    tr_status status = prepare(n, &plan.as.node_plan, err);
    tr_msg m = {.type = TR_MSG_NODE_PREPARED};
    m.as.node_prepared.code = (uint32_t)tr_status_exit_code(status);
    m.as.node_prepared.model_hash = n->session->company.model_hash;
    if (status != TR_OK) m.as.node_prepared.error = (tr_str){err->text, (uint32_t)strlen(err->text)};
    send_message(n, &m);
    return status;
}

static tr_status run(node *n, tr_options *o, tr_error *err) {
    tr_cli_session *s = n->session;
    TR_TRY(tr_cli_session_load_machine(s, o, err));
    TR_TRY(read_arguments(n, o, err));
    tr_status status = join(n, err);
    close_connection(n);
    TR_TRY(status);
    if (tr_cli_signalled()) return TR_CANCELLED;
    TR_TRY(tr_cli_session_launch(s, err));
    tr_cli_say("host %s runs its part of %s (%s)", n->name, s->company.name, s->company.model_name);
    while (!tr_cli_signalled() && !tr_launch_wait_end(&s->launch, 500)) continue;
    return TR_OK;
}

int tr_cli_node(tr_options *o) {
    static tr_cli_session session;
    static node n;
    tr_error err = {0};
    n.session = &session;
    tr_status status = run(&n, o, &err);
    close_connection(&n);
    tr_cli_session_fini(&session);
    if (status == TR_OK && tr_cli_signalled() == SIGINT) return tr_status_exit_code(TR_CANCELLED);
    return tr_cli_session_exit(&session, status, &err);
}
