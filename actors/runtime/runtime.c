#include "actors/runtime/runtime.h"

#include "actors/runtime/segment.h"
#include "base/clock.h"
#include "base/log.h"
#include "transport/ring.h"
#include "transport/zmq_channel.h"
#include "transport/zmq_socket.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <zmq.h>

static tr_runtime *signalled; /* whom a SIGTERM finds */

/* At the end of the company an idle actor leaves its loop by itself and closes what it has; one that computes, and any
 * actor while the company goes on, dies at once. */
static void on_term(int signal_number) {
    if (atomic_load(&signalled->control->stopping) && !atomic_load(&signalled->block->busy)) return;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* The supervisor holds all memory: without it an actor must not live on. */
static tr_status die_with_supervisor(const tr_runtime *rt, tr_error *err) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int32_t pid = atomic_load(&rt->control->actor[rt->company->node[rt->company->self].supervisor].pid);
    if (getppid() != pid) return tr_error_set(err, TR_PEER, "the supervisor is gone");
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    return TR_OK;
}

static tr_status open_ring(tr_runtime *rt, const tr_company_link *plan, bool producer, tr_channel **out,
                           tr_error *err) {
    void *memory = (uint8_t *)rt->segment[TR_SEGMENT_LINKS] + plan->offset;
    tr_bell *peer = &rt->control->actor[tr_company_bell_of(rt->company, producer ? plan->to : plan->from)].bell;
    return producer ? tr_ring_attach_producer(memory, plan->capacity, peer, out, err)
                    : tr_ring_attach_consumer(memory, plan->capacity, peer, out, err);
}

static tr_status open_zmq(tr_runtime *rt, const tr_company_link *plan, bool producer, tr_channel **out, tr_error *err) {
    char endpoint[TR_COMPANY_PATH_MAX + 32];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/link.%u", rt->company->runtime_dir,
             (unsigned)(plan - rt->company->link));
    return producer
               ? tr_zmq_channel_open_producer(tr_runtime_zmq(rt), endpoint, plan->record_max, plan->capacity, out, err)
               : tr_zmq_channel_open_consumer(tr_runtime_zmq(rt), endpoint, plan->record_max, plan->capacity, out, err);
}

static tr_status open_links(tr_runtime *rt, tr_error *err) {
    const tr_company *c = rt->company;
    for (uint32_t i = 0; i < c->n_links; i++) {
        const tr_company_link *plan = &c->link[i];
        bool producer = plan->from == rt->index;
        if (!producer && plan->to != rt->index) continue;
        tr_check(rt->n_links < TR_RUNTIME_LINKS_MAX);
        tr_runtime_link *l = &rt->link[rt->n_links];
        bool away = !tr_company_is_local(c, plan->from) || !tr_company_is_local(c, plan->to);
        TR_TRY(c->transport_zmq && !away ? open_zmq(rt, plan, producer, &l->channel, err)
                                         : open_ring(rt, plan, producer, &l->channel, err));
        l->kind = plan->kind;
        l->peer = producer ? plan->to : plan->from;
        l->producer = producer;
        l->near = !c->transport_zmq && !away;
        rt->n_links++;
    }
    rt->polls = c->transport_zmq || rt->me->role == TR_ROLE_FRONTEND || rt->me->role == TR_ROLE_NODE ||
                rt->me->role == TR_ROLE_STORE;
    return TR_OK;
}

tr_status tr_runtime_open(const char *name, tr_runtime *rt, tr_error *err) {
    memset(rt, 0, sizeof *rt);
    rt->poll_fd = -1;
    TR_TRY(tr_segment_map_plan(&rt->company, err));
    rt->me = tr_company_find_actor(rt->company, name);
    if (!rt->me) return tr_error_set(err, TR_INTERNAL, "the plan has no actor %s", name);
    tr_log_init(rt->me->name);
    rt->index = (uint32_t)(rt->me - rt->company->actor);
    TR_TRY(tr_segment_map_all(rt->company, rt->segment, err));
    rt->control = rt->segment[TR_SEGMENT_CONTROL];
    rt->block = &rt->control->actor[rt->index];
    rt->incarnation = atomic_load(&rt->block->incarnation);
    TR_TRY(die_with_supervisor(rt, err));
    rt->changes_seen = UINT32_MAX;
    size_t arena_bytes = tr_codec_arena_bytes(rt->company->context, TR_MAX_SPANS);
    rt->arena_memory = malloc(arena_bytes);
    if (!rt->arena_memory) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %s", name);
    tr_codec_arena_init(&rt->arena, rt->arena_memory, arena_bytes);
    TR_TRY(open_links(rt, err));
    signalled = rt;
    signal(SIGTERM, on_term);
    return TR_OK;
}

void tr_runtime_close(tr_runtime *rt) {
    for (uint32_t i = 0; i < rt->n_links; i++) tr_channel_close(rt->link[i].channel);
    rt->n_links = 0;
    while (rt->zmq && zmq_ctx_term(rt->zmq) != 0 && errno == EINTR) continue;
    rt->zmq = NULL;
    free(rt->arena_memory);
    rt->arena_memory = NULL;
}

void tr_runtime_ring_supervisor(tr_runtime *rt) {
    tr_bell_ring(&rt->control->actor[rt->company->node[rt->company->self].supervisor].bell);
}

void tr_runtime_ready(tr_runtime *rt) {
    atomic_store(&rt->block->state, TR_ACTOR_READY);
    tr_runtime_ring_supervisor(rt);
    tr_log(TR_LOG_INFO, "ready", "incarnation=%u", rt->incarnation);
}

bool tr_runtime_stopping(const tr_runtime *rt) { return atomic_load(&rt->control->stopping) != 0; }

/* A peer that lived a whole life unseen gives both its end and its new beginning. */
static bool pump_peer(tr_runtime *rt, uint32_t i, tr_runtime_handler handler, void *self, uint64_t now) {
    tr_control_block *b = &rt->control->actor[i];
    tr_runtime_peer *seen = &rt->peer[i];
    bool up = atomic_load(&b->up) != 0;
    uint32_t incarnation = atomic_load(&b->incarnation), deaths = atomic_load(&b->counted_deaths);
    if (up == seen->up && incarnation == seen->incarnation) return false;
    const bool known = seen->incarnation != 0, down = seen->up && (!up || incarnation != seen->incarnation);
    const bool counted = known && deaths != seen->counted_deaths;
    if (down) {
        tr_event e = {.kind = TR_EVENT_PEER_DOWN, .from = i, .incarnation = seen->incarnation, .now_ns = now};
        e.as.counted = counted;
        handler(self, &e);
    }
    if (up) {
        tr_event e = {.kind = TR_EVENT_PEER_UP, .from = i, .incarnation = incarnation, .now_ns = now};
        e.as.counted = counted && !down;
        handler(self, &e);
    }
    /* One behind a broken link is told with the next life. */
    const bool told = up || down || !known;
    *seen =
        (tr_runtime_peer){.incarnation = incarnation, .counted_deaths = told ? deaths : seen->counted_deaths, .up = up};
    return true;
}

static bool pump_link(tr_runtime *rt, tr_runtime_link *l, tr_runtime_handler handler, void *self) {
    bool any = false;
    const void *data;
    size_t bytes;
    while (tr_channel_peek(l->channel, &data, &bytes) == TR_OK) {
        tr_msg msg;
        tr_error err = {0};
        tr_codec_arena_reset(&rt->arena);
        if (tr_codec_decode(data, bytes, &rt->arena, &msg, &err) == TR_OK) {
            tr_event e = {.kind = TR_EVENT_MSG, .from = l->peer, .msg = &msg, .now_ns = tr_clock_now_ns()};
            e.incarnation = rt->peer[l->peer].incarnation;
            handler(self, &e);
        } else {
            rt->protocol_errors++;
            tr_log(TR_LOG_ERROR, "bad_message", "from=%s bytes=%zu %s", rt->company->actor[l->peer].name, bytes,
                   err.text);
        }
        tr_channel_release(l->channel);
        any = true;
    }
    return any;
}

bool tr_runtime_pump(tr_runtime *rt, tr_runtime_handler handler, void *self) {
    bool any = false;
    uint32_t changes = atomic_load(&rt->control->changes);
    if (changes != rt->changes_seen) {
        rt->changes_seen = changes;
        uint64_t now = tr_clock_now_ns();
        for (uint32_t i = 0; i < rt->company->n_actors; i++)
            if (i != rt->index) any |= pump_peer(rt, i, handler, self, now);
    }
    for (uint32_t i = 0; i < rt->n_links; i++)
        if (!rt->link[i].producer && rt->link[i].kind == TR_LINK_CONTROL)
            any |= pump_link(rt, &rt->link[i], handler, self);
    return any;
}

static tr_status send_msg(tr_runtime *rt, uint32_t to, const tr_msg *msg, bool quiet) {
    for (uint32_t i = 0; i < rt->n_links; i++) {
        tr_runtime_link *l = &rt->link[i];
        if (!l->producer || l->kind != TR_LINK_CONTROL || l->peer != to) continue;
        void *data;
        size_t cap = tr_codec_size_bound(msg), len = 0;
        tr_status status = tr_channel_reserve(l->channel, cap, &data);
        if (status == TR_OK) status = tr_codec_encode(msg, data, cap, &len);
        if (status == TR_OK) status = (quiet && l->near ? tr_ring_commit_quiet : tr_channel_commit)(l->channel, len);
        if (status == TR_AGAIN)
            rt->send_full++;
        else if (status != TR_OK)
            tr_log(TR_LOG_ERROR, "send_failed", "to=%s type=%d %s", rt->company->actor[to].name, (int)msg->type,
                   tr_status_text(status));
        return status;
    }
    return TR_PEER;
}

tr_status tr_runtime_send(tr_runtime *rt, uint32_t to, const tr_msg *msg) { return send_msg(rt, to, msg, false); }
tr_status tr_runtime_send_quiet(tr_runtime *rt, uint32_t to, const tr_msg *msg) { return send_msg(rt, to, msg, true); }

static const tr_runtime_link *data_link(const tr_runtime *rt, tr_link_kind kind, bool producer) {
    for (uint32_t i = 0; i < rt->n_links; i++)
        if (rt->link[i].kind == (uint32_t)kind && rt->link[i].producer == producer) return &rt->link[i];
    return NULL;
}

static tr_channel *data_channel(const tr_runtime *rt, tr_link_kind kind, bool producer) {
    const tr_runtime_link *l = data_link(rt, kind, producer);
    return l ? l->channel : NULL;
}

tr_channel *tr_runtime_data_in(tr_runtime *rt, tr_link_kind kind) { return data_channel(rt, kind, false); }
tr_channel *tr_runtime_data_out(tr_runtime *rt, tr_link_kind kind) { return data_channel(rt, kind, true); }

tr_control_block *tr_runtime_data_reader(tr_runtime *rt, tr_link_kind kind) {
    const tr_runtime_link *l = data_link(rt, kind, true);
    return l ? &rt->control->actor[l->peer] : NULL;
}

void *tr_runtime_zmq(tr_runtime *rt) {
    tr_error err = {0};
    if (!rt->zmq && tr_zmq_socket_context(&rt->zmq, &err) != TR_OK) tr_log(TR_LOG_ERROR, "no_zmq", "%s", err.text);
    return rt->zmq;
}

/* ZeroMQ wakes through descriptors: the bell's eventfd stands beside them. */
static void wait_poll(tr_runtime *rt, uint32_t seen, uint64_t timeout_ns, void *socket) {
    zmq_pollitem_t item[TR_RUNTIME_LINKS_MAX + 3];
    int n = 0;
    item[n++] = (zmq_pollitem_t){.fd = rt->block->bell.event_fd, .events = ZMQ_POLLIN};
    if (rt->poll_fd >= 0)
        item[n++] =
            (zmq_pollitem_t){.fd = rt->poll_fd, .events = (short)(ZMQ_POLLIN | (rt->poll_writes ? ZMQ_POLLOUT : 0))};
    if (socket) item[n++] = (zmq_pollitem_t){.socket = socket, .events = ZMQ_POLLIN};
    for (uint32_t i = 0; i < rt->n_links; i++) {
        int fd = rt->link[i].channel->ops->wait_fd(rt->link[i].channel); /* a producer only after AGAIN */
        if (fd >= 0) item[n++] = (zmq_pollitem_t){.fd = fd, .events = ZMQ_POLLIN};
    }
    if (!tr_bell_prepare(&rt->block->bell, seen)) return;
    /* Rounded up: a timeout of less than a millisecond must not turn into a busy loop. */
    long ms = timeout_ns == UINT64_MAX ? -1 : (long)((timeout_ns + 999999) / 1000000);
    zmq_poll(item, n, ms);
    tr_bell_done(&rt->block->bell);
}

void tr_runtime_wait(tr_runtime *rt, uint32_t seen, uint64_t timeout_ns, void *socket) {
    if (rt->polls)
        wait_poll(rt, seen, timeout_ns, socket);
    else
        tr_bell_wait(&rt->block->bell, seen, rt->me->spin_ns, timeout_ns);
}
