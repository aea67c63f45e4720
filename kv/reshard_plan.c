#include "kv/reshard_plan.h"

static uint32_t at_least(uint32_t a, uint32_t b) { return a > b ? a : b; }

static tr_status check_split(const tr_reshard_side *s, const char *side, tr_error *err) {
    bool ok = s->n_stages >= 1 && s->layer_begin[0] == 0 && s->layer_begin[s->n_stages] == s->layout->n_layers;
    for (uint32_t i = 0; ok && i < s->n_stages; i++) ok = s->layer_begin[i] <= s->layer_begin[i + 1];
    if (!ok) return tr_error_set(err, TR_INVALID, "reshard: layer split of the %s does not cover the layers", side);
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

tr_status tr_reshard_plan_init(tr_reshard_plan *p, const tr_reshard_side *src, const tr_reshard_side *dst,
                               uint32_t tok0, uint32_t tok1, const uint32_t *tok_min, uint32_t n_tok_min,
                               tr_error *err) {
    TR_TRY(check_shapes(src->layout, dst->layout, err));
    TR_TRY(check_split(src, "source", err));
    TR_TRY(check_split(dst, "destination", err));
    if (n_tok_min != dst->layout->n_groups)
        return tr_error_set(err, TR_INVALID, "reshard: %u group bounds for %u groups", n_tok_min,
                            dst->layout->n_groups);
    *p = (tr_reshard_plan){.src = *src, .dst = *dst, .tok1 = tok1};
    for (uint32_t g = 0; g < n_tok_min; g++) {
        p->tok0[g] = at_least(tok0, tok_min[g]);
        TR_TRY(check_pages(src, "source", g, p->tok0[g], tok1, err));
        TR_TRY(check_pages(dst, "destination", g, p->tok0[g], tok1, err));
    }
    if (p->dst.layout->n_layers > 0) p->pos = p->tok0[p->dst.layout->layer_group[0]];
    return TR_OK;
}

static uint32_t stage_of(const tr_reshard_side *s, uint32_t stage, uint32_t layer) {
    while (layer >= s->layer_begin[stage + 1]) stage++;
    return stage;
}

/* To the first operation at or after (layer, kv_head, pos); false at the end. */
static bool settle(tr_reshard_plan *p) {
    const tr_kv_layout *l = p->dst.layout;
    while (p->layer < l->n_layers) {
        if (p->pos < p->tok1) return true;
        if (++p->kv_head == l->n_kv_heads) {
            p->kv_head = 0;
            p->layer++;
        }
        if (p->layer < l->n_layers) p->pos = p->tok0[l->layer_group[p->layer]];
    }
    return false;
}

bool tr_reshard_plan_next(tr_reshard_plan *p, tr_reshard_op *op_out) {
    if (!settle(p)) return false;
    const tr_kv_layout *s = p->src.layout, *d = p->dst.layout;
    uint32_t group = d->layer_group[p->layer], pos = p->pos;
    uint32_t tile_end = (pos / TR_KV_TILE_TOK + 1) * TR_KV_TILE_TOK, end = tile_end < p->tok1 ? tile_end : p->tok1;
    p->src_stage = stage_of(&p->src, p->src_stage, p->layer);
    p->dst_stage = stage_of(&p->dst, p->dst_stage, p->layer);
    *op_out = (tr_reshard_op){
        .layer = p->layer,
        .kv_head = p->kv_head,
        .src_stage = p->src_stage,
        .dst_stage = p->dst_stage,
        .src_page = p->src.table[tr_kv_layout_entry(s, p->src.slot, group, pos / s->page_tok)],
        .src_tok = pos % s->page_tok,
        .dst_page = p->dst.table[tr_kv_layout_entry(d, p->dst.slot, group, pos / d->page_tok)],
        .dst_tok = pos % d->page_tok,
        .n_tok = end - pos,
        .pos = pos,
    };
    p->pos = end;
    return true;
}
