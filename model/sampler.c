/* Numbers: only +, *, / and kernels/fixed_math.h, no libm: a draw is the same on every machine. */
#include "model/sampler.h"

#include "base/rng.h"
#include "kernels/fixed_math.h"

typedef struct candidate {
    float logit;
    uint32_t id;
} candidate;

bool tr_sampler_splits(const tr_sampler_params *p) { return p->temperature <= 0 || (p->top_k == 0 && p->top_p >= 1); }

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

/* All ids but those of NaN and -infinity. */
static uint32_t make_heap(const float *logits, uint32_t vocab, candidate *heap) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++)
        if (logits[i] > -INFINITY) heap[n++] = (candidate){logits[i], i};
    for (uint32_t i = n / 2; i-- > 0;) sink(heap, n, i);
    return n;
}

/* exp((logit - max) / T): unnormalized probability. */
static double weight(float logit, float max, double inverse) {
    return logit == max ? 1.0 : (double)tr_fixed_math_exp((float)(((double)logit - (double)max) * inverse));
}

/* What top-k and top-p leave, best first; the sorted ones come to lie at the end of the array: *first_out. */
static uint32_t nucleus(const tr_sampler_params *p, const float *logits, uint32_t vocab, candidate *c,
                        candidate **first_out) {
    const double inverse = 1.0 / (double)p->temperature;
    const uint32_t all = make_heap(logits, vocab, c), most = p->top_k && p->top_k < all ? p->top_k : all;
    const bool by_mass = p->top_p < 1;
    if (all == 0) return 0;
    const float max = c[0].logit;
    double total = 0, sum = 0;
    for (uint32_t i = 0; by_mass && most == all && i < vocab; i++) /* in the order of ids */
        if (logits[i] > -INFINITY) total += weight(logits[i], max, inverse);
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
