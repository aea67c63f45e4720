/* tests/unit/stages/rig.h - a pipeline of forward passes in one process: packed image in memory, a KV pool with
 * scattered pages, stages cut at given layers, each stage with a residual stream of its own that is handed on by copy.
 * Tensor parallel ranks are teams of this process that meet like processes do. */
#ifndef TR_TEST_RIG_H
#define TR_TEST_RIG_H
#include "base/rng.h"
#include "kv/kv_layout.h"
#include "model/model_file.h"
#include "model/pack.h"
#include "stages/forward.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum { RIG_STAGES_MAX = 8, RIG_RANKS_MAX = 4 };

#define RIG_OK(expr)                                                                                                   \
    do {                                                                                                               \
        tr_error err = {0};                                                                                            \
        tr_status s_ = (expr);                                                                                         \
        if (s_ != TR_OK) fail_msg("%s: %s (%s)", #expr, tr_status_text(s_), err.text);                                 \
    } while (0)

static inline tr_image *rig_image(const char *model, tr_precision precision) {
    tr_model_file *mf = NULL;
    tr_image *image = NULL;
    char path[64];
    int fd = memfd_create("image", MFD_CLOEXEC);
    assert_true(fd >= 0);
    RIG_OK(tr_model_file_open(model, &mf, &err));
    RIG_OK(tr_pack_image(mf, precision, 7, fd, 2, NULL, NULL, &err));
    tr_model_file_close(&mf);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    RIG_OK(tr_image_open(path, &image, &err));
    close(fd);
    return image;
}

typedef struct rig_config {
    const tr_image *image;
    tr_precision precision; /* 0: the image's */
    const char *ops;        /* NULL: best */
    tr_kv_format kv;
    uint32_t page_tok, workers, max_rows, n_slots, context;
    uint32_t cuts[RIG_STAGES_MAX + 1]; /* first layers of the stages, ended by n_layers; all 0: one stage */
    uint32_t n_stages;
    uint32_t tp;   /* ranks with `workers` each; 0: 1 */
    uint64_t seed; /* of the scattering of pages */
} rig_config;

typedef struct rig_rank {
    tr_team *team;
    tr_forward *stage[RIG_STAGES_MAX];
} rig_rank;

typedef struct rig {
    const tr_model_config *model;
    tr_kv_layout layout;
    uint8_t *pool;
    uint32_t *table;
    tr_kv_head *heads; /* of the calibrated formats: the same steps everywhere */
    float *steps;
    tr_team *team;
    tr_team_meeting *meeting;
    uint32_t n_stages, max_rows, tp;
    tr_forward *stage[RIG_STAGES_MAX];
    void *common[RIG_STAGES_MAX];
    rig_rank rank[RIG_RANKS_MAX]; /* from 1 on */
    float *x[RIG_STAGES_MAX];
    uint32_t sampled[64];
    const float *logits, *logprobs;
    const uint32_t *logprob_ids;
    uint64_t kernel_ns;
} rig;

static inline tr_kv_model rig_kv_model(const tr_model_config *m) {
    tr_kv_model k = {
        .n_layers = m->n_layers, .n_kv_heads = m->n_kv_heads, .head_dim = m->head_dim, .window = m->sliding_window};
    memcpy(k.layer_is_global, m->layer_is_global, m->n_layers);
    return k;
}

/* Every slot gets pages for the whole context, in random order. */
static inline void rig_scatter(rig *r, uint64_t seed) {
    tr_rng rng = {seed};
    const tr_kv_layout *l = &r->layout;
    for (uint32_t g = 0; g < l->n_groups; g++) {
        uint32_t n = l->n_slots * l->pages_per_seq, *page = malloc(n * sizeof *page);
        for (uint32_t i = 0; i < n; i++) page[i] = i;
        for (uint32_t i = n; i > 1; i--) {
            uint32_t j = (uint32_t)tr_rng_below(&rng, i), t = page[i - 1];
            page[i - 1] = page[j], page[j] = t;
        }
        for (uint32_t s = 0; s < l->n_slots; s++)
            for (uint32_t i = 0; i < l->pages_per_seq; i++)
                r->table[tr_kv_layout_entry(l, s, g, i)] = page[s * l->pages_per_seq + i];
        free(page);
    }
}

/* 127 steps reach to RIG_RANGE. */
#define RIG_RANGE 6.0f
static inline void rig_calibrate(rig *r) {
    const uint32_t d = r->layout.head_dim, n = r->layout.n_layers * r->layout.n_kv_heads;
    r->heads = calloc(n, sizeof *r->heads);
    r->steps = aligned_alloc(64, 2 * (size_t)d * sizeof *r->steps);
    assert_true(r->heads && r->steps);
    for (uint32_t i = 0; i < d; i++) r->steps[i] = RIG_RANGE / 127, r->steps[d + i] = 127 / RIG_RANGE;
    for (uint32_t i = 0; i < n; i++)
        r->heads[i] = (tr_kv_head){.k_step = r->steps,
                                   .v_step = r->steps,
                                   .k_mul = r->steps + d,
                                   .v_mul = r->steps + d,
                                   .k_bound = 0.02f,
                                   .v_bound = 0.02f};
}

static inline void rig_follow(void *arg, uint32_t worker, uint32_t n_workers) {
    rig_rank *rank = arg;
    tr_forward_follow(rank->stage[tr_team_what(rank->team)], worker, n_workers);
}

static inline void rig_join(rig *r, const rig_config *c, uint32_t rank, tr_team **team) {
    const uint32_t workers = c->workers ? c->workers : 1;
    const tr_team_config t = {.meeting = r->meeting,
                              .rank = rank,
                              .n_ranks = r->tp,
                              .n_workers = workers,
                              .first = rank * workers,
                              .total = r->tp * workers,
                              .follow = rig_follow,
                              .arg = &r->rank[rank]};
    RIG_OK(tr_team_join(&t, team, &err));
}

/* Stage i of every rank. */
static inline void rig_stage(rig *r, tr_forward_config f, uint32_t i) {
    uint64_t filled;
    f.what = i;
    if (r->tp > 1) {
        const uint64_t bytes = tr_forward_common_bytes(r->model, &f, tr_team_size(r->team), &filled);
        assert_true(filled <= bytes);
        f.common = r->common[i] = aligned_alloc(64, (bytes + 63) / 64 * 64);
        assert_non_null(f.common);
        memset(f.common, 0xff, bytes); /* nothing may rely on what was there */
    }
    for (uint32_t k = 1; k < r->tp; k++) {
        f.team = r->rank[k].team;
        RIG_OK(tr_forward_create(&f, &r->rank[k].stage[i], &err));
    }
    f.team = r->team;
    RIG_OK(tr_forward_create(&f, &r->stage[i], &err));
}

static inline void rig_init(rig *r, const rig_config *c) {
    *r = (rig){.model = tr_image_config(c->image),
               .n_stages = c->n_stages ? c->n_stages : 1,
               .max_rows = c->max_rows,
               .tp = c->tp ? c->tp : 1};
    tr_kv_model m = rig_kv_model(r->model);
    uint32_t n = c->n_slots * ((c->context + c->page_tok - 1) / c->page_tok), pages[TR_KV_GROUPS_MAX] = {n, n};
    RIG_OK(tr_kv_layout_init(&r->layout, &m, c->kv, c->page_tok, c->n_slots, c->context, pages, &err));
    r->pool = aligned_alloc(4096, r->layout.pool_bytes);
    r->table = aligned_alloc(64, r->layout.table_bytes);
    assert_true(r->pool && r->table);
    memset(r->pool, 0xff, r->layout.pool_bytes); /* NaN wherever nothing was written */
    rig_scatter(r, c->seed);
    rig_calibrate(r);
    const tr_ops *ops = c->ops ? tr_ops_find(c->ops) : NULL;
    if (!ops) RIG_OK(tr_ops_select(&ops, &err));
    if (r->tp > 1) {
        r->meeting = aligned_alloc(64, sizeof *r->meeting);
        memset(r->meeting, 0, sizeof *r->meeting);
        tr_team_meeting_init(r->meeting);
    }
    for (uint32_t k = 0; k < r->tp; k++) rig_join(r, c, k, k ? &r->rank[k].team : &r->team);
    for (uint32_t i = 0; i < r->n_stages; i++) {
        tr_forward_config f = {.image = c->image,
                               .precision = c->precision ? c->precision : tr_image_precision(c->image),
                               .ops = ops,
                               .kv = {&r->layout, r->pool, r->table, r->heads},
                               .lo = c->n_stages ? c->cuts[i] : 0,
                               .hi = c->n_stages ? c->cuts[i + 1] : r->model->n_layers,
                               .max_rows = c->max_rows,
                               .max_spans = 64,
                               .context = c->context};
        rig_stage(r, f, i);
        r->x[i] = aligned_alloc(64, (size_t)c->max_rows * r->model->hidden * sizeof(float));
    }
    tr_team_enter(r->team);
    for (uint32_t k = 1; k < r->tp; k++) tr_team_enter(r->rank[k].team);
}

static inline void rig_fini(rig *r) {
    for (uint32_t k = 1; k < r->tp; k++) {
        tr_team_destroy(&r->rank[k].team);
        for (uint32_t i = 0; i < r->n_stages; i++) tr_forward_destroy(&r->rank[k].stage[i]);
    }
    tr_team_destroy(&r->team);
    for (uint32_t i = 0; i < r->n_stages; i++) {
        tr_forward_destroy(&r->stage[i]);
        free(r->x[i]);
        free(r->common[i]);
    }
    free(r->meeting);
    free(r->pool);
    free(r->table);
    free(r->heads);
    free(r->steps);
}

static inline void rig_run(rig *r, const tr_micro_batch *b) {
    for (uint32_t i = 0; i < r->n_stages; i++) {
        size_t bytes = (size_t)b->n_rows * r->model->hidden * sizeof(float);
        tr_forward_output out = {.sampled = r->sampled};
        tr_micro_batch later = *b;
        if (i > 0) {
            memcpy(r->x[i], r->x[i - 1], bytes);
            later.tokens = NULL; /* only the first stage may look */
        }
        RIG_OK(tr_forward_run(r->stage[i], i ? &later : b, r->x[i], &out));
        r->logits = out.logits;
        r->logprob_ids = out.logprob_ids;
        r->logprobs = out.logprobs;
        r->kernel_ns = out.kernel_ns;
    }
}

static const tr_sampling rig_greedy = {.temperature = 0, .top_p = 1};

/* Rows [pos, pos + rows) of one sequence alone; the logits of all of them come back through r->logits. */
static inline void rig_rows(rig *r, uint32_t slot, const uint32_t *tokens, uint32_t pos, uint32_t rows,
                            uint32_t flags) {
    tr_span s = {.slot = slot, .pos0 = pos, .rows = rows, .flags = flags, .sampling = rig_greedy};
    rig_run(r, &(tr_micro_batch){.n_rows = rows, .n_spans = 1, .spans = &s, .tokens = tokens + pos});
}

static inline uint32_t rig_stride(const rig *r) { return (r->model->vocab + 15) / 16 * 16; }

/* All logits of a sequence, computed in chunks: out [n, vocab]. */
static inline void rig_logits(rig *r, uint32_t slot, const uint32_t *tokens, uint32_t n, uint32_t chunk, float *out) {
    for (uint32_t pos = 0; pos < n; pos += chunk) {
        uint32_t rows = n - pos < chunk ? n - pos : chunk;
        rig_rows(r, slot, tokens, pos, rows, TR_SPAN_LOGITS);
        for (uint32_t i = 0; i < rows; i++)
            memcpy(out + (size_t)(pos + i) * r->model->vocab, r->logits + (size_t)i * rig_stride(r),
                   r->model->vocab * sizeof(float));
    }
}
#endif
