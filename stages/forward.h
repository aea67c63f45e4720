/* stages/forward.h - the forward pass of layers [lo, hi) in one precision, on a micro-batch, by a team of workers.
 * Reads like the papers (Gemma 3 technical report; Llama); all arithmetic is in kernels/ops.h.
 * A micro-batch is a list of spans: consecutive rows of one sequence. The first stage (lo == 0) embeds tokens, every
 * stage writes K and V of its rows into the pages that the tables name and then attends over the pages, the last stage
 * (hi == n_layers) normalizes, computes logits for the rows that ask, and samples.
 * A step is an idempotent overwrite: running it twice leaves the same bytes in pages and outputs.
 * Numbers do not depend on the micro-batch, on lo/hi, or on the number of workers.
 * Tensor parallelism: each rank of a stage has a forward of the same configuration; what workers share lies in common
 * memory. Rank 0 runs steps; the workers of the others call tr_forward_follow. Each matmul is split by output channels,
 * attention by heads and splits, embedding by rows, the head by vocabulary, over all workers of all ranks.
 * Threads: one step at a time by the thread that owns the team. No heap and no system call but the team's futex after
 * create. */
#ifndef TR_FORWARD_H
#define TR_FORWARD_H
#include "base/status.h"
#include "kernels/ops.h"
#include "kv/kv_layout.h"
#include "model/image.h"
#include "stages/team.h"

#include <stdbool.h>
#include <stdint.h>

/* How to draw one token; temperature 0 is greedy. The key of the draw is (seed, sample, position, token id). */
typedef struct tr_sampling {
    float temperature; /* 0 .. 100 */
    float top_p;       /* (0, 1]; 1: off */
    float min_p;       /* 0: off */
    uint32_t top_k;    /* 0: off */
    uint32_t draws;    /* tokens drawn from the row: samples sample, sample + 1, ...; 0: one */
    uint32_t sample;   /* index of the sample among n of one prompt */
    uint64_t seed;
    uint32_t logprobs;                  /* 0, or 1 + how many of the likeliest tokens are told with each token drawn */
    const struct tr_sampler_edit *edit; /* of the logits (model/sampler.h), borrowed for the run; NULL: none */
} tr_sampling;

enum {
    TR_SPAN_SAMPLE = 1, /* a token after the last row */
    TR_SPAN_LOGITS = 2, /* hand out logits of every row */
    TR_SPAN_EDIT = 4,   /* sampling.edit is set; read by who makes the spans */
    TR_SPAN_HIDDEN = 8  /* hand out the final hidden state of every row, in place of logits */
};

typedef struct tr_span {
    uint32_t slot; /* row of the page tables */
    uint32_t pos0; /* position of the first row */
    uint32_t rows;
    uint32_t row0; /* index of the first row in the micro-batch */
    uint32_t flags;
    tr_sampling sampling;
} tr_span;

typedef struct tr_micro_batch {
    uint32_t n_rows, n_spans;
    const tr_span *spans;   /* [n_spans], rows in order without gaps; at most one a slot */
    const uint32_t *tokens; /* [n_rows]; read by the first stage only */
    const uint32_t *copies; /* [n_copies] pages to copy before the rows: stages/page_copy.h */
    uint32_t n_copies;
} tr_micro_batch;

/* Memory of one KV pool as this process sees it (borrowed). */
typedef struct tr_kv_memory {
    const tr_kv_layout *layout;
    uint8_t *pool;           /* [layout->pool_bytes] */
    const uint32_t *table;   /* page tables, tr_kv_layout_entry() */
    const tr_kv_head *heads; /* [n_layers * n_kv_heads] where the format is calibrated, else NULL */
} tr_kv_memory;

static inline const tr_kv_head *tr_kv_memory_head(const tr_kv_memory *m, uint32_t layer, uint32_t head) {
    return m->heads ? &m->heads[(size_t)layer * m->layout->n_kv_heads + head] : NULL;
}

typedef struct tr_forward_config {
    const tr_image *image;  /* borrowed, outlives the forward */
    tr_precision precision; /* one that runs on the image; 0: the image's own */
    const tr_ops *ops;
    tr_team *team;
    tr_kv_memory kv; /* format of the pool decides how attention reads */
    uint32_t lo, hi;
    uint32_t max_rows, max_spans;
    uint32_t context; /* positions are below this */
    void *common;  /* [tr_forward_common_bytes], 64-byte aligned, shared by the processes of the team; NULL: its own */
    uint32_t what; /* by which followers of the team know this forward (tr_team_what) */
    _Atomic uint64_t *beat; /* raised after each layer; NULL: nobody looks */
} tr_forward_config;

typedef struct tr_forward_output {
    /* [tokens]: those of each span in turn, one or sampling.draws; untouched where there is no TR_SPAN_SAMPLE */
    uint32_t *sampled;
    float *logits; /* [logit rows, vocab rounded up to 16] or NULL when no span asks; row order = micro-batch order. A
                    * row of a span with TR_SPAN_HIDDEN begins with [hidden] */
    /* [sampling.logprobs] for each token drawn by the spans that ask, in turn (tr_sampler_logprobs) */
    const uint32_t *logprob_ids;
    const float *logprobs;
    uint64_t kernel_ns; /* time inside the team, of the last run */
} tr_forward_output;

typedef struct tr_forward tr_forward;
tr_status tr_forward_create(const tr_forward_config *config, tr_forward **forward_out, tr_error *err);
void tr_forward_destroy(tr_forward **forward);
/* From now on the thread of tr_forward_run calls f between layers: K and V of layers [lo, end) of all rows lie in the
 * pages, also what other ranks wrote. */
void tr_forward_on_layers(tr_forward *forward, void (*f)(void *arg, uint32_t end), void *arg);
/* Bytes of common memory of a stage; config: lo, hi, precision, max_rows, max_spans and context count. filled_out: so
 * many from the beginning are used by every step; the rest is logits of many rows, which only evaluation asks for. Both
 * phases of a stage may use the same memory, one after the other: nothing in it outlives a step. */
uint64_t tr_forward_common_bytes(const tr_model_config *model, const tr_forward_config *config, uint32_t n_workers,
                                 uint64_t *filled_out);
/* x: residual stream fp32 [n_rows, hidden], updated in place from layer lo to hi; the first stage fills it itself.
 * TR_INVALID when the micro-batch breaks a bound (rows, spans, positions, token ids, a page that the table does not
 * name): checked before anything is written. TR_PEER: a rank has left, output and x are worth nothing. */
tr_status tr_forward_run(tr_forward *forward, const tr_micro_batch *batch, float *x, tr_forward_output *output);
/* A follower's worker: its share of the step that rank 0 runs. */
void tr_forward_follow(tr_forward *forward, uint32_t worker, uint32_t n_workers);
#endif
