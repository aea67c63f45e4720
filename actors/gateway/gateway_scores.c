/* actors/gateway/gateway_scores.c - what comes beside the text: log-probabilities of generated tokens with the text,
 * those of an echoed prompt from its logits, and hidden states, of which an embedding is the mean. Rows of logits and
 * hidden states come in the order of positions; some may come again after a restart, or be lost with it. */
#include "actors/gateway/gateway.h"

#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool tr_gateway_scores_prompt(tr_gateway_choice *c, const uint32_t *ids, uint32_t n, uint32_t per) {
    c->prompt = malloc((n + 1) * sizeof *c->prompt);
    if (!c->prompt) return false;
    memcpy(c->prompt, ids, n * sizeof *ids);
    c->n_prompt = n;
    c->scores.per = per;
    return tr_openai_scores_add(&c->scores, ids, NULL); /* nothing comes before the first */
}

void tr_gateway_scores_free(tr_gateway_choice *c) {
    tr_openai_scores_free(&c->scores);
    free(c->prompt);
    free(c->mean);
    c->prompt = NULL;
    c->mean = NULL;
}

/* The row tells of the token behind it. */
static bool take_logits(tr_gateway_choice *c, const float *logits, uint32_t vocab) {
    uint32_t ids[1 + TR_MAX_LOGPROBS];
    float values[1 + TR_MAX_LOGPROBS];
    if (c->rows + 1 >= c->n_prompt) return true; /* the next one is generated */
    tr_sampler_logprobs(logits, vocab, c->prompt[c->rows + 1], c->scores.per - 1, ids, values);
    return tr_openai_scores_add(&c->scores, ids, values);
}

static bool take_hidden(tr_gateway_choice *c, const float *hidden, uint32_t n) {
    if (!c->mean) c->mean = calloc(n, sizeof *c->mean);
    for (uint32_t i = 0; c->mean && i < n; i++) c->mean[i] += (double)hidden[i];
    return c->mean != NULL;
}

static bool take_rows(tr_gateway_choice *c, const tr_client_event *e, bool hidden) {
    for (uint32_t r = 0; r < e->rows; r++) {
        const float *row = e->logits + (size_t)r * e->cols;
        if (e->pos0 + r != c->rows) continue; /* known, or one is missing */
        if (!(hidden ? take_hidden(c, row, e->cols) : take_logits(c, row, e->cols))) return false;
        c->rows++;
    }
    return true;
}

bool tr_gateway_scores_take(tr_gateway *g, tr_gateway_exchange *x, tr_gateway_choice *c, const tr_client_event *e) {
    const bool hidden = x->kind == TR_OPENAI_EMBEDDING;
    if (e->rows > 0 && e->hidden == hidden && e->cols == (hidden ? g->rt->company->hidden : g->rt->company->vocab) &&
        !take_rows(c, e, hidden))
        return false;
    if (!x->logprobs && x->samples == x->answers) return true;
    c->scores.per = 1 + x->top_logprobs;
    for (uint32_t i = 0; i < e->n_tokens; i++) {
        const uint32_t old = e->n_tokens - e->n_logprobs; /* theirs are lost */
        const size_t at = i < old ? 0 : (size_t)(i - old) * c->scores.per;
        if (!tr_openai_scores_add(&c->scores, i < old ? &e->tokens[i] : e->logprob_ids + at,
                                  i < old ? NULL : e->logprobs + at))
            return false;
    }
    return true;
}

bool tr_gateway_scores_complete(const tr_gateway_exchange *x, const tr_gateway_choice *c) {
    if (x->kind == TR_OPENAI_EMBEDDING) return c->rows == c->prompt_tokens;
    return c->n_prompt == 0 || c->rows + 1 >= c->n_prompt;
}

/* Mean log-probability, as the OpenAI API defines the best. */
static double score(const tr_gateway_choice *c) {
    return c->scores.n_known ? c->scores.sum / c->scores.n_known : -INFINITY;
}

void tr_gateway_scores_best(const tr_gateway_exchange *x, uint32_t prompt, uint32_t *chosen_out) {
    const uint32_t first = prompt * x->samples;
    uint32_t n = 0;
    for (uint32_t k = first; k < first + x->samples; k++) {
        uint32_t at = n < x->answers ? n : x->answers;
        while (x->samples > x->answers && at > 0 && score(&x->choice[k]) > score(&x->choice[chosen_out[at - 1]])) at--;
        if (at == x->answers) continue;
        if (n < x->answers) n++;
        memmove(chosen_out + at + 1, chosen_out + at, (n - 1 - at) * sizeof *chosen_out);
        chosen_out[at] = k;
    }
}

float *tr_gateway_scores_vectors(const tr_gateway *g, const tr_gateway_exchange *x) {
    const uint32_t n = g->rt->company->hidden;
    float *vectors = calloc((size_t)x->n_choices * n, sizeof *vectors);
    for (uint32_t k = 0; vectors && k < x->n_choices; k++) {
        double square = 0;
        const double *mean = x->choice[k].mean; /* the sum: its length is taken out in any case */
        for (uint32_t i = 0; mean && i < n; i++) square += mean[i] * mean[i];
        for (uint32_t i = 0; mean && square > 0 && i < n; i++)
            vectors[(size_t)k * n + i] = (float)(mean[i] / sqrt(square));
    }
    return vectors;
}
