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
 * Every function runs on all workers. Matmuls are shared by output channels, attention by (sequence, kv head, rows); a
 * line that ends with `sync` is where the workers meet. What works on rows (norms, rounding, activations) is shared by
 * rows in a wide step. In a narrow step of a row or two that would be more waiting than work: there every worker does
 * it for itself, into memory of its own, and `sync_rows` is nothing: 6 meetings a layer instead of 10. Shares never
 * change a number. */
#include "model/sampler.h"
#include "stages/forward_state.h"
#include "stages/rope.h"

#include <math.h>
#include <string.h>

typedef struct ctx {
    tr_forward *f;
    const tr_ops *ops;
    uint32_t id, n; /* this worker of n */
    uint32_t rows;
    bool narrow;
    tr_forward_worker *w;
    float *x, *norm, *act; /* this worker's own in a narrow step, common ones in a wide one */
    tr_linear_rows *ready;
} ctx;

static void sync(const ctx *c) { tr_team_barrier(c->f->config.team, c->id); }
static void sync_rows(const ctx *c) {
    if (!c->narrow) sync(c);
}

/* Rows [begin, end) that this worker has to see to. */
static void my_rows(const ctx *c, uint32_t rows, uint32_t *begin, uint32_t *end) {
    tr_team_share(rows, c->narrow ? 0 : c->id, c->narrow ? 1 : c->n, begin, end);
}

/* One row of the next matmul's input. */
static void prepare_row(const ctx *c, const tr_image_tensor *w, const float *in, uint32_t row) {
    tr_linear_prepare(c->ops, w, c->ready, row, in, c->w->tmp);
}

/* y[rows, n] = W * the rows that are ready, over this worker's output channels. */
static void matmul(const ctx *c, const tr_image_tensor *w, float *y, uint32_t ldy, uint32_t rows) {
    uint32_t begin, end;
    tr_team_share((w->n + TR_OPS_BLOCK_N - 1) / TR_OPS_BLOCK_N, c->id, c->n, &begin, &end);
    if (begin != end) tr_linear_matmul(c->ops, w, c->ready, rows, y, ldy, c->w->panel, begin, end - begin);
}

static void embed(const ctx *c) {
    const tr_forward *f = c->f;
    uint32_t begin, end;
    my_rows(c, c->rows, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        float *x = c->x + (size_t)r * f->model->hidden;
        uint32_t token = f->batch->tokens[r];
        if (f->embed->kind == TR_IMAGE_BF16_PACK)
            c->ops->embed_packed(x, f->embed->data, f->model->hidden, token, f->model->embed_scale);
        else if (f->embed->kind == TR_IMAGE_GROUPS)
            tr_groups_row(f->embed->part[0].format, f->embed->data, f->model->hidden, token, f->model->embed_scale, x);
        else
            c->ops->embed_rows(x, f->embed->data, f->model->hidden, token, f->model->embed_scale);
    }
}

/* cos and sin of every row's position, for both bases: the angle is rounded to fp32 as reference implementations do. */
static void rope_angles(const ctx *c) {
    const tr_forward *f = c->f;
    const uint32_t half = f->model->head_dim / 2;
    uint32_t begin, end;
    tr_team_share(2 * c->rows, c->id, c->n, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        uint32_t kind = i / c->rows, r = i % c->rows;
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
        const float *p = f->proj + (size_t)r * hidden;
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
    tr_team_share(c->rows * units, c->id, c->n, &begin, &end);
    for (uint32_t u = begin; u < end; u++) {
        uint32_t r = u / units, h = u % units;
        float *row = f->qkv + (size_t)r * f->n_qkv, *x = row + (size_t)h * d;
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

static void attend(const ctx *c, const tr_forward_layer *l, uint32_t layer, const tr_span *s, uint32_t row,
                   uint32_t rows, uint32_t kv_head, uint32_t head, uint32_t heads) {
    const tr_forward *f = c->f;
    const tr_kv_layout *kv = f->config.kv.layout;
    const uint32_t d = f->model->head_dim;
    tr_attn_args a = {.q = f->qkv + (size_t)(s->row0 + row) * f->n_qkv + (size_t)head * d,
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
    if (kv->format == TR_KV_INT8)
        c->ops->attn_int8(&a);
    else
        c->ops->attn_bf16(&a);
}

/* Work items (span, kv head, run of rows), each taken by the worker that is free: sequences differ in length, and late
 * rows of a chunk see more keys than early ones. Where that makes too few items, the query heads are split too. */
static void attention(const ctx *c, const tr_forward_layer *l, uint32_t layer) {
    tr_forward *f = c->f;
    const uint32_t group = f->heads_a_kv;
    const uint32_t run = group >= TR_FORWARD_ATTN_PAIRS ? 1 : TR_FORWARD_ATTN_PAIRS / group;
    _Atomic uint32_t *next = &f->next_item[layer - f->config.lo];
    uint32_t item = 0, mine = atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < f->batch->n_spans; i++) {
        const tr_span *s = &f->batch->spans[i];
        bool by_head = c->n > 1 && f->batch->n_spans * f->model->n_kv_heads < c->n && s->rows < run;
        for (uint32_t k = 0; k < f->model->n_kv_heads; k++)
            for (uint32_t row = 0; row < s->rows; row += run) {
                uint32_t rows = s->rows - row < run ? s->rows - row : run;
                uint32_t step = by_head ? (group + c->n - 1) / c->n : group;
                for (uint32_t h = 0; h < group; h += step, item++) {
                    if (item != mine) continue;
                    attend(c, l, layer, s, row, rows, k, k * group + h, group - h < step ? group - h : step);
                    mine = atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
                }
            }
    }
}

static void prepare_rows(const ctx *c, const tr_image_tensor *w, const float *in) {
    uint32_t begin, end;
    my_rows(c, c->rows, &begin, &end);
    for (uint32_t r = begin; r < end; r++) prepare_row(c, w, in + (size_t)r * w->k, r);
}

static void gate_rows(const ctx *c, const tr_image_tensor *down) {
    const tr_forward *f = c->f;
    const uint32_t ffn = f->model->ffn;
    uint32_t begin, end;
    my_rows(c, c->rows, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        const float *gate = f->gate_up + (size_t)r * 2 * ffn;
        float *act = c->act + (size_t)r * ffn;
        if (f->model->act == TR_MODEL_ACT_GELU_TANH)
            c->ops->gelu_mul(act, gate, gate + ffn, ffn);
        else
            c->ops->silu_mul(act, gate, gate + ffn, ffn);
        prepare_row(c, down, act, r);
    }
}

static void layer(const ctx *c, uint32_t index) {
    const tr_forward *f = c->f;
    const tr_forward_layer *l = &f->layer[index - f->config.lo];
    norm_rows(c, l->attn_norm, l->qkv), sync_rows(c);
    matmul(c, l->qkv, f->qkv, f->n_qkv, c->rows), sync(c);
    qk_rows(c, l, index), sync(c);
    attention(c, l, index), sync(c);
    prepare_rows(c, l->o, f->attn), sync_rows(c);
    matmul(c, l->o, f->proj, f->model->hidden, c->rows), sync(c);
    add_rows(c, l->attn_post_norm); /* the same rows as the norm that follows: no sync */
    norm_rows(c, l->ffn_norm, l->gate_up), sync_rows(c);
    matmul(c, l->gate_up, f->gate_up, 2 * f->model->ffn, c->rows), sync(c);
    gate_rows(c, l->down), sync_rows(c);
    matmul(c, l->down, f->proj, f->model->hidden, c->rows), sync(c);
    add_rows(c, l->ffn_post_norm); /* the next layer's norm takes the same rows */
}

/* Logits of the rows that ask. */
static void head(const ctx *c) {
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
    matmul(c, f->head, f->logits, f->n_vocab, f->n_logit_rows), sync(c);
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

/* All workers scan a share of every row; then each row is settled by one of them. */
static void sample(const ctx *c) {
    const tr_forward *f = c->f;
    const uint32_t n_spans = f->batch->n_spans;
    for (uint32_t settle = 0; settle < 2; settle++) {
        uint32_t at = 0; /* rows of logits so far */
        for (uint32_t i = 0; i < n_spans; i++) {
            const tr_span *s = &f->batch->spans[i];
            at += (s->flags & TR_SPAN_LOGITS) ? s->rows : (s->flags & TR_SPAN_SAMPLE) ? 1 : 0;
            if (!(s->flags & TR_SPAN_SAMPLE)) continue;
            const float *logits = f->logits + (size_t)(at - 1) * f->n_vocab;
            const tr_sampler_params p = sampler_params(s);
            if (!settle) {
                f->best[c->id * f->config.max_spans + i] = scan(c, &p, logits);
            } else if (i % c->n == c->id) {
                tr_sampler_best best = TR_SAMPLER_NONE;
                for (uint32_t w = 0; w < c->n; w++) best = tr_sampler_merge(best, f->best[w * f->config.max_spans + i]);
                f->sampled[i] = tr_sampler_splits(&p) ? tr_sampler_id(best)
                                                      : tr_sampler_draw(&p, logits, f->model->vocab, c->w->sampler);
            }
        }
        if (!settle) sync(c);
    }
}

static ctx make_ctx(tr_forward *f, uint32_t worker, uint32_t n_workers) {
    ctx c = {.f = f, .ops = f->ops, .id = worker, .n = n_workers, .rows = f->batch->n_rows, .w = &f->worker[worker]};
    c.narrow = n_workers > 1 && c.rows <= TR_FORWARD_NARROW_ROWS;
    c.x = c.narrow && worker > 0 ? c.w->x : f->x; /* worker 0 keeps the one that is handed on */
    c.norm = c.narrow ? c.w->norm : f->norm;
    c.act = c.narrow ? c.w->act : f->act;
    c.ready = c.narrow ? &c.w->ready : &f->ready;
    return c;
}

void tr_layers_run(void *forward, uint32_t worker, uint32_t n_workers) {
    tr_forward *f = forward;
    const ctx c = make_ctx(f, worker, n_workers);
    if (f->first)
        embed(&c);
    else if (c.x != f->x) /* worker 0 writes to it only after a sync */
        memcpy(c.x, f->x, (size_t)c.rows * f->model->hidden * sizeof(float));
    rope_angles(&c);
    for (uint32_t i = f->config.lo; i < f->config.hi; i++) {
        layer(&c, i);
        if (worker == 0 && f->config.beat) atomic_fetch_add_explicit(f->config.beat, 1, memory_order_relaxed);
    }
    if (f->last && f->n_logit_rows > 0) {
        sync_rows(&c);
        head(&c);
        sample(&c);
    }
}
