/* kv/reshard_plan.h - what the resharder has to copy for one hand-off: pure, the same list in every process.
 * (source layout, table row, layer split) x (destination ...) x positions [tok0, tok1) -> copy operations. One
 * operation stays inside one tile (16 tokens) of one layer and kv head on both sides; page sizes, page ids, formats and
 * layer splits may differ. Every (layer, kv head, position) that the destination needs is written by exactly one
 * operation. Bounds: all checked in init (shapes, range, every page named by both tables), so next cannot fail. No
 * heap. Borrows: layouts and tables, until the last next. */
#ifndef TR_RESHARD_PLAN_H
#define TR_RESHARD_PLAN_H
#include "base/status.h"
#include "kv/kv_layout.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tr_reshard_side {
    const tr_kv_layout *layout;
    const uint32_t *table;
    uint32_t slot;
    uint32_t n_stages;
    const uint32_t *layer_begin; /* [n_stages + 1]: stage i has layers [layer_begin[i], layer_begin[i + 1]) */
} tr_reshard_side;

typedef struct tr_reshard_op {
    uint32_t layer, kv_head;
    uint32_t src_stage, dst_stage;
    uint32_t src_page, src_tok; /* page id, first token inside the page */
    uint32_t dst_page, dst_tok;
    uint32_t n_tok; /* 1 .. TR_KV_TILE_TOK */
    uint32_t pos;   /* position of the first token */
} tr_reshard_op;

typedef struct tr_reshard_plan {
    tr_reshard_side src, dst;
    uint32_t tok0[TR_KV_GROUPS_MAX], tok1; /* tok0: per group of the destination */
    uint32_t layer, kv_head, pos;          /* next operation */
    uint32_t src_stage, dst_stage;
} tr_reshard_plan;

/* tok_min: per group, first position that the destination still needs (n_groups entries). TR_INVALID: shapes differ, a
 * range is out of bounds, or a page is missing; the text says which. */
tr_status tr_reshard_plan_init(tr_reshard_plan *p, const tr_reshard_side *src, const tr_reshard_side *dst,
                               uint32_t tok0, uint32_t tok1, const uint32_t *tok_min, uint32_t n_tok_min,
                               tr_error *err);
/* Next operation, layer by layer, head by head, positions rising; false at the end. */
bool tr_reshard_plan_next(tr_reshard_plan *p, tr_reshard_op *op_out);
#endif
