#include "actors/resharder/kv_pieces.h"

tr_status tr_kv_pieces_init(tr_kv_pieces *p, const tr_msg_reshard *job, const tr_reshard_side *src,
                            const tr_reshard_side *dst, tr_error *err) {
    tr_reshard_side from = *src, to = *dst;
    from.slot = job->src_slot;
    to.slot = job->dst_slot;
    const tr_reshard_range range = {job->tok0,   job->tok1,         job->layer0,
                                    job->layer1, job->tok_min.data, job->tok_min.len};
    p->run = (tr_reshard_op){0};
    p->done = 0;
    return tr_reshard_plan_init(&p->plan, &from, &to, &range, err);
}

/* Tiles of a run lie one after another; so do its pages. */
static uint64_t tile_at(const tr_kv_layout *l, const tr_reshard_op *run, uint32_t page, uint32_t tok) {
    return tr_kv_layout_head_offset(l, run->layer, run->kv_head) + (uint64_t)page * l->page_bytes +
           tok / TR_KV_TILE_TOK * tr_kv_tile_bytes(l->format, l->head_dim);
}

bool tr_kv_pieces_next(tr_kv_pieces *p, tr_kv_piece *out) {
    const tr_kv_layout *src = p->plan.src.layout, *dst = p->plan.dst.layout;
    tr_reshard_op *run = &p->run;
    if (p->done == run->n_tok) {
        p->done = 0;
        if (!tr_reshard_plan_next(&p->plan, run)) return run->n_tok = 0, false;
    }
    uint32_t pos = run->pos + p->done, left = run->n_tok - p->done, room = TR_KV_TILE_TOK - pos % TR_KV_TILE_TOK;
    *out = (tr_kv_piece){.layer = run->layer,
                         .kv_head = run->kv_head,
                         .pos = pos,
                         .n_tok = left < room ? left : room,
                         .dst_page = run->dst_page + (run->dst_tok + p->done) / dst->page_tok,
                         .src_at = tile_at(src, run, run->src_page, run->src_tok + p->done),
                         .dst_at = tile_at(dst, run, run->dst_page, run->dst_tok + p->done)};
    p->done += out->n_tok;
    return true;
}
