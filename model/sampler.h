/* model/sampler.h - one token from one row of logits; pure, keeps no state.
 * Greedy: the largest logit, lowest id on ties. Else Gumbel-max (Gumbel 1954; Maddison et al. 2014): argmax of
 * logit / T + g(id), with g from a hash of (seed, sample, position, id): the draw depends on nothing else, so a
 * repeated step draws the same token. top-k keeps the k largest logits (ties by lower id); top-p then keeps the
 * smallest set of largest probabilities (softmax of logit / T over what top-k left) that reaches p, at least one.
 * min-p comes before both: it keeps what is at least so likely, measured by the likeliest. The row may be split over
 * workers: each scans its share, the shares merge in any order to the same result. NaN and -infinity are never drawn.
 * No heap, no libm. Cost of top-k and top-p: O(vocab + kept log vocab). */
#ifndef TR_SAMPLER_H
#define TR_SAMPLER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_sampler_params {
    float temperature;         /* 0: greedy */
    float top_p;               /* 1: off */
    float min_p;               /* 0: off */
    uint32_t top_k;            /* 0: off */
    uint32_t sample, position; /* index of the sample; position of the row that the logits belong to */
    uint64_t seed;
} tr_sampler_params;

typedef struct tr_sampler_best {
    double score;
    uint32_t id; /* UINT32_MAX: none yet */
} tr_sampler_best;

#define TR_SAMPLER_NONE ((tr_sampler_best){-1e300, UINT32_MAX})

/* True when shares can be scanned apart (no top-k, no top-p, no min-p). */
bool tr_sampler_splits(const tr_sampler_params *p);
/* Best of n ids of a row from id0 on, where logits points at. */
tr_sampler_best tr_sampler_scan(const tr_sampler_params *p, const float *logits, uint32_t id0, uint32_t n);
/* What an id scores with this logit: what tr_sampler_scan compares. */
double tr_sampler_score(const tr_sampler_params *p, float logit, uint32_t id);
/* Where logits are dear and only bounds of them are known (bound >= logit where neither is a NaN): with `least` the
 * score of any id of the row, scan_ids of the ids that reach leaves, merged over all shares, gives what tr_sampler_scan
 * of the logits gives. An id whose bound is below tr_sampler_bar cannot score `least`. */
float tr_sampler_bar(const tr_sampler_params *p, double least);
/* Which of n ids may score `least` or more: their indices, ascending, to index_out [n]; returns how many. */
uint32_t tr_sampler_reach(const tr_sampler_params *p, const uint32_t *ids, const float *bounds, uint32_t n,
                          double least, uint32_t *index_out);
/* Goes on from *best with these ids, in any order. */
void tr_sampler_scan_ids(const tr_sampler_params *p, const uint32_t *ids, const float *logits, uint32_t n,
                         tr_sampler_best *best);
tr_sampler_best tr_sampler_merge(tr_sampler_best a, tr_sampler_best b);
/* Always a token: 0 for a row in which nothing is above -infinity (NaN). */
static inline uint32_t tr_sampler_id(tr_sampler_best b) { return b.id == UINT32_MAX ? 0 : b.id; }

/* What changes a row of logits before anything is drawn from it, in this order: tokens that are banned, bias,
 * repetition penalty (Keskar et al. 2019: on every token of prompt and output), frequency and presence penalties (on
 * generated ones: off the logit, for each time and once). Lists are borrowed; ids outside the vocabulary are passed
 * over. */
typedef struct tr_sampler_edit {
    const uint32_t *banned, *bias_id;
    const float *bias;
    uint32_t n_banned, n_bias;
    float repetition; /* 1: off */
    float frequency, presence;
    /* the tokens so far, in two pieces; the first n_prompt of them were not generated */
    const uint32_t *tokens[2];
    uint32_t n_tokens[2], n_prompt;
} tr_sampler_edit;
/* counts: scratch of vocab numbers. */
void tr_sampler_edit_row(const tr_sampler_edit *e, float *logits, uint32_t vocab, uint32_t *counts);

#define TR_SAMPLER_LOGPROB_LEAST (-9999.0f) /* what is told of -infinity, and of a NaN */
enum { TR_SAMPLER_TOP_MAX = 20 };
/* Log-probabilities of softmax(logits), temperature 1: of token id, then of the n likeliest (at most
 * TR_SAMPLER_TOP_MAX; ties by lower id). ids_out, out: [1 + n]; beyond the vocabulary: id again. */
void tr_sampler_logprobs(const float *logits, uint32_t vocab, uint32_t id, uint32_t n, uint32_t *ids_out, float *out);

/* Scratch for tr_sampler_draw, in bytes; enough for tr_sampler_edit_row. */
size_t tr_sampler_scratch_bytes(uint32_t vocab);
/* The whole row at once, any parameters. */
uint32_t tr_sampler_draw(const tr_sampler_params *p, const float *logits, uint32_t vocab, void *scratch);
#endif
