#include "stages/forward.h"

#include "base/clock.h"
#include "stages/forward_state.h"
#include "stages/page_copy.h"

#include <stdlib.h>
#include <string.h>

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

static tr_status check_config(const tr_forward_config *c, tr_error *err) {
    const tr_model_config *m = tr_image_config(c->image);
    if (c->lo >= c->hi || c->hi > m->n_layers)
        return tr_error_set(err, TR_CONFIG, "layers %u to %u of %u are no stage", c->lo, c->hi, m->n_layers);
    if (c->max_rows == 0 || c->max_spans == 0 || c->context == 0 || c->kv.layout->n_layers != m->n_layers ||
        c->kv.layout->head_dim != m->head_dim || c->kv.layout->n_kv_heads != m->n_kv_heads ||
        c->context > c->kv.layout->pages_per_seq * c->kv.layout->page_tok)
        return tr_error_set(err, TR_CONFIG, "the KV layout is not one of this model");
    if (tr_kv_describe(c->kv.layout->format)->calibrated && !c->kv.heads)
        return tr_error_set(err, TR_CONFIG, "KV of format %s needs a calibration",
                            tr_kv_format_name(c->kv.layout->format));
    return TR_OK;
}

tr_status tr_forward_create(const tr_forward_config *config, tr_forward **forward_out, tr_error *err) {
    TR_TRY(check_config(config, err));
    tr_forward *f = calloc(1, sizeof *f);
    if (!f) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the forward pass");
    f->config = *config;
    if (config->precision == 0) f->config.precision = tr_image_precision(config->image);
    f->model = tr_image_config(config->image);
    f->ops = config->ops;
    tr_forward_set_shapes(f);
    f->embed = tr_image_get(config->image, TR_IMAGE_EMBED, 0);
    f->head = tr_image_get(config->image, TR_IMAGE_HEAD, 0);
    f->output_norm = vector(config->image, TR_IMAGE_OUTPUT_NORM, 0);
    f->layer = calloc(config->hi - config->lo, sizeof *f->layer);
    for (uint32_t i = config->lo; f->layer && i < config->hi; i++) resolve_layer(f, i);
    tr_status status = f->layer ? tr_forward_memory_init(f) : TR_UNAVAILABLE;
    if (status != TR_OK) {
        tr_forward_destroy(&f);
        return tr_error_set(err, status, "no memory for a stage of %u rows a step: lower --chunk", config->max_rows);
    }
    f->x = f->common_x;
    *forward_out = f;
    return TR_OK;
}

void tr_forward_on_layers(tr_forward *f, void (*on_layers)(void *arg, uint32_t end), void *arg) {
    f->on_layers = on_layers;
    f->on_layers_arg = arg;
}

void tr_forward_destroy(tr_forward **forward) {
    tr_forward *f = *forward;
    if (!f) return;
    tr_forward_memory_fini(f);
    free(f->layer);
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
    if (!(p->temperature >= 0 && p->temperature <= 100) || !(p->top_p > 0 && p->top_p <= 1) ||
        !(p->min_p >= 0 && p->min_p <= 1) || p->logprobs > 1 + TR_SAMPLER_TOP_MAX)
        return false;
    if ((s->flags & TR_SPAN_HIDDEN) && (f->n_vocab < f->model->hidden || (s->flags & TR_SPAN_LOGITS))) return false;
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

/* Tokens that a span takes in `sampled`. */
static uint32_t draws_of(const tr_span *s) { return s->sampling.draws > 1 ? s->sampling.draws : 1; }

static bool draws_fit(const tr_forward *f, const tr_micro_batch *b) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < b->n_spans; i++) n += draws_of(&b->spans[i]);
    return n <= f->config.max_spans;
}

static tr_status check_batch(tr_forward *f, const tr_micro_batch *b) {
    uint32_t row = 0;
    if (b->n_rows == 0 || b->n_rows > f->config.max_rows || b->n_spans > f->config.max_spans) return TR_INVALID;
    for (uint32_t i = 0; i < b->n_spans; i++) {
        if (!span_ok(f, &b->spans[i], row)) return TR_INVALID;
        row += b->spans[i].rows;
    }
    if (row != b->n_rows || slot_twice(f, b) || !draws_fit(f, b)) return TR_INVALID;
    for (uint32_t r = 0; f->first && r < b->n_rows; r++)
        if (b->tokens[r] >= f->model->vocab) return TR_INVALID;
    return TR_OK;
}

static bool all_rows(const tr_span *s) { return (s->flags & (TR_SPAN_LOGITS | TR_SPAN_HIDDEN)) != 0; }

/* The tokens to draw, and behind which rows of logits. */
static void tell_draws(tr_forward *f, const tr_micro_batch *b) {
    uint32_t rows = 0, at = 0, logprobs = 0;
    for (uint32_t i = 0; i < b->n_spans; i++) {
        const tr_span *s = &b->spans[i];
        const uint32_t draws = draws_of(s);
        rows += all_rows(s) ? s->rows : (s->flags & TR_SPAN_SAMPLE) ? 1 : 0;
        for (uint32_t k = 0; k < draws && (s->flags & TR_SPAN_SAMPLE); k++, logprobs += s->sampling.logprobs)
            f->draw[f->step->n_draws++] = (tr_forward_draw){.row = rows - 1,
                                                            .at = at + k,
                                                            .whole = s->sampling.edit || s->sampling.logprobs,
                                                            .logprobs = s->sampling.logprobs,
                                                            .logprob_at = logprobs,
                                                            .edit = s->sampling.edit,
                                                            .params = {.temperature = s->sampling.temperature,
                                                                       .top_p = s->sampling.top_p,
                                                                       .top_k = s->sampling.top_k,
                                                                       .min_p = s->sampling.min_p,
                                                                       .sample = s->sampling.sample + k,
                                                                       .position = s->pos0 + s->rows - 1,
                                                                       .seed = s->sampling.seed}};
        at += draws;
    }
}

/* The step as all workers see it. */
static void tell(tr_forward *f, const tr_micro_batch *b) {
    *f->step = (tr_forward_step){.n_rows = b->n_rows, .n_spans = b->n_spans};
    memcpy(f->spans, b->spans, b->n_spans * sizeof *f->spans);
    if (f->first) memcpy(f->tokens, b->tokens, b->n_rows * sizeof *f->tokens);
    for (uint32_t i = 0; i < b->n_spans; i++) {
        const tr_span *s = &b->spans[i];
        for (uint32_t r = 0; r < s->rows; r++) {
            f->row_slot[s->row0 + r] = s->slot;
            f->row_pos[s->row0 + r] = s->pos0 + r;
            bool wanted = all_rows(s) || ((s->flags & TR_SPAN_SAMPLE) && r + 1 == s->rows);
            if (f->last && wanted) f->logit_row[f->step->n_logit_rows++] = s->row0 + r;
        }
    }
    if (f->last) tell_draws(f, b);
    const uint32_t layers = f->config.hi - f->config.lo; /* the start of the team publishes the counters */
    for (uint32_t i = 0; i < layers; i++) atomic_store_explicit(&f->next_item[i], 0, memory_order_relaxed);
    for (uint32_t i = 0; i <= layers; i++) atomic_store_explicit(&f->next_block[i], 0, memory_order_relaxed);
    const uint32_t taken = tr_forward_taken_rows(f) * tr_team_size(f->config.team);
    for (uint32_t i = 0; i < taken; i++) atomic_store_explicit(&f->taken[i].n, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < f->step->n_draws; i++)
        atomic_store_explicit(&f->floor[i], TR_SAMPLER_NONE.score, memory_order_relaxed);
    for (uint32_t i = 0; i < b->n_spans * f->model->n_kv_heads; i++)
        atomic_store_explicit(&f->part_done[i], 0, memory_order_relaxed);
}

tr_status tr_forward_run(tr_forward *f, const tr_micro_batch *batch, float *x, tr_forward_output *output) {
    const size_t x_bytes = (size_t)batch->n_rows * f->model->hidden * sizeof(float);
    TR_TRY(check_batch(f, batch));
    TR_TRY(tr_page_copy_run(&f->config.kv, f->config.lo, f->config.hi, batch->copies, batch->n_copies));
    tell(f, batch);
    if (!f->common_x)
        f->x = x;
    else if (!f->first)
        memcpy(f->common_x, x, x_bytes);
    uint64_t begin = tr_clock_now_ns();
    const bool whole = tr_team_run(f->config.team, tr_layers_run, f, f->config.what);
    output->kernel_ns = tr_clock_now_ns() - begin;
    if (!whole) return TR_PEER;
    if (f->common_x && !f->last) memcpy(x, f->common_x, x_bytes);
    for (uint32_t i = 0; i < f->step->n_draws; i++) output->sampled[f->draw[i].at] = f->sampled[f->draw[i].at];
    output->logits = f->step->n_logit_rows ? f->logits : NULL;
    output->logprob_ids = f->logprob_ids;
    output->logprobs = f->logprobs;
    return TR_OK;
}

void tr_forward_follow(tr_forward *f, uint32_t worker, uint32_t n_workers) { tr_layers_run(f, worker, n_workers); }
