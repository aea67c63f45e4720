/* stages/forward_state.h - state of a forward pass; private to stages/ (forward.c checks and drives, layers.c
 * computes; forward_memory.c lays out). Buffers are [max_rows, ...] row-major fp32 with the row length as stride; a
 * worker touches only its share between barriers. */
#ifndef TR_FORWARD_STATE_H
#define TR_FORWARD_STATE_H
#include "model/sampler.h"
#include "stages/forward.h"
#include "stages/linear.h"
#include "stages/screen.h"

#include <stdatomic.h>

enum {
    /* forms of a step (layers.c) */
    TR_FORWARD_NARROW_ROWS = 2,  /* up to these rows every worker does the work on rows for itself */
    TR_FORWARD_TAKEN_MIN = 24,   /* from these rows a worker on, workers take blocks of rows ... */
    TR_FORWARD_TAKEN_ROWS = 64,  /* ... of so many rows at most */
    TR_FORWARD_CHUNK = 65536,    /* bytes of int8 weights, about, that a worker takes of a shared matmul at a time */
    TR_FORWARD_HEAD_IDS = 512,   /* whose logits are made and scanned at a time */
    TR_FORWARD_ATTN_PAIRS = 48,  /* (row, head) pairs that the attention kernels take together */
    TR_FORWARD_PARTS_MAX = 1024, /* splits of single rows that are shared among workers, in one layer */
    TR_FORWARD_COMMON_MAX = 32   /* arrays of common memory */
};

/* What is told of a step beside its lists; written by rank 0 before the run, n_asking by worker 0 in it. */
typedef struct tr_forward_step {
    uint32_t n_rows, n_spans, n_logit_rows, n_asking, n_draws;
} tr_forward_step;

typedef struct tr_forward_layer {
    const float *attn_norm, *attn_post_norm, *ffn_norm,
        *ffn_post_norm;           /* [hidden]; post norms NULL where there are none */
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    const tr_image_tensor *qkv, *o, *gate_up, *down;
    uint32_t window; /* 0: global */
    uint32_t group;  /* of the KV layout */
    uint32_t rope;   /* 0 global base, 1 local base */
} tr_forward_layer;

/* The matmuls that are shared anew in every step: of each layer, then those at the end. */
typedef enum tr_forward_matmul { TR_FORWARD_QKV, TR_FORWARD_O, TR_FORWARD_GATE_UP, TR_FORWARD_DOWN } tr_forward_matmul;
enum { TR_FORWARD_MATMULS = 4 };
typedef enum tr_forward_last { TR_FORWARD_LAST_Q, TR_FORWARD_HEAD, TR_FORWARD_LASTS } tr_forward_last;

/* Chunks of one worker's share of a matmul that somebody has taken; in a cache line of its own. */
typedef struct tr_forward_taken {
    _Alignas(64) _Atomic uint32_t n;
} tr_forward_taken;

/* What one worker needs for itself. */
typedef struct tr_forward_worker {
    float *panel;   /* gemm_bf16 */
    float *scratch; /* attention */
    float *tmp;     /* [widest row] */
    void *sampler;  /* last stage only, with the next */
    float *edited;  /* [n_vocab] */
    tr_screen screen;
    float *logits; /* [max_spans, TR_FORWARD_HEAD_IDS], last stage only */
    float *x;      /* of narrow steps, [TR_FORWARD_NARROW_ROWS, ...] */
    /* like the common ones, of the rows that this worker has taken: [own_rows, ...] */
    float *norm, *proj, *gate_up, *act;
    tr_linear_rows ready, act_ready; /* the second: act by pieces, while the first is still read */
} tr_forward_worker;

/* A token to draw. */
typedef struct tr_forward_draw {
    bool whole;          /* from the whole row, by a worker of rank 0: it alone has what the next three speak of */
    uint32_t logprobs;   /* entries */
    uint32_t logprob_at; /* the first of them */
    const tr_sampler_edit *edit;
    uint32_t row; /* of the logits */
    uint32_t at;  /* in sampled */
    tr_sampler_params params;
} tr_forward_draw;

struct tr_forward {
    tr_forward_config config;
    void (*on_layers)(void *arg, uint32_t end); /* NULL: nobody asks */
    void *on_layers_arg;
    const tr_model_config *model;
    const tr_ops *ops;
    bool first, last;
    uint32_t n_q, n_kv, n_qkv, n_vocab; /* widths; n_vocab rounded up to 16 */
    uint32_t heads_a_kv;                /* query heads that share a kv head */
    uint32_t first_worker, n_local;     /* workers of this process */
    tr_forward_layer *layer;            /* [hi - lo] */
    const tr_image_tensor *embed, *head;
    const float *output_norm;
    float *inv_freq[2];               /* [head_dim / 2]: global, local */
    bool *slot_used;                  /* [n_slots] all false between steps */
    void *own[TR_FORWARD_COMMON_MAX]; /* what is common, where it is not shared by processes */
    uint32_t n_own;
    float *x; /* residual stream [rows, hidden]: the caller's, or common_x */
    /* common: one step */
    tr_forward_step *step;
    tr_span *spans;   /* [max_spans] */
    uint32_t *tokens; /* [max_rows]; first stage only */
    float *common_x;  /* where processes share */
    uint32_t *row_slot, *row_pos;
    float *rope[2];               /* [rows, head_dim]: cos then sin */
    float *norm, *qkv, *attn;     /* [rows, hidden], [rows, n_qkv], [rows, n_q] */
    float *proj, *gate_up, *act;  /* [rows, hidden], [rows, 2 ffn], [rows, ffn] */
    tr_linear_rows ready;         /* input of the next matmul */
    uint32_t *logit_row;          /* row of x behind each row of logits */
    tr_span *asking_spans;        /* [max_spans] the rows that ask for logits, as the last layer ends with them alone */
    float *logits;                /* [rows, n_vocab]; pages are touched only when used */
    uint32_t *sampled;            /* [max_spans] */
    tr_forward_draw *draw;        /* [max_spans] */
    tr_sampler_best *best;        /* [workers, max_spans], one a draw */
    _Atomic double *floor;        /* [max_spans], one a draw: of the screen */
    _Atomic uint32_t *next_item;  /* [hi - lo] attention items taken in this step */
    _Atomic uint32_t *next_block; /* [hi - lo + 1] blocks of rows taken before the first attention, after each */
    tr_forward_taken *taken;      /* [tr_forward_taken_rows, workers] */
    /* attention of single rows, split by split */
    uint32_t n_parts;
    float *part;                 /* [n_parts, n_heads, part floats] */
    _Atomic uint32_t *part_done; /* [max_spans, n_kv_heads] finished in this layer */
    /* of this process */
    tr_forward_worker *worker; /* [n_local] */
    uint32_t *logprob_ids;     /* [max_spans * (1 + TR_SAMPLER_TOP_MAX)]; last stage */
    float *logprobs;           /* the same */
    tr_screen_rows screen;     /* where the head has planes */
};

static inline uint32_t tr_forward_taken_rows(const tr_forward *f) {
    return (f->config.hi - f->config.lo) * TR_FORWARD_MATMULS + TR_FORWARD_LASTS;
}

/* Shapes that follow from model and configuration. */
void tr_forward_set_shapes(tr_forward *f);
/* All memory but weights and KV; TR_UNAVAILABLE without it. fini is safe then. */
tr_status tr_forward_memory_init(tr_forward *f);
void tr_forward_memory_fini(tr_forward *f);

/* The whole step on all workers: embed, layers lo..hi, head, sampling. */
void tr_layers_run(void *forward, uint32_t worker, uint32_t n_workers);
#endif
