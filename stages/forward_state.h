/* stages/forward_state.h - state of a forward pass; private to stages/ (forward.c checks and drives, layers.c
 * computes). Buffers are [max_rows, ...] row-major fp32 with the row length as stride; a worker touches only its share
 * between barriers. */
#ifndef TR_FORWARD_STATE_H
#define TR_FORWARD_STATE_H
#include "model/sampler.h"
#include "stages/forward.h"
#include "stages/linear.h"
#include "stages/screen.h"

#include <stdatomic.h>

enum {
    /* forms of a step (layers.c) */
    TR_FORWARD_NARROW_ROWS = 2, /* up to these rows every worker does the work on rows for itself */
    TR_FORWARD_TAKEN_MIN = 24,  /* from these rows a worker on, workers take blocks of rows ... */
    TR_FORWARD_TAKEN_ROWS = 64, /* ... of so many rows at most */
    TR_FORWARD_CHUNK = 65536,   /* bytes of int8 weights, about, that a worker takes of a shared matmul at a time */
    TR_FORWARD_HEAD_IDS = 512,  /* whose logits are made and scanned at a time */
    TR_FORWARD_ATTN_PAIRS = 48, /* (row, head) pairs that the attention kernels take together */
    TR_FORWARD_PARTS_MAX = 1024 /* splits of single rows that are shared among workers, in one layer */
};

typedef struct tr_forward_layer {
    const float *attn_norm, *attn_post_norm, *ffn_norm,
        *ffn_post_norm;           /* [hidden]; post norms NULL where there are none */
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    const tr_image_tensor *qkv, *o, *gate_up, *down;
    uint32_t window; /* 0: global */
    uint32_t group;  /* of the KV layout */
    uint32_t rope;   /* 0 global base, 1 local base */
} tr_forward_layer;

/* The matmuls of a stage, each shared anew in every step. */
typedef enum tr_forward_matmul { TR_FORWARD_QKV, TR_FORWARD_O, TR_FORWARD_GATE_UP, TR_FORWARD_DOWN } tr_forward_matmul;
enum { TR_FORWARD_MATMULS = 4 /* of a layer; behind the last layer's: the head */ };

/* Chunks of one worker's share of a matmul that somebody has taken; in a cache line of its own. */
typedef struct tr_forward_taken {
    _Alignas(64) _Atomic uint32_t n;
} tr_forward_taken;

/* What one worker needs for itself. */
typedef struct tr_forward_worker {
    float *panel;   /* gemm_bf16 */
    float *scratch; /* attention */
    float *tmp;     /* [widest row] */
    void *sampler;  /* last stage only */
    tr_screen screen;
    float *logits; /* [max_spans, TR_FORWARD_HEAD_IDS], last stage only */
    float *x;      /* of narrow steps, [TR_FORWARD_NARROW_ROWS, ...] */
    /* like the common ones, of the rows that this worker has taken: [own_rows, ...] */
    float *norm, *proj, *gate_up, *act;
    tr_linear_rows ready;
} tr_forward_worker;

struct tr_forward {
    tr_forward_config config;
    const tr_model_config *model;
    const tr_ops *ops;
    bool first, last;
    uint32_t n_q, n_kv, n_qkv, n_vocab; /* widths; n_vocab rounded up to 16 */
    uint32_t heads_a_kv;                /* query heads that share a kv head */
    tr_forward_layer *layer;            /* [hi - lo] */
    const tr_image_tensor *embed, *head;
    const float *output_norm;
    float *inv_freq[2]; /* [head_dim / 2]: global, local */
    /* one step */
    const tr_micro_batch *batch;
    float *x; /* residual stream [rows, hidden] */
    uint32_t *row_slot, *row_pos;
    bool *slot_used;             /* [n_slots] all false between steps */
    float *rope[2];              /* [rows, head_dim]: cos then sin */
    float *norm, *qkv, *attn;    /* [rows, hidden], [rows, n_qkv], [rows, n_q] */
    float *proj, *gate_up, *act; /* [rows, hidden], [rows, 2 ffn], [rows, ffn] */
    tr_linear_rows ready;        /* input of the next matmul */
    uint32_t n_logit_rows;
    uint32_t *logit_row;   /* row of x behind each row of logits */
    tr_micro_batch asking; /* the rows that ask for logits, as the last layer ends with them alone */
    tr_span *asking_spans; /* [max_spans] */
    float *logits;         /* [rows, n_vocab]; pages are touched only when used */
    size_t logits_bytes;
    uint32_t *sampled;
    tr_sampler_best *best;        /* [workers, max_spans] */
    tr_screen_rows screen;        /* where the head has planes */
    _Atomic uint32_t *next_item;  /* [hi - lo] attention items taken in this step */
    _Atomic uint32_t *next_block; /* [hi - lo + 1] blocks of rows taken before the first attention, after each */
    tr_forward_taken *taken;      /* [(hi - lo) * TR_FORWARD_MATMULS + 1, workers] */
    /* attention of single rows, split by split */
    uint32_t n_parts;
    float *part;                 /* [n_parts, n_heads, part floats] */
    _Atomic uint32_t *part_done; /* [max_spans, n_kv_heads] finished in this layer */
    tr_forward_worker *worker;
};

/* The whole step on all workers: embed, layers lo..hi, head, sampling. */
void tr_layers_run(void *forward, uint32_t worker, uint32_t n_workers);
#endif
