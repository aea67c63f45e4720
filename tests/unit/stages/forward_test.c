/* The forward passes against transformers on tiny models, and "same numbers": logits and KV do not depend on the
 * instruction set, the number of workers or tensor parallel ranks, where the pipeline is cut, the chunk, the page size,
 * where pages lie, or what else is in the micro-batch. Every comparison but the first is bit for bit. */
#include "model/sampler.h"
#include "stages/page_copy.h"
#include "tests/unit/stages/reference.h"
#include "tests/unit/stages/rig.h"

/* Allocations of this process, to see that a step makes none. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)
#define COUNT_MALLOC 1
#include <stdatomic.h>
static _Atomic uint64_t n_mallocs;
void *__libc_malloc(size_t n);
void *malloc(size_t n) {
    n_mallocs++;
    return __libc_malloc(n);
}
#endif

enum { N = 96, CONTEXT = 128 };

typedef struct model {
    const char *name;
    reference ref;
    tr_image *image[TR_PRECISION_END]; /* index: precision; INT8A16 runs on that of INT8 */
} model;
static model models[2] = {{.name = "tests/golden/tiny/gemma3"}, {.name = "tests/golden/tiny/llama"}};

/* Every block type, tensors of mixed types; no reference but itself. */
static model blocks = {.name = "tests/golden/tiny/blocks"};

static int open_models(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s.gguf", models[i].name);
        if (!reference_open(&models[i].ref, models[i].name, ".logits.npy") || models[i].ref.n != N) return -1;
        for (unsigned p = 1; p < TR_PRECISION_END; p++)
            if (tr_precision_image((tr_precision)p) == p) models[i].image[p] = rig_image(path, (tr_precision)p);
    }
    blocks.ref = models[0].ref; /* the vocabulary is the same; any ids will do */
    blocks.image[TR_PRECISION_BF16] = rig_image("tests/golden/tiny/blocks.gguf", TR_PRECISION_BF16);
    blocks.image[TR_PRECISION_NATIVE] = rig_image("tests/golden/tiny/blocks.gguf", TR_PRECISION_NATIVE);
    return 0;
}
static int close_models(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        reference_close(&models[i].ref);
        for (int p = 0; p < TR_PRECISION_END; p++) tr_image_close(&models[i].image[p]);
    }
    tr_image_close(&blocks.image[TR_PRECISION_BF16]);
    tr_image_close(&blocks.image[TR_PRECISION_NATIVE]);
    return 0;
}

static tr_kv_format kv_of(tr_precision p) { return p == TR_PRECISION_BF16 ? TR_KV_BF16 : TR_KV_INT8; }

static rig_config plain(const model *m, tr_precision precision, tr_kv_format kv) {
    return (rig_config){.image = m->image[tr_precision_image(precision)],
                        .precision = precision,
                        .kv = kv,
                        .page_tok = 16,
                        .workers = 1,
                        .max_rows = N,
                        .n_slots = 8,
                        .context = CONTEXT,
                        .seed = 1};
}

static float *logits_of(const model *m, const rig_config *c, uint32_t chunk) {
    rig r;
    float *out = malloc((size_t)N * m->ref.vocab * sizeof *out);
    rig_init(&r, c);
    rig_logits(&r, 3, m->ref.ids, N, chunk, out);
    rig_fini(&r);
    return out;
}

/* ---- equal to the reference ---- */

static distance measure(const model *m, const rig_config *c) {
    distance d = {0};
    float *got = logits_of(m, c, N);
    for (uint32_t i = 0; i < N; i++)
        distance_add(&d, m->ref.logits + (size_t)i * m->ref.vocab, got + (size_t)i * m->ref.vocab, m->ref.vocab);
    free(got);
    return d;
}

/* Weights are bf16-exact, so what is rounded is K, V and the inputs of matmuls (static: by steps of no calibration). A
 * wrong window, base, norm or permutation costs 0.01 or more (tests/tools/export_tiny_models.py checks that). */
static void equals_reference(void **state) {
    (void)state;
    static const struct {
        tr_precision precision;
        tr_kv_format kv;
        double kl;
    } want[] = {{TR_PRECISION_BF16, TR_KV_BF16, 5e-4},
                {TR_PRECISION_BF16, TR_KV_INT8, 2e-3},
                {TR_PRECISION_BF16, TR_KV_INT8_STATIC, 5e-3},
                {TR_PRECISION_INT8, TR_KV_BF16, 9e-3},
                {TR_PRECISION_INT8, TR_KV_INT8, 9e-3},
                {TR_PRECISION_INT8A16, TR_KV_BF16, 6e-3},
                {TR_PRECISION_NATIVE, TR_KV_BF16, 5e-4},
                {TR_PRECISION_INT4, TR_KV_BF16, 1},
                {TR_PRECISION_NF4, TR_KV_BF16, 1}};
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; j < sizeof want / sizeof *want; j++) {
            rig_config c = plain(&models[i], want[j].precision, want[j].kv);
            distance d = measure(&models[i], &c);
            print_message("%s %s kv %s: mean KL %.2g, worst %.2g, largest difference %.2g, same top %d of %d\n",
                          models[i].name, tr_precision_name(want[j].precision), tr_kv_format_name(want[j].kv), d.kl / N,
                          d.kl_max, d.diff_max, (int)d.same_top, N);
            assert_true(d.kl / N < want[j].kl);
        }
}

/* The file's own blocks give nearly the logits of the same weights in bf16: only activations are rounded. */
static void native_equals_bf16(void **state) {
    (void)state;
    distance d = {0};
    rig_config a = plain(&blocks, TR_PRECISION_BF16, TR_KV_BF16), b = plain(&blocks, TR_PRECISION_NATIVE, TR_KV_BF16);
    float *want = logits_of(&blocks, &a, N), *got = logits_of(&blocks, &b, N);
    const uint32_t vocab = blocks.ref.vocab;
    for (uint32_t i = 0; i < N; i++) distance_add(&d, want + (size_t)i * vocab, got + (size_t)i * vocab, vocab);
    print_message("native against bf16: mean KL %.2g, worst %.2g, same top %d of %d\n", d.kl / N, d.kl_max,
                  (int)d.same_top, N);
    assert_true(d.kl / N < 1e-3);
    free(want), free(got);
}

/* ---- same numbers ---- */

static void same(const model *m, const float *want, const rig_config *c, uint32_t chunk, const char *what) {
    float *got = logits_of(m, c, chunk);
    for (size_t i = 0; i < (size_t)N * m->ref.vocab; i++)
        if (memcmp(&want[i], &got[i], 4) != 0)
            fail_msg("%s, %s, kv %s: logit %zu of position %zu is %a, not %a", m->name, what, tr_kv_format_name(c->kv),
                     i % m->ref.vocab, i / m->ref.vocab, (double)got[i], (double)want[i]);
    free(got);
}

static void vary(const model *m, tr_precision precision, tr_kv_format kv) {
    const uint32_t n_layers = tr_image_config(m->image[TR_PRECISION_BF16])->n_layers;
    rig_config base = plain(m, precision, kv), c;
    base.ops = "ref";
    float *want = logits_of(m, &base, N);
    for (const tr_ops *const *ops = tr_ops_available(); *ops; ops++) {
        c = base, c.ops = (*ops)->name;
        same(m, want, &c, N, c.ops);
    }
    base.ops = NULL;
    for (uint32_t workers = 2; workers <= 5; workers++) {
        c = base, c.workers = workers;
        same(m, want, &c, N, "workers");
        same(m, want, &c, 1, "workers, row by row");
    }
    for (uint32_t tp = 2; tp <= 3; tp++) {
        c = base, c.tp = tp, c.workers = 4 - tp;
        same(m, want, &c, N, "ranks");                 /* TAKEN, and logits by SHARED */
        same(m, want, &c, 11, "ranks, shared chunks"); /* SHARED */
        same(m, want, &c, 1, "ranks, row by row");     /* NARROW */
    }
    static const uint32_t chunks[] = {1, 2, 3, 7, 16, 31, 48, 95};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) same(m, want, &base, chunks[i], "chunk");
    for (uint32_t page = 32; page <= 64; page *= 2) {
        c = base, c.page_tok = page, c.seed = page;
        same(m, want, &c, 17, "page");
    }
    c = base, c.n_stages = 2, c.cuts[1] = 1, c.cuts[2] = n_layers, c.workers = 2;
    same(m, want, &c, 20, "pp=2");
    if (n_layers >= 3) {
        c.n_stages = 3, c.cuts[1] = n_layers - 2, c.cuts[2] = n_layers - 1, c.cuts[3] = n_layers;
        same(m, want, &c, 33, "pp=3");
    }
    free(want);
}

static void same_numbers_bf16(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        vary(&models[i], TR_PRECISION_BF16, TR_KV_BF16), vary(&models[i], TR_PRECISION_BF16, TR_KV_INT8);
}
static void same_numbers_kv(void **state) {
    (void)state;
    for (int f = TR_KV_INT8 + 1; f < TR_KV_FORMAT_END; f++) vary(&models[f % 2], TR_PRECISION_BF16, (tr_kv_format)f);
}
static void same_numbers_int8(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        vary(&models[i], TR_PRECISION_INT8, TR_KV_INT8), vary(&models[i], TR_PRECISION_INT8, TR_KV_BF16);
}
static void same_numbers_others(void **state) {
    (void)state;
    vary(&blocks, TR_PRECISION_NATIVE, TR_KV_INT8);
    for (unsigned p = TR_PRECISION_INT8A16; p < TR_PRECISION_END; p++)
        if (p != TR_PRECISION_NATIVE) vary(&models[p % 2], (tr_precision)p, TR_KV_INT8);
}

/* Eight sequences at different positions and lengths in one micro-batch: each has the logits that it has alone. */
static void batch_of(const model *m, tr_precision precision, uint32_t workers) {
    rig_config c = plain(m, precision, kv_of(precision));
    c.workers = workers, c.max_rows = 8 * N;
    const uint32_t vocab = m->ref.vocab;
    float *want = logits_of(m, &c, N);
    rig r;
    rig_init(&r, &c);
    uint32_t done[8] = {0}, tokens[8 * N];
    tr_rng rng = {workers};
    for (int step = 0; step < 12; step++) {
        tr_span spans[8];
        uint32_t rows = 0, n = 0;
        for (uint32_t i = 0; i < 8; i++) {
            uint32_t slot = (i * 5 + (uint32_t)step) % 8, left = N - done[slot];
            uint32_t take = (uint32_t)tr_rng_below(&rng, step % 3 ? 3 : 25);
            if (take > left) take = left;
            if (take == 0) continue;
            memcpy(tokens + rows, m->ref.ids + done[slot], take * sizeof *tokens);
            spans[n++] = (tr_span){.slot = slot,
                                   .pos0 = done[slot],
                                   .rows = take,
                                   .row0 = rows,
                                   .flags = i % 2 ? TR_SPAN_LOGITS : TR_SPAN_SAMPLE,
                                   .sampling = rig_greedy};
            rows += take;
        }
        if (n == 0) continue;
        rig_run(&r, &(tr_micro_batch){.n_rows = rows, .n_spans = n, .spans = spans, .tokens = tokens});
        size_t at = 0;
        for (uint32_t i = 0; i < n; i++) {
            const tr_span *s = &spans[i];
            done[s->slot] += s->rows;
            uint32_t from = s->flags == TR_SPAN_SAMPLE ? s->rows - 1 : 0;
            for (uint32_t k = from; k < s->rows; k++, at++)
                assert_memory_equal(r.logits + at * rig_stride(&r), want + (size_t)(s->pos0 + k) * vocab, vocab * 4);
            if (s->flags != TR_SPAN_SAMPLE) continue;
            const float *row = want + (size_t)(s->pos0 + s->rows - 1) * vocab;
            uint32_t top = 0;
            for (uint32_t v = 1; v < vocab; v++)
                if (row[v] > row[top]) top = v;
            assert_int_equal(r.sampled[i], top);
        }
    }
    rig_fini(&r);
    free(want);
}
static void batches(void **state) {
    (void)state;
    batch_of(&blocks, TR_PRECISION_NATIVE, 2);
    for (int i = 0; i < 2; i++)
        for (uint32_t workers = 1; workers <= 3; workers++)
            for (unsigned p = 1; p < TR_PRECISION_END; p++)
                if (p <= TR_PRECISION_INT8 || (int)(workers % 2) == i) batch_of(&models[i], (tr_precision)p, workers);
}

/* Sequences of several splits, one row each in a step, on several workers: each has the logits that its rows have
 * together, alone on one worker. */
enum { LONG = 1600, LAST = 4 };

static void long_of(const model *m, int precision, tr_kv_format kv, uint32_t workers) {
    static const uint32_t length[] = {30, LONG, 700}; /* slot 1 is long, the others end earlier */
    rig_config c = plain(m, precision, kv);
    c.context = LONG, c.max_rows = 200, c.workers = 1;
    rig one, many;
    rig_init(&one, &c);
    c.workers = workers, c.seed = 2, c.tp = workers == 2 ? 2 : 1;
    rig_init(&many, &c);
    uint32_t ids[LONG];
    for (uint32_t i = 0; i < LONG; i++) ids[i] = m->ref.ids[i * 7 % N];
    const size_t row = rig_stride(&one);
    float *want = malloc(3 * LAST * row * sizeof *want);
    for (uint32_t slot = 0; slot < 3; slot++) {
        const uint32_t end = length[slot];
        for (uint32_t pos = 0, n; pos < end - LAST; pos += n) {
            n = end - LAST - pos < 200 ? end - LAST - pos : 200;
            rig_rows(&one, slot, ids, pos, n, 0);
            rig_rows(&many, slot, ids, pos, n, 0);
        }
        rig_rows(&one, slot, ids, end - LAST, LAST, TR_SPAN_LOGITS);
        memcpy(want + slot * LAST * row, one.logits, LAST * row * sizeof *want);
    }
    for (uint32_t i = 0; i < LAST; i++) {
        tr_span s[3];
        uint32_t tokens[3];
        for (uint32_t slot = 0; slot < 3; slot++) {
            const uint32_t pos = length[slot] - LAST + i;
            tokens[slot] = ids[pos];
            s[slot] = (tr_span){
                .slot = slot, .pos0 = pos, .rows = 1, .row0 = slot, .flags = TR_SPAN_LOGITS, .sampling = rig_greedy};
        }
        rig_run(&many, &(tr_micro_batch){.n_rows = 3, .n_spans = 3, .spans = s, .tokens = tokens});
        for (uint32_t slot = 0; slot < 3; slot++)
            assert_memory_equal(many.logits + slot * row, want + (slot * LAST + i) * row, m->ref.vocab * 4);
    }
    free(want);
    rig_fini(&one), rig_fini(&many);
}
static void long_sequences(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (uint32_t workers = 1; workers <= 5; workers += 2) {
            long_of(&models[i], TR_PRECISION_BF16, TR_KV_BF16, workers);
            long_of(&models[i], TR_PRECISION_INT8, TR_KV_INT8, workers + 1);
            long_of(&models[i], TR_PRECISION_INT8, TR_KV_INT8_STATIC, workers + 1);
        }
}

/* A step run twice leaves the same bytes everywhere. */
static void idempotent(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (unsigned p = 1; p < TR_PRECISION_END; p++) {
            rig_config c = plain(&models[i], (tr_precision)p, kv_of((tr_precision)p));
            rig r;
            rig_init(&r, &c);
            rig_rows(&r, 2, models[i].ref.ids, 0, 40, 0);
            assert_null(r.logits); /* nobody asked */
            rig_rows(&r, 2, models[i].ref.ids, 40, 9, TR_SPAN_LOGITS);
            size_t bytes = (size_t)9 * rig_stride(&r) * sizeof(float);
            float *logits = malloc(bytes);
            uint8_t *pool = malloc(r.layout.pool_bytes);
            memcpy(logits, r.logits, bytes);
            memcpy(pool, r.pool, r.layout.pool_bytes);
            rig_rows(&r, 2, models[i].ref.ids, 40, 9, TR_SPAN_LOGITS);
            assert_memory_equal(logits, r.logits, bytes);
            assert_memory_equal(pool, r.pool, r.layout.pool_bytes);
            free(logits), free(pool);
            rig_fini(&r);
        }
}

/* Tempered draws do not depend on workers, ranks or on the batch either. */
static void draws(void **state) {
    (void)state;
    static const tr_sampling how[] = {{.temperature = 0.8f, .top_p = 1, .seed = 5},
                                      {.temperature = 1.3f, .top_p = 0.7f, .seed = 6},
                                      {.temperature = 2, .top_p = 0.9f, .top_k = 20, .sample = 3, .seed = 5}};
    for (int i = 0; i < 2; i++) {
        uint32_t drawn[4][3 * 40];
        for (uint32_t workers = 1; workers <= 4; workers++) {
            rig_config c = plain(&models[i], TR_PRECISION_INT8, TR_KV_INT8);
            c.workers = workers < 4 ? workers : 2;
            c.tp = workers < 4 ? 1 : 2;
            rig r;
            rig_init(&r, &c);
            rig_rows(&r, 0, models[i].ref.ids, 0, 10, 0);
            rig_rows(&r, 1, models[i].ref.ids, 0, 10, 0);
            rig_rows(&r, 2, models[i].ref.ids, 0, 10, 0);
            for (uint32_t t = 0; t < 40; t++) {
                uint32_t tokens[3];
                tr_span s[3];
                for (uint32_t k = 0; k < 3; k++) {
                    tokens[k] = models[i].ref.ids[10 + t];
                    s[k] = (tr_span){
                        .slot = k, .pos0 = 10 + t, .rows = 1, .row0 = k, .flags = TR_SPAN_SAMPLE, .sampling = how[k]};
                }
                rig_run(&r, &(tr_micro_batch){.n_rows = 3, .n_spans = 3, .spans = s, .tokens = tokens});
                memcpy(&drawn[workers - 1][3 * t], r.sampled, sizeof tokens);
            }
            rig_fini(&r);
            assert_memory_equal(drawn[0], drawn[workers - 1], sizeof drawn[0]);
        }
        uint32_t distinct = 0;
        for (uint32_t t = 1; t < 40; t++) distinct += drawn[0][3 * t] != drawn[0][3 * t - 3];
        assert_true(distinct > 20);
    }
}

/* Several tokens of one row are those that as many sequences with the same tokens draw, each with its own index. */
static void draws_of_one_row(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (uint32_t workers = 1; workers <= 3; workers++)
            for (int how = 0; how < 2; how++) { /* with top-k, without: both ways through the head */
                rig_config c = plain(&models[i], TR_PRECISION_INT8, TR_KV_INT8);
                c.workers = workers;
                rig r;
                rig_init(&r, &c);
                tr_sampling p = {.temperature = 2, .top_p = 1, .top_k = how ? 30 : 0, .seed = 9};
                uint32_t want[5], tokens[12];
                for (uint32_t k = 0; k < 5; k++) {
                    p.sample = k;
                    tr_span s = {.slot = k, .rows = 11, .flags = TR_SPAN_SAMPLE, .sampling = p};
                    rig_run(&r,
                            &(tr_micro_batch){.n_rows = 11, .n_spans = 1, .spans = &s, .tokens = models[i].ref.ids});
                    want[k] = r.sampled[0];
                }
                memcpy(tokens, models[i].ref.ids, 11 * sizeof *tokens);
                tokens[11] = models[i].ref.ids[0];
                tr_span s[2] = {{.slot = 6, .rows = 11, .flags = TR_SPAN_SAMPLE, .sampling = p},
                                {.slot = 7, .rows = 1, .row0 = 11, .flags = TR_SPAN_SAMPLE, .sampling = p}};
                s[0].sampling.sample = 1;
                s[0].sampling.draws = 4;
                rig_run(&r, &(tr_micro_batch){.n_rows = 12, .n_spans = 2, .spans = s, .tokens = tokens});
                assert_memory_equal(r.sampled, want + 1, 4 * sizeof *want);
                uint32_t behind = r.sampled[4]; /* what the next span draws comes behind them */
                s[1].row0 = 0;
                rig_run(&r, &(tr_micro_batch){.n_rows = 1, .n_spans = 1, .spans = &s[1], .tokens = tokens});
                assert_int_equal(r.sampled[0], behind);
                s[0].sampling.draws = 65;
                assert_int_equal(
                    tr_forward_run(r.stage[0],
                                   &(tr_micro_batch){.n_rows = 11, .n_spans = 1, .spans = s, .tokens = tokens}, r.x[0],
                                   &(tr_forward_output){.sampled = r.sampled}),
                    TR_INVALID);
                rig_fini(&r);
            }
}

/* Edited rows, log-probabilities and hidden states beside plain spans in one step, whoever computes it: what the
 * sampler makes of the same logits; a hidden state is what the head makes those logits of. */
static void whole_rows(void **state) {
    (void)state;
    enum { ROWS = 9, TOP = 5 };
    for (int i = 0; i < 2; i++)
        for (uint32_t workers = 1; workers <= 3; workers++)
            for (uint32_t tp = 1; tp <= (workers > 1 ? 2u : 1u); tp++) {
                rig_config c = plain(&models[i], TR_PRECISION_INT8, TR_KV_INT8);
                c.workers = workers;
                c.tp = tp;
                rig r;
                rig_init(&r, &c);
                const uint32_t *ids = models[i].ref.ids, vocab = models[i].ref.vocab, hidden = r.model->hidden;
                float *logits = malloc(vocab * sizeof *logits), *state_of[2];
                const uint32_t bias_id[] = {ids[0], 1};
                const float bias[] = {2, -100};
                tr_sampler_edit edit = {.bias_id = bias_id,
                                        .bias = bias,
                                        .n_bias = 2,
                                        .repetition = 1.5f,
                                        .tokens = {ids, ids + 4},
                                        .n_tokens = {4, ROWS - 4},
                                        .n_prompt = 5,
                                        .frequency = 1};
                uint32_t tokens[3 * ROWS];
                for (uint32_t k = 0; k < 3; k++) memcpy(tokens + k * ROWS, ids, ROWS * sizeof *tokens);
                tr_span s[3];
                for (uint32_t k = 0; k < 3; k++)
                    s[k] = (tr_span){.slot = k,
                                     .rows = ROWS,
                                     .row0 = k * ROWS,
                                     .flags = TR_SPAN_SAMPLE,
                                     .sampling = {.temperature = 1, .top_p = 1, .seed = 4}};
                rig_rows(&r, 5, ids, 0, ROWS, TR_SPAN_LOGITS);
                memcpy(logits, r.logits + (ROWS - 1) * rig_stride(&r), vocab * sizeof *logits);
                void *scratch = malloc(tr_sampler_scratch_bytes(vocab));
                tr_sampler_params p = {.temperature = 1, .top_p = 1, .seed = 4, .position = ROWS - 1};
                const uint32_t plain_id = tr_sampler_draw(&p, logits, vocab, scratch);
                uint32_t want_ids[1 + TOP];
                float want[1 + TOP];
                s[0].sampling.edit = &edit;
                s[1].sampling.logprobs = 1 + TOP;
                s[1].sampling.draws = 2;
                rig_run(&r, &(tr_micro_batch){.n_rows = 3 * ROWS, .n_spans = 3, .spans = s, .tokens = tokens});
                assert_true(r.sampled[1] == plain_id && r.sampled[3] == plain_id);
                tr_sampler_logprobs(logits, vocab, plain_id, TOP, want_ids, want);
                assert_memory_equal(r.logprob_ids, want_ids, sizeof want_ids);
                assert_memory_equal(r.logprobs, want, sizeof want);
                assert_int_equal(r.logprob_ids[1 + TOP], r.sampled[2]); /* of the second draw */
                tr_sampler_edit_row(&edit, logits, vocab, scratch);
                assert_int_equal(r.sampled[0], tr_sampler_draw(&p, logits, vocab, scratch));
                for (uint32_t k = 0; k < 2; k++) { /* alone, and beside logits and tokens */
                    s[1] = (tr_span){
                        .slot = 1, .rows = ROWS, .row0 = k * ROWS, .flags = TR_SPAN_HIDDEN, .sampling = rig_greedy};
                    s[0].flags = TR_SPAN_LOGITS | TR_SPAN_SAMPLE;
                    rig_run(&r, k ? &(tr_micro_batch){.n_rows = 2 * ROWS, .n_spans = 2, .spans = s, .tokens = tokens}
                                  : &(tr_micro_batch){.n_rows = ROWS, .n_spans = 1, .spans = s + 1, .tokens = tokens});
                    state_of[k] = malloc(ROWS * hidden * sizeof(float));
                    for (uint32_t row = 0; row < ROWS; row++)
                        memcpy(state_of[k] + row * hidden, r.logits + (size_t)(k * ROWS + row) * rig_stride(&r),
                               hidden * sizeof(float));
                }
                assert_memory_equal(state_of[0], state_of[1], ROWS * hidden * sizeof(float));
                rig_rows(&r, 2, ids, 0, 1, TR_SPAN_HIDDEN); /* NARROW */
                assert_memory_equal(state_of[0], r.logits, hidden * sizeof(float));
                free(state_of[0]), free(state_of[1]), free(scratch), free(logits);
                rig_fini(&r);
            }
}

/* A sequence that shares the full pages of another one and gets a copy of its last page goes on as that one does, and
 * neither is seen by the other. */
static void forked_page(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int kv = 0; kv < 2; kv++) {
            rig_config c = plain(&models[i], TR_PRECISION_INT8, kv ? TR_KV_INT8 : TR_KV_BF16);
            const uint32_t *ids = models[i].ref.ids, vocab = models[i].ref.vocab;
            float *want = logits_of(&models[i], &c, N);
            rig r;
            rig_init(&r, &c);
            rig_rows(&r, 0, ids, 0, 40, 0);
            uint32_t copies[TR_KV_GROUPS_MAX * 3], n = 0;
            for (uint32_t g = 0; g < r.layout.n_groups; g++) {
                for (uint32_t page = 0; page < 2; page++)
                    r.table[tr_kv_layout_entry(&r.layout, 1, g, page)] =
                        r.table[tr_kv_layout_entry(&r.layout, 0, g, page)];
                copies[n++] = g;
                copies[n++] = r.table[tr_kv_layout_entry(&r.layout, 0, g, 2)];
                copies[n++] = r.table[tr_kv_layout_entry(&r.layout, 1, g, 2)];
            }
            const uint32_t other[] = {ids[1], ids[0], ids[3], ids[2]};
            rig_rows(&r, 0, other - 40, 40, 4, 0); /* the first one has gone on already, in the same page */
            const tr_kv_memory memory = {.layout = &r.layout, .pool = r.pool, .table = r.table};
            assert_int_equal(tr_page_copy_run(&memory, 0, r.model->n_layers, copies, n), TR_OK);
            for (uint32_t pos = 40; pos < 60; pos++) {
                rig_rows(&r, 1, ids, pos, 1, TR_SPAN_LOGITS);
                assert_memory_equal(r.logits, want + (size_t)pos * vocab, vocab * sizeof(float));
            }
            assert_int_equal(tr_page_copy_run(&memory, 0, r.model->n_layers, copies, n - 1), TR_INVALID);
            copies[0] = r.layout.n_groups;
            assert_int_equal(tr_page_copy_run(&memory, 0, r.model->n_layers, copies, n), TR_INVALID);
            copies[0] = 0, copies[1] = r.layout.group[0].n_pages;
            assert_int_equal(tr_page_copy_run(&memory, 0, r.model->n_layers, copies, n), TR_INVALID);
            rig_fini(&r);
            free(want);
        }
}

static void no_heap_in_a_step(void **state) {
    (void)state;
#ifdef COUNT_MALLOC
    for (unsigned p = 1; p < TR_PRECISION_END; p++) {
        const int i = p % 2;
        rig_config c = plain(&models[i], (tr_precision)p, kv_of((tr_precision)p));
        c.workers = 2;
        rig r;
        rig_init(&r, &c);
        const tr_sampling how[] = {rig_greedy, {.temperature = 1, .top_p = 0.9f, .top_k = 50}};
        free(malloc(1));
        uint64_t before = n_mallocs;
        for (uint32_t pos = 0; pos < 60; pos += 30)
            for (int h = 0; h < 2; h++) {
                tr_span s = {
                    .slot = 1, .pos0 = pos, .rows = 30, .flags = TR_SPAN_SAMPLE | TR_SPAN_LOGITS, .sampling = how[h]};
                rig_run(&r, &(tr_micro_batch){.n_rows = 30, .n_spans = 1, .spans = &s, .tokens = models[i].ref.ids});
            }
        assert_true(before > 0);
        assert_int_equal(n_mallocs, before);
        rig_fini(&r);
    }
#else
    skip();
#endif
}

/* ---- refusals: nothing is written ---- */

static void refused(void **state) {
    (void)state;
    const model *m = &models[0];
    rig_config c = plain(m, TR_PRECISION_BF16, TR_KV_BF16);
    c.max_rows = 32;
    rig r;
    rig_init(&r, &c);
    uint8_t *before = malloc(r.layout.pool_bytes);
    memcpy(before, r.pool, r.layout.pool_bytes);
    tr_span good = {.slot = 1, .pos0 = 0, .rows = 4, .flags = TR_SPAN_SAMPLE, .sampling = rig_greedy};
    uint32_t tokens[64] = {1, 2, 3, 4};
    enum { CASES = 15 };
    for (int k = 0; k < CASES; k++) {
        tr_span s[2] = {good, good};
        s[1].slot = 2, s[1].row0 = 4;
        tr_micro_batch b = {.n_rows = 8, .n_spans = 2, .spans = s, .tokens = tokens};
        uint32_t *entry = &r.table[tr_kv_layout_entry(&r.layout, 1, k == 13, 0)], page = *entry;
        uint32_t token = tokens[7];
        switch (k) {
        case 0: s[1].slot = r.layout.n_slots; break;
        case 1: s[1].rows = 0; break;
        case 2: s[1].row0 = 5; break;
        case 3: b.n_rows = 7; break;
        case 4: b.n_rows = 0, b.n_spans = 0; break;
        case 5: s[1].pos0 = CONTEXT - 3; break;
        case 6: s[1].pos0 = UINT32_MAX - 1; break;
        case 7: s[1].rows = UINT32_MAX - 3; break;
        case 8: tokens[7] = m->ref.vocab; break;
        case 9: s[1].slot = 1; break; /* twice in one step */
        case 10: s[1].sampling.temperature = NAN; break;
        case 11: s[1].sampling.top_p = 0; break;
        case 12: *entry = TR_KV_NO_PAGE; break;
        case 13: *entry = r.layout.group[1].n_pages; break;
        case 14: b.n_spans = 65; break;
        }
        tr_forward_output out = {.sampled = r.sampled};
        if (tr_forward_run(r.stage[0], &b, r.x[0], &out) != TR_INVALID) fail_msg("case %d was let in", k);
        *entry = page, tokens[7] = token;
    }
    assert_memory_equal(before, r.pool, r.layout.pool_bytes);
    free(before);
    rig_fini(&r);
}

/* Pages behind the window may be gone. */
static void window_pages_freed(void **state) {
    (void)state;
    const model *m = &models[0];
    const uint32_t window = tr_image_config(m->image[TR_PRECISION_BF16])->sliding_window;
    for (unsigned p = 1; p < TR_PRECISION_END; p++) {
        rig_config c = plain(m, (tr_precision)p, kv_of((tr_precision)p));
        float *want = logits_of(m, &c, N);
        rig r;
        rig_init(&r, &c);
        for (uint32_t pos = 0; pos < N; pos++) {
            for (uint32_t page = 0; pos + 1 > window && (page + 1) * 16 <= pos + 1 - window; page++)
                r.table[tr_kv_layout_entry(&r.layout, 3, 1, page)] = TR_KV_NO_PAGE;
            rig_rows(&r, 3, m->ref.ids, pos, 1, TR_SPAN_LOGITS);
            assert_memory_equal(r.logits, want + (size_t)pos * m->ref.vocab, m->ref.vocab * 4);
        }
        rig_fini(&r);
        free(want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_reference),
                                       cmocka_unit_test(native_equals_bf16),
                                       cmocka_unit_test(same_numbers_bf16),
                                       cmocka_unit_test(same_numbers_int8),
                                       cmocka_unit_test(same_numbers_others),
                                       cmocka_unit_test(same_numbers_kv),
                                       cmocka_unit_test(batches),
                                       cmocka_unit_test(idempotent),
                                       cmocka_unit_test(draws),
                                       cmocka_unit_test(draws_of_one_row),
                                       cmocka_unit_test(whole_rows),
                                       cmocka_unit_test(forked_page),
                                       cmocka_unit_test(no_heap_in_a_step),
                                       cmocka_unit_test(refused),
                                       cmocka_unit_test(window_pages_freed),
                                       cmocka_unit_test(long_sequences)};
    return cmocka_run_group_tests(tests, open_models, close_models);
}
