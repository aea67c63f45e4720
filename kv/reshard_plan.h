/* kv/reshard_plan.h - what the resharders have to copy for one hand-off: pure, the same list in every process.
 * (source layout, table row, layer split, ranks, nodes) x (destination ...) x positions [tok0, tok1) x layers -> copy
 * operations. Page sizes, page ids, formats, depths, ranks and nodes of the two sides may differ in any way.
 * A rank holds the kv heads of tr_kv_layout_rank_heads; with more ranks than heads, several hold the same one. Ranks of
 * one node share its pool, so a cell lies once on every node that has a rank of it: each of those copies is written by
 * one operation, which names the first rank there. It is read on the same node where the source has it there too, else
 * from the first rank that has it.
 * One operation is a run of positions whose tokens lie one after another on both sides (through adjacent page ids);
 * position, source and destination agree modulo TR_KV_TILE_TOK, so tiles are cut alike.
 * Bounds: all checked in init (shapes, range, every page named by both tables), so next cannot fail. No heap. Borrows:
 * what the sides point to, until the last next. */
#ifndef TR_RESHARD_PLAN_H
#define TR_RESHARD_PLAN_H
#include "base/status.h"
#include "kv/kv_layout.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_RESHARD_PLAN_RANKS_MAX = 64 };

typedef struct tr_reshard_side {
    const tr_kv_layout *layout;
    const uint32_t *table;
    uint32_t slot;
    uint32_t n_stages;
    const uint32_t *layer_begin; /* [n_stages + 1]: stage i has layers [layer_begin[i], layer_begin[i + 1]) */
    uint32_t tp;                 /* ranks of each stage, 1 .. TR_RESHARD_PLAN_RANKS_MAX */
    const uint32_t *node;        /* [n_stages][tp] node of each rank; NULL: all on node 0 */
} tr_reshard_side;

/* What one job moves: positions [tok0, tok1), in group g none below tok_min[g] (the destination needs none), of layers
 * [layer0, layer1). */
typedef struct tr_reshard_range {
    uint32_t tok0, tok1, layer0, layer1;
    const uint32_t *tok_min; /* [n_groups of the destination] */
    uint32_t n_tok_min;
} tr_reshard_range;

typedef struct tr_reshard_op {
    uint32_t layer, kv_head;
    uint32_t src_stage, src_rank, src_node;
    uint32_t dst_stage, dst_rank, dst_node;
    uint32_t src_page, src_tok; /* first page id, first token inside it; the run goes on in page ids + 1, + 2, .. */
    uint32_t dst_page, dst_tok;
    uint32_t n_tok; /* 1 .. */
    uint32_t pos;   /* position of the first token */
    bool copy;      /* false: both sides are this pool; the pages change owner where they lie */
} tr_reshard_op;

typedef struct tr_reshard_plan {
    tr_reshard_side src, dst;
    uint32_t tok0[TR_KV_GROUPS_MAX], tok1; /* tok0: per group of the destination */
    uint32_t layer1;
    uint32_t layer, kv_head, pos; /* next operation */
    uint32_t src_stage, dst_stage, src_rank, dst_rank;
    bool same_table;
} tr_reshard_plan;

/* TR_INVALID: shapes differ, a range is out of bounds, or a page is missing; the text says which. */
tr_status tr_reshard_plan_init(tr_reshard_plan *p, const tr_reshard_side *src, const tr_reshard_side *dst,
                               const tr_reshard_range *range, tr_error *err);
/* Next operation, layer by layer, head by head, node by node, positions rising; false at the end. */
bool tr_reshard_plan_next(tr_reshard_plan *p, tr_reshard_op *op_out);
/* Ranks of the side that hold a kv head: [*first_out, *end_out). */
void tr_reshard_plan_ranks(const tr_reshard_side *side, uint32_t kv_head, uint32_t *first_out, uint32_t *end_out);

static inline uint32_t tr_reshard_plan_node(const tr_reshard_side *s, uint32_t stage, uint32_t rank) {
    return s->node ? s->node[stage * s->tp + rank] : 0;
}
#endif
