#include "stages/attention.h"

#include "kernels/kv_codec.h"

/* Attention work is cut into items that the workers take as they become free: sequences differ in length, and late rows
 * of a chunk see more keys than early ones. Each worker walks over all items in the same order. */
typedef struct items {
    _Atomic uint32_t *next; /* first item that nobody took yet */
    uint32_t at, mine;
    bool holds;
} items;

static bool take(items *t) {
    if (!t->holds) t->mine = atomic_fetch_add_explicit(t->next, 1, memory_order_relaxed);
    t->holds = t->at++ != t->mine;
    return !t->holds;
}

static tr_attn_args attn_args(const tr_step *c, const tr_forward_layer *l, uint32_t layer, const tr_span *s,
                              uint32_t row, uint32_t rows, uint32_t kv_head, uint32_t head, uint32_t heads) {
    const tr_forward *f = c->f;
    const tr_kv_layout *kv = f->config.kv.layout;
    const uint32_t d = f->model->head_dim;
    head += kv_head * f->heads_a_kv;
    return (tr_attn_args){.q = f->qkv + (size_t)(s->row0 + row) * f->n_qkv + (size_t)head * d,
                          .out = f->attn + (size_t)(s->row0 + row) * f->n_q + (size_t)head * d,
                          .pages = f->config.kv.pool + tr_kv_layout_head_offset(kv, layer, kv_head),
                          .table = f->config.kv.table + tr_kv_layout_entry(kv, s->slot, l->group, 0),
                          .page_bytes = kv->page_bytes,
                          .ldq = f->n_qkv,
                          .ldo = f->n_q,
                          .page_tok = kv->page_tok,
                          .rows = rows,
                          .heads = heads,
                          .d = d,
                          .pos0 = s->pos0 + row,
                          .window = l->window,
                          .scale = f->model->attn_scale,
                          .kv = tr_kv_memory_head(&f->config.kv, layer, kv_head),
                          .scratch = c->w->scratch};
}

static void attend(const tr_step *c, const tr_attn_args *a) {
    tr_kv_codec_attend(c->ops, c->f->config.kv.layout->format, a);
}

/* Splits that the rows of a span see. */
static uint32_t first_split(const tr_forward_layer *l, const tr_span *s) {
    return l->window && s->pos0 + 1 > l->window ? (s->pos0 + 1 - l->window) / TR_OPS_ATTN_SPLIT_TOK : 0;
}
static uint32_t n_splits(const tr_forward_layer *l, const tr_span *s) {
    return (s->pos0 + s->rows - 1) / TR_OPS_ATTN_SPLIT_TOK + 1 - first_split(l, s);
}
static uint32_t rows_a_run(const tr_forward *f) {
    return f->heads_a_kv >= TR_FORWARD_ATTN_PAIRS ? 1 : TR_FORWARD_ATTN_PAIRS / f->heads_a_kv;
}

/* Items (run of rows, kv head), the longest ones first. */
static void attend_rows(const tr_step *c, const tr_forward_layer *l, uint32_t layer, const tr_span *s, uint32_t step,
                        items *t) {
    const tr_forward *f = c->f;
    const uint32_t run = rows_a_run(f), group = f->heads_a_kv;
    for (uint32_t end = s->rows, rows; end > 0; end -= rows) {
        rows = end < run ? end : run;
        for (uint32_t k = 0; k < f->model->n_kv_heads; k++)
            for (uint32_t h = 0; h < group; h += step) {
                if (!take(t)) continue;
                tr_attn_args a = attn_args(c, l, layer, s, end - rows, rows, k, h, group - h < step ? group - h : step);
                attend(c, &a);
            }
    }
}

/* Items (split, kv head) of a span of one row; who finishes the last one of a kv head merges them. */
static void attend_splits(const tr_step *c, const tr_forward_layer *l, uint32_t layer, uint32_t span, uint32_t part,
                          uint32_t step, items *t) {
    const tr_forward *f = c->f;
    const tr_span *s = &c->spans[span];
    const uint32_t group = f->heads_a_kv, n = n_splits(l, s), heads = f->model->n_heads;
    const size_t ld = tr_ops_attn_part_floats(f->model->head_dim);
    for (uint32_t k = 0; k < f->model->n_kv_heads; k++)
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t h = 0; h < group; h += step) {
                if (!take(t)) continue;
                tr_attn_args a = attn_args(c, l, layer, s, 0, 1, k, h, group - h < step ? group - h : step);
                a.split = first_split(l, s) + i;
                a.next = a.split + c->n;
                a.part = f->part + ((size_t)(part + i) * heads + k * group + h) * ld;
                attend(c, &a);
                _Atomic uint32_t *done = &f->part_done[span * f->model->n_kv_heads + k];
                if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 < n * ((group + step - 1) / step))
                    continue;
                atomic_store_explicit(done, 0, memory_order_relaxed); /* for the next layer, after a sync */
                for (uint32_t j = k * group; j < (k + 1) * group; j++)
                    c->ops->attn_merge(f->attn + (size_t)s->row0 * f->n_q + (size_t)j * f->model->head_dim,
                                       f->part + ((size_t)part * heads + j) * ld, n, heads * ld, f->model->head_dim);
            }
}

void tr_attention_run(const tr_step *c, const tr_forward_layer *l, uint32_t layer) {
    tr_forward *f = c->f;
    items t = {.next = &f->next_item[layer - f->config.lo]};
    uint32_t n = 0, part = 0;
    for (uint32_t i = 0; i < c->n_spans; i++)
        n += c->spans[i].rows == 1 ? n_splits(l, &c->spans[i]) : (c->spans[i].rows - 1) / rows_a_run(f) + 1;
    /* Heads that share keys stay together where there are enough items for an even share. */
    const bool by_head = c->n > 1 && n * f->model->n_kv_heads < 4 * c->n;
    const uint32_t step = by_head ? (f->heads_a_kv + c->n - 1) / c->n : f->heads_a_kv;
    for (uint32_t i = 0; i < c->n_spans; i++) {
        const uint32_t splits = n_splits(l, &c->spans[i]);
        if (c->n == 1 || c->spans[i].rows > 1 || splits == 1 || splits > f->n_parts - part) {
            attend_rows(c, l, layer, &c->spans[i], step, &t);
        } else {
            attend_splits(c, l, layer, i, part, step, &t);
            part += splits;
        }
    }
}
