#include "kv/reshard_plan.h"

static uint32_t at_least(uint32_t a, uint32_t b) { return a > b ? a : b; }
static uint32_t at_most(uint32_t a, uint32_t b) { return a < b ? a : b; }

static tr_status check_side(const tr_reshard_side *s, const char *side, tr_error *err) {
    bool ok = s->n_stages >= 1 && s->layer_begin[0] == 0 && s->layer_begin[s->n_stages] == s->layout->n_layers;
    for (uint32_t i = 0; ok && i < s->n_stages; i++) ok = s->layer_begin[i] <= s->layer_begin[i + 1];
    if (!ok) return tr_error_set(err, TR_INVALID, "reshard: layer split of the %s does not cover the layers", side);
    if (s->tp == 0 || s->tp > TR_RESHARD_PLAN_RANKS_MAX)
        return tr_error_set(err, TR_INVALID, "reshard: %u ranks of a %s stage, 1 to %d are possible", s->tp, side,
                            TR_RESHARD_PLAN_RANKS_MAX);
    if (s->slot >= s->layout->n_slots)
        return tr_error_set(err, TR_INVALID, "reshard: %s slot %u, table has %u", side, s->slot, s->layout->n_slots);
    return TR_OK;
}

static tr_status check_shapes(const tr_kv_layout *a, const tr_kv_layout *b, tr_error *err) {
    bool same = a->n_layers == b->n_layers && a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim &&
                a->n_groups == b->n_groups;
    for (uint32_t i = 0; same && i < a->n_layers; i++)
        same = a->layer_group[i] == b->layer_group[i] &&
               a->group[a->layer_group[i]].window == b->group[b->layer_group[i]].window;
    return same ? TR_OK : tr_error_set(err, TR_INVALID, "reshard: source and destination are of different models");
}

/* Every page that positions [from, to) need is named. */
static tr_status check_pages(const tr_reshard_side *s, const char *side, uint32_t group, uint32_t from, uint32_t to,
                             tr_error *err) {
    const tr_kv_layout *l = s->layout;
    if (from >= to) return TR_OK;
    if ((to - 1) / l->page_tok >= l->pages_per_seq)
        return tr_error_set(err, TR_INVALID, "reshard: position %u is beyond the %s table", to - 1, side);
    for (uint32_t i = from / l->page_tok; i <= (to - 1) / l->page_tok; i++)
        if (s->table[tr_kv_layout_entry(l, s->slot, group, i)] >= l->group[group].n_pages)
            return tr_error_set(err, TR_INVALID, "reshard: %s slot %u group %u has no page for position %u", side,
                                s->slot, group, i * l->page_tok);
    return TR_OK;
}

void tr_reshard_plan_ranks(const tr_reshard_side *side, uint32_t kv_head, uint32_t *first_out, uint32_t *end_out) {
    uint64_t heads = side->layout->n_kv_heads, tp = side->tp;
    uint32_t end = (uint32_t)(((kv_head + 1u) * tp + heads - 1) / heads); /* rank r begins at head r * heads / tp */
    *first_out = tp > heads ? (uint32_t)((kv_head * tp + heads - 1) / heads) : end - 1;
    *end_out = end;
}

/* First rank in [from, end) that stands on the node; end: none. */
static uint32_t rank_on(const tr_reshard_side *s, uint32_t stage, uint32_t node, uint32_t from, uint32_t end) {
    while (from < end && tr_reshard_plan_node(s, stage, from) != node) from++;
    return from;
}

static uint32_t stage_of(const tr_reshard_side *s, uint32_t stage, uint32_t layer) {
    while (layer >= s->layer_begin[stage + 1]) stage++;
    return stage;
}

/* The destination rank is set: the source rank, and the first position. */
static void begin_copy(tr_reshard_plan *p) {
    uint32_t first, end, node = tr_reshard_plan_node(&p->dst, p->dst_stage, p->dst_rank);
    tr_reshard_plan_ranks(&p->src, p->kv_head, &first, &end);
    p->src_rank = rank_on(&p->src, p->src_stage, node, first, end);
    if (p->src_rank == end) p->src_rank = first;
    p->pos = p->tok0[p->dst.layout->layer_group[p->layer]];
}

static void begin_head(tr_reshard_plan *p) {
    uint32_t end;
    tr_reshard_plan_ranks(&p->dst, p->kv_head, &p->dst_rank, &end);
    begin_copy(p);
}

static void begin_layer(tr_reshard_plan *p) {
    p->src_stage = stage_of(&p->src, p->src_stage, p->layer);
    p->dst_stage = stage_of(&p->dst, p->dst_stage, p->layer);
    p->kv_head = 0;
    begin_head(p);
}

/* The next rank that holds the head on a node that has no copy yet; false: none. */
static bool next_node(tr_reshard_plan *p) {
    uint32_t first, end;
    tr_reshard_plan_ranks(&p->dst, p->kv_head, &first, &end);
    while (++p->dst_rank < end) {
        uint32_t node = tr_reshard_plan_node(&p->dst, p->dst_stage, p->dst_rank);
        if (rank_on(&p->dst, p->dst_stage, node, first, p->dst_rank) == p->dst_rank) return true;
    }
    return false;
}

tr_status tr_reshard_plan_init(tr_reshard_plan *p, const tr_reshard_side *src, const tr_reshard_side *dst,
                               const tr_reshard_range *r, tr_error *err) {
    TR_TRY(check_shapes(src->layout, dst->layout, err));
    TR_TRY(check_side(src, "source", err));
    TR_TRY(check_side(dst, "destination", err));
    if (r->n_tok_min != dst->layout->n_groups)
        return tr_error_set(err, TR_INVALID, "reshard: %u group bounds for %u groups", r->n_tok_min,
                            dst->layout->n_groups);
    if (r->layer0 > r->layer1 || r->layer1 > dst->layout->n_layers)
        return tr_error_set(err, TR_INVALID, "reshard: layers [%u, %u) of %u", r->layer0, r->layer1,
                            dst->layout->n_layers);
    *p = (tr_reshard_plan){.src = *src, .dst = *dst, .tok1 = r->tok1, .layer = r->layer0, .layer1 = r->layer1};
    p->same_table = src->table == dst->table && src->slot == dst->slot;
    for (uint32_t g = 0; g < r->n_tok_min; g++) {
        p->tok0[g] = at_least(r->tok0, r->tok_min[g]);
        TR_TRY(check_pages(src, "source", g, p->tok0[g], r->tok1, err));
        TR_TRY(check_pages(dst, "destination", g, p->tok0[g], r->tok1, err));
    }
    if (p->layer < p->layer1) begin_layer(p);
    return TR_OK;
}

/* To the first operation at or after where the plan stands; false at the end. */
static bool settle(tr_reshard_plan *p) {
    while (p->layer < p->layer1) {
        if (p->pos < p->tok1) return true;
        if (next_node(p))
            begin_copy(p);
        else if (++p->kv_head < p->dst.layout->n_kv_heads)
            begin_head(p);
        else if (++p->layer < p->layer1)
            begin_layer(p);
    }
    return false;
}

static uint32_t page_at(const tr_reshard_side *s, uint32_t group, uint32_t pos) {
    return s->table[tr_kv_layout_entry(s->layout, s->slot, group, pos / s->layout->page_tok)];
}

/* First position after pos, at most end, whose token does not follow the one before it in this side's pool. */
static uint32_t run_end(const tr_reshard_side *s, uint32_t group, uint32_t pos, uint32_t end) {
    uint32_t page_tok = s->layout->page_tok, at = (pos / page_tok + 1) * page_tok;
    while (at < end && page_at(s, group, at) == page_at(s, group, at - 1) + 1) at += page_tok;
    return at_most(at, end);
}

bool tr_reshard_plan_next(tr_reshard_plan *p, tr_reshard_op *op_out) {
    if (!settle(p)) return false;
    uint32_t group = p->dst.layout->layer_group[p->layer], pos = p->pos;
    uint32_t end = run_end(&p->dst, group, pos, run_end(&p->src, group, pos, p->tok1));
    *op_out = (tr_reshard_op){
        .layer = p->layer,
        .kv_head = p->kv_head,
        .src_stage = p->src_stage,
        .src_rank = p->src_rank,
        .src_node = tr_reshard_plan_node(&p->src, p->src_stage, p->src_rank),
        .dst_stage = p->dst_stage,
        .dst_rank = p->dst_rank,
        .dst_node = tr_reshard_plan_node(&p->dst, p->dst_stage, p->dst_rank),
        .src_page = page_at(&p->src, group, pos),
        .src_tok = pos % p->src.layout->page_tok,
        .dst_page = page_at(&p->dst, group, pos),
        .dst_tok = pos % p->dst.layout->page_tok,
        .n_tok = end - pos,
        .pos = pos,
    };
    op_out->copy = !p->same_table || op_out->src_node != op_out->dst_node;
    p->pos = end;
    return true;
}
