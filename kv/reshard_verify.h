/* kv/reshard_verify.h - proof by enumeration that a stream of hand-off operations is right, for one pair of sides.
 * The model knows nothing of the plan: it is every pool slot of every node, filled rank by rank with what prefill
 * writes there (the cell's name: layer, kv head, position). Each operation is carried out on it, after a check that it
 * names ranks that hold the cell, pages that the sequence holds, slots that were written on the source and not yet on
 * the destination. At the end every rank of the destination finds every cell that it needs, delivered once, and nothing
 * else was written. Any number of jobs (chunks, layer ranges) may make up the hand-off.
 * Memory: of the caller, tr_reshard_verify_bytes. Borrows: the sides. */
#ifndef TR_RESHARD_VERIFY_H
#define TR_RESHARD_VERIFY_H
#include "kv/reshard_plan.h"

#include <stddef.h>

typedef struct tr_reshard_proof {
    uint64_t cells; /* (layer, kv head, position) of the destination, counted once on each node that has it */
    uint64_t copied, kept, crossed; /* cells: written, change of owner, of the written ones from another node */
    uint64_t ops, bytes;            /* copies, bytes written in the format of the destination */
} tr_reshard_proof;

typedef struct tr_reshard_verify {
    tr_reshard_side side[2]; /* source, destination */
    uint32_t tok0[TR_KV_GROUPS_MAX], tok1, n_nodes;
    bool one_pool;
    uint32_t *held[2][TR_KV_GROUPS_MAX];         /* page id -> index among the held ones; TR_KV_NO_PAGE */
    uint64_t *cell[2];                           /* [node][slot]: name of what lies there, 0 nothing */
    uint64_t begin[2][TR_KV_LAYERS_MAX], end[2]; /* first slot of a layer, slots of a node */
    uint32_t n_held[2][TR_KV_GROUPS_MAX];
    tr_reshard_proof proof;
} tr_reshard_verify;

/* Scratch for a hand-off of positions [tok_min[group], tok1) over nodes 0 .. n_nodes - 1. 0: too large, or a page of it
 * is missing. */
size_t tr_reshard_verify_bytes(const tr_reshard_side *src, const tr_reshard_side *dst, const uint32_t *tok_min,
                               uint32_t tok1, uint32_t n_nodes);
/* Fill the source. TR_INTERNAL: pools overlap themselves (a page twice in a table, a layer inside another). */
tr_status tr_reshard_verify_begin(tr_reshard_verify *v, const tr_reshard_side *src, const tr_reshard_side *dst,
                                  const uint32_t *tok_min, uint32_t tok1, uint32_t n_nodes, void *scratch,
                                  tr_error *err);
/* Carry out one operation. TR_INTERNAL: it is wrong; the text names cell and fault. */
tr_status tr_reshard_verify_op(tr_reshard_verify *v, const tr_reshard_op *op, tr_error *err);
/* All of a plan. */
tr_status tr_reshard_verify_plan(tr_reshard_verify *v, tr_reshard_plan *plan, tr_error *err);
/* Read everything on the destination. TR_INTERNAL: a cell is missing, or one was written that nobody needs. */
tr_status tr_reshard_verify_end(tr_reshard_verify *v, tr_reshard_proof *proof_out, tr_error *err);
#endif
