#include "kv/reshard_verify.h"

#include "base/checked.h"
#include <inttypes.h>
#include <string.h>

enum { SRC = 0, DST = 1 };
#define DELIVERED (UINT64_C(1) << 63) /* by an operation */
#define SEEN      (UINT64_C(1) << 62) /* by a reader at the end */

static const char *const name_of[2] = {"source", "destination"};

/* Name of a cell: never 0. */
static uint64_t name(const tr_reshard_verify *v, uint32_t layer, uint32_t head, uint32_t pos) {
    return ((uint64_t)layer * v->side[DST].layout->n_kv_heads + head) * (UINT64_C(1) << 32) + pos + 1;
}

static uint32_t window_pages(const tr_kv_layout *l, uint32_t tok_min, uint32_t tok1) {
    return tok_min < tok1 ? (tok1 - 1) / l->page_tok - tok_min / l->page_tok + 1 : 0;
}

static bool node_slots(const tr_kv_layout *l, const uint32_t *tok_min, uint32_t tok1, uint64_t *slots_out) {
    uint64_t sum = 0, run;
    for (uint32_t layer = 0; layer < l->n_layers; layer++)
        if (!tr_checked_mul((uint64_t)window_pages(l, tok_min[l->layer_group[layer]], tok1) * l->page_tok,
                            l->n_kv_heads, &run) ||
            !tr_checked_add(sum, run, &sum))
            return false;
    *slots_out = sum;
    return true;
}

static bool same_pool(const tr_reshard_side *src, const tr_reshard_side *dst) {
    return src->table == dst->table && src->slot == dst->slot;
}

size_t tr_reshard_verify_bytes(const tr_reshard_side *src, const tr_reshard_side *dst, const uint32_t *tok_min,
                               uint32_t tok1, uint32_t n_nodes) {
    const tr_reshard_side *side[2] = {src, dst};
    uint64_t sum = 0, bytes;
    for (int i = 0; i < (same_pool(src, dst) ? 1 : 2); i++) {
        if (!node_slots(side[i]->layout, tok_min, tok1, &bytes) || !tr_checked_mul(bytes, 8, &bytes) ||
            !tr_checked_mul(bytes, n_nodes, &bytes) || !tr_checked_add(sum, bytes, &sum))
            return 0;
        for (uint32_t g = 0; g < side[i]->layout->n_groups; g++)
            if (!tr_checked_add(sum, tr_align_up((uint64_t)side[i]->layout->group[g].n_pages * 4, 8), &sum)) return 0;
    }
    return sum <= SIZE_MAX / 2 ? (size_t)sum : 0;
}

/* Runs of pages of two (layer, head) never meet. */
static tr_status check_layout(const tr_kv_layout *l, const char *side, tr_error *err) {
    uint64_t at = 0;
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t layer = 0; layer < l->n_layers; layer++)
            for (uint32_t h = 0; h < l->n_kv_heads && l->layer_group[layer] == g; h++) {
                uint64_t begin = tr_kv_layout_head_offset(l, layer, h);
                if (begin < at)
                    return tr_error_set(err, TR_INTERNAL, "%s: layer %u head %u lies on the pages of another", side,
                                        layer, h);
                at = begin + (uint64_t)l->group[g].n_pages * l->page_bytes;
            }
    return at <= l->pool_bytes ? TR_OK
                               : tr_error_set(err, TR_INTERNAL, "%s: pages lie beyond the end of the pool", side);
}

static tr_status index_pages(tr_reshard_verify *v, int i, uint32_t g, tr_error *err) {
    const tr_reshard_side *s = &v->side[i];
    const tr_kv_layout *l = s->layout;
    uint32_t n = window_pages(l, v->tok0[g], v->tok1), first = v->tok0[g] / l->page_tok;
    memset(v->held[i][g], 0xff, l->group[g].n_pages * sizeof *v->held[i][g]);
    v->n_held[i][g] = n;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t page = s->table[tr_kv_layout_entry(l, s->slot, g, first + k)];
        if (page >= l->group[g].n_pages || v->held[i][g][page] != TR_KV_NO_PAGE)
            return tr_error_set(err, TR_INTERNAL, "%s: page %u of group %u is named twice or does not exist",
                                name_of[i], page, g);
        v->held[i][g][page] = k;
    }
    return TR_OK;
}

/* Slot of a physical token on a node, or NULL when the sequence does not hold that page. */
static uint64_t *slot_at(const tr_reshard_verify *v, int i, uint32_t node, uint32_t layer, uint32_t head, uint64_t page,
                         uint32_t tok) {
    const tr_kv_layout *l = v->side[i].layout;
    uint32_t g = l->layer_group[layer];
    if (page >= l->group[g].n_pages || v->held[i][g][page] == TR_KV_NO_PAGE || node >= v->n_nodes) return NULL;
    uint64_t index = ((uint64_t)head * v->n_held[i][g] + v->held[i][g][page]) * l->page_tok + tok;
    return &v->cell[i][node * v->end[i] + v->begin[i][layer] + index];
}

/* Where a rank looks for a position: through its table. */
static uint64_t *slot_of(const tr_reshard_verify *v, int i, uint32_t node, uint32_t layer, uint32_t head,
                         uint32_t pos) {
    const tr_reshard_side *s = &v->side[i];
    uint32_t page_tok = s->layout->page_tok;
    uint32_t page = s->table[tr_kv_layout_entry(s->layout, s->slot, s->layout->layer_group[layer], pos / page_tok)];
    return slot_at(v, i, node, layer, head, page, pos % page_tok);
}

/* Every (rank, layer, head) of a side. */
typedef struct holder {
    uint32_t stage, rank, layer, head, node;
} holder;
typedef tr_status (*visit)(tr_reshard_verify *v, const holder *h, tr_error *err);

static tr_status for_holders(tr_reshard_verify *v, int i, visit f, tr_error *err) {
    const tr_reshard_side *s = &v->side[i];
    holder h;
    for (h.stage = 0; h.stage < s->n_stages; h.stage++)
        for (h.rank = 0; h.rank < s->tp; h.rank++) {
            uint32_t first, end;
            tr_kv_layout_rank_heads(s->layout->n_kv_heads, s->tp, h.rank, &first, &end);
            h.node = tr_reshard_plan_node(s, h.stage, h.rank);
            if (h.node >= v->n_nodes) return tr_error_set(err, TR_INTERNAL, "%s: no node %u", name_of[i], h.node);
            for (h.layer = s->layer_begin[h.stage]; h.layer < s->layer_begin[h.stage + 1]; h.layer++)
                for (h.head = first; h.head < end; h.head++) TR_TRY(f(v, &h, err));
        }
    return TR_OK;
}

static tr_status fill(tr_reshard_verify *v, const holder *h, tr_error *err) {
    (void)err;
    for (uint32_t pos = v->tok0[v->side[SRC].layout->layer_group[h->layer]]; pos < v->tok1; pos++)
        *slot_of(v, SRC, h->node, h->layer, h->head, pos) = name(v, h->layer, h->head, pos);
    return TR_OK;
}

static void lay_out(tr_reshard_verify *v, int i, uint8_t **at) {
    const tr_kv_layout *l = v->side[i].layout;
    uint64_t sum = 0;
    v->cell[i] = (uint64_t *)(void *)*at;
    for (uint32_t layer = 0; layer < l->n_layers; layer++) {
        v->begin[i][layer] = sum;
        sum += (uint64_t)window_pages(l, v->tok0[l->layer_group[layer]], v->tok1) * l->page_tok * l->n_kv_heads;
    }
    v->end[i] = sum;
    memset(v->cell[i], 0, sum * v->n_nodes * sizeof *v->cell[i]);
    *at += sum * v->n_nodes * sizeof *v->cell[i];
    for (uint32_t g = 0; g < l->n_groups; g++) {
        v->held[i][g] = (uint32_t *)(void *)*at;
        *at += tr_align_up((uint64_t)l->group[g].n_pages * 4, 8);
    }
}

tr_status tr_reshard_verify_begin(tr_reshard_verify *v, const tr_reshard_side *src, const tr_reshard_side *dst,
                                  const uint32_t *tok_min, uint32_t tok1, uint32_t n_nodes, void *scratch,
                                  tr_error *err) {
    uint8_t *at = scratch;
    memset(v, 0, sizeof *v);
    v->side[SRC] = *src;
    v->side[DST] = *dst;
    v->tok1 = tok1;
    v->n_nodes = n_nodes;
    v->one_pool = same_pool(src, dst);
    memcpy(v->tok0, tok_min, dst->layout->n_groups * sizeof *tok_min);
    for (int i = 0; i < 2; i++) {
        if (i == DST && v->one_pool) {
            v->cell[DST] = v->cell[SRC];
            v->end[DST] = v->end[SRC];
            memcpy(v->begin[DST], v->begin[SRC], sizeof v->begin[DST]);
            memcpy(v->held[DST], v->held[SRC], sizeof v->held[DST]);
            memcpy(v->n_held[DST], v->n_held[SRC], sizeof v->n_held[DST]);
            break;
        }
        TR_TRY(check_layout(v->side[i].layout, name_of[i], err));
        lay_out(v, i, &at);
        for (uint32_t g = 0; g < v->side[i].layout->n_groups; g++) TR_TRY(index_pages(v, i, g, err));
    }
    return for_holders(v, SRC, fill, err);
}

static tr_status wrong(const tr_reshard_op *op, uint32_t pos, const char *what, tr_error *err) {
    return tr_error_set(err, TR_INTERNAL, "hand-off plan: layer %u kv head %u position %u: %s", op->layer, op->kv_head,
                        pos, what);
}

static bool holds(const tr_reshard_side *s, uint32_t stage, uint32_t rank, uint32_t node, const tr_reshard_op *op) {
    if (stage >= s->n_stages || rank >= s->tp || op->layer < s->layer_begin[stage] ||
        op->layer >= s->layer_begin[stage + 1])
        return false;
    uint32_t first, end;
    tr_kv_layout_rank_heads(s->layout->n_kv_heads, s->tp, rank, &first, &end);
    return op->kv_head >= first && op->kv_head < end && tr_reshard_plan_node(s, stage, rank) == node;
}

static tr_status move_cell(tr_reshard_verify *v, const tr_reshard_op *op, uint32_t t, tr_error *err) {
    uint32_t src_tok = op->src_tok + t, dst_tok = op->dst_tok + t, pos = op->pos + t;
    uint32_t src_page_tok = v->side[SRC].layout->page_tok, dst_page_tok = v->side[DST].layout->page_tok;
    uint64_t *from = slot_at(v, SRC, op->src_node, op->layer, op->kv_head,
                             (uint64_t)op->src_page + src_tok / src_page_tok, src_tok % src_page_tok);
    uint64_t *to = slot_at(v, DST, op->dst_node, op->layer, op->kv_head,
                           (uint64_t)op->dst_page + dst_tok / dst_page_tok, dst_tok % dst_page_tok);
    uint64_t want = name(v, op->layer, op->kv_head, pos);
    if (!from) return wrong(op, pos, "is read from a page that the sequence does not hold", err);
    if (!to) return wrong(op, pos, "is written to a page that the sequence does not hold", err);
    if (*from == 0) return wrong(op, pos, "is read where prefill wrote nothing", err);
    if ((*from & ~DELIVERED) != want || (!op->copy && from != to)) /* in one pool it may be its own delivery already */
        return wrong(op, pos, op->copy ? "is read where another cell lies" : "does not lie where its owner looks", err);
    if (*to & DELIVERED) return wrong(op, pos, "is written twice, or over another cell", err);
    if (op->copy && *to != 0) return wrong(op, pos, "is written over what prefill wrote", err);
    *to = want | DELIVERED;
    v->proof.copied += op->copy;
    v->proof.kept += !op->copy;
    v->proof.crossed += op->src_node != op->dst_node;
    return TR_OK;
}

tr_status tr_reshard_verify_op(tr_reshard_verify *v, const tr_reshard_op *op, tr_error *err) {
    const tr_kv_layout *dst = v->side[DST].layout;
    if (op->layer >= dst->n_layers || op->kv_head >= dst->n_kv_heads || op->n_tok == 0 || op->pos >= v->tok1 ||
        op->n_tok > v->tok1 - op->pos)
        return wrong(op, op->pos, "does not exist", err);
    if (!holds(&v->side[SRC], op->src_stage, op->src_rank, op->src_node, op))
        return wrong(op, op->pos, "is read from a rank that does not hold it", err);
    if (!holds(&v->side[DST], op->dst_stage, op->dst_rank, op->dst_node, op))
        return wrong(op, op->pos, "is written for a rank that does not hold it", err);
    if (op->src_tok % TR_KV_TILE_TOK != op->pos % TR_KV_TILE_TOK ||
        op->dst_tok % TR_KV_TILE_TOK != op->pos % TR_KV_TILE_TOK)
        return wrong(op, op->pos, "stands elsewhere in its tile", err);
    for (uint32_t t = 0; t < op->n_tok; t++) TR_TRY(move_cell(v, op, t, err));
    v->proof.ops += op->copy;
    if (op->copy) v->proof.bytes += op->n_tok * tr_kv_tile_bytes(dst->format, dst->head_dim) / TR_KV_TILE_TOK;
    return TR_OK;
}

tr_status tr_reshard_verify_plan(tr_reshard_verify *v, tr_reshard_plan *plan, tr_error *err) {
    for (tr_reshard_op op; tr_reshard_plan_next(plan, &op);) TR_TRY(tr_reshard_verify_op(v, &op, err));
    return TR_OK;
}

static tr_status read_back(tr_reshard_verify *v, const holder *h, tr_error *err) {
    const tr_reshard_op op = {.layer = h->layer, .kv_head = h->head};
    for (uint32_t pos = v->tok0[v->side[DST].layout->layer_group[h->layer]]; pos < v->tok1; pos++) {
        uint64_t *at = slot_of(v, DST, h->node, h->layer, h->head, pos);
        if ((*at & ~SEEN) != (name(v, h->layer, h->head, pos) | DELIVERED))
            return wrong(&op, pos, "is not where a rank of the destination looks for it", err);
        v->proof.cells += !(*at & SEEN); /* ranks of one node share it */
        *at |= SEEN;
    }
    return TR_OK;
}

tr_status tr_reshard_verify_end(tr_reshard_verify *v, tr_reshard_proof *proof_out, tr_error *err) {
    TR_TRY(for_holders(v, DST, read_back, err));
    if (v->proof.cells != v->proof.copied + v->proof.kept)
        return tr_error_set(err, TR_INTERNAL, "hand-off plan: %" PRIu64 " cells are written, %" PRIu64 " are needed",
                            v->proof.copied + v->proof.kept, v->proof.cells);
    *proof_out = v->proof;
    return TR_OK;
}
