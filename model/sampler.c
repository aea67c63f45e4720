#include "model/sampler.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

typedef struct candidate {
    float logit;
    uint32_t id;
} candidate;

bool tr_sampler_splits(const tr_sampler_params *p) { return p->temperature <= 0 || (p->top_k == 0 && p->top_p >= 1); }

/* 1 - u of the draw of one id, in (0, 1]. */
static double complement(uint64_t key, uint32_t id) { return (double)((tr_rng_hash(key, id) >> 11) + 1) * 0x1.0p-53; }

static uint64_t draw_key(const tr_sampler_params *p) {
    return tr_rng_hash(tr_rng_hash(tr_rng_mix(p->seed), p->sample), p->position);
}

/* Gumbel noise -log(-log u) from c = 1 - u. */
static double gumbel(double c) { return -log(-log1p(-c)); }

static void consider(tr_sampler_best *best, uint64_t key, double logit, uint32_t id) {
    double c = complement(key, id);
    /* -log u >= 1 - u, so the noise is at most -log c: most ids cannot win and need no logarithm. */
    double lead = best->score - logit;
    if (lead > 37.0 || (lead > 0 && c > exp(-lead) * 1.000001)) return;
    double score = logit + (c < 1 ? gumbel(c) : -1e30);
    if (score > best->score || (score == best->score && id < best->id)) *best = (tr_sampler_best){score, id};
}

tr_sampler_best tr_sampler_scan(const tr_sampler_params *p, const float *logits, uint32_t id0, uint32_t id1) {
    tr_sampler_best best = TR_SAMPLER_NONE;
    if (p->temperature <= 0) {
        for (uint32_t i = id0; i < id1; i++)
            if ((double)logits[i] > best.score) best = (tr_sampler_best){logits[i], i};
        return best;
    }
    const uint64_t key = draw_key(p);
    const double inverse = 1.0 / (double)p->temperature;
    for (uint32_t i = id0; i < id1; i++) consider(&best, key, (double)logits[i] * inverse, i);
    return best;
}

tr_sampler_best tr_sampler_merge(tr_sampler_best a, tr_sampler_best b) {
    if (b.id == UINT32_MAX) return a;
    if (a.id == UINT32_MAX) return b;
    return b.score > a.score || (b.score == a.score && b.id < a.id) ? b : a;
}

static int by_logit(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

size_t tr_sampler_scratch_bytes(uint32_t vocab) { return (size_t)vocab * sizeof(candidate); }

/* All ids with a logit of at least floor, best first. */
static uint32_t collect(const float *logits, uint32_t vocab, float floor, candidate *out) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++)
        if (logits[i] >= floor) out[n++] = (candidate){logits[i], i};
    qsort(out, n, sizeof *out, by_logit);
    return n;
}

/* Mass of exp((logit - max) / T) over the whole row, added in index order. */
static double row_mass(const float *logits, uint32_t vocab, float max, double inverse) {
    double sum = 0;
    for (uint32_t i = 0; i < vocab; i++) sum += (double)expf((float)((double)(logits[i] - max) * inverse));
    return sum;
}

/* Largest candidates that top-k and top-p leave, found by lowering a floor under the maximum until they are all there.
 */
static uint32_t nucleus(const tr_sampler_params *p, const float *logits, uint32_t vocab, candidate *out) {
    const double inverse = 1.0 / (double)p->temperature;
    float max = -INFINITY;
    for (uint32_t i = 0; i < vocab; i++) max = logits[i] > max ? logits[i] : max;
    const uint32_t k = p->top_k && p->top_k < vocab ? p->top_k : vocab;
    const double mass = k == vocab ? row_mass(logits, vocab, max, inverse) : 0;
    for (double depth = 4;; depth *= 2) {
        bool all = depth > 1e6;
        uint32_t n =
            collect(logits, vocab, all ? -INFINITY : (float)((double)max - depth * (double)p->temperature), out);
        if (n < k && k < vocab && !all) continue;
        if (n > k) n = k;
        if (p->top_p >= 1) return n;
        double total = mass, sum = 0;
        if (k < vocab) {
            total = 0;
            for (uint32_t i = 0; i < n; i++) total += exp((double)(out[i].logit - max) * inverse);
        }
        for (uint32_t i = 0; i < n; i++) {
            sum += exp((double)(out[i].logit - max) * inverse);
            if (sum >= (double)p->top_p * total) return i + 1;
        }
        if (all || k < vocab) return n;
    }
}

uint32_t tr_sampler_draw(const tr_sampler_params *p, const float *logits, uint32_t vocab, void *scratch) {
    tr_sampler_best best = TR_SAMPLER_NONE;
    if (tr_sampler_splits(p))
        best = tr_sampler_scan(p, logits, 0, vocab);
    else {
        candidate *c = scratch;
        uint32_t n = nucleus(p, logits, vocab, c);
        const uint64_t key = draw_key(p);
        const double inverse = 1.0 / (double)p->temperature;
        for (uint32_t i = 0; i < n; i++) consider(&best, key, (double)c[i].logit * inverse, c[i].id);
    }
    return best.id == UINT32_MAX ? 0 : best.id; /* a row of NaN */
}
