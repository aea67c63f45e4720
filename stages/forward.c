#include "stages/forward.h"

#include "base/checked.h"
#include "base/clock.h"
#include "model/sampler.h"
#include "stages/forward_state.h"
#include "stages/rope.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *aligned_floats(size_t n) { return aligned_alloc(64, tr_align_up(n * sizeof(float) + 64, 64)); }

static uint32_t widest(const tr_forward *f) {
    const tr_model_config *m = f->model;
    uint32_t w = m->hidden;
    if (f->n_q > w) w = f->n_q;
    if (m->ffn > w) w = m->ffn;
    return w;
}

static const float *vector(const tr_image *image, tr_image_role role, uint32_t layer) {
    const tr_image_tensor *t = tr_image_get(image, role, layer);
    return t ? t->data : NULL;
}

static void resolve_layer(tr_forward *f, uint32_t i) {
    const tr_image *image = f->config.image;
    const bool global = f->model->layer_is_global[i] != 0 || f->model->sliding_window == 0;
    f->layer[i - f->config.lo] = (tr_forward_layer){
        .attn_norm = vector(image, TR_IMAGE_ATTN_NORM, i),
        .attn_post_norm = vector(image, TR_IMAGE_ATTN_POST_NORM, i),
        .ffn_norm = vector(image, TR_IMAGE_FFN_NORM, i),
        .ffn_post_norm = vector(image, TR_IMAGE_FFN_POST_NORM, i),
        .q_norm = vector(image, TR_IMAGE_Q_NORM, i),
        .k_norm = vector(image, TR_IMAGE_K_NORM, i),
        .qkv = tr_image_get(image, TR_IMAGE_QKV, i),
        .o = tr_image_get(image, TR_IMAGE_O, i),
        .gate_up = tr_image_get(image, TR_IMAGE_GATE_UP, i),
        .down = tr_image_get(image, TR_IMAGE_DOWN, i),
        .window = global ? 0 : f->model->sliding_window,
        .group = f->config.kv.layout->layer_group[i],
        .rope = global ? 0 : 1,
    };
}

static tr_status make_frequencies(tr_forward *f) {
    const tr_model_config *m = f->model;
    for (uint32_t kind = 0; kind < 2; kind++) {
        if (kind == 1 && m->sliding_window == 0) break;
        f->inv_freq[kind] = malloc(m->head_dim / 2 * sizeof(float));
        f->rope[kind] = aligned_floats((size_t)f->config.max_rows * m->head_dim);
        if (!f->inv_freq[kind] || !f->rope[kind]) return TR_UNAVAILABLE;
        tr_rope_frequencies(m, kind == 0, f->inv_freq[kind]);
    }
    return TR_OK;
}

static bool a16(const tr_forward *f) { return f->config.precision == TR_PRECISION_INT8A16; }

static size_t n_taken(const tr_forward *f) {
    return ((size_t)(f->config.hi - f->config.lo) * TR_FORWARD_MATMULS + 1) * tr_team_size(f->config.team);
}

static tr_status allocate_step(tr_forward *f) {
    const size_t rows = f->config.max_rows, hidden = f->model->hidden;
    f->row_slot = calloc(rows, sizeof *f->row_slot);
    f->row_pos = calloc(rows, sizeof *f->row_pos);
    f->next_item = calloc(f->config.hi - f->config.lo, sizeof *f->next_item);
    f->next_block = calloc(f->config.hi - f->config.lo + 1, sizeof *f->next_block);
    f->taken = aligned_alloc(64, n_taken(f) * sizeof *f->taken);
    f->slot_used = calloc(f->config.kv.layout->n_slots, sizeof *f->slot_used);
    const uint64_t splits = (f->config.context - 1) / TR_OPS_ATTN_SPLIT_TOK + 1;
    const uint64_t parts = tr_team_size(f->config.team) > 1 ? splits * f->config.max_spans : 0;
    f->n_parts = parts < TR_FORWARD_PARTS_MAX ? (uint32_t)parts : TR_FORWARD_PARTS_MAX;
    f->part = aligned_floats((size_t)f->n_parts * f->model->n_heads * tr_ops_attn_part_floats(f->model->head_dim));
    f->part_done = calloc((size_t)f->config.max_spans * f->model->n_kv_heads, sizeof *f->part_done);
    f->norm = aligned_floats(rows * hidden);
    f->qkv = aligned_floats(rows * f->n_qkv);
    f->attn = aligned_floats(rows * f->n_q);
    f->proj = aligned_floats(rows * hidden);
    f->gate_up = aligned_floats(rows * 2 * f->model->ffn);
    f->act = aligned_floats(rows * f->model->ffn);
    if (tr_linear_rows_init(&f->ready, f->config.max_rows, widest(f), a16(f)) != TR_OK || !f->row_slot || !f->row_pos ||
        !f->slot_used || !f->next_item || !f->next_block || !f->taken || !f->part || !f->part_done || !f->norm ||
        !f->qkv || !f->attn || !f->proj || !f->gate_up || !f->act)
        return TR_UNAVAILABLE;
    return TR_OK;
}

static tr_status allocate_head(tr_forward *f) {
    const size_t rows = f->config.max_rows;
    if (!f->last) return TR_OK;
    f->logit_row = calloc(rows, sizeof *f->logit_row);
    f->asking_spans = calloc(f->config.max_spans, sizeof *f->asking_spans);
    const size_t shares = (size_t)tr_team_size(f->config.team) * f->config.max_spans;
    f->best = calloc(shares, sizeof *f->best);
    const bool planes = f->head->kind == TR_IMAGE_INT8_PLANES;
    if (planes && tr_screen_rows_init(&f->screen, &f->head->planes) != TR_OK) return TR_UNAVAILABLE;
    /* Only evaluation ever asks for the logits of all rows: address space, not memory. */
    f->logits_bytes = rows * f->n_vocab * sizeof(float);
    void *logits =
        mmap(NULL, f->logits_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    f->logits = logits == MAP_FAILED ? NULL : logits;
    return f->logit_row && f->asking_spans && f->best && f->logits ? TR_OK : TR_UNAVAILABLE;
}

static tr_status allocate_workers(tr_forward *f) {
    const uint32_t n = tr_team_size(f->config.team);
    const size_t wide = tr_align_up(widest(f), 16);
    const uint32_t rows = f->config.max_rows < TR_FORWARD_TAKEN_ROWS ? f->config.max_rows : TR_FORWARD_TAKEN_ROWS;
    f->worker = calloc(n, sizeof *f->worker);
    for (uint32_t i = 0; f->worker && i < n; i++) {
        tr_forward_worker *w = &f->worker[i];
        w->panel = aligned_floats(tr_ops_panel_floats(wide));
        w->scratch = aligned_floats(tr_ops_attn_scratch_floats(f->heads_a_kv, f->model->head_dim));
        w->tmp = aligned_floats(wide);
        w->x = aligned_floats(TR_FORWARD_NARROW_ROWS * f->model->hidden);
        w->norm = aligned_floats((size_t)rows * f->model->hidden);
        w->proj = aligned_floats((size_t)rows * f->model->hidden);
        w->gate_up = aligned_floats((size_t)rows * 2 * f->model->ffn);
        w->act = aligned_floats((size_t)rows * f->model->ffn);
        const bool planes = f->last && f->head->kind == TR_IMAGE_INT8_PLANES;
        if (planes && tr_screen_init(&w->screen, f->ops) != TR_OK) return TR_UNAVAILABLE;
        w->logits = f->last ? aligned_floats((size_t)f->config.max_spans * TR_FORWARD_HEAD_IDS) : NULL;
        w->sampler = f->last ? malloc(tr_sampler_scratch_bytes(f->model->vocab)) : NULL;
        if (tr_linear_rows_init(&w->ready, rows, (uint32_t)wide, a16(f)) != TR_OK || !w->panel || !w->scratch ||
            !w->tmp || !w->x || !w->norm || !w->proj || !w->gate_up || !w->act ||
            (f->last && !(w->sampler && w->logits)))
            return TR_UNAVAILABLE;
    }
    return f->worker ? TR_OK : TR_UNAVAILABLE;
}

static tr_status check_config(const tr_forward_config *c, tr_error *err) {
    const tr_model_config *m = tr_image_config(c->image);
    if (c->lo >= c->hi || c->hi > m->n_layers)
        return tr_error_set(err, TR_CONFIG, "layers %u to %u of %u are no stage", c->lo, c->hi, m->n_layers);
    if (c->max_rows == 0 || c->max_spans == 0 || c->context == 0 || c->kv.layout->n_layers != m->n_layers ||
        c->kv.layout->head_dim != m->head_dim || c->kv.layout->n_kv_heads != m->n_kv_heads ||
        c->context > c->kv.layout->pages_per_seq * c->kv.layout->page_tok)
        return tr_error_set(err, TR_CONFIG, "the KV layout is not one of this model");
    return TR_OK;
}

static void set_shapes(tr_forward *f) {
    const tr_model_config *m = f->model;
    f->first = f->config.lo == 0;
    f->last = f->config.hi == m->n_layers;
    f->n_q = m->n_heads * m->head_dim;
    f->n_kv = m->n_kv_heads * m->head_dim;
    f->n_qkv = f->n_q + 2 * f->n_kv;
    f->n_vocab = (uint32_t)tr_align_up(m->vocab, 16);
    f->heads_a_kv = m->n_heads / m->n_kv_heads;
}

tr_status tr_forward_create(const tr_forward_config *config, tr_forward **forward_out, tr_error *err) {
    TR_TRY(check_config(config, err));
    tr_forward *f = calloc(1, sizeof *f);
    if (!f) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the forward pass");
    f->config = *config;
    f->model = tr_image_config(config->image);
    f->ops = config->ops;
    set_shapes(f);
    f->embed = tr_image_get(config->image, TR_IMAGE_EMBED, 0);
    f->head = tr_image_get(config->image, TR_IMAGE_HEAD, 0);
    f->output_norm = vector(config->image, TR_IMAGE_OUTPUT_NORM, 0);
    f->layer = calloc(config->hi - config->lo, sizeof *f->layer);
    for (uint32_t i = config->lo; f->layer && i < config->hi; i++) resolve_layer(f, i);
    tr_status status = f->layer ? make_frequencies(f) : TR_UNAVAILABLE;
    if (status == TR_OK) status = allocate_step(f);
    if (status == TR_OK) status = allocate_head(f);
    if (status == TR_OK) status = allocate_workers(f);
    if (status != TR_OK) {
        tr_forward_destroy(&f);
        return tr_error_set(err, status, "no memory for a stage of %u rows a step: lower --chunk", config->max_rows);
    }
    *forward_out = f;
    return TR_OK;
}

void tr_forward_destroy(tr_forward **forward) {
    tr_forward *f = *forward;
    if (!f) return;
    for (uint32_t i = 0; f->worker && i < tr_team_size(f->config.team); i++) {
        tr_forward_worker *w = &f->worker[i];
        void *own[] = {w->panel, w->scratch, w->tmp, w->x, w->norm, w->proj, w->gate_up, w->act, w->logits, w->sampler};
        for (size_t k = 0; k < sizeof own / sizeof *own; k++) free(own[k]);
        tr_linear_rows_fini(&w->ready);
        tr_screen_fini(&w->screen);
    }
    void *owned[] = {f->worker,
                     f->layer,
                     f->inv_freq[0],
                     f->inv_freq[1],
                     f->rope[0],
                     f->rope[1],
                     f->row_slot,
                     f->row_pos,
                     f->norm,
                     f->qkv,
                     f->attn,
                     f->proj,
                     f->gate_up,
                     f->act,
                     f->logit_row,
                     f->asking_spans,
                     f->best,
                     f->slot_used,
                     (void *)f->next_item,
                     (void *)f->next_block,
                     f->taken,
                     f->part,
                     (void *)f->part_done};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    tr_linear_rows_fini(&f->ready);
    tr_screen_rows_fini(&f->screen);
    if (f->logits) munmap(f->logits, f->logits_bytes);
    free(f);
    *forward = NULL;
}

/* Every page that the span's rows write or read is named by its table. */
static bool pages_present(const tr_forward *f, const tr_span *s, uint32_t group) {
    const tr_kv_layout *l = f->config.kv.layout;
    const uint32_t window = l->group[group].window;
    uint32_t first = window && s->pos0 + 1 > window ? s->pos0 + 1 - window : 0;
    const uint32_t *table = f->config.kv.table + tr_kv_layout_entry(l, s->slot, group, 0);
    for (uint32_t p = first / l->page_tok; p <= (s->pos0 + s->rows - 1) / l->page_tok; p++)
        if (table[p] >= l->group[group].n_pages) return false;
    return true;
}

static bool span_ok(const tr_forward *f, const tr_span *s, uint32_t row) {
    const tr_kv_layout *l = f->config.kv.layout;
    if (s->slot >= l->n_slots || s->rows == 0 || s->row0 != row || s->rows > f->config.max_rows - row ||
        s->pos0 >= f->config.context || s->rows > f->config.context - s->pos0)
        return false;
    const tr_sampling *p = &s->sampling;
    if (!(p->temperature >= 0 && p->temperature <= 100) || !(p->top_p > 0 && p->top_p <= 1)) return false;
    for (uint32_t g = 0; g < l->n_groups; g++) {
        bool used = false;
        for (uint32_t i = f->config.lo; i < f->config.hi; i++) used |= l->layer_group[i] == g;
        if (used && !pages_present(f, s, g)) return false;
    }
    return true;
}

/* Two spans of one sequence could write one page from two workers, or read what the other has not written yet. */
static bool slot_twice(tr_forward *f, const tr_micro_batch *b) {
    bool twice = false;
    for (uint32_t i = 0; i < b->n_spans; i++) {
        twice |= f->slot_used[b->spans[i].slot];
        f->slot_used[b->spans[i].slot] = true;
    }
    for (uint32_t i = 0; i < b->n_spans; i++) f->slot_used[b->spans[i].slot] = false;
    return twice;
}

static tr_status load_batch(tr_forward *f, const tr_micro_batch *b) {
    uint32_t row = 0;
    if (b->n_rows == 0 || b->n_rows > f->config.max_rows || b->n_spans > f->config.max_spans) return TR_INVALID;
    for (uint32_t i = 0; i < b->n_spans; i++) {
        if (!span_ok(f, &b->spans[i], row)) return TR_INVALID;
        row += b->spans[i].rows;
    }
    if (row != b->n_rows || slot_twice(f, b)) return TR_INVALID;
    for (uint32_t r = 0; f->first && r < b->n_rows; r++)
        if (b->tokens[r] >= f->model->vocab) return TR_INVALID;
    f->n_logit_rows = 0;
    for (uint32_t i = 0; i < b->n_spans; i++) {
        const tr_span *s = &b->spans[i];
        for (uint32_t r = 0; r < s->rows; r++) {
            f->row_slot[s->row0 + r] = s->slot;
            f->row_pos[s->row0 + r] = s->pos0 + r;
            bool wanted = (s->flags & TR_SPAN_LOGITS) || ((s->flags & TR_SPAN_SAMPLE) && r + 1 == s->rows);
            if (f->last && wanted) f->logit_row[f->n_logit_rows++] = s->row0 + r;
        }
    }
    f->batch = b;
    return TR_OK;
}

tr_status tr_forward_run(tr_forward *f, const tr_micro_batch *batch, float *x, tr_forward_output *output) {
    TR_TRY(load_batch(f, batch));
    f->x = x;
    f->sampled = output->sampled;
    const uint32_t layers = f->config.hi - f->config.lo; /* the start of the team publishes the counters */
    for (uint32_t i = 0; i < layers; i++) atomic_store_explicit(&f->next_item[i], 0, memory_order_relaxed);
    for (uint32_t i = 0; i <= layers; i++) atomic_store_explicit(&f->next_block[i], 0, memory_order_relaxed);
    for (size_t i = 0; i < n_taken(f); i++) atomic_store_explicit(&f->taken[i].n, 0, memory_order_relaxed);
    uint64_t begin = tr_clock_now_ns();
    tr_team_run(f->config.team, tr_layers_run, f);
    output->kernel_ns = tr_clock_now_ns() - begin;
    output->logits = f->n_logit_rows ? f->logits : NULL;
    return TR_OK;
}
