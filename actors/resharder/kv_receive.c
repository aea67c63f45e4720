#include "actors/resharder/kv_receive.h"

#include "base/log.h"

#include <string.h>

tr_status tr_kv_receive_begin(tr_kv_receive *r, const tr_msg_reshard *job, const tr_reshard_side *src,
                              const tr_reshard_side *dst, tr_error *err) {
    TR_TRY(tr_kv_pieces_init(&r->pieces, job, src, dst, err));
    r->epoch = job->epoch;
    r->job = job->job;
    r->bytes = r->n_repairs = r->n_replies = 0;
    r->active = true;
    r->have_next = tr_kv_pieces_next(&r->pieces, &r->next);
    return TR_OK;
}

void tr_kv_receive_abort(tr_kv_receive *r) { r->active = false; }

static void scatter(tr_kv_receive *r, const tr_kv_piece *p, const uint8_t *tile) {
    const tr_kv_layout *l = r->layout;
    const uint32_t t = p->pos % TR_KV_TILE_TOK;
    if (p->n_tok == TR_KV_TILE_TOK)
        memcpy(r->pool + p->dst_at, tile, tr_kv_tile_bytes(l->format, l->head_dim));
    else
        tr_kv_convert(r->ops, l->format, r->pool + p->dst_at, t, l->format, tile, t, p->n_tok, l->head_dim, NULL, NULL,
                      r->tmp);
    r->bytes += tr_kv_convert_bytes(l->format, p->n_tok, l->head_dim);
}

static void reply(tr_kv_receive *r, const tr_kv_piece *p) {
    tr_msg_kv_reply m = {.epoch = r->epoch, .job = r->job, .done = p == NULL};
    if (p) m.layer = p->layer, m.kv_head = p->kv_head, m.pos = p->pos;
    r->reply[r->n_replies++] = m;
}

static tr_status ask_again(tr_kv_receive *r, const tr_kv_piece *p, uint32_t tries, tr_error *err) {
    r->damaged++;
    tr_log(TR_LOG_WARN, "page_damaged", "link=\"%s\" job=%llu layer=%u head=%u page=%u pos=%u tries=%u", r->link_name,
           (unsigned long long)r->job, p->layer, p->kv_head, p->dst_page, p->pos, tries);
    if (tries == TR_KV_RECEIVE_TRIES || r->n_repairs == TR_KV_RECEIVE_REPAIRS)
        return tr_error_set(err, TR_PEER, "page of layer %u head %u position %u came damaged over %s, %u time%s",
                            p->layer, p->kv_head, p->pos, r->link_name, tries, tries == 1 ? "" : "s");
    r->repair[r->n_repairs++] = (tr_kv_receive_repair){*p, tries};
    reply(r, p);
    return TR_OK;
}

static tr_status take_tile(tr_kv_receive *r, const tr_kv_piece *p, const void *record, uint32_t i, uint32_t tries,
                           tr_error *err) {
    if (!tr_kv_wire_tile_sound(r->layout, record, i)) return ask_again(r, p, tries, err);
    tr_kv_wire_head h;
    memcpy(&h, record, sizeof h);
    scatter(r, p,
            (const uint8_t *)record + (tr_kv_wire_record_bytes(r->layout, h.pos, h.n_tok) -
                                       (tr_kv_wire_count(h.pos, h.n_tok) - i) * (size_t)h.tile_bytes));
    return TR_OK;
}

static tr_status unexpected(const tr_kv_receive *r, const tr_kv_wire_head *h, tr_error *err) {
    return tr_error_set(err, TR_PROTO, "layer %u head %u positions %u to %u came over %s out of turn", h->layer,
                        h->kv_head, h->pos, h->pos + h->n_tok - 1, r->link_name);
}

static tr_status take_repair(tr_kv_receive *r, const tr_kv_wire_head *h, const void *record, tr_error *err) {
    for (uint32_t i = 0; i < r->n_repairs; i++) {
        tr_kv_receive_repair again = r->repair[i];
        if (!tr_kv_pieces_same(&again.piece, h->layer, h->kv_head, h->pos) || again.piece.n_tok != h->n_tok) continue;
        r->repair[i] = r->repair[--r->n_repairs];
        return take_tile(r, &again.piece, record, 0, again.tries + 1, err);
    }
    return unexpected(r, h, err);
}

/* The record must be exactly the next pieces of the plan. */
static tr_status take_run(tr_kv_receive *r, const tr_kv_wire_head *h, const void *record, tr_error *err) {
    uint32_t pos = h->pos, end = h->pos + h->n_tok;
    for (uint32_t i = 0; pos < end; i++) {
        const tr_kv_piece piece = r->next;
        if (!r->have_next || !tr_kv_pieces_same(&piece, h->layer, h->kv_head, pos) || piece.n_tok > end - pos)
            return unexpected(r, h, err);
        TR_TRY(take_tile(r, &piece, record, i, 1, err));
        pos += piece.n_tok;
        r->have_next = tr_kv_pieces_next(&r->pieces, &r->next);
    }
    return TR_OK;
}

static tr_status take(tr_kv_receive *r, const tr_kv_wire_head *h, const void *record, tr_error *err) {
    return h->repair ? take_repair(r, h, record, err) : take_run(r, h, record, err);
}

tr_status tr_kv_receive_pump(tr_kv_receive *r, uint32_t epoch, bool *any_out, tr_error *err) {
    const void *record;
    size_t bytes;
    tr_kv_wire_head h;
    tr_status status = tr_channel_peek(r->link, &record, &bytes);
    if (status == TR_OK) {
        bool sound = tr_kv_wire_check(r->layout, record, bytes, &h) == TR_OK;
        bool old = sound && (h.epoch < epoch || (r->active && h.epoch == r->epoch && h.job < r->job));
        /* Of a later epoch or job: its RESET or RESHARD is still on its way. */
        if (sound && !old && (!r->active || h.epoch != r->epoch || h.job != r->job)) return TR_AGAIN;
        if (!sound && r->active)
            status = tr_error_set(err, TR_PROTO, "a record of %s is malformed or damaged in its head", r->link_name);
        else if (sound && !old)
            status = take(r, &h, record, err);
        tr_channel_release(r->link);
        *any_out = true;
        if (status != TR_OK) return status;
    }
    if (!r->active || r->have_next || r->n_repairs > 0) return TR_AGAIN;
    r->active = false;
    tr_kv_convert_fence();
    reply(r, NULL);
    return TR_OK;
}
