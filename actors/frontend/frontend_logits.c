/* actors/frontend/frontend_logits.c - logits records go through as they are, a megabyte each for a large vocabulary.
 * A client is owed at most DEBT_MAX bytes that ZeroMQ has not sent yet; then its records wait in the link, which holds
 * back the last stage, for at most STALL_NS: a client that asks for logits and does not read them is gone after that.
 */
#include "actors/frontend/frontend.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define DEBT_MAX (64u << 20)
#define STALL_NS (5 * TR_NS_PER_S)

/* Bytes owed to the client of each slot. Outlives the frontend's own memory: ZeroMQ gives messages back from its thread
 * until its context has ended. */
static _Atomic uint64_t debt[TR_FRONTEND_CLIENTS_MAX];

typedef struct record {
    uint64_t bytes;
    _Atomic uint64_t *debt;
    uint8_t data[];
} record;

static void give_back(void *data, void *hint) {
    record *r = hint;
    (void)data;
    atomic_fetch_sub(r->debt, r->bytes);
    free(r);
}

static tr_status send_record(tr_frontend *f, const tr_request *r, uint32_t slot, const void *data, size_t bytes) {
    if (atomic_load(&debt[slot]) + bytes > DEBT_MAX && atomic_load(&debt[slot]) > 0) return TR_AGAIN;
    record *copy = malloc(sizeof *copy + bytes);
    if (!copy) return TR_AGAIN;
    copy->bytes = bytes;
    copy->debt = &debt[slot];
    memcpy(copy->data, data, bytes);
    atomic_fetch_add(&debt[slot], bytes);
    tr_frontend_bulk bulk = {.data = copy->data, .bytes = bytes, .give_back = give_back, .owner = copy};
    tr_msg m = {.type = TR_MSG_TEXT, .as.text = {.id = r->id, .index = r->n_tokens, .offset = r->offset}};
    return tr_frontend_send_bulk(f, r->client, r->client_len, &m, &bulk);
}

/* False: the client has to read first, keep the record. */
static bool forward(tr_frontend *f, const void *data, size_t bytes) {
    tr_wire_header h;
    if (bytes < sizeof h) return true;
    memcpy(&h, data, sizeof h);
    tr_request *r = tr_frontend_find_request(f, h.rid);
    if (!r || r->gone || !r->logit_seen || h.pos0 >= f->rt->company->context) return true;
    tr_frontend_client *client = tr_frontend_find_client(f, r->client, r->client_len);
    if (!client) return true;
    tr_status status = send_record(f, r, (uint32_t)(client - f->client), data, bytes);
    if (status == TR_AGAIN) {
        uint64_t now = tr_clock_now_ns();
        if (client->stalled_ns == 0) client->stalled_ns = now;
        if (now - client->stalled_ns < STALL_NS) return false;
        tr_log(TR_LOG_WARN, "client_stalled", "logits wait for %llu s: its requests end",
               (unsigned long long)(STALL_NS / TR_NS_PER_S));
        status = TR_PEER;
    }
    client->stalled_ns = 0;
    if (status != TR_OK) {
        tr_frontend_client_gone(f, client->id, client->len);
        return true;
    }
    uint64_t bit = 1ull << (h.pos0 % 64);
    if (!(r->logit_seen[h.pos0 / 64] & bit)) r->logit_rows++;
    r->logit_seen[h.pos0 / 64] |= bit;
    return true;
}

bool tr_frontend_pump_logits(tr_frontend *f) {
    bool any = false;
    f->logits_wait = false;
    for (uint32_t i = 0; i < f->rt->n_links; i++) {
        tr_runtime_link *l = &f->rt->link[i];
        const void *data;
        size_t bytes;
        if (l->producer || l->kind != TR_LINK_LOGITS) continue;
        while (tr_channel_peek(l->channel, &data, &bytes) == TR_OK) {
            if (!forward(f, data, bytes)) {
                f->logits_wait = true;
                break;
            }
            tr_channel_release(l->channel);
            any = true;
        }
    }
    return any;
}
