#include "stages/head.h"

#include "model/sampler.h"

#include <math.h>

static tr_sampler_params sampler_params(const tr_span *s) {
    return (tr_sampler_params){.temperature = s->sampling.temperature,
                               .top_p = s->sampling.top_p,
                               .top_k = s->sampling.top_k,
                               .sample = s->sampling.sample,
                               .position = s->pos0 + s->rows - 1,
                               .seed = s->sampling.seed};
}

/* Rows that ask for logits, ready for the head. */
static void head_rows(const tr_step *c) {
    const tr_forward *f = c->f;
    const uint32_t hidden = f->model->hidden;
    uint32_t begin, end;
    tr_step_rows(c, f->n_logit_rows, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        float *norm = c->norm + (size_t)i * hidden;
        c->ops->rmsnorm(norm, c->x + (size_t)f->logit_row[i] * hidden, f->output_norm, hidden, f->model->rms_eps);
        tr_step_prepare(c, f->head, norm, i);
    }
}

/* Nothing but tokens is wanted, and shares of the ids can be scanned apart. */
static bool tokens_only(const tr_forward *f) {
    for (uint32_t i = 0; i < f->batch->n_spans; i++) {
        const tr_span *s = &f->batch->spans[i];
        const tr_sampler_params p = sampler_params(s);
        if ((s->flags & TR_SPAN_LOGITS) || ((s->flags & TR_SPAN_SAMPLE) && !tr_sampler_splits(&p))) return false;
    }
    return true;
}

/* All logits, for who asked for them and for whole rows that one worker draws from. */
static void dense(const tr_step *c) {
    const tr_forward *f = c->f;
    tr_step_sync_rows(c);
    tr_step_matmul(c, tr_step_index_head(c), f->head, f->logits, f->n_vocab, f->n_logit_rows), tr_step_sync(c);
}

/* Best of n ids from id0 on. */
static tr_sampler_best scan(const tr_step *c, const tr_sampler_params *p, const float *logits, uint32_t id0,
                            uint32_t n) {
    if (p->temperature > 0) return tr_sampler_scan(p, logits, id0, n);
    float max;
    size_t at = c->ops->argmax(logits, n, &max);
    return max > -INFINITY ? (tr_sampler_best){(double)max, id0 + (uint32_t)at} : TR_SAMPLER_NONE;
}

/* Best of the ids of some blocks, of every row, from logits that never leave the cache. */
static void scan_blocks(const tr_step *c, uint32_t block0, uint32_t blocks) {
    const tr_forward *f = c->f;
    const uint32_t id0 = block0 * TR_OPS_BLOCK_N, end = id0 + blocks * TR_OPS_BLOCK_N;
    const uint32_t n = (end < f->model->vocab ? end : f->model->vocab) - id0;
    const float *row = c->w->logits;
    tr_step_matmul_blocks(c, f->head, c->w->logits, TR_FORWARD_HEAD_IDS, f->n_logit_rows, block0, blocks);
    for (uint32_t i = 0; i < f->batch->n_spans; i++) {
        if (!(f->batch->spans[i].flags & TR_SPAN_SAMPLE)) continue;
        const tr_sampler_params p = sampler_params(&f->batch->spans[i]);
        tr_sampler_best *best = &f->best[c->id * f->config.max_spans + i];
        *best = tr_sampler_merge(*best, scan(c, &p, row, id0, n));
        row += TR_FORWARD_HEAD_IDS;
    }
}

/* The best of what each worker takes of the ids. */
static void tokens(const tr_step *c) {
    const tr_forward *f = c->f;
    for (uint32_t i = 0; i < f->batch->n_spans; i++) f->best[c->id * f->config.max_spans + i] = TR_SAMPLER_NONE;
    tr_step_sync_rows(c);
    tr_step_work work = tr_step_work_begin(c, tr_step_index_head(c), f->n_vocab / TR_OPS_BLOCK_N, f->head->k);
    work.chunk = TR_FORWARD_HEAD_IDS / TR_OPS_BLOCK_N;
    while (tr_step_work_next(c, &work))
        for (uint32_t b = work.begin; b < work.end; b += work.chunk)
            scan_blocks(c, b, work.end - b < work.chunk ? work.end - b : work.chunk);
    tr_step_sync(c);
}

/* Few rows and a head in planes need no logits (stages/screen.h). */
static bool screens(const tr_forward *f) {
    return f->head->kind == TR_IMAGE_INT8_PLANES && !f->ready.a16 && f->n_logit_rows <= TR_SCREEN_ROWS;
}

/* The best of every worker's share of the ids, without the logits. A row of the screen is a span that asks for a token;
 * the worker that made it ready (in a narrow step one of those) makes the screen's row. */
static void screen(const tr_step *c) {
    tr_forward *f = c->f;
    uint32_t begin, end, row = 0;
    for (uint32_t i = 0; i < f->batch->n_spans; i++) {
        if (!(f->batch->spans[i].flags & TR_SPAN_SAMPLE)) continue;
        const tr_sampler_params p = sampler_params(&f->batch->spans[i]);
        tr_team_share(f->n_logit_rows, c->id, c->n, &begin, &end);
        if (row >= begin && row < end)
            tr_screen_rows_make(&f->screen, row, f->n_logit_rows, c->ready->x + (size_t)row * f->head->k,
                                c->ready->scale[row], &p);
        row++;
    }
    tr_step_meet(c);
    tr_step_work work = tr_step_work_begin(c, tr_step_index_head(c), f->n_vocab / TR_OPS_BLOCK_N, f->head->k);
    work.chunk = TR_SCREEN_IDS / TR_OPS_BLOCK_N;
    tr_screen_begin(&c->w->screen, &f->screen);
    while (tr_step_work_next(c, &work))
        tr_screen_bounds(&c->w->screen, &f->screen, work.begin, work.end - work.begin, f->model->vocab);
    tr_step_meet(c);
    row = 0;
    for (uint32_t i = 0; i < f->batch->n_spans; i++)
        if (f->batch->spans[i].flags & TR_SPAN_SAMPLE)
            f->best[c->id * f->config.max_spans + i] = tr_screen_scan(&c->w->screen, &f->screen, row++);
    tr_step_meet(c);
}

/* Each row is settled by one worker. */
static void settle(const tr_step *c, bool only) {
    const tr_forward *f = c->f;
    uint32_t at = 0;
    for (uint32_t i = 0; i < f->batch->n_spans; i++) {
        const tr_span *s = &f->batch->spans[i];
        at += (s->flags & TR_SPAN_LOGITS) ? s->rows : (s->flags & TR_SPAN_SAMPLE) ? 1 : 0;
        if (!(s->flags & TR_SPAN_SAMPLE) || i % c->n != c->id) continue;
        const tr_sampler_params p = sampler_params(s);
        if (!only) {
            f->sampled[i] =
                tr_sampler_draw(&p, f->logits + (size_t)(at - 1) * f->n_vocab, f->model->vocab, c->w->sampler);
            continue;
        }
        tr_sampler_best best = TR_SAMPLER_NONE;
        for (uint32_t w = 0; w < c->n; w++) best = tr_sampler_merge(best, f->best[w * f->config.max_spans + i]);
        f->sampled[i] = tr_sampler_id(best);
    }
}

void tr_head_run(const tr_step *c) {
    const bool only = tokens_only(c->f);
    head_rows(c);
    if (!only)
        dense(c);
    else if (screens(c->f))
        screen(c);
    else
        tokens(c);
    settle(c, only);
}
