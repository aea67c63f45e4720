#include "stages/head.h"

#include "model/sampler.h"

#include <math.h>
#include <string.h>

/* Rows that ask for logits, ready for the head. */
static void head_rows(const tr_step *c) {
    const tr_forward *f = c->f;
    const uint32_t hidden = f->model->hidden;
    uint32_t begin, end;
    tr_step_rows(c, f->step->n_logit_rows, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        float *norm = c->norm + (size_t)i * hidden;
        c->ops->rmsnorm(norm, c->x + (size_t)f->logit_row[i] * hidden, f->output_norm, hidden, f->model->rms_eps);
        tr_step_prepare(c, f->head, norm, i);
    }
    tr_step_sync_rows(c);
}

/* Nothing but tokens is wanted, and shares of the ids can be scanned apart. */
static bool tokens_only(const tr_forward *f) {
    for (uint32_t i = 0; i < f->step->n_spans; i++)
        if (f->spans[i].flags & TR_SPAN_LOGITS) return false;
    for (uint32_t i = 0; i < f->step->n_draws; i++)
        if (f->draw[i].whole || !tr_sampler_splits(&f->draw[i].params)) return false;
    return true;
}

/* Hidden states alone: nobody needs the head. */
static bool hidden_only(const tr_forward *f) {
    for (uint32_t i = 0; i < f->step->n_spans; i++)
        if (f->spans[i].flags & (TR_SPAN_LOGITS | TR_SPAN_SAMPLE)) return false;
    return true;
}

/* Rows that ask for their hidden state get it where their logits would lie. */
static void hand_out_hidden(const tr_step *c) {
    const tr_forward *f = c->f;
    for (uint32_t i = 0, row = 0; i < f->step->n_spans; i++) {
        const tr_span *s = &f->spans[i];
        const bool all = (s->flags & (TR_SPAN_LOGITS | TR_SPAN_HIDDEN)) != 0;
        const uint32_t rows = all ? s->rows : (s->flags & TR_SPAN_SAMPLE) ? 1 : 0;
        for (uint32_t end = row + rows; row < end; row++)
            if ((s->flags & TR_SPAN_HIDDEN) && row % c->n == c->id)
                memcpy(f->logits + (size_t)row * f->n_vocab, c->norm + (size_t)row * f->model->hidden,
                       f->model->hidden * sizeof(float));
    }
}

/* All logits, for who asked for them and for whole rows that one worker draws from. False: a rank has left. */
static bool dense(const tr_step *c) {
    const tr_forward *f = c->f;
    tr_step_matmul(c, tr_step_index_last(c, TR_FORWARD_HEAD), f->head, f->logits, f->n_vocab, f->step->n_logit_rows);
    return tr_step_meet(c);
}

/* Best of n ids from id0 on. */
static tr_sampler_best scan(const tr_step *c, const tr_sampler_params *p, const float *logits, uint32_t id0,
                            uint32_t n) {
    if (p->temperature > 0) return tr_sampler_scan(p, logits, id0, n);
    float max;
    size_t at = c->ops->argmax(logits, n, &max);
    return max > -INFINITY ? (tr_sampler_best){(double)max, id0 + (uint32_t)at} : TR_SAMPLER_NONE;
}

/* Best of the ids of some blocks for every draw, from logits that never leave the cache. */
static void scan_blocks(const tr_step *c, uint32_t block0, uint32_t blocks) {
    const tr_forward *f = c->f;
    const uint32_t id0 = block0 * TR_OPS_BLOCK_N, end = id0 + blocks * TR_OPS_BLOCK_N;
    const uint32_t n = (end < f->model->vocab ? end : f->model->vocab) - id0;
    tr_step_matmul_blocks(c, f->head, c->w->logits, TR_FORWARD_HEAD_IDS, f->step->n_logit_rows, block0, blocks);
    for (uint32_t i = 0; i < f->step->n_draws; i++) {
        const tr_forward_draw *d = &f->draw[i];
        tr_sampler_best *best = &f->best[c->id * f->config.max_spans + i];
        *best =
            tr_sampler_merge(*best, scan(c, &d->params, c->w->logits + (size_t)d->row * TR_FORWARD_HEAD_IDS, id0, n));
    }
}

/* The best of what each worker takes of the ids. False: a rank has left. */
static bool tokens(const tr_step *c) {
    const tr_forward *f = c->f;
    for (uint32_t i = 0; i < f->step->n_draws; i++) f->best[c->id * f->config.max_spans + i] = TR_SAMPLER_NONE;
    tr_step_work work =
        tr_step_work_begin(c, tr_step_index_last(c, TR_FORWARD_HEAD), f->n_vocab / TR_OPS_BLOCK_N, f->head->k);
    work.chunk = TR_FORWARD_HEAD_IDS / TR_OPS_BLOCK_N, work.halving = false;
    while (tr_step_work_next(c, &work))
        for (uint32_t b = work.begin; b < work.end; b += work.chunk)
            scan_blocks(c, b, work.end - b < work.chunk ? work.end - b : work.chunk);
    return tr_step_meet(c);
}

/* Few rows and a head in planes need no logits (stages/screen.h). */
static bool screens(const tr_forward *f) {
    return f->head->kind == TR_IMAGE_INT8_PLANES && !f->ready.a16 && f->step->n_logit_rows <= TR_SCREEN_ROWS &&
           f->step->n_draws <= TR_SCREEN_ROWS;
}

/* The same from bounds. Each process has queries of its own, made by its workers. False: a rank has left. */
static bool screen(const tr_step *c) {
    tr_forward *f = c->f;
    const uint32_t local = c->id - f->first_worker, n = f->step->n_logit_rows;
    const uint32_t workers = c->n < f->n_local ? c->n : f->n_local; /* of this process, in this run */
    for (uint32_t i = local; i < n; i += workers)
        tr_screen_rows_make(&f->screen, i, n, c->ready->x + (size_t)i * f->head->k, c->ready->scale[i]);
    for (uint32_t i = 0; local == 0 && i < f->step->n_draws; i++)
        tr_screen_rows_draw(&f->screen, i, f->step->n_draws, f->draw[i].row, &f->draw[i].params);
    if (!tr_step_meet(c)) return false;
    tr_step_work work =
        tr_step_work_begin(c, tr_step_index_last(c, TR_FORWARD_HEAD), f->n_vocab / TR_OPS_BLOCK_N, f->head->k);
    work.chunk = tr_screen_ids(n) / TR_OPS_BLOCK_N, work.halving = false;
    tr_screen_begin(&c->w->screen, &f->screen);
    while (tr_step_work_next(c, &work))
        tr_screen_bounds(&c->w->screen, &f->screen, work.begin, work.end - work.begin, f->model->vocab);
    if (!tr_step_meet(c)) return false;
    for (uint32_t i = 0; i < f->step->n_draws; i++)
        for (uint32_t k = 0; k < workers; k++) /* the own list first */
            f->best[c->id * f->config.max_spans + i] =
                tr_screen_scan(&c->w->screen, &f->worker[(local + k) % workers].screen, &f->screen, i);
    return tr_step_meet(c);
}

/* From the whole row, of which the edited copy alone is changed: log-probabilities are those of the logits. */
static uint32_t draw_whole(const tr_step *c, const tr_forward_draw *d) {
    const tr_forward *f = c->f;
    const float *logits = f->logits + (size_t)d->row * f->n_vocab, *row = logits;
    if (d->edit) {
        memcpy(c->w->edited, logits, f->model->vocab * sizeof *logits);
        tr_sampler_edit_row(d->edit, c->w->edited, f->model->vocab, c->w->sampler);
        row = c->w->edited;
    }
    const uint32_t id = tr_sampler_draw(&d->params, row, f->model->vocab, c->w->sampler);
    if (d->logprobs)
        tr_sampler_logprobs(logits, f->model->vocab, id, d->logprobs - 1, f->logprob_ids + d->logprob_at,
                            f->logprobs + d->logprob_at);
    return id;
}

/* Those that only rank 0 can: its workers are the first ones. */
static void settle_whole(const tr_step *c) {
    const tr_forward *f = c->f;
    const uint32_t workers = c->n < f->n_local ? c->n : f->n_local;
    if (f->first_worker > 0) return;
    for (uint32_t i = c->id; i < f->step->n_draws; i += workers)
        if (f->draw[i].whole) f->sampled[f->draw[i].at] = draw_whole(c, &f->draw[i]);
}

/* Each token is settled by one worker: the best of all shares, or drawn from the whole row. */
static void settle(const tr_step *c, bool shares) {
    const tr_forward *f = c->f;
    for (uint32_t i = c->id; i < f->step->n_draws; i += c->n) {
        const tr_forward_draw *d = &f->draw[i];
        if (d->whole) continue;
        tr_sampler_best best = TR_SAMPLER_NONE;
        for (uint32_t w = 0; shares && w < c->n; w++)
            best = tr_sampler_merge(best, f->best[w * f->config.max_spans + i]);
        f->sampled[d->at] = shares ? tr_sampler_id(best)
                                   : tr_sampler_draw(&d->params, f->logits + (size_t)d->row * f->n_vocab,
                                                     f->model->vocab, c->w->sampler);
    }
}

void tr_head_run(const tr_step *c) {
    const bool only = tokens_only(c->f);
    head_rows(c);
    if (!hidden_only(c->f)) {
        if (!(!only ? dense(c) : screens(c->f) ? screen(c) : tokens(c))) return;
        settle(c, only);
        settle_whole(c);
    }
    hand_out_hidden(c);
}
