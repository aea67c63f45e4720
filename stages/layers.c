/* stages/layers.c - the transformer of Gemma 3 (Gemma Team 2025) and Llama (Touvron et al. 2023; Grattafiori et al.
 * 2024).
 *
 *   x = embed(token) * embed_scale
 *   per layer:  h = rmsnorm(x) ; q,k,v = W_qkv h ; [q,k = rmsnorm per head] ; q,k = rope(q,k, pos) ; KV page[pos] = k,v
 *               a = attention(q, pages) ; p = W_o a ; [p = rmsnorm(p)] ; x += p
 *               h = rmsnorm(x) ; p = W_down (act(W_gate h) * W_up h) ; [p = rmsnorm(p)] ; x += p
 *   logits = W_head rmsnorm(x)
 * [..]: Gemma only; the model's config says so by the tensors that it has. act: tanh-GELU (Gemma), SiLU (Llama).
 *
 * Attention is shared by (sequence, kv head, rows or splits); before and after it all workers meet. What lies between
 * two attentions works on a context's rows, in one of three forms, and its shares never change a number: TAKEN    a
 * wide step is cut into blocks of rows, and a free worker takes the next: it carries its rows from one attention to the
 * other without waiting for anyone, and what it writes it reads again from its own cache; SHARED   matmuls are shared
 * by output channels, the work on rows (norms, rounding) by rows; a line that ends with `sync` is where the workers
 * meet; NARROW   a step of a row or two, where meetings cost more than work: matmuls are shared, but every worker does
 * the work on rows for itself, into memory of its own, and `sync_rows` is nothing. */
#include "model/sampler.h"
#include "stages/forward_state.h"
#include "stages/rope.h"

#include <math.h>
#include <string.h>

typedef enum step_form { TAKEN, SHARED, NARROW } step_form;

/* Rows [row0, row0 + rows) of the step; the pointers begin at the first of them. */
typedef struct ctx {
    tr_forward *f;
    const tr_ops *ops;
    const tr_micro_batch *batch; /* whose queries attend */
    uint32_t id, n;              /* this worker of n */
    step_form form;
    uint32_t row0, rows;
    tr_forward_worker *w;
    float *x, *qkv, *attn;
    float *norm, *proj, *gate_up, *act; /* between two attentions only */
    tr_linear_rows *ready;
} ctx;

static void meet(const ctx *c) { tr_team_barrier(c->f->config.team, c->id); }
static void sync(const ctx *c) {
    if (c->form != TAKEN) meet(c);
}
static void sync_rows(const ctx *c) {
    if (c->form == SHARED) meet(c);
}

/* This worker's share of n output channels, heads or other things that make no sense twice. */
static void my_share(const ctx *c, uint32_t n, uint32_t *begin, uint32_t *end) {
    tr_team_share(n, c->form == TAKEN ? 0 : c->id, c->form == TAKEN ? 1 : c->n, begin, end);
}

/* Rows [begin, end) that this worker has to see to. */
static void my_rows(const ctx *c, uint32_t rows, uint32_t *begin, uint32_t *end) {
    tr_team_share(rows, c->form == SHARED ? c->id : 0, c->form == SHARED ? c->n : 1, begin, end);
}

/* One row of the next matmul's input. */
static void prepare_row(const ctx *c, const tr_image_tensor *w, const float *in, uint32_t row) {
    tr_linear_prepare(c->ops, w, c->ready, row, in, c->w->tmp);
}

/* y[rows, n] = W * the rows that are ready, over `n` blocks of output channels. */
static void matmul_blocks(const ctx *c, const tr_image_tensor *w, float *y, uint32_t ldy, uint32_t rows,
                          uint32_t block0, uint32_t n) {
    tr_linear_matmul(c->ops, w, c->ready, rows, y, ldy, c->w->panel, block0, n);
}

/* The same over this worker's share of the channels. */
static void matmul(const ctx *c, const tr_image_tensor *w, float *y, uint32_t ldy, uint32_t rows) {
    uint32_t begin, end;
    my_share(c, (w->n + TR_OPS_BLOCK_N - 1) / TR_OPS_BLOCK_N, &begin, &end);
    if (begin != end) matmul_blocks(c, w, y, ldy, rows, begin, end - begin);
}

static void embed(const ctx *c) {
    const tr_forward *f = c->f;
    uint32_t begin, end;
    my_rows(c, c->rows, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        float *x = c->x + (size_t)r * f->model->hidden;
        uint32_t token = f->batch->tokens[c->row0 + r];
        if (f->embed->kind == TR_IMAGE_BF16_PACK)
            c->ops->embed_packed(x, f->embed->data, f->model->hidden, token, f->model->embed_scale);
        else
            c->ops->embed_rows(x, f->embed->data, f->model->hidden, token, f->model->embed_scale);
    }
}

/* cos and sin of every row's position, for both bases: the angle is rounded to fp32 as reference implementations do. */
static void rope_angles(const ctx *c) {
    const tr_forward *f = c->f;
    const uint32_t half = f->model->head_dim / 2;
    uint32_t begin, end;
    my_share(c, 2 * c->rows, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        uint32_t kind = i / c->rows, r = c->row0 + i % c->rows;
        if (!f->inv_freq[kind]) continue;
        float *cs = f->rope[kind] + (size_t)r * f->model->head_dim;
        for (uint32_t k = 0; k < half; k++)
            tr_rope_angle((float)f->row_pos[r] * f->inv_freq[kind][k], &cs[k], &cs[half + k]);
    }
}

static void norm_rows(const ctx *c, const float *weight, const tr_image_tensor *next) {
    const tr_forward *f = c->f;
    const uint32_t hidden = f->model->hidden;
    uint32_t begin, end;
    my_rows(c, c->rows, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        float *norm = c->norm + (size_t)r * hidden;
        c->ops->rmsnorm(norm, c->x + (size_t)r * hidden, weight, hidden, f->model->rms_eps);
        prepare_row(c, next, norm, r);
    }
}

/* x += [rmsnorm](proj), the end of both halves of a layer. */
static void add_rows(const ctx *c, const float *post_norm) {
    const tr_forward *f = c->f;
    const uint32_t hidden = f->model->hidden;
    uint32_t begin, end;
    my_rows(c, c->rows, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        const float *p = c->proj + (size_t)r * hidden;
        if (post_norm) { /* not in place: in a narrow step all workers read proj */
            c->ops->rmsnorm(c->norm + (size_t)r * hidden, p, post_norm, hidden, f->model->rms_eps);
            p = c->norm + (size_t)r * hidden;
        }
        c->ops->add(c->x + (size_t)r * hidden, p, hidden);
    }
}

/* Tile of (layer, kv head) that holds a row's position. */
static uint8_t *kv_tile(const tr_forward *f, uint32_t layer, uint32_t head, uint32_t row) {
    const tr_kv_layout *l = f->config.kv.layout;
    uint32_t pos = f->row_pos[row];
    uint32_t page =
        f->config.kv.table[tr_kv_layout_entry(l, f->row_slot[row], l->layer_group[layer], pos / l->page_tok)];
    return f->config.kv.pool + tr_kv_layout_head_offset(l, layer, head) + (size_t)page * l->page_bytes +
           pos % l->page_tok / TR_KV_TILE_TOK * tr_kv_tile_bytes(l->format, l->head_dim);
}

/* Head norms, RoPE, K and V into their page, q ready for attention. */
static void qk_rows(const ctx *c, const tr_forward_layer *l, uint32_t layer) {
    const tr_forward *f = c->f;
    const uint32_t d = f->model->head_dim, units = f->model->n_heads + f->model->n_kv_heads;
    const bool int8 = f->config.kv.layout->format == TR_KV_INT8;
    uint32_t begin, end;
    my_share(c, c->rows * units, &begin, &end);
    for (uint32_t u = begin; u < end; u++) {
        uint32_t h = u % units, r = c->row0 + u / units;
        float *row = c->qkv + (size_t)(u / units) * f->n_qkv, *x = row + (size_t)h * d;
        bool key = h >= f->model->n_heads;
        const float *weight = key ? l->k_norm : l->q_norm;
        if (weight) c->ops->rmsnorm(x, x, weight, d, f->model->rms_eps);
        c->ops->rope(x, f->rope[l->rope] + (size_t)r * d, d);
        if (!key) {
            if (int8) c->ops->hadamard(x, d, tr_kv_rotation(d));
            continue;
        }
        uint32_t head = h - f->model->n_heads;
        uint8_t *tile = kv_tile(f, layer, head, r);
        const float *v = row + f->n_q + f->n_kv + (size_t)head * d;
        if (int8)
            c->ops->kv_store_int8(tile, f->row_pos[r] % TR_KV_TILE_TOK, x, v, d, c->w->tmp);
        else
            c->ops->kv_store_bf16(tile, f->row_pos[r] % TR_KV_TILE_TOK, x, v, d);
    }
}

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

static tr_attn_args attn_args(const ctx *c, const tr_forward_layer *l, uint32_t layer, const tr_span *s, uint32_t row,
                              uint32_t rows, uint32_t kv_head, uint32_t head, uint32_t heads) {
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
                          .scratch = c->w->scratch};
}

static void attend(const ctx *c, const tr_attn_args *a) {
    if (c->f->config.kv.layout->format == TR_KV_INT8)
        c->ops->attn_int8(a);
    else
        c->ops->attn_bf16(a);
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
static void attend_rows(const ctx *c, const tr_forward_layer *l, uint32_t layer, const tr_span *s, uint32_t step,
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
static void attend_splits(const ctx *c, const tr_forward_layer *l, uint32_t layer, uint32_t span, uint32_t part,
                          uint32_t step, items *t) {
    const tr_forward *f = c->f;
    const tr_span *s = &c->batch->spans[span];
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

static void attention(const ctx *c, const tr_forward_layer *l, uint32_t layer) {
    tr_forward *f = c->f;
    const tr_micro_batch *b = c->batch;
    items t = {.next = &f->next_item[layer - f->config.lo]};
    uint32_t n = 0, part = 0;
    for (uint32_t i = 0; i < b->n_spans; i++)
        n += b->spans[i].rows == 1 ? n_splits(l, &b->spans[i]) : (b->spans[i].rows - 1) / rows_a_run(f) + 1;
    /* Heads that share keys stay together where there are enough items for an even share. */
    const bool by_head = c->n > 1 && n * f->model->n_kv_heads < 4 * c->n;
    const uint32_t step = by_head ? (f->heads_a_kv + c->n - 1) / c->n : f->heads_a_kv;
    for (uint32_t i = 0; i < b->n_spans; i++) {
        const uint32_t splits = n_splits(l, &b->spans[i]);
        if (c->n == 1 || b->spans[i].rows > 1 || splits == 1 || splits > f->n_parts - part) {
            attend_rows(c, l, layer, &b->spans[i], step, &t);
        } else {
            attend_splits(c, l, layer, i, part, step, &t);
            part += splits;
        }
    }
}

static void prepare_rows(const ctx *c, const tr_image_tensor *w, const float *in) {
    uint32_t begin, end;
    my_rows(c, c->rows, &begin, &end);
    for (uint32_t r = begin; r < end; r++) prepare_row(c, w, in + (size_t)r * w->k, r);
}

/* act = act(gate) * up. Gate and up of a channel are made by one worker, a few at a time: read again while cached. */
static void gate(const ctx *c, const tr_image_tensor *gate_up) {
    enum { SLICE = 16 }; /* blocks */
    const uint32_t ffn = c->f->model->ffn, blocks = ffn / TR_OPS_BLOCK_N;
    uint32_t begin, end;
    my_share(c, blocks, &begin, &end);
    for (uint32_t b = begin, n; b < end; b += n) {
        n = end - b < SLICE ? end - b : SLICE;
        matmul_blocks(c, gate_up, c->gate_up, 2 * ffn, c->rows, b, n);
        matmul_blocks(c, gate_up, c->gate_up, 2 * ffn, c->rows, blocks + b, n);
        for (uint32_t r = 0; r < c->rows; r++) {
            const float *in = c->gate_up + (size_t)r * 2 * ffn + b * TR_OPS_BLOCK_N;
            float *out = c->act + (size_t)r * ffn + b * TR_OPS_BLOCK_N;
            if (c->f->model->act == TR_MODEL_ACT_GELU_TANH)
                c->ops->gelu_mul(out, in, in + ffn, n * TR_OPS_BLOCK_N);
            else
                c->ops->silu_mul(out, in, in + ffn, n * TR_OPS_BLOCK_N);
        }
    }
}

static void before_attention(const ctx *c, uint32_t index) {
    const tr_forward *f = c->f;
    const tr_forward_layer *l = &f->layer[index - f->config.lo];
    norm_rows(c, l->attn_norm, l->qkv), sync_rows(c);
    matmul(c, l->qkv, c->qkv, f->n_qkv, c->rows), sync(c);
    qk_rows(c, l, index);
}

static void after_attention(const ctx *c, uint32_t index) {
    const tr_forward *f = c->f;
    const tr_forward_layer *l = &f->layer[index - f->config.lo];
    prepare_rows(c, l->o, c->attn), sync_rows(c);
    matmul(c, l->o, c->proj, f->model->hidden, c->rows), sync(c);
    add_rows(c, l->attn_post_norm); /* the same rows as the norm that follows: no sync */
    norm_rows(c, l->ffn_norm, l->gate_up), sync_rows(c);
    gate(c, l->gate_up), sync(c);
    prepare_rows(c, l->down, c->act), sync_rows(c);
    matmul(c, l->down, c->proj, f->model->hidden, c->rows), sync(c);
    add_rows(c, l->ffn_post_norm); /* the next layer's norm takes the same rows */
}

/* Rows that ask for logits, ready for the head. */
static void head_rows(const ctx *c) {
    const tr_forward *f = c->f;
    const uint32_t hidden = f->model->hidden;
    uint32_t begin, end;
    my_rows(c, f->n_logit_rows, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        float *norm = c->norm + (size_t)i * hidden;
        c->ops->rmsnorm(norm, c->x + (size_t)f->logit_row[i] * hidden, f->output_norm, hidden, f->model->rms_eps);
        prepare_row(c, f->head, norm, i);
    }
    sync_rows(c);
}

static tr_sampler_params sampler_params(const tr_span *s) {
    return (tr_sampler_params){.temperature = s->sampling.temperature,
                               .top_p = s->sampling.top_p,
                               .top_k = s->sampling.top_k,
                               .sample = s->sampling.sample,
                               .position = s->pos0 + s->rows - 1,
                               .seed = s->sampling.seed};
}

/* Best of this worker's share of the vocabulary, where shares can be scanned apart. */
static tr_sampler_best scan(const ctx *c, const tr_sampler_params *p, const float *logits) {
    uint32_t begin, end;
    tr_team_share(c->f->model->vocab, c->id, c->n, &begin, &end);
    if (!tr_sampler_splits(p) || begin == end) return TR_SAMPLER_NONE;
    if (p->temperature > 0) return tr_sampler_scan(p, logits, begin, end);
    float max;
    size_t at = c->ops->argmax(logits + begin, end - begin, &max);
    return max > -INFINITY ? (tr_sampler_best){(double)max, begin + (uint32_t)at} : TR_SAMPLER_NONE;
}

/* All logits; then all workers scan a share of every row. */
static void head(const ctx *c) {
    const tr_forward *f = c->f;
    matmul(c, f->head, f->logits, f->n_vocab, f->n_logit_rows), sync(c);
    uint32_t at = 0; /* rows of logits so far */
    for (uint32_t i = 0; i < f->batch->n_spans; i++) {
        const tr_span *s = &f->batch->spans[i];
        at += (s->flags & TR_SPAN_LOGITS) ? s->rows : (s->flags & TR_SPAN_SAMPLE) ? 1 : 0;
        if (!(s->flags & TR_SPAN_SAMPLE)) continue;
        const tr_sampler_params p = sampler_params(s);
        f->best[c->id * f->config.max_spans + i] = scan(c, &p, f->logits + (size_t)(at - 1) * f->n_vocab);
    }
    sync(c);
}

/* Few rows of which nothing but a token is wanted need no logits (stages/screen.h). */
static bool screens(const tr_forward *f) {
    if (f->head->kind != TR_IMAGE_INT8_PLANES || f->n_logit_rows > TR_SCREEN_ROWS) return false;
    for (uint32_t i = 0; i < f->batch->n_spans; i++) {
        const tr_span *s = &f->batch->spans[i];
        const tr_sampler_params p = sampler_params(s);
        if ((s->flags & TR_SPAN_LOGITS) || ((s->flags & TR_SPAN_SAMPLE) && !tr_sampler_splits(&p))) return false;
    }
    return true;
}

/* The best of every worker's share of the ids, without the logits. */
static void screen(const ctx *c) {
    const tr_forward *f = c->f;
    tr_screen *s = &c->w->screen;
    uint32_t begin, end;
    tr_team_share(f->n_vocab / TR_OPS_BLOCK_N, c->id, c->n, &begin, &end);
    tr_screen_bounds(s, c->ready, f->n_logit_rows, f->logits, f->coarse, f->n_vocab, begin, end - begin);
    begin *= TR_OPS_BLOCK_N, end *= TR_OPS_BLOCK_N;
    if (end > f->model->vocab) end = f->model->vocab;
    for (uint32_t pass = 0; pass < 2; pass++) {
        tr_screen_row row = {.bound = f->logits, .coarse = f->coarse};
        for (uint32_t i = 0; i < f->batch->n_spans; i++) {
            if (!(f->batch->spans[i].flags & TR_SPAN_SAMPLE)) continue;
            const tr_sampler_params p = sampler_params(&f->batch->spans[i]);
            const uint32_t mine = c->id * f->config.max_spans + i;
            if (pass == 0) {
                f->guess[mine] = tr_screen_guess(s, &row, &p, begin, end);
            } else {
                tr_sampler_best guess = TR_SAMPLER_NONE;
                for (uint32_t w = 0; w < c->n; w++)
                    guess = tr_sampler_merge(guess, f->guess[w * f->config.max_spans + i]);
                f->best[mine] = tr_screen_scan(s, &row, &p, begin, end, guess.score);
            }
            row.bound += f->n_vocab, row.coarse += f->n_vocab, row.index++;
        }
        sync(c);
    }
}

/* Each row is settled by one worker. */
static void settle(const ctx *c) {
    const tr_forward *f = c->f;
    uint32_t at = 0;
    for (uint32_t i = 0; i < f->batch->n_spans; i++) {
        const tr_span *s = &f->batch->spans[i];
        at += (s->flags & TR_SPAN_LOGITS) ? s->rows : (s->flags & TR_SPAN_SAMPLE) ? 1 : 0;
        if (!(s->flags & TR_SPAN_SAMPLE) || i % c->n != c->id) continue;
        const tr_sampler_params p = sampler_params(s);
        tr_sampler_best best = TR_SAMPLER_NONE;
        for (uint32_t w = 0; w < c->n; w++) best = tr_sampler_merge(best, f->best[w * f->config.max_spans + i]);
        f->sampled[i] = tr_sampler_splits(&p) ? tr_sampler_id(best)
                                              : tr_sampler_draw(&p, f->logits + (size_t)(at - 1) * f->n_vocab,
                                                                f->model->vocab, c->w->sampler);
    }
}

/* A context of the first `rows` rows. */
static ctx make_ctx(tr_forward *f, uint32_t worker, uint32_t n_workers, uint32_t rows, step_form form) {
    const bool taken = form == TAKEN, shared = form == SHARED;
    tr_forward_worker *w = &f->worker[worker];
    return (ctx){.f = f,
                 .ops = f->ops,
                 .batch = f->batch,
                 .id = worker,
                 .n = n_workers,
                 .form = form,
                 .rows = rows,
                 .w = w,
                 .x = form == NARROW && worker > 0 ? w->x : f->x, /* worker 0 keeps the one that is handed on */
                 .qkv = f->qkv,
                 .attn = f->attn,
                 .norm = shared ? f->norm : w->norm,
                 .proj = taken ? w->proj : f->proj,
                 .gate_up = taken ? w->gate_up : f->gate_up,
                 .act = taken ? w->act : f->act,
                 .ready = shared ? &f->ready : &w->ready};
}

static step_form form_of(uint32_t rows, uint32_t n_workers) {
    if (rows >= n_workers * TR_FORWARD_TAKEN_MIN) return TAKEN;
    return n_workers > 1 && rows <= TR_FORWARD_NARROW_ROWS ? NARROW : SHARED;
}

/* The next rows to work on between attentions `pass` and pass + 1: a block that nobody has taken, or once the whole
 * step. b: what was worked on before, rows 0 at first. */
static bool next_rows(const ctx *step, uint32_t pass, ctx *b) {
    bool first = b->rows == 0;
    *b = *step;
    if (step->form != TAKEN) return first;
    const tr_forward *f = step->f;
    const uint32_t most = step->n * TR_FORWARD_TAKEN_ROWS;
    const uint32_t blocks = (step->rows + most - 1) / most * step->n; /* as many for each worker */
    uint32_t at = atomic_fetch_add_explicit(&f->next_block[pass], 1, memory_order_relaxed), end;
    if (at >= blocks) return false;
    tr_team_share(step->rows, at, blocks, &b->row0, &end);
    b->rows = end - b->row0;
    b->x += (size_t)b->row0 * f->model->hidden;
    b->qkv += (size_t)b->row0 * f->n_qkv;
    b->attn += (size_t)b->row0 * f->n_q;
    return true;
}

/* Only the rows that ask for logits need the last layer beyond its keys and values: they move to the front. */
static ctx asking_rows(const ctx *c) {
    tr_forward *f = c->f;
    const uint32_t rows = f->n_logit_rows;
    if (c->form == NARROW || rows == c->rows) return *c;
    if (c->id == 0) {
        uint32_t row = 0, n = 0;
        for (uint32_t i = 0; i < f->batch->n_spans; i++) {
            tr_span s = f->batch->spans[i];
            uint32_t skip = s.flags & TR_SPAN_LOGITS ? 0 : s.flags & TR_SPAN_SAMPLE ? s.rows - 1 : s.rows;
            s.pos0 += skip, s.rows -= skip, s.row0 = row;
            row += s.rows;
            if (s.rows > 0) f->asking_spans[n++] = s;
        }
        f->asking = (tr_micro_batch){.n_rows = rows, .n_spans = n, .spans = f->asking_spans};
        const size_t hidden = f->model->hidden;
        for (uint32_t i = 0; i < rows; i++) { /* never past a row that is still to move */
            const uint32_t from = f->logit_row[i];
            memmove(f->x + i * hidden, f->x + from * hidden, hidden * sizeof(float));
            memmove(f->qkv + (size_t)i * f->n_qkv, f->qkv + (size_t)from * f->n_qkv, f->n_q * sizeof(float));
            f->logit_row[i] = i;
        }
    }
    meet(c);
    ctx asking = make_ctx(f, c->id, c->n, rows, rows >= c->n * TR_FORWARD_TAKEN_MIN ? TAKEN : SHARED);
    asking.batch = &f->asking;
    return asking;
}

void tr_layers_run(void *forward, uint32_t worker, uint32_t n_workers) {
    tr_forward *f = forward;
    const uint32_t lo = f->config.lo, hi = f->config.hi, rows = f->batch->n_rows;
    ctx c = make_ctx(f, worker, n_workers, rows, form_of(rows, n_workers));
    if (!f->first && c.x != f->x) /* worker 0 writes to it only after a sync */
        memcpy(c.x, f->x, (size_t)c.rows * f->model->hidden * sizeof(float));
    for (ctx b = {0}; next_rows(&c, 0, &b);) {
        if (f->first) embed(&b);
        rope_angles(&b);
        before_attention(&b, lo);
    }
    for (uint32_t i = lo; i < hi; i++) {
        meet(&c);
        if (f->last && i + 1 == hi) c = asking_rows(&c);
        if (c.rows == 0) return;
        attention(&c, &f->layer[i - lo], i), meet(&c);
        for (ctx b = {0}; next_rows(&c, i - lo + 1, &b);) {
            after_attention(&b, i);
            if (i + 1 < hi) before_attention(&b, i + 1);
        }
        if (worker == 0 && f->config.beat) atomic_fetch_add_explicit(f->config.beat, 1, memory_order_relaxed);
    }
    if (f->last && f->n_logit_rows > 0) {
        if (c.form == TAKEN) c = make_ctx(f, worker, n_workers, c.rows, SHARED); /* blocks of rows are over */
        sync_rows(&c);
        head_rows(&c);
        if (screens(f))
            screen(&c);
        else
            head(&c);
        settle(&c);
    }
}
