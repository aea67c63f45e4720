/* stages/layers.c - the transformer of Gemma 3 (Gemma Team 2025) and Llama (Touvron et al. 2023; Grattafiori et al.
 * 2024).
 *
 *   x = embed(token) * embed_scale
 *   per layer:  h = rmsnorm(x) ; q,k,v = W_qkv h ; [q,k = rmsnorm per head] ; q,k = rope(q,k, pos) ; KV page[pos] = k,v
 *               a = attention(q, pages) ; p = W_o a ; [p = rmsnorm(p)] ; x += p
 *               h = rmsnorm(x) ; p = W_down (act(W_gate h) * W_up h) ; [p = rmsnorm(p)] ; x += p
 *   logits = W_head rmsnorm(x)
 * [..]: Gemma only; the model's config says so by the tensors that it has. act: tanh-GELU (Gemma), SiLU (Llama).
 * How rows and workers come together: stages/step.h. Attention: stages/attention.c. The head: stages/head.c. */
#include "kernels/kv_codec.h"
#include "stages/attention.h"
#include "stages/head.h"
#include "stages/residual.h"
#include "stages/rope.h"
#include "stages/step.h"

#include <string.h>

static void embed(const tr_step *c) {
    const tr_forward *f = c->f;
    uint32_t begin, end;
    tr_step_rows(c, c->rows, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        float *x = c->x + (size_t)r * f->model->hidden;
        uint32_t token = f->tokens[c->row0 + r];
        if (f->embed->kind == TR_IMAGE_BF16_PACK)
            c->ops->embed_packed(x, f->embed->data, f->model->hidden, token, f->model->embed_scale);
        else if (f->embed->kind == TR_IMAGE_GROUPS)
            tr_groups_row(f->embed->part[0].format, f->embed->data, f->model->hidden, token, f->model->embed_scale, x);
        else
            c->ops->embed_rows(x, f->embed->data, f->model->hidden, token, f->model->embed_scale);
    }
}

/* cos and sin of every row's position, for both bases: the angle is rounded to fp32 as reference implementations do. */
static void rope_angles(const tr_step *c) {
    const tr_forward *f = c->f;
    const uint32_t half = f->model->head_dim / 2;
    uint32_t begin, end;
    tr_step_share(c, 2 * c->rows, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        uint32_t kind = i / c->rows, r = c->row0 + i % c->rows;
        if (!f->inv_freq[kind]) continue;
        float *cs = f->rope[kind] + (size_t)r * f->model->head_dim;
        for (uint32_t k = 0; k < half; k++)
            tr_rope_angle((float)f->row_pos[r] * f->inv_freq[kind][k], &cs[k], &cs[half + k]);
    }
}

static void norm_rows(const tr_step *c, const float *weight, const tr_image_tensor *next) {
    const tr_forward *f = c->f;
    const uint32_t hidden = f->model->hidden;
    uint32_t begin, end;
    tr_step_rows(c, c->rows, &begin, &end);
    for (uint32_t r = begin; r < end; r++) {
        float *norm = c->norm + (size_t)r * hidden;
        c->ops->rmsnorm(norm, c->x + (size_t)r * hidden, weight, hidden, f->model->rms_eps);
        tr_step_prepare(c, next, norm, r);
    }
}

/* x += [rmsnorm](proj), the end of both halves of a layer. */
static void add_rows(const tr_step *c, const float *post_norm) {
    const tr_forward *f = c->f;
    const uint32_t hidden = f->model->hidden;
    uint32_t begin, end;
    tr_step_rows(c, c->rows, &begin, &end);
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

/* Of q heads and k heads, in this order: the ones that a pass before attention makes. v goes with k. */
typedef struct heads {
    uint32_t begin, end;
} heads;

/* Head norms, RoPE, K and V into their page, q ready for attention. */
static void qk_rows(const tr_step *c, const tr_forward_layer *l, uint32_t layer, heads of) {
    const tr_forward *f = c->f;
    const uint32_t d = f->model->head_dim, units = of.end - of.begin;
    const tr_kv_format format = f->config.kv.layout->format;
    const bool rotated = tr_kv_describe(format)->rotated;
    uint32_t begin, end;
    tr_step_share(c, c->rows * units, &begin, &end);
    for (uint32_t u = begin; u < end; u++) {
        uint32_t h = of.begin + u % units, r = c->row0 + u / units;
        float *row = c->qkv + (size_t)(u / units) * f->n_qkv, *x = row + (size_t)h * d;
        bool key = h >= f->model->n_heads;
        const float *weight = key ? l->k_norm : l->q_norm;
        if (weight) c->ops->rmsnorm(x, x, weight, d, f->model->rms_eps);
        c->ops->rope(x, f->rope[l->rope] + (size_t)r * d, d);
        if (!key) {
            if (rotated) c->ops->hadamard(x, d, tr_kv_rotation(d));
            continue;
        }
        uint32_t head = h - f->model->n_heads;
        uint8_t *tile = kv_tile(f, layer, head, r);
        const float *v = row + f->n_q + f->n_kv + (size_t)head * d;
        tr_kv_codec_store(c->ops, format, tile, f->row_pos[r] % TR_KV_TILE_TOK, x, v, d,
                          tr_kv_memory_head(&f->config.kv, layer, head), c->w->tmp);
    }
}

static void prepare_rows(const tr_step *c, const tr_image_tensor *w, const float *in) {
    uint32_t begin, end;
    tr_step_rows(c, c->rows, &begin, &end);
    for (uint32_t r = begin; r < end; r++) tr_step_prepare(c, w, in + (size_t)r * w->k, r);
}

/* act = act(gate) * up of one row's channels [n0, n0 + n). down: where the row is made ready for it at once. */
static void act_row(const tr_step *c, const tr_image_tensor *down, uint32_t row, uint32_t n0, uint32_t n) {
    const tr_forward *f = c->f;
    const uint32_t ffn = f->model->ffn;
    const float *in = c->gate_up + (size_t)row * 2 * ffn + n0;
    float *out = down ? c->w->tmp : c->act + (size_t)row * ffn + n0;
    if (f->model->act == TR_MODEL_ACT_GELU_TANH)
        c->ops->gelu_mul(out, in, in + ffn, n);
    else
        c->ops->silu_mul(out, in, in + ffn, n);
    if (down) tr_linear_prepare_piece(c->ops, down, &c->w->act_ready, row, n0, n, out);
}

/* Gate and up of a channel are made by one worker, a few at a time: read again while cached. */
static void gate(const tr_step *c, uint32_t index, const tr_image_tensor *gate_up, const tr_image_tensor *down) {
    enum { SLICE = 16 }; /* blocks */
    const uint32_t ffn = c->f->model->ffn, blocks = ffn / TR_OPS_BLOCK_N;
    tr_step_work work = tr_step_work_begin(c, index, blocks, gate_up->k);
    while (tr_step_work_next(c, &work))
        for (uint32_t b = work.begin, n; b < work.end; b += n) {
            float *y = c->gate_up + (size_t)b * TR_OPS_BLOCK_N;
            n = work.end - b < SLICE ? work.end - b : SLICE;
            tr_step_matmul_blocks(c, gate_up, y, 2 * ffn, c->rows, b, n);
            tr_step_matmul_blocks(c, gate_up, y + ffn, 2 * ffn, c->rows, blocks + b, n);
            for (uint32_t r = 0; r < c->rows; r++) act_row(c, down, r, b * TR_OPS_BLOCK_N, n * TR_OPS_BLOCK_N);
        }
}

static void project(const tr_step *c, uint32_t index, uint32_t matmul, heads of) {
    const tr_forward *f = c->f;
    const tr_forward_layer *l = &f->layer[index - f->config.lo];
    const uint32_t channels = f->model->head_dim, to = of.end > f->model->n_heads ? f->n_qkv : of.end * channels;
    norm_rows(c, l->attn_norm, l->qkv), tr_step_sync_rows(c);
    tr_step_matmul_range(c, matmul, l->qkv, c->qkv, f->n_qkv, c->rows, of.begin * channels, to), tr_step_sync(c);
    qk_rows(c, l, index, of);
}

/* In the last layer most rows of a prompt need their keys and values only. */
static bool only_keys(const tr_step *c, uint32_t index) {
    return c->f->last && index + 1 == c->f->config.hi && tr_step_asks_fewer(c);
}

static void before_attention(const tr_step *c, uint32_t index) {
    const tr_model_config *m = c->f->model;
    project(c, index, tr_step_index(c, index, TR_FORWARD_QKV),
            (heads){only_keys(c, index) ? m->n_heads : 0, m->n_heads + m->n_kv_heads});
}

/* What the last layer works on: the rows that ask, with their queries. */
static tr_step asking(const tr_step *c, uint32_t index) {
    const bool missing = only_keys(c, index);
    const tr_step fewer = tr_step_asking(c);
    if (!missing || fewer.rows == 0) return fewer;
    tr_step shared = tr_step_make(c->f, c->id, c->n, fewer.rows, TR_STEP_SHARED);
    project(&shared, index, tr_step_index_last(c, TR_FORWARD_LAST_Q), (heads){0, c->f->model->n_heads});
    return tr_step_meet(c) ? fewer : (tr_step){.rows = 0};
}

static void after_attention(const tr_step *c, uint32_t index) {
    const tr_forward *f = c->f;
    const tr_forward_layer *l = &f->layer[index - f->config.lo];
    prepare_rows(c, l->o, c->attn), tr_step_sync_rows(c);
    tr_step_matmul(c, tr_step_index(c, index, TR_FORWARD_O), l->o, c->proj, f->model->hidden, c->rows), tr_step_sync(c);
    add_rows(c, l->attn_post_norm); /* the same rows as the norm that follows: no sync */
    norm_rows(c, l->ffn_norm, l->gate_up), tr_step_sync_rows(c);
    /* With whole rows in one hand, they are ready for the next matmul as they come. */
    const bool pieces = c->form == TR_STEP_TAKEN && tr_linear_by_pieces(l->down);
    gate(c, tr_step_index(c, index, TR_FORWARD_GATE_UP), l->gate_up, pieces ? l->down : NULL), tr_step_sync(c);
    if (!pieces) prepare_rows(c, l->down, c->act), tr_step_sync_rows(c);
    tr_step down = *c;
    if (pieces) down.ready = &c->w->act_ready;
    tr_step_matmul(&down, tr_step_index(c, index, TR_FORWARD_DOWN), l->down, c->proj, f->model->hidden, c->rows),
        tr_step_sync(c);
    add_rows(c, l->ffn_post_norm); /* the next layer's norm takes the same rows */
}

static void layers_done(const tr_forward *f, uint32_t end) {
    if (f->on_layers) f->on_layers(f->on_layers_arg, end);
}

void tr_layers_run(void *forward, uint32_t worker, uint32_t n_workers) {
    tr_forward *f = forward;
    const uint32_t lo = f->config.lo, begin = f->step->begin, end = f->step->end, rows = f->step->n_rows;
    const bool angles = begin == lo || f->common_x; /* a slice finds those of the one before, where memory is its own */
    tr_step c = tr_step_make(f, worker, n_workers, rows, tr_step_form_of(rows, n_workers));
    if (!tr_forward_embeds(f) && c.x != f->x) /* worker 0 writes to it only after a sync */
        memcpy(c.x, f->x, (size_t)c.rows * f->model->hidden * sizeof(float));
    for (tr_step b = {0}; tr_step_next(&c, 0, &b);) {
        if (tr_forward_embeds(f)) embed(&b);
        if (angles) rope_angles(&b);
        before_attention(&b, begin);
    }
    for (uint32_t i = begin; i < end; i++) {
        if (!tr_step_meet(&c)) return;
        if (worker == 0 && i > begin) layers_done(f, i);
        if (f->config.kv.layout->format == TR_KV_INT8_RESIDUAL) {
            tr_residual_run(&c, i);
            if (!tr_step_meet(&c)) return;
        }
        if (f->last && i + 1 == f->config.hi) c = asking(&c, i);
        if (c.rows == 0) return;
        tr_attention_run(&c, &f->layer[i - lo], i);
        if (!tr_step_meet(&c)) return;
        for (tr_step b = {0}; tr_step_next(&c, i - lo + 1, &b);) {
            after_attention(&b, i);
            if (i + 1 < end) before_attention(&b, i + 1);
        }
        if (worker == f->first_worker && f->config.beat)
            atomic_fetch_add_explicit(f->config.beat, 1, memory_order_relaxed);
    }
    if (worker == 0) layers_done(f, end);
    if (tr_forward_samples(f) && f->step->n_logit_rows > 0) {
        if (c.form == TR_STEP_TAKEN)
            c = tr_step_make(f, worker, n_workers, c.rows, TR_STEP_SHARED); /* blocks of rows are over */
        tr_step_sync_rows(&c);
        tr_head_run(&c);
    }
}
