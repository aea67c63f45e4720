#include "stages/head.h"

#include "model/sampler.h"

#include <math.h>

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

/* Best of this worker's share of the vocabulary, where shares can be scanned apart. */
static tr_sampler_best scan(const tr_step *c, const tr_sampler_params *p, const float *logits) {
    uint32_t begin, end;
    tr_team_share(c->f->model->vocab, c->id, c->n, &begin, &end);
    if (!tr_sampler_splits(p) || begin == end) return TR_SAMPLER_NONE;
    if (p->temperature > 0) return tr_sampler_scan(p, logits, begin, end);
    float max;
    size_t at = c->ops->argmax(logits + begin, end - begin, &max);
    return max > -INFINITY ? (tr_sampler_best){(double)max, begin + (uint32_t)at} : TR_SAMPLER_NONE;
}

/* All logits; then all workers scan a share of every row. False: a rank has left. */
static bool dense(const tr_step *c) {
    const tr_forward *f = c->f;
    tr_step_matmul(c, f->head, f->logits, f->n_vocab, f->step->n_logit_rows);
    if (!tr_step_meet(c)) return false;
    for (uint32_t i = 0; i < f->step->n_draws; i++) {
        const tr_forward_draw *d = &f->draw[i];
        f->best[c->id * f->config.max_spans + i] = scan(c, &d->params, f->logits + (size_t)d->row * f->n_vocab);
    }
    return tr_step_meet(c);
}

/* Few rows of which nothing but a token is wanted need no logits (stages/screen.h). */
static bool screens(const tr_forward *f) {
    if (f->head->kind != TR_IMAGE_INT8_PLANES || f->ready.a16 || f->step->n_logit_rows > TR_SCREEN_ROWS) return false;
    for (uint32_t i = 0; i < f->step->n_spans; i++)
        if (f->spans[i].flags & TR_SPAN_LOGITS) return false;
    for (uint32_t i = 0; i < f->step->n_draws; i++)
        if (!tr_sampler_splits(&f->draw[i].params)) return false;
    return true;
}

/* The best of every worker's share of the ids, without the logits. False: a rank has left. */
static bool screen(const tr_step *c) {
    const tr_forward *f = c->f;
    tr_screen *s = &c->w->screen;
    uint32_t begin, end;
    tr_team_share(f->n_vocab / TR_OPS_BLOCK_N, c->id, c->n, &begin, &end);
    tr_screen_bounds(s, c->ready, f->step->n_logit_rows, f->logits, f->coarse, f->n_vocab, begin, end - begin);
    begin *= TR_OPS_BLOCK_N, end *= TR_OPS_BLOCK_N;
    if (end > f->model->vocab) end = f->model->vocab;
    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < f->step->n_draws; i++) {
            const tr_forward_draw *d = &f->draw[i];
            const size_t at = (size_t)d->row * f->n_vocab;
            tr_screen_row row = {.bound = f->logits + at, .coarse = f->coarse + at, .index = d->row};
            const uint32_t mine = c->id * f->config.max_spans + i;
            if (pass == 0) {
                f->guess[mine] = tr_screen_guess(s, &row, &d->params, begin, end);
            } else {
                tr_sampler_best guess = TR_SAMPLER_NONE;
                for (uint32_t w = 0; w < c->n; w++)
                    guess = tr_sampler_merge(guess, f->guess[w * f->config.max_spans + i]);
                f->best[mine] = tr_screen_scan(s, &row, &d->params, begin, end, guess.score);
            }
        }
        if (!tr_step_meet(c)) return false;
    }
    return true;
}

/* Each token is settled by one worker. */
static void settle(const tr_step *c) {
    const tr_forward *f = c->f;
    for (uint32_t i = c->id; i < f->step->n_draws; i += c->n) {
        const tr_forward_draw *d = &f->draw[i];
        tr_sampler_best best = TR_SAMPLER_NONE;
        for (uint32_t w = 0; w < c->n; w++) best = tr_sampler_merge(best, f->best[w * f->config.max_spans + i]);
        f->sampled[d->at] =
            tr_sampler_splits(&d->params)
                ? tr_sampler_id(best)
                : tr_sampler_draw(&d->params, f->logits + (size_t)d->row * f->n_vocab, f->model->vocab, c->w->sampler);
    }
}

void tr_head_run(const tr_step *c) {
    head_rows(c);
    if (screens(c->f) ? screen(c) : dense(c)) settle(c);
}
