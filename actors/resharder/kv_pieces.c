#include "actors/resharder/kv_pieces.h"

tr_status tr_kv_pieces_init(tr_kv_pieces *p, const tr_msg_reshard *job, const tr_reshard_side *src,
                            const tr_reshard_side *dst, tr_error *err) {
    tr_reshard_side from = *src, to = *dst;
    from.slot = job->src_slot;
    to.slot = job->dst_slot;
    return tr_reshard_plan_init(&p->plan, &from, &to, job->tok0, job->tok1, job->tok_min.data, job->tok_min.len, err);
}

static uint64_t tile_at(const tr_kv_layout *l, uint32_t layer, uint32_t kv_head, uint32_t page, uint32_t tok) {
    return tr_kv_layout_head_offset(l, layer, kv_head) + (uint64_t)page * l->page_bytes +
           tok / TR_KV_TILE_TOK * tr_kv_tile_bytes(l->format, l->head_dim);
}

bool tr_kv_pieces_next(tr_kv_pieces *p, tr_kv_piece *out) {
    tr_reshard_op op;
    if (!tr_reshard_plan_next(&p->plan, &op)) return false;
    *out = (tr_kv_piece){.layer = op.layer,
                         .kv_head = op.kv_head,
                         .pos = op.pos,
                         .n_tok = op.n_tok,
                         .dst_page = op.dst_page,
                         .src_at = tile_at(p->plan.src.layout, op.layer, op.kv_head, op.src_page, op.src_tok),
                         .dst_at = tile_at(p->plan.dst.layout, op.layer, op.kv_head, op.dst_page, op.dst_tok)};
    return true;
}
