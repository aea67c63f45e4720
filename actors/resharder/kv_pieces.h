/* actors/resharder/kv_pieces.h - a hand-off as both halves of it see it: the copy plan cut into pieces of one tile, in
 * the same order on both nodes, each with its place in the pool of either side. */
#ifndef TR_KV_PIECES_H
#define TR_KV_PIECES_H
#include "kv/reshard_plan.h"
#include "transport/schema.h"

typedef struct tr_kv_piece {
    uint32_t layer, kv_head;
    uint32_t pos, n_tok;     /* inside one tile */
    uint32_t dst_page;       /* for people */
    uint64_t src_at, dst_at; /* first byte of the tile, from the start of the pool */
} tr_kv_piece;

typedef struct tr_kv_pieces {
    tr_reshard_plan plan;
    tr_reshard_op run; /* of the plan, as far as it is not cut up yet */
    uint32_t done;     /* tokens of it */
} tr_kv_pieces;

tr_status tr_kv_pieces_init(tr_kv_pieces *p, const tr_msg_reshard *job, const tr_reshard_side *src,
                            const tr_reshard_side *dst, tr_error *err);
bool tr_kv_pieces_next(tr_kv_pieces *p, tr_kv_piece *out);
static inline bool tr_kv_pieces_same(const tr_kv_piece *p, uint32_t layer, uint32_t kv_head, uint32_t pos) {
    return p->layer == layer && p->kv_head == kv_head && p->pos == pos;
}
#endif
