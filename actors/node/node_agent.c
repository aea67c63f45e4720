#include "actors/node/node_agent.h"

#include "actors/actors.h"
#include "base/clock.h"
#include "base/log.h"
#include "transport/ring.h"
#include "transport/zmq_socket.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zmq.h>

#define FIRST_JOIN_NS  (30 * TR_NS_PER_S) /* after its start */
#define JOIN_NS        (200 * TR_NS_PER_MS)
#define RECONNECT_NS   (1 * TR_NS_PER_S)
#define STATES_NS      (500 * TR_NS_PER_MS)
#define SYSTEM_PING_MS 1000 /* libzmq's own, which closes dead connections */
enum { LEAVE_MS = 200, RECEIVE_TURN = 64, EXIT_GONE = 69, PINGS_A_LEASE = 5 };

static uint64_t silent_ns(const tr_node_agent *a) { return a->company->lease.link_ms * TR_NS_PER_MS; }
static uint64_t ping_ns(const tr_node_agent *a) { return silent_ns(a) / PINGS_A_LEASE; }
/* Without a node the company ends. Without the head a node does, and sooner, so that a new company finds it ready. */
static uint64_t away_ns(const tr_node_agent *a) { return a->company->lease.away_s * TR_NS_PER_S / (a->head ? 1 : 2); }

static const char *name_of(const tr_node_agent *a, uint32_t node) { return a->company->node[node].name; }

static uint64_t random_u64(void) {
    uint64_t v = 0;
    if (getrandom(&v, sizeof v, 0) != (ssize_t)sizeof v || v == 0) v = tr_clock_now_ns() | 1;
    return v;
}

/* ---- sending ------------------------------------------------------------------------------------------------------
 */

static bool send_frame(tr_node_agent *a, const uint8_t *id, uint32_t id_bytes, zmq_msg_t *m) {
    bool ok = !a->head || zmq_send(a->socket, id, id_bytes, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0;
    ok = ok && zmq_msg_send(m, a->socket, ZMQ_DONTWAIT) >= 0;
    if (!ok) zmq_msg_close(m);
    return ok;
}

static tr_status carrier_send(void *arg, void *message) {
    tr_node_peer *p = arg;
    if (!send_frame(p->agent, p->id, p->id_bytes, message)) return TR_PEER;
    tr_node_core_said(&p->core, tr_clock_now_ns());
    return TR_OK;
}

/* Outside of a session; a lost one is sent again by whoever needs it. */
static void send_loose(tr_node_agent *a, const uint8_t *id, uint32_t id_bytes, const tr_msg *msg) {
    zmq_msg_t m;
    if (tr_carrier_wrap(msg, 0, &m) == TR_OK) send_frame(a, id, id_bytes, &m);
}

static void welcome(tr_node_agent *a, const uint8_t *id, uint32_t id_bytes, uint32_t session) {
    send_loose(a, id, id_bytes, &(tr_msg){.type = TR_MSG_NODE_WELCOME, .as.node_welcome.session = session});
}

static void refuse(tr_node_agent *a, const uint8_t *id, uint32_t id_bytes, const char *why) {
    tr_msg m = {.type = TR_MSG_NODE_BYE, .as.node_bye = {EXIT_GONE, {why, (uint32_t)strlen(why)}}};
    tr_log(TR_LOG_WARN, "join_refused", "%s", why);
    send_loose(a, id, id_bytes, &m);
}

/* ---- sessions -----------------------------------------------------------------------------------------------------
 */

static void request_stop(tr_node_agent *a, int code) {
    uint32_t none = 0;
    atomic_compare_exchange_strong(&a->rt->control->stop_requested, &none, 1 + (uint32_t)code);
    tr_runtime_ring_supervisor(a->rt);
}

static void end_session(tr_node_peer *p, const char *why) {
    tr_node_agent *a = p->agent;
    tr_control_link *l = &a->rt->control->link[p->node];
    const uint64_t now = tr_clock_now_ns(), limit = tr_node_core_limit(&p->core);
    const uint64_t silent = now > p->core.heard_ns ? now - p->core.heard_ns : 0;
    tr_carrier_end(p->carrier);
    tr_node_core_down(&p->core, now);
    atomic_store(&l->up, 0);
    atomic_store(&l->outages, p->core.outages);
    atomic_store(&l->silent_ns, silent);
    p->nonce = random_u64();
    p->joined_ns = 0;
    if (a->head) tr_node_peers_down(a, p->node);
    tr_log(TR_LOG_WARN, "link_down",
           "node=%s link=%s-%s because=\"%s\" silent_ms=%" PRIu64 " limit_ms=%" PRIu64 " outages=%" PRIu64,
           name_of(a, p->node), name_of(a, a->company->self), name_of(a, p->node), why,
           (uint64_t)(silent / TR_NS_PER_MS), (uint64_t)(limit / TR_NS_PER_MS), p->core.outages);
}

static void begin_session(tr_node_peer *p, uint32_t session) {
    tr_node_agent *a = p->agent;
    tr_node_core_up(&p->core, tr_clock_now_ns());
    atomic_store(&a->rt->control->link[p->node].up, 1);
    tr_carrier_begin(p->carrier, session);
    if (a->head) {
        tr_node_tables_forget(&p->tables);
        tr_node_peers_renew(a, p->node);
    }
    a->states_due = true;
    tr_log(TR_LOG_INFO, "link_up", "node=%s session=%u", name_of(a, p->node), session);
}

/* user: of the connection's key; NULL without keys. */
static void on_join(tr_node_agent *a, const uint8_t *id, uint32_t id_bytes, const char *user,
                    const tr_msg_node_join *m) {
    const tr_company *c = a->company;
    if (m->node == 0 || m->node >= c->n_nodes) return refuse(a, id, id_bytes, "the company has no such node");
    if (c->keys_dir[0] && (!user || strcmp(user, c->node[m->node].name) != 0))
        return refuse(a, id, id_bytes, "this key is not the key of that node");
    if (m->company != c->id) return refuse(a, id, id_bytes, "another company runs at this address");
    if (m->plan_hash != c->plan_hash) return refuse(a, id, id_bytes, "the node has another plan: use one version");
    tr_node_peer *p = &a->peer[m->node - 1];
    if (!p->core.up || p->nonce != m->nonce) {
        if (p->core.up) end_session(p, "the node joins anew");
        memcpy(p->id, id, id_bytes);
        p->id_bytes = id_bytes;
        p->nonce = m->nonce;
        uint32_t session = (uint32_t)random_u64();
        p->joined_ns = session ? session : 1; /* kept for repeats */
        begin_session(p, (uint32_t)p->joined_ns);
    }
    welcome(a, id, id_bytes, (uint32_t)p->joined_ns);
}

static void on_bye(tr_node_agent *a, tr_node_peer *p, const tr_msg_node_bye *m) {
    bool answer = p->core.up && !tr_runtime_stopping(a->rt);
    p->left = true;
    if (answer) tr_carrier_send(p->carrier, &(tr_msg){.type = TR_MSG_NODE_BYE});
    if (!answer && p->core.up) return; /* ours was heard */
    if (m->text.len > 0)
        tr_log(TR_LOG_ERROR, "node_refused", "node=%s \"%.*s\"", name_of(a, p->node), (int)m->text.len, m->text.data);
    else if (a->head)
        tr_log(TR_LOG_ERROR, "node_left", "node=%s", name_of(a, p->node));
    /* The head ends in order: so does the node. A node that leaves takes its part of the company with it. */
    request_stop(a, a->head ? EXIT_GONE : (int)(m->code < 256 ? m->code : EXIT_GONE));
}

/* ---- receiving ----------------------------------------------------------------------------------------------------
 */

static bool decode(tr_node_agent *a, const void *data, size_t bytes, tr_msg *out) {
    tr_error err = {0};
    tr_codec_arena_reset(&a->rt->arena);
    if (tr_codec_decode(data, bytes, &a->rt->arena, out, &err) == TR_OK) return true;
    a->rt->protocol_errors++;
    return false;
}

/* A message inside the session. */
static tr_status on_control(tr_node_agent *a, tr_node_peer *p, const tr_msg *m) {
    switch (m->type) {
    case TR_MSG_PING: return TR_OK;
    case TR_MSG_NODE_BYE: return on_bye(a, p, &m->as.node_bye), TR_OK;
    case TR_MSG_NODE_STATE: return a->head ? tr_node_peers_state(a, p->node, &m->as.node_state) : TR_PROTO;
    case TR_MSG_NODE_TABLE:
        return a->head ? TR_PROTO
                       : tr_node_tables_apply(a->company, a->rt->segment[TR_SEGMENT_TABLES], &m->as.node_table);
    default: return TR_PROTO;
    }
}

/* A message outside of any session. */
static void on_loose(tr_node_agent *a, const uint8_t *id, uint32_t id_bytes, const char *user, const tr_msg *m) {
    tr_node_peer *p = &a->peer[0];
    if (a->head && m->type == TR_MSG_NODE_JOIN) {
        on_join(a, id, id_bytes, user, &m->as.node_join);
    } else if (!a->head && m->type == TR_MSG_NODE_WELCOME) {
        uint32_t session = m->as.node_welcome.session;
        if (session == 0 && p->core.up)
            end_session(p, "the head knows nothing of it");
        else if (session != 0 && !p->core.up)
            begin_session(p, session);
    } else if (!a->head && m->type == TR_MSG_NODE_BYE) {
        on_bye(a, p, &m->as.node_bye);
    }
}

static tr_node_peer *peer_of(tr_node_agent *a, const uint8_t *id, uint32_t id_bytes) {
    for (uint32_t i = 0; i < a->n_peers; i++) {
        tr_node_peer *p = &a->peer[i];
        if (p->core.up && (!a->head || (p->id_bytes == id_bytes && memcmp(p->id, id, id_bytes) == 0))) return p;
    }
    return NULL;
}

static void on_frame(tr_node_agent *a, const uint8_t *id, uint32_t id_bytes, zmq_msg_t *frame) {
    const void *data;
    size_t bytes;
    uint32_t session;
    tr_error err = {0};
    tr_msg m;
    tr_node_peer *p = peer_of(a, id, id_bytes);
    if (tr_carrier_unwrap(zmq_msg_data(frame), zmq_msg_size(frame), &data, &bytes, &session) == TR_OK && session == 0) {
        const char *user = zmq_msg_gets(frame, "User-Id");
        if (decode(a, data, bytes, &m)) on_loose(a, id, id_bytes, user, &m);
        zmq_msg_close(frame);
        return;
    }
    if (!p) {
        if (a->head) welcome(a, id, id_bytes, 0);
        zmq_msg_close(frame);
        return;
    }
    tr_status status = tr_carrier_take(p->carrier, frame, &data, &bytes, &err);
    if (status == TR_OK) tr_node_core_heard(&p->core, tr_clock_now_ns());
    if (status == TR_OK && data) status = decode(a, data, bytes, &m) ? on_control(a, p, &m) : TR_PROTO;
    if (status != TR_OK) end_session(p, err.text[0] ? err.text : "a message that makes no sense");
}

/* One message: [routing id,] frame. False: nothing there. */
static bool receive_one(tr_node_agent *a) {
    uint8_t id[TR_MAX_CLIENT_ID_BYTES];
    int id_bytes = 0;
    zmq_msg_t frame;
    if (a->head) {
        id_bytes = zmq_recv(a->socket, id, sizeof id, ZMQ_DONTWAIT);
        if (id_bytes < 0) return false;
    }
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, a->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return false;
    }
    bool whole = !zmq_msg_more(&frame) && id_bytes <= (int)sizeof id;
    while (zmq_msg_more(&frame) && zmq_msg_recv(&frame, a->socket, ZMQ_DONTWAIT) >= 0) continue;
    if (whole)
        on_frame(a, id, (uint32_t)id_bytes, &frame);
    else
        zmq_msg_close(&frame);
    return true;
}

/* ---- what goes before a record ------------------------------------------------------------------------------------
 */

static tr_status send_table(void *arg, const tr_msg *msg) {
    return tr_carrier_send(((tr_node_peer *)arg)->carrier, msg);
}

static tr_status before_record(void *arg, uint32_t id, const void *record, size_t bytes) {
    tr_node_peer *p = arg;
    tr_node_agent *a = p->agent;
    const tr_company_link *l = &a->company->link[id];
    tr_msg m;
    if (l->kind != TR_LINK_CONTROL || l->from != a->company->scheduler) return TR_OK;
    if (!decode(a, record, bytes, &m)) return TR_OK; /* its receiver will say so */
    if (m.type == TR_MSG_RESHARD) {
        TR_TRY(tr_node_tables_update(&p->tables, m.as.reshard.src_slot, send_table, p));
        return tr_node_tables_update(&p->tables, m.as.reshard.dst_slot, send_table, p);
    }
    for (uint32_t i = 0; m.type == TR_MSG_STEP && i < m.as.step.spans.len; i++)
        TR_TRY(tr_node_tables_update(&p->tables, m.as.step.spans.data[i].slot, send_table, p));
    return TR_OK;
}

/* ---- opening ------------------------------------------------------------------------------------------------------
 */

static uint32_t window_of(const tr_company_link *l) {
    switch ((tr_link_kind)l->kind) {
    case TR_LINK_ACTIVATION: return 2;
    case TR_LINK_LOGITS: return 4;
    case TR_LINK_KV: return 8;
    case TR_LINK_TOKENS: /* never: both ends are of one pipeline, on one node */
    case TR_LINK_CONTROL: break;
    }
    return TR_CARRIER_WINDOW_MAX;
}

static tr_status open_channel(tr_node_agent *a, const tr_company_link *l, bool out, tr_channel **channel_out,
                              tr_error *err) {
    void *memory = (uint8_t *)a->rt->segment[TR_SEGMENT_LINKS] + l->offset;
    tr_bell *other = &a->rt->control->actor[tr_company_bell_of(a->company, out ? l->from : l->to)].bell;
    TR_TRY(out ? tr_ring_attach_consumer(memory, l->capacity, other, channel_out, err)
               : tr_ring_attach_producer(memory, l->capacity, other, channel_out, err));
    a->channel[a->n_channels++] = *channel_out;
    return TR_OK;
}

/* Links with exactly one end on the far side: on the head that of the peer, elsewhere all but this node. */
static tr_status open_carrier(tr_node_agent *a, tr_node_peer *p, tr_error *err) {
    static tr_carrier_link link[TR_COMPANY_LINKS_MAX];
    const tr_company *c = a->company;
    tr_carrier_config config = {.link = link, .arg = p, .send = carrier_send, .before = a->head ? before_record : NULL};
    for (uint32_t i = 0; i < c->n_links; i++) {
        const tr_company_link *l = &c->link[i];
        uint32_t side = a->head ? p->node : c->self;
        bool from = c->actor[l->from].node == side, to = c->actor[l->to].node == side;
        if (from == to) continue;
        bool out = a->head ? to : from;
        tr_carrier_link *k = &link[config.n_links++];
        *k = (tr_carrier_link){
            .id = i, .out = out, .checked = l->kind == TR_LINK_KV, .window = window_of(l), .record_max = l->record_max};
        TR_TRY(open_channel(a, l, out, &k->channel, err));
        if ((int64_t)l->record_max + TR_CARRIER_HEAD_BYTES > a->max_message_bytes)
            a->max_message_bytes = (int64_t)l->record_max + TR_CARRIER_HEAD_BYTES;
        a->hwm += (int)k->window;
    }
    return tr_carrier_create(&config, &p->carrier, err);
}

static tr_status open_peers(tr_node_agent *a, tr_error *err) {
    const tr_company *c = a->company;
    uint64_t now = tr_clock_now_ns();
    a->n_peers = a->head ? c->n_nodes - 1 : 1;
    a->max_message_bytes = 1 << 20;
    a->hwm = 4096;
    for (uint32_t i = 0; i < a->n_peers; i++) {
        tr_node_peer *p = &a->peer[i];
        p->agent = a;
        p->node = a->head ? i + 1 : 0;
        p->nonce = random_u64();
        tr_node_core_init(&p->core, ping_ns(a), silent_ns(a), a->head ? FIRST_JOIN_NS : away_ns(a), now);
        TR_TRY(open_carrier(a, p, err));
        if (!a->head) continue;
        TR_TRY(tr_node_tables_init(&p->tables, c, a->rt->segment[TR_SEGMENT_TABLES], err));
        tr_node_peers_down(a, p->node);
    }
    return TR_OK;
}

/* The allow-list is made of the public keys of the other nodes. */
static tr_status open_keys(tr_node_agent *a, tr_error *err) {
    const tr_company *c = a->company;
    tr_zmq_zap_peer peer[TR_COMPANY_NODES_MAX];
    if (!c->keys_dir[0]) return TR_OK;
    TR_TRY(tr_curve_key_read(c->keys_dir, name_of(a, c->self), &a->key, err));
    if (!a->head) return tr_curve_key_read_public(c->keys_dir, name_of(a, 0), a->server_key, err);
    memset(peer, 0, sizeof peer);
    for (uint32_t n = 1; n < c->n_nodes; n++) {
        memcpy(peer[n - 1].name, c->node[n].name, sizeof c->node[n].name);
        TR_TRY(tr_curve_key_read_public(c->keys_dir, name_of(a, n), peer[n - 1].key, err));
    }
    return tr_zmq_zap_open(tr_runtime_zmq(a->rt), peer, c->n_nodes - 1, &a->zap, err);
}

static tr_status open_socket(tr_node_agent *a, tr_error *err) {
    tr_zmq_socket_curve curve = {.public_text = a->key.public_text,
                                 .secret_text = a->key.secret_text,
                                 .server_text = a->head ? NULL : a->server_key};
    tr_zmq_socket_options o = {.type = a->head ? ZMQ_ROUTER : ZMQ_DEALER,
                               .bind = a->head,
                               .immediate = true,
                               .hwm = a->hwm,
                               .max_message_bytes = a->max_message_bytes,
                               .heartbeat_ms = SYSTEM_PING_MS,
                               .linger_ms = LEAVE_MS,
                               .curve = a->company->keys_dir[0] ? &curve : NULL};
    return tr_zmq_socket_open(tr_runtime_zmq(a->rt), a->company->node_endpoint, &o, &a->socket, err);
}

static tr_status open_agent(tr_node_agent *a, tr_error *err) {
    TR_TRY(open_peers(a, err));
    TR_TRY(open_keys(a, err));
    return open_socket(a, err);
}

static void close_agent(tr_node_agent *a) {
    tr_zmq_socket_close(&a->socket);
    tr_zmq_zap_close(&a->zap);
    for (uint32_t i = 0; i < a->n_peers; i++) {
        tr_carrier_destroy(&a->peer[i].carrier);
        tr_node_tables_fini(&a->peer[i].tables);
    }
    for (uint32_t i = 0; i < a->n_channels; i++) tr_channel_close(a->channel[i]);
    tr_curve_key_wipe(&a->key);
    free(a);
}

/* ---- loop ---------------------------------------------------------------------------------------------------------
 */

static void on_local(void *self, const tr_event *event) {
    (void)event;
    ((tr_node_agent *)self)->states_due = true;
}

/* A broken connection is opened anew: what stands in its queue is of the old session. */
static void join(tr_node_agent *a, tr_node_peer *p, uint64_t now) {
    tr_error err = {0};
    if (now - p->joined_ns < JOIN_NS) return;
    if (now - p->opened_ns >= RECONNECT_NS) {
        p->opened_ns = now;
        tr_zmq_socket_close(&a->socket);
        if (open_socket(a, &err) != TR_OK) tr_log(TR_LOG_ERROR, "no_socket", "%s", err.text);
    }
    p->joined_ns = now;
    tr_msg m = {.type = TR_MSG_NODE_JOIN,
                .as.node_join = {.company = a->company->id,
                                 .node = a->company->self,
                                 .plan_hash = a->company->plan_hash,
                                 .nonce = p->nonce}};
    if (a->socket) send_loose(a, NULL, 0, &m);
}

static void tick(tr_node_agent *a, tr_node_peer *p, uint64_t now) {
    switch (tr_node_core_tick(&p->core, now)) {
    case TR_NODE_CORE_PING:
        if (tr_carrier_send(p->carrier, &(tr_msg){.type = TR_MSG_PING, .as.ping.nonce = now}) != TR_OK)
            end_session(p, "the connection is gone");
        break;
    case TR_NODE_CORE_DOWN: end_session(p, "nothing was heard"); break;
    case TR_NODE_CORE_LOST:
        tr_log(TR_LOG_ERROR, "node_lost", "node=%s silent_s=%" PRIu64, name_of(a, p->node),
               (uint64_t)((now - p->core.down_ns) / TR_NS_PER_S));
        request_stop(a, EXIT_GONE);
        break;
    case TR_NODE_CORE_FINE: break;
    }
    if (!a->head && !p->core.up && !p->left) join(a, p, now);
}

static bool pump_peer(tr_node_agent *a, tr_node_peer *p, uint64_t now) {
    bool any = false;
    tr_status status = TR_OK;
    if (!p->core.up) return false;
    if (!a->head && (a->states_due || now - a->states_ns >= STATES_NS)) {
        a->states_due = false;
        a->states_ns = now;
        status = tr_node_peers_report(a, p->carrier);
    }
    if (status == TR_OK) status = tr_carrier_pump(p->carrier, &any);
    if (status != TR_OK) end_session(p, "the connection is gone");
    return any;
}

static void be_ready(tr_node_agent *a) {
    if (atomic_load(&a->rt->block->state) == TR_ACTOR_READY || (a->head && !tr_node_peers_complete(a))) return;
    for (uint32_t i = 0; a->head && i < a->n_peers; i++) a->peer[i].core.lost_ns = away_ns(a);
    tr_runtime_ready(a->rt);
}

static void loop(tr_node_agent *a) {
    tr_runtime *rt = a->rt;
    while (!tr_runtime_stopping(rt)) {
        uint32_t seen = tr_bell_read(&rt->block->bell);
        bool any = tr_runtime_pump(rt, on_local, a);
        for (int i = 0; i < RECEIVE_TURN && a->socket && receive_one(a); i++) any = true;
        uint64_t now = tr_clock_now_ns();
        for (uint32_t i = 0; i < a->n_peers; i++) {
            any |= pump_peer(a, &a->peer[i], now);
            tick(a, &a->peer[i], now);
        }
        be_ready(a);
        atomic_fetch_add_explicit(&rt->block->beat, 1, memory_order_relaxed);
        if (!any) tr_runtime_wait(rt, seen, ping_ns(a) / 2, a->socket);
    }
}

static bool anyone_there(const tr_node_agent *a) {
    for (uint32_t i = 0; i < a->n_peers; i++)
        if (a->peer[i].core.up && !a->peer[i].left) return true;
    return false;
}

/* Whoever is not told would take this end for a broken link. */
static void say_goodbye(tr_node_agent *a) {
    for (uint32_t i = 0; i < a->n_peers; i++)
        if (a->peer[i].core.up && !a->peer[i].left)
            tr_carrier_send(a->peer[i].carrier, &(tr_msg){.type = TR_MSG_NODE_BYE});
    uint64_t end = tr_clock_now_ns() + LEAVE_MS * TR_NS_PER_MS;
    while (anyone_there(a) && tr_clock_now_ns() < end) {
        zmq_pollitem_t item = {.socket = a->socket, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, 10);
        while (receive_one(a)) continue;
    }
}

tr_status tr_node_agent_run(tr_runtime *rt, tr_error *err) {
    tr_node_agent *a = calloc(1, sizeof *a);
    if (!a) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %s", rt->me->name);
    a->rt = rt;
    a->company = rt->company;
    a->head = rt->company->self == 0;
    tr_status status = open_agent(a, err);
    if (status == TR_OK) loop(a);
    if (status == TR_OK && a->socket) say_goodbye(a);
    close_agent(a);
    return status;
}
