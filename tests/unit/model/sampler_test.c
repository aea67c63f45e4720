/* Draws: greedy ties, frequencies against the softmax, top-k and top-p against a plain sort, splits, bad rows; edits,
 * min-p and log-probabilities against other implementations (tests/golden/sampling.json). */
#include "model/sampler.h"

#include "base/rng.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { V = 1000 };
static char scratch[V * 16];

static void random_row(float *x, uint32_t n, uint64_t seed, double spread) {
    tr_rng rng = {seed};
    for (uint32_t i = 0; i < n; i++) x[i] = (float)((tr_rng_unit(&rng) + tr_rng_unit(&rng) - 1) * spread);
}

static uint32_t draw(const tr_sampler_params *p, const float *x, uint32_t n) {
    assert_true(tr_sampler_scratch_bytes(n) <= sizeof scratch);
    return tr_sampler_draw(p, x, n, scratch);
}

static void greedy(void **state) {
    (void)state;
    tr_sampler_params p = {.temperature = 0, .top_p = 1, .seed = 3};
    float x[V];
    for (uint64_t seed = 0; seed < 50; seed++) {
        random_row(x, V, seed, 5);
        x[300] = x[700] = x[40] = 9; /* lowest id wins */
        assert_int_equal(draw(&p, x, V), 40);
        p.top_k = 5, p.top_p = 0.5f;
        assert_int_equal(draw(&p, x, V), 40);
        p.top_k = 0, p.top_p = 1;
    }
}

/* Chi-square of many draws against softmax(x / T) restricted to `kept`. */
static void frequencies(tr_sampler_params p, const float *x, uint32_t n, const bool *kept) {
    enum { DRAWS = 40000 };
    double prob[16], sum = 0, chi = 0;
    uint32_t count[16] = {0}, cells = 0;
    for (uint32_t i = 0; i < n; i++) sum += prob[i] = kept[i] ? exp((double)x[i] / (double)p.temperature) : 0;
    for (uint32_t t = 0; t < DRAWS; t++) {
        if (t % 2)
            p.position++;
        else
            p.seed = tr_rng_mix(t), p.sample = t % 7;
        count[draw(&p, x, n)]++;
    }
    for (uint32_t i = 0; i < n; i++) {
        double expected = prob[i] / sum * DRAWS;
        if (!kept[i]) assert_int_equal(count[i], 0);
        if (expected < 5) continue;
        cells++;
        chi += ((double)count[i] - expected) * ((double)count[i] - expected) / expected;
    }
    assert_true(cells >= 2);
    if (chi > cells + 5 * sqrt(2.0 * cells)) fail_msg("chi-square %g over %u cells", chi, cells);
}

static void follows_softmax(void **state) {
    (void)state;
    float x[12];
    bool all[12], half[12] = {0};
    memset(all, true, sizeof all);
    for (uint64_t seed = 1; seed <= 4; seed++) {
        random_row(x, 12, seed, 2);
        frequencies((tr_sampler_params){.temperature = 1, .top_p = 1}, x, 12, all);
        frequencies((tr_sampler_params){.temperature = 0.4f, .top_p = 1}, x, 12, all);
        frequencies((tr_sampler_params){.temperature = 3, .top_p = 1, .top_k = 12}, x, 12, all);
    }
    for (int i = 0; i < 12; i++) x[i] = (float)(i % 3); /* ties: ids 2 5 8 11, then 1 4 .. */
    half[2] = half[5] = half[8] = half[11] = half[1] = half[4] = true;
    frequencies((tr_sampler_params){.temperature = 1.5f, .top_p = 1, .top_k = 6}, x, 12, half);
}

static int by_logit(const void *a, const void *b) {
    const float *x = *(const float *const *)a, *y = *(const float *const *)b;
    return *x != *y ? (*x > *y ? -1 : 1) : (x > y) - (x < y);
}

/* Which ids may be drawn, by sorting everything. */
static uint32_t allowed(const tr_sampler_params *p, const float *x, uint32_t n, bool *kept) {
    const float *order[V];
    for (uint32_t i = 0; i < n; i++) order[i] = &x[i];
    qsort(order, n, sizeof *order, by_logit);
    uint32_t k = p->top_k && p->top_k < n ? p->top_k : n, m = 0;
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < k; i++) total += exp(((double)*order[i] - (double)*order[0]) / (double)p->temperature);
    memset(kept, 0, n);
    while (m < k && (m == 0 || sum < (double)p->top_p * total)) {
        sum += exp(((double)*order[m] - (double)*order[0]) / (double)p->temperature);
        kept[order[m++] - x] = true;
    }
    return m;
}

static void stays_in_the_nucleus(void **state) {
    (void)state;
    float x[V];
    bool kept[V];
    for (uint64_t seed = 0; seed < 300; seed++) {
        tr_rng rng = {seed};
        uint32_t n = 2 + (uint32_t)tr_rng_below(&rng, V - 2);
        random_row(x, n, seed + 1000, 8);
        for (uint32_t i = 0; i + 1 < n; i += 3) x[i] = x[i + 1]; /* ties */
        tr_sampler_params p = {.temperature = 0.3f + (float)tr_rng_unit(&rng) * 2,
                               .top_k = seed % 3 ? 1 + (uint32_t)tr_rng_below(&rng, n) : 0,
                               .top_p = seed % 4 ? 0.05f + 0.9f * (float)tr_rng_unit(&rng) : 1};
        uint32_t m = allowed(&p, x, n, kept), distinct = 0;
        bool seen[V] = {0};
        for (p.position = 0; p.position < 400; p.position++) {
            uint32_t id = draw(&p, x, n);
            if (!kept[id]) fail_msg("seed %d: id %u is not among the %u kept", (int)seed, id, m);
            distinct += !seen[id];
            seen[id] = true;
        }
        if (m <= 3) assert_true(distinct == m || m > 1); /* a nucleus of one is always drawn */
        if (m >= 50 && p.temperature > 1) assert_true(distinct > 10);
    }
}

/* Shares of any size, merged in any order, and a filter that filters nothing: the same token. */
static void splits(void **state) {
    (void)state;
    float x[V];
    for (uint64_t seed = 0; seed < 500; seed++) {
        random_row(x, V, seed, 4);
        tr_sampler_params p = {.temperature = 0.5f + (float)(seed % 5), .top_p = 1, .seed = seed * 77, .position = 9};
        if (seed % 7 == 0) p.temperature = 0;
        assert_true(tr_sampler_splits(&p));
        uint32_t whole = draw(&p, x, V);
        for (uint32_t parts = 2; parts <= 9; parts += 7) {
            tr_sampler_best up = TR_SAMPLER_NONE, down = TR_SAMPLER_NONE;
            for (uint32_t i = 0; i < parts; i++) {
                uint32_t j = parts - 1 - i;
                up = tr_sampler_merge(
                    up, tr_sampler_scan(&p, x + V * i / parts, V * i / parts, V * (i + 1) / parts - V * i / parts));
                down = tr_sampler_merge(
                    down, tr_sampler_scan(&p, x + V * j / parts, V * j / parts, V * (j + 1) / parts - V * j / parts));
            }
            assert_int_equal(tr_sampler_id(up), whole);
            assert_int_equal(tr_sampler_id(down), whole);
        }
        if (p.temperature > 0) {
            p.top_k = V;
            p.top_p = 0.9999999f;
            assert_false(tr_sampler_splits(&p));
            p.top_p = 1;
            assert_int_equal(draw(&p, x, V), whole);
        }
    }
}

/* The filter of the scan never passes over the winner: the full Gumbel-max with libm gives the same token. */
static void exact(void **state) {
    (void)state;
    float x[V];
    for (uint64_t seed = 0; seed < 200; seed++) {
        random_row(x, V, seed, 3);
        tr_sampler_params p = {.temperature = 1, .top_p = 1, .seed = seed, .sample = 2, .position = 5};
        uint64_t key = tr_rng_hash(tr_rng_hash(tr_rng_mix(seed), 2), 5);
        double best = -1e9;
        uint32_t id = 0;
        for (uint32_t i = 0; i < V; i++) {
            double u = ((double)(tr_rng_hash(key, i) >> 12) + 0.5) * 0x1.0p-52, s = (double)x[i] - log(-log(u));
            if (s > best) best = s, id = i;
        }
        tr_sampler_best got = tr_sampler_scan(&p, x, 0, V);
        assert_int_equal(got.id, id);
        assert_true(fabs(got.score - best) < 1e-12 * (1 + fabs(best)));
    }
}

static void bad_rows(void **state) {
    (void)state;
    static const tr_sampler_params how[] = {{.temperature = 0, .top_p = 1},
                                            {.temperature = 1, .top_p = 1},
                                            {.temperature = 1, .top_p = 0.9f},
                                            {.temperature = 1, .top_p = 0.9f, .top_k = 3},
                                            {.temperature = 1, .top_p = 1, .top_k = 3},
                                            {.temperature = 1, .top_p = 1, .min_p = 0.1f}};
    float x[64];
    for (size_t k = 0; k < sizeof how / sizeof *how; k++) {
        for (int i = 0; i < 64; i++) x[i] = NAN;
        assert_int_equal(draw(&how[k], x, 64), 0);
        x[17] = 2; /* all that is a number */
        assert_int_equal(draw(&how[k], x, 64), 17);
        for (int i = 0; i < 64; i++) x[i] = -INFINITY;
        assert_int_equal(draw(&how[k], x, 64), 0);
        x[23] = -1e30f;
        assert_int_equal(draw(&how[k], x, 64), 23);
        for (int i = 0; i < 64; i++) x[i] = (float)i;
        x[5] = INFINITY;
        assert_int_equal(draw(&how[k], x, 64), 5);
        x[0] = 1;
        assert_int_equal(draw(&how[k], x, 1), 0);
    }
}

/* ---- against transformers, vLLM and torch ---- */

static uint32_t numbers(const json_t *row, const char *name, float *out) {
    const json_t *list = json_object_get(row, name);
    for (size_t i = 0; i < json_array_size(list); i++) out[i] = (float)json_number_value(json_array_get(list, i));
    return (uint32_t)json_array_size(list);
}

static float value(const json_t *row, const char *name) { return (float)json_number_value(json_object_get(row, name)); }

static bool near(float a, float b, float most) { return fabsf(a - b) <= most * (1 + fabsf(b)); }

/* Every token that has a chance comes, and no other. */
static void draws_of(const json_t *row, const float *x, uint32_t vocab) {
    float want[V];
    bool seen[V] = {0};
    numbers(row, "probabilities", want);
    tr_sampler_params p = {.temperature = value(row, "temperature"),
                           .top_p = value(row, "top_p"),
                           .min_p = value(row, "min_p"),
                           .top_k = (uint32_t)value(row, "top_k"),
                           .seed = 11};
    for (p.position = 0; p.position < 2000; p.position++) seen[draw(&p, x, vocab)] = true;
    for (uint32_t i = 0; i < vocab; i++) {
        if (seen[i] && want[i] == 0) fail_msg("id %u is drawn, and should never be", i);
        if (!seen[i] && want[i] > 0.02f) fail_msg("id %u of probability %g is never drawn", i, (double)want[i]);
    }
}

static void golden_row(const json_t *row) {
    float logits[V], edited[V], want[V], list[V], bias[V], logprobs[V];
    uint32_t tokens[V], bias_id[V], ids[1 + TR_SAMPLER_TOP_MAX];
    const uint32_t vocab = numbers(row, "logits", logits), n_prompt = numbers(row, "prompt", list);
    for (uint32_t i = 0; i < n_prompt; i++) tokens[i] = (uint32_t)list[i];
    const uint32_t n = n_prompt + numbers(row, "output", list);
    for (uint32_t i = n_prompt; i < n; i++) tokens[i] = (uint32_t)list[i - n_prompt];
    const json_t *pairs = json_object_get(row, "bias");
    for (size_t i = 0; i < json_array_size(pairs); i++) {
        bias_id[i] = (uint32_t)json_integer_value(json_array_get(json_array_get(pairs, i), 0));
        bias[i] = (float)json_number_value(json_array_get(json_array_get(pairs, i), 1));
    }
    numbers(row, "edited", want);
    for (uint32_t cut = 0; cut <= n; cut++) { /* the two pieces of the tokens may part anywhere */
        tr_sampler_edit e = {.bias_id = bias_id,
                             .bias = bias,
                             .n_bias = (uint32_t)json_array_size(pairs),
                             .repetition = value(row, "repetition"),
                             .frequency = value(row, "frequency"),
                             .presence = value(row, "presence"),
                             .tokens = {tokens, tokens + cut},
                             .n_tokens = {cut, n - cut},
                             .n_prompt = n_prompt};
        memcpy(edited, logits, vocab * sizeof *edited);
        tr_sampler_edit_row(&e, edited, vocab, (uint32_t *)(void *)scratch);
        for (uint32_t i = 0; i < vocab; i++)
            if (!near(edited[i], want[i], 2e-6f)) fail_msg("id %u: %g, not %g", i, (double)edited[i], (double)want[i]);
    }
    draws_of(row, edited, vocab);
    numbers(row, "logprobs", want);
    float top[1 + TR_SAMPLER_TOP_MAX];
    for (uint32_t id = 0; id < vocab; id++) {
        tr_sampler_logprobs(logits, vocab, id, TR_SAMPLER_TOP_MAX, ids, top);
        logprobs[id] = top[0];
        assert_int_equal(ids[0], id);
        if (!near(top[0], want[id], 1e-6f)) fail_msg("id %u: %g, not %g", id, (double)top[0], (double)want[id]);
    }
    for (uint32_t k = 1; k <= TR_SAMPLER_TOP_MAX; k++) {
        assert_true(top[k] == logprobs[ids[k]] && (k == 1 || top[k] <= top[k - 1]));
        uint32_t above = 0;
        for (uint32_t i = 0; i < vocab; i++) above += want[i] > want[ids[k]];
        assert_int_equal(above, k - 1);
    }
}

static void golden(void **state) {
    (void)state;
    json_t *file = json_load_file("tests/golden/sampling.json", 0, NULL), *row;
    size_t i;
    assert_true(json_array_size(json_object_get(file, "rows")) >= 40);
    json_array_foreach(json_object_get(file, "rows"), i, row) golden_row(row);
    json_decref(file);
}

static void edits_of_nothing(void **state) {
    (void)state;
    float x[16], same[16], top[4];
    uint32_t ids[4];
    const uint32_t banned[] = {3, 99}, tokens[] = {7, 99, 7};
    random_row(x, 16, 1, 3);
    memcpy(same, x, sizeof x);
    tr_sampler_edit e = {.repetition = 1, .tokens = {tokens, NULL}, .n_tokens = {3, 0}};
    tr_sampler_edit_row(&e, x, 16, (uint32_t *)(void *)scratch);
    assert_memory_equal(x, same, sizeof x);
    e.banned = banned, e.n_banned = 2, e.frequency = 0.5f, e.bias_id = banned, e.bias = same, e.n_bias = 2;
    tr_sampler_edit_row(&e, x, 16, (uint32_t *)(void *)scratch);
    assert_true(x[3] == -INFINITY && x[7] == same[7] - 1);
    tr_sampler_logprobs(x, 2, 3, 3, ids, top); /* of two ids, of which the one that is asked for is none */
    assert_true(top[0] == TR_SAMPLER_LOGPROB_LEAST && ids[3] == 3 && top[3] == TR_SAMPLER_LOGPROB_LEAST);
    assert_true(fabs(exp((double)top[1]) + exp((double)top[2]) - 1) < 1e-6);
    for (int i = 0; i < 16; i++) x[i] = NAN;
    tr_sampler_logprobs(x, 16, 5, 1, ids, top);
    assert_true(ids[1] == 5 && top[1] == TR_SAMPLER_LOGPROB_LEAST);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy), cmocka_unit_test(follows_softmax), cmocka_unit_test(stays_in_the_nucleus),
        cmocka_unit_test(splits), cmocka_unit_test(exact),           cmocka_unit_test(bad_rows),
        cmocka_unit_test(golden), cmocka_unit_test(edits_of_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
