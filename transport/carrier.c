/* I1: acked <= sent <= acked + window for what goes out. I2: what came in and waits for room is at most window long,
 * because the other end counts a record as under way until it was put into the ring here. I3: numbers of a peer are
 * read once, checked, and only then used. */
#include "transport/carrier.h"

#include "base/crc32c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define MAGIC   0x43505254u /* "TRPC" */
#define CONTROL UINT32_MAX
#define ACK     (UINT32_MAX - 1)
enum { TURN_MAX = 4 /* records of one link before the next has its turn */, CONTROL_MAX = 1 << 20 };

typedef struct head {
    uint32_t magic, session;
    uint32_t link, bytes; /* bytes that follow */
    uint64_t number;      /* of the record in its link and session */
    uint32_t reserved;
    uint32_t crc; /* with this 0 */
} head;
_Static_assert(sizeof(head) == TR_CARRIER_HEAD_BYTES, "head of a frame");

typedef struct ack {
    uint32_t link, count; /* records of the session that were put into the ring, modulo 2^32 */
} ack;

typedef struct link {
    tr_carrier_link plan;
    uint64_t sent, acked;  /* out */
    uint64_t placed, told; /* in */
    uint32_t first, waiting;
    zmq_msg_t frame[TR_CARRIER_WINDOW_MAX];
} link;

struct tr_carrier {
    tr_carrier_config config;
    uint32_t session;
    uint16_t index[TR_CARRIER_LINKS_MAX]; /* id -> 1 + index of link; 0: none */
    zmq_msg_t control;                    /* last one handed out */
    tr_carrier_stats stats;
    uint32_t n_links;
    link link[];
};

tr_status tr_carrier_create(const tr_carrier_config *config, tr_carrier **out, tr_error *err) {
    tr_carrier *c = calloc(1, sizeof *c + config->n_links * sizeof c->link[0]);
    if (!c) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the links between nodes");
    c->config = *config;
    c->n_links = config->n_links;
    zmq_msg_init(&c->control);
    for (uint32_t i = 0; i < c->n_links; i++) {
        const tr_carrier_link *plan = &config->link[i];
        tr_check(plan->id < TR_CARRIER_LINKS_MAX && plan->window >= 1 && plan->window <= TR_CARRIER_WINDOW_MAX);
        c->link[i].plan = *plan;
        c->index[plan->id] = (uint16_t)(i + 1);
    }
    *out = c;
    return TR_OK;
}

void tr_carrier_begin(tr_carrier *c, uint32_t session) {
    for (uint32_t i = 0; i < c->n_links; i++) {
        link *l = &c->link[i];
        for (; l->waiting > 0; l->waiting--) {
            zmq_msg_close(&l->frame[l->first]);
            l->first = (l->first + 1) % TR_CARRIER_WINDOW_MAX;
        }
        l->sent = l->acked = l->placed = l->told = 0;
    }
    c->session = session;
}

void tr_carrier_end(tr_carrier *c) { tr_carrier_begin(c, 0); }

void tr_carrier_destroy(tr_carrier **carrier) {
    if (!*carrier) return;
    tr_carrier_end(*carrier);
    zmq_msg_close(&(*carrier)->control);
    free(*carrier);
    *carrier = NULL;
}

const tr_carrier_stats *tr_carrier_get_stats(const tr_carrier *c) { return &c->stats; }

/* ---- frames -------------------------------------------------------------------------------------------------------
 */

static uint32_t crc_of(const head *h, const void *payload, bool all) {
    head copy = *h;
    copy.crc = 0;
    uint32_t crc = tr_crc32c(0, &copy, sizeof copy);
    return all ? tr_crc32c(crc, payload, h->bytes) : crc;
}

/* An empty frame of that size; the payload is filled in before seal. */
static tr_status new_frame(zmq_msg_t *m, size_t bytes, uint8_t **payload_out) {
    if (bytes > UINT32_MAX || zmq_msg_init_size(m, sizeof(head) + bytes) != 0) return TR_UNAVAILABLE;
    *payload_out = (uint8_t *)zmq_msg_data(m) + sizeof(head);
    return TR_OK;
}

static void seal(zmq_msg_t *m, uint32_t session, uint32_t id, uint64_t number, bool all) {
    head h = {.magic = MAGIC,
              .session = session,
              .link = id,
              .bytes = (uint32_t)(zmq_msg_size(m) - sizeof h),
              .number = number};
    uint8_t *at = zmq_msg_data(m);
    h.crc = crc_of(&h, at + sizeof h, all);
    memcpy(at, &h, sizeof h);
}

static bool read_head(const void *frame, size_t bytes, head *out) {
    if (bytes < sizeof *out) return false;
    memcpy(out, frame, sizeof *out);
    return out->magic == MAGIC && out->bytes == bytes - sizeof *out;
}

tr_status tr_carrier_wrap(const tr_msg *msg, uint32_t session, void *message_out) {
    uint8_t *payload;
    size_t cap = tr_codec_size_bound(msg), len = 0;
    zmq_msg_t large;
    TR_TRY(new_frame(&large, cap, &payload));
    tr_status status = tr_codec_encode(msg, payload, cap, &len);
    if (status == TR_OK && zmq_msg_init_size(message_out, sizeof(head) + len) != 0) status = TR_UNAVAILABLE;
    if (status == TR_OK) {
        memcpy((uint8_t *)zmq_msg_data(message_out) + sizeof(head), payload, len);
        seal(message_out, session, CONTROL, 0, true);
    }
    zmq_msg_close(&large);
    return status;
}

tr_status tr_carrier_unwrap(const void *frame, size_t bytes, const void **control_out, size_t *bytes_out,
                            uint32_t *session_out) {
    head h;
    const uint8_t *payload = (const uint8_t *)frame + sizeof h;
    if (!read_head(frame, bytes, &h) || h.link != CONTROL || h.bytes > CONTROL_MAX ||
        h.crc != crc_of(&h, payload, true))
        return TR_PROTO;
    *control_out = payload;
    *bytes_out = h.bytes;
    *session_out = h.session;
    return TR_OK;
}

tr_status tr_carrier_send(tr_carrier *c, const tr_msg *msg) {
    zmq_msg_t m;
    TR_TRY(tr_carrier_wrap(msg, c->session, &m));
    return c->config.send(c->config.arg, &m);
}

/* ---- in -----------------------------------------------------------------------------------------------------------
 */

static tr_status damaged(const head *h, const char *what, tr_error *err) {
    return tr_error_set(err, TR_PROTO, "frame of link %u, record %llu: %s", h->link, (unsigned long long)h->number,
                        what);
}

static tr_status take_acks(tr_carrier *c, const head *h, const uint8_t *payload, tr_error *err) {
    if (h->crc != crc_of(h, payload, true)) return damaged(h, "damaged", err);
    if (h->bytes % sizeof(ack)) return damaged(h, "no list of acks", err);
    for (uint32_t at = 0; at < h->bytes; at += sizeof(ack)) {
        ack a;
        memcpy(&a, payload + at, sizeof a);
        uint32_t i = a.link < TR_CARRIER_LINKS_MAX ? c->index[a.link] : 0;
        if (i == 0 || !c->link[i - 1].plan.out) return damaged(h, "ack of a link that does not go out", err);
        link *l = &c->link[i - 1];
        uint64_t more = (uint32_t)(a.count - (uint32_t)l->acked);
        if (more > l->sent - l->acked) return damaged(h, "ack of what was not sent", err);
        l->acked += more;
    }
    return TR_OK;
}

static tr_status take_record(tr_carrier *c, const head *h, zmq_msg_t *message, tr_error *err) {
    uint32_t i = h->link < TR_CARRIER_LINKS_MAX ? c->index[h->link] : 0;
    if (i == 0 || c->link[i - 1].plan.out) return damaged(h, "no such link comes in here", err);
    link *l = &c->link[i - 1];
    if (h->bytes == 0 || h->bytes > l->plan.record_max) return damaged(h, "too large", err);
    if (h->crc != crc_of(h, (const uint8_t *)zmq_msg_data(message) + sizeof *h, !l->plan.checked))
        return damaged(h, "damaged", err);
    if (l->waiting == l->plan.window || h->number != l->placed + l->waiting) return damaged(h, "out of turn", err);
    zmq_msg_t *slot = &l->frame[(l->first + l->waiting++) % TR_CARRIER_WINDOW_MAX];
    zmq_msg_init(slot);
    zmq_msg_move(slot, message);
    c->stats.frames_in++;
    c->stats.bytes_in += h->bytes;
    return TR_OK;
}

tr_status tr_carrier_take(tr_carrier *c, void *message, const void **control_out, size_t *bytes_out, tr_error *err) {
    zmq_msg_t *m = message;
    head h;
    *control_out = NULL;
    tr_status status = TR_OK;
    const uint8_t *payload = (const uint8_t *)zmq_msg_data(m) + sizeof h;
    if (!read_head(zmq_msg_data(m), zmq_msg_size(m), &h)) {
        status = tr_error_set(err, TR_PROTO, "no frame of ours");
    } else if (h.session != c->session || c->session == 0) {
        c->stats.dropped++;
    } else if (h.link == CONTROL) {
        if (h.bytes > CONTROL_MAX || h.crc != crc_of(&h, payload, true)) {
            status = damaged(&h, "damaged", err);
        } else {
            zmq_msg_move(&c->control, m);
            *control_out = (const uint8_t *)zmq_msg_data(&c->control) + sizeof h;
            *bytes_out = h.bytes;
        }
    } else if (h.link == ACK) {
        status = take_acks(c, &h, payload, err);
    } else {
        status = take_record(c, &h, m, err);
    }
    zmq_msg_close(m);
    return status;
}

static bool place(link *l) {
    bool any = false;
    while (l->waiting > 0) {
        zmq_msg_t *m = &l->frame[l->first];
        size_t bytes = zmq_msg_size(m) - sizeof(head);
        void *to;
        if (tr_channel_reserve(l->plan.channel, bytes, &to) != TR_OK) break;
        memcpy(to, (const uint8_t *)zmq_msg_data(m) + sizeof(head), bytes);
        if (tr_channel_commit(l->plan.channel, bytes) != TR_OK) break;
        zmq_msg_close(m);
        l->first = (l->first + 1) % TR_CARRIER_WINDOW_MAX;
        l->waiting--;
        l->placed++;
        any = true;
    }
    return any;
}

/* One frame for all links that have something to tell. */
static tr_status tell(tr_carrier *c) {
    ack list[TR_CARRIER_LINKS_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_links; i++) {
        link *l = &c->link[i];
        uint32_t enough = l->plan.window / 4 > 0 ? l->plan.window / 4 : 1;
        if (l->plan.out || l->placed - l->told < enough) continue;
        l->told = l->placed;
        list[n++] = (ack){l->plan.id, (uint32_t)l->placed};
    }
    if (n == 0) return TR_OK;
    zmq_msg_t m;
    uint8_t *payload;
    TR_TRY(new_frame(&m, n * sizeof list[0], &payload));
    memcpy(payload, list, n * sizeof list[0]);
    seal(&m, c->session, ACK, 0, true);
    return c->config.send(c->config.arg, &m);
}

/* ---- out ----------------------------------------------------------------------------------------------------------
 */

static tr_status send_one(tr_carrier *c, link *l, const void *data, size_t bytes) {
    zmq_msg_t m;
    uint8_t *payload;
    if (c->config.before) TR_TRY(c->config.before(c->config.arg, l->plan.id, data, bytes));
    TR_TRY(new_frame(&m, bytes, &payload));
    memcpy(payload, data, bytes);
    seal(&m, c->session, l->plan.id, l->sent, !l->plan.checked);
    TR_TRY(c->config.send(c->config.arg, &m));
    l->sent++;
    c->stats.frames_out++;
    c->stats.bytes_out += bytes;
    return TR_OK;
}

static tr_status send_some(tr_carrier *c, link *l, bool *any) {
    for (int turn = 0; turn < TURN_MAX && l->sent - l->acked < l->plan.window; turn++) {
        const void *data;
        size_t bytes;
        if (tr_channel_peek(l->plan.channel, &data, &bytes) != TR_OK) break;
        TR_TRY(send_one(c, l, data, bytes));
        tr_channel_release(l->plan.channel);
        *any = true;
    }
    return TR_OK;
}

tr_status tr_carrier_pump(tr_carrier *c, bool *any_out) {
    bool any = false;
    if (c->session == 0) return TR_OK;
    for (uint32_t i = 0; i < c->n_links; i++) {
        link *l = &c->link[i];
        if (l->plan.out)
            TR_TRY(send_some(c, l, &any));
        else
            any |= place(l);
    }
    TR_TRY(tell(c));
    *any_out |= any;
    return TR_OK;
}
