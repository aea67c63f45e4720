#include "actors/resharder/kv_send.h"

#include <string.h>

tr_status tr_kv_send_begin(tr_kv_send *s, const tr_msg_reshard *job, const tr_reshard_side *src,
                           const tr_reshard_side *dst, tr_error *err) {
    TR_TRY(tr_kv_pieces_init(&s->pieces, job, src, dst, err));
    s->start = s->pieces;
    s->epoch = job->epoch;
    s->job = job->job;
    s->bytes = s->n_repairs = 0;
    s->active = true;
    s->confirmed = s->all_sent = false;
    s->have_next = tr_kv_pieces_next(&s->pieces, &s->next);
    return TR_OK;
}

void tr_kv_send_abort(tr_kv_send *s) { s->active = false; }

void tr_kv_send_reply(tr_kv_send *s, const tr_msg_kv_reply *m) {
    if (!s->active || m->epoch != s->epoch || m->job != s->job) return;
    if (m->done)
        s->confirmed = true;
    else if (s->n_repairs < TR_KV_SEND_REPAIRS)
        s->repair[s->n_repairs++] = *m;
}

static void fill(tr_kv_send *s, const tr_kv_piece *p, uint8_t *tile) {
    const uint32_t t = p->pos % TR_KV_TILE_TOK;
    if (p->n_tok < TR_KV_TILE_TOK) memset(tile, 0, tr_kv_tile_bytes(s->to->format, s->to->head_dim));
    tr_kv_convert(s->ops, s->to->format, tile, t, s->from->format, s->pool + p->src_at, t, p->n_tok, s->to->head_dim,
                  NULL, NULL, s->tmp);
}

/* The run of pieces from `first` that goes into one record: tiles of one layer and head, one after another. */
static uint32_t gather(tr_kv_send *s, tr_kv_piece run[TR_KV_WIRE_TILES_MAX]) {
    uint32_t n = 0, most = tr_kv_wire_tiles(s->to);
    while (s->have_next && n < most) {
        const tr_kv_piece *last = n ? &run[n - 1] : NULL;
        if (last && (s->next.layer != last->layer || s->next.kv_head != last->kv_head ||
                     s->next.pos != last->pos + last->n_tok))
            break;
        run[n++] = s->next;
        s->have_next = tr_kv_pieces_next(&s->pieces, &s->next);
    }
    return n;
}

/* record has room for the run. Returns its bytes. */
static size_t write_record(tr_kv_send *s, const tr_kv_piece *run, uint32_t n, bool repair, void *record) {
    const tr_kv_piece *last = &run[n - 1];
    tr_kv_wire_head h = {.epoch = s->epoch,
                         .job = s->job,
                         .layer = run[0].layer,
                         .kv_head = run[0].kv_head,
                         .pos = run[0].pos,
                         .n_tok = last->pos + last->n_tok - run[0].pos,
                         .repair = repair};
    memcpy(record, &h, sizeof h);
    for (uint32_t i = 0; i < n; i++) fill(s, &run[i], tr_kv_wire_tile(s->to, record, i));
    tr_kv_convert_fence();
    tr_kv_wire_seal(s->to, record, &h);
    return tr_kv_wire_record_bytes(s->to, h.pos, h.n_tok);
}

static tr_status send_repair(tr_kv_send *s, const tr_msg_kv_reply *m, tr_error *err) {
    tr_kv_pieces pieces = s->start;
    tr_kv_piece piece;
    void *record;
    do
        if (!tr_kv_pieces_next(&pieces, &piece))
            return tr_error_set(err, TR_PROTO, "asked again for layer %u head %u position %u, which is not in the job",
                                m->layer, m->kv_head, m->pos);
    while (!tr_kv_pieces_same(&piece, m->layer, m->kv_head, m->pos));
    TR_TRY(tr_channel_reserve(s->link, tr_kv_wire_record_bytes(s->to, piece.pos, piece.n_tok), &record));
    return tr_channel_commit(s->link, write_record(s, &piece, 1, true, record));
}

tr_status tr_kv_send_pump(tr_kv_send *s, bool *any_out, tr_error *err) {
    tr_kv_piece run[TR_KV_WIRE_TILES_MAX] = {{0}};
    void *record;
    while (s->n_repairs > 0) {
        TR_TRY(send_repair(s, &s->repair[s->n_repairs - 1], err));
        s->n_repairs--;
        *any_out = true;
    }
    while (s->have_next) {
        TR_TRY(tr_channel_reserve(s->link, tr_kv_wire_record_max(s->to), &record));
        uint32_t n = gather(s, run);
        size_t bytes = write_record(s, run, n, false, record);
        TR_TRY(tr_channel_commit(s->link, bytes));
        s->bytes += bytes;
        *any_out = true;
        return TR_AGAIN; /* others have their turn between records */
    }
    if (!s->confirmed) return TR_AGAIN;
    s->active = false;
    return TR_OK;
}
