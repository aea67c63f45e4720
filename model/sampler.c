/* Numbers: only +, *, / and kernels/fixed_math.h, no libm: a draw is the same on every machine. */
#include "model/sampler.h"

#include "base/rng.h"
#include "kernels/fixed_math.h"

typedef struct candidate {
    float logit;
    uint32_t id;
} candidate;

bool tr_sampler_splits(const tr_sampler_params *p) {
    return p->temperature <= 0 || (p->top_k == 0 && p->top_p >= 1 && p->min_p <= 0);
}

/* ---- Gumbel noise ---- */

/* log(x) of a normal x > 0, exact to about 1e-16 relative: x = 2^e m, log m = 2 atanh((m - 1) / (m + 1)). */
static double natural_log(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffull) | 0x3ff0000000000000ull;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) m *= 0.5, e++;
    double s = (m - 1) / (m + 1), z = s * s, sum = 0; /* |s| <= 0.1716, z <= 0.0295 */
    for (int i = 21; i >= 1; i -= 2) sum = sum * z + 1.0 / i;
    return e * 0.693147180559945309417 + 2 * s * sum;
}

static uint64_t draw_key(const tr_sampler_params *p) {
    return tr_rng_hash(tr_rng_hash(tr_rng_mix(p->seed), p->sample), p->position);
}

/* The noise is -log(-log u), u = (k + 1/2) / 2^52 with k from the hash. Since -log u >= 1 - u, it is at most
 * -log(1 - u), and that at most (leading zeros + 1) log 2 of the complement of k: most ids are passed over without a
 * logarithm. -log(2^-53) is 36.8. */
static const double noise_most = 37.5;
static uint64_t noise_bits(uint64_t key, uint32_t id) { return tr_rng_hash(key, id) >> 12; }
static double noise_bound(uint64_t k) {
    uint64_t rest = 0xfffffffffffffull - k;
    int zeros = rest ? __builtin_clzll(rest) - 12 : 52;
    return (zeros + 1) * 0.6931471805599454 + 1e-9;
}
static double noise(uint64_t k) { return -natural_log(-natural_log(((double)k + 0.5) * 0x1.0p-52)); }

/* Score of one id, if it can still win; a NaN cannot. */
static void consider(tr_sampler_best *best, uint64_t key, double logit, uint32_t id) {
    if (!(logit + noise_most > best->score)) return;
    uint64_t k = noise_bits(key, id);
    if (!(logit + noise_bound(k) > best->score)) return;
    double score = logit + noise(k);
    if (score > best->score || (score == best->score && id < best->id)) *best = (tr_sampler_best){score, id};
}

tr_sampler_best tr_sampler_scan(const tr_sampler_params *p, const float *logits, uint32_t id0, uint32_t n) {
    tr_sampler_best best = TR_SAMPLER_NONE;
    if (p->temperature <= 0) {
        for (uint32_t i = 0; i < n; i++)
            if ((double)logits[i] > best.score) best = (tr_sampler_best){(double)logits[i], id0 + i};
        return best;
    }
    const uint64_t key = draw_key(p);
    const double inverse = 1.0 / (double)p->temperature;
    for (uint32_t i = 0; i < n; i++) consider(&best, key, (double)logits[i] * inverse, id0 + i);
    return best;
}

double tr_sampler_score(const tr_sampler_params *p, float logit, uint32_t id) {
    if (p->temperature <= 0) return (double)logit;
    return (double)logit * (1.0 / (double)p->temperature) + noise(noise_bits(draw_key(p), id));
}

/* Every step from a logit to its score is monotone, rounding too, so a bound of the logit gives a bound of the score; a
 * NaN bounds nothing. Drawn: the margin is a million times what rounding can take. */
float tr_sampler_bar(const tr_sampler_params *p, double least) {
    if (least < -3e38) return -INFINITY;
    if (p->temperature <= 0) return (float)least;
    const double bar = (least - noise_most) * (double)p->temperature;
    const double margin = 1e-6 * ((least < 0 ? -least : least) + noise_most) * (double)p->temperature;
    return bar - margin < -3e38 ? -INFINITY : (float)(bar - margin);
}

uint32_t tr_sampler_reach(const tr_sampler_params *p, const uint32_t *ids, const float *bounds, uint32_t n,
                          double least, uint32_t *index_out) {
    const bool greedy = p->temperature <= 0;
    const float bar = tr_sampler_bar(p, least);
    const uint64_t key = greedy ? 0 : draw_key(p);
    const double inverse = greedy ? 1 : 1.0 / (double)p->temperature;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (bounds[i] < bar) continue;
        if (!greedy) {
            const double most = (double)bounds[i] * inverse;
            const uint64_t k = noise_bits(key, ids[i]);
            if (most + noise_bound(k) < least || most + noise(k) < least) continue;
        }
        index_out[kept++] = i;
    }
    return kept;
}

void tr_sampler_scan_ids(const tr_sampler_params *p, const uint32_t *ids, const float *logits, uint32_t n,
                         tr_sampler_best *best) {
    const bool greedy = p->temperature <= 0;
    const uint64_t key = greedy ? 0 : draw_key(p);
    const double inverse = greedy ? 1 : 1.0 / (double)p->temperature;
    for (uint32_t i = 0; i < n; i++) {
        if (!greedy)
            consider(best, key, (double)logits[i] * inverse, ids[i]);
        else if ((double)logits[i] > best->score || ((double)logits[i] == best->score && ids[i] < best->id))
            *best = (tr_sampler_best){(double)logits[i], ids[i]};
    }
}

tr_sampler_best tr_sampler_merge(tr_sampler_best a, tr_sampler_best b) {
    if (b.id == UINT32_MAX) return a;
    if (a.id == UINT32_MAX) return b;
    return b.score > a.score || (b.score == a.score && b.id < a.id) ? b : a;
}

/* ---- top-k and top-p: a heap with the best candidate on top ---- */

static bool before(candidate a, candidate b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

static void sink(candidate *heap, uint32_t n, uint32_t at) {
    candidate c = heap[at];
    for (uint32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], c)) break;
        heap[at] = heap[child];
    }
    heap[at] = c;
}

/* exp((logit - max) / T): unnormalized probability. */
static double weight(float logit, float max, double inverse) {
    return logit == max ? 1.0 : (double)tr_fixed_math_exp((float)(((double)logit - (double)max) * inverse));
}

static float largest(const float *logits, uint32_t vocab) {
    float max = -INFINITY;
    for (uint32_t i = 0; i < vocab; i++)
        if (logits[i] > max) max = logits[i];
    return max;
}

/* All ids that min-p leaves, but those of NaN and -infinity; in the order of ids. */
static uint32_t list_candidates(const tr_sampler_params *p, const float *logits, uint32_t vocab, candidate *list) {
    const bool some = p->min_p > 0;
    const double inverse = 1.0 / (double)p->temperature;
    const float max = some ? largest(logits, vocab) : 0;
    const double least = some ? (double)max + (natural_log((double)p->min_p) - 1e-3) * (double)p->temperature : 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        if (!(logits[i] > -INFINITY)) continue;
        if (some && ((double)logits[i] < least || weight(logits[i], max, inverse) < (double)p->min_p)) continue;
        list[n++] = (candidate){logits[i], i};
    }
    return n;
}

/* What top-k and top-p leave, best first; the sorted ones come to lie at the end of the array: *first_out. */
static uint32_t nucleus(const tr_sampler_params *p, const float *logits, uint32_t vocab, candidate *c,
                        candidate **first_out) {
    const double inverse = 1.0 / (double)p->temperature;
    const uint32_t all = list_candidates(p, logits, vocab, c), most = p->top_k && p->top_k < all ? p->top_k : all;
    const bool by_mass = p->top_p < 1;
    if (all == 0) return 0;
    const float max = largest(logits, vocab);
    double total = 0, sum = 0;
    for (uint32_t i = 0; by_mass && most == all && i < all; i++) /* in the order of ids */
        total += weight(c[i].logit, max, inverse);
    for (uint32_t i = all / 2; i-- > 0;) sink(c, all, i);
    uint32_t n = 0;
    for (; n < most && !(by_mass && most == all && n > 0 && sum >= (double)p->top_p * total); n++) {
        candidate top = c[0];
        c[0] = c[all - 1 - n];
        sink(c, all - 1 - n, 0);
        c[all - 1 - n] = top;
        sum += weight(top.logit, max, inverse);
    }
    *first_out = &c[all - 1]; /* descending addresses */
    if (!by_mass || most == all) return n;
    total = sum;
    sum = 0;
    uint32_t kept = 0;
    while (kept < n && (kept == 0 || sum < (double)p->top_p * total))
        sum += weight(first_out[0][-(ptrdiff_t)kept++].logit, max, inverse);
    return kept;
}

size_t tr_sampler_scratch_bytes(uint32_t vocab) { return (size_t)vocab * sizeof(candidate); }

uint32_t tr_sampler_draw(const tr_sampler_params *p, const float *logits, uint32_t vocab, void *scratch) {
    tr_sampler_best best = TR_SAMPLER_NONE;
    if (tr_sampler_splits(p))
        best = tr_sampler_scan(p, logits, 0, vocab);
    else {
        candidate *first = NULL;
        uint32_t n = nucleus(p, logits, vocab, scratch, &first);
        const uint64_t key = draw_key(p);
        const double inverse = 1.0 / (double)p->temperature;
        for (uint32_t i = 0; i < n; i++)
            consider(&best, key, (double)first[-(ptrdiff_t)i].logit * inverse, first[-(ptrdiff_t)i].id);
    }
    return tr_sampler_id(best);
}

/* ---- edits ---- */

static const uint32_t *token_at(const tr_sampler_edit *e, uint32_t i) {
    return i < e->n_tokens[0] ? &e->tokens[0][i] : &e->tokens[1][i - e->n_tokens[0]];
}

/* A logit once its token is known to have come `times` in the output, perhaps never. */
static float penalized(const tr_sampler_edit *e, float logit, uint32_t times) {
    if (e->repetition != 1) logit = logit > 0 ? logit / e->repetition : logit * e->repetition;
    logit -= e->frequency * (float)times;
    return times ? logit - e->presence : logit;
}

void tr_sampler_edit_row(const tr_sampler_edit *e, float *logits, uint32_t vocab, uint32_t *counts) {
    for (uint32_t i = 0; i < e->n_banned; i++)
        if (e->banned[i] < vocab) logits[e->banned[i]] = -INFINITY;
    for (uint32_t i = 0; i < e->n_bias; i++)
        if (e->bias_id[i] < vocab) logits[e->bias_id[i]] += e->bias[i];
    if (e->repetition == 1 && e->frequency == 0 && e->presence == 0) return;
    const uint32_t n = e->n_tokens[0] + e->n_tokens[1], done = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++)
        if (*token_at(e, i) < vocab) counts[*token_at(e, i)] = 0;
    for (uint32_t i = e->n_prompt; i < n; i++)
        if (*token_at(e, i) < vocab) counts[*token_at(e, i)]++;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t id = *token_at(e, i);
        if (id >= vocab || counts[id] == done) continue;
        logits[id] = penalized(e, logits[id], counts[id]);
        counts[id] = done;
    }
}

/* ---- log-probabilities ---- */

/* The n best of a row, best first; returns how many there are. */
static uint32_t best_of_row(const float *logits, uint32_t vocab, uint32_t n, candidate *best) {
    uint32_t have = 0;
    for (uint32_t i = 0; i < vocab && n > 0; i++) {
        const candidate c = {logits[i], i};
        if (!(logits[i] > -INFINITY) || (have == n && !before(c, best[n - 1]))) continue;
        uint32_t at = have < n ? have++ : n - 1;
        for (; at > 0 && before(c, best[at - 1]); at--) best[at] = best[at - 1];
        best[at] = c;
    }
    return have;
}

void tr_sampler_logprobs(const float *logits, uint32_t vocab, uint32_t id, uint32_t n, uint32_t *ids_out, float *out) {
    candidate best[TR_SAMPLER_TOP_MAX];
    if (n > TR_SAMPLER_TOP_MAX) n = TR_SAMPLER_TOP_MAX;
    const float max = largest(logits, vocab);
    const uint32_t have = best_of_row(logits, vocab, n, best);
    double sum = 0;
    for (uint32_t i = 0; i < vocab; i++)
        if (logits[i] > -INFINITY) sum += weight(logits[i], max, 1);
    const double log_sum = sum > 0 ? natural_log(sum) : 0;
    for (uint32_t i = 0; i <= n; i++) {
        ids_out[i] = i > 0 && i <= have ? best[i - 1].id : id;
        const float logit = ids_out[i] < vocab ? logits[ids_out[i]] : -INFINITY;
        const double p = (double)logit - (double)max - log_sum;
        out[i] = p > (double)TR_SAMPLER_LOGPROB_LEAST ? (float)p : TR_SAMPLER_LOGPROB_LEAST;
    }
}
