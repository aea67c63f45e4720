/* stages/step.h - one micro-batch on its way through the layers, as one worker sees it; private to stages/.
 * Attention is shared by (sequence, kv head, rows or splits); before and after it all workers meet. What lies between
 * two attentions works on the rows of a tr_step, in one of three forms, and its shares never change a number:
 *   TAKEN    a wide step is cut into blocks of rows, and a free worker takes the next: it carries its rows from one
 *            attention to the other without waiting for anyone, and what it writes it reads again from its own cache;
 *   SHARED   matmuls are shared by output channels, the work on rows (norms, rounding) by rows; tr_step_sync and
 *            tr_step_sync_rows are where the workers meet. Each worker has a share of the channels and takes it in
 *            chunks; who is done takes chunks of the others: a core that is slower for a moment keeps nobody waiting;
 *   NARROW   a step of a row or two, where meetings cost more than work: matmuls are shared, but every worker does the
 *            work on rows for itself, into memory of its own, and tr_step_sync_rows is nothing.
 * Threads: every function is called by all workers of the team, each with a tr_step of its own. */
#ifndef TR_STEP_H
#define TR_STEP_H
#include "stages/forward_state.h"

typedef enum tr_step_form { TR_STEP_TAKEN, TR_STEP_SHARED, TR_STEP_NARROW } tr_step_form;

/* Rows [row0, row0 + rows) of the step; the pointers begin at the first of them. */
typedef struct tr_step {
    tr_forward *f;
    const tr_ops *ops;
    const tr_span *spans; /* whose queries attend */
    uint32_t n_spans;
    uint32_t id, n; /* this worker of n */
    tr_step_form form;
    uint32_t row0, rows;
    tr_forward_worker *w;
    float *x, *qkv, *attn;
    float *norm, *proj, *gate_up, *act; /* between two attentions only */
    tr_linear_rows *ready;
} tr_step;

/* False: a rank has left, and what others should have written may be missing. Until its next look a worker goes on
 * with that: shares and rows stay in bounds whatever the values are. */
static inline bool tr_step_meet(const tr_step *c) { return tr_team_barrier(c->f->config.team); }
static inline void tr_step_sync(const tr_step *c) {
    if (c->form != TR_STEP_TAKEN) tr_step_meet(c);
}
static inline void tr_step_sync_rows(const tr_step *c) {
    if (c->form == TR_STEP_SHARED) tr_step_meet(c);
}

/* This worker's share of n output channels, heads or other things that make no sense twice. */
static inline void tr_step_share(const tr_step *c, uint32_t n, uint32_t *begin, uint32_t *end) {
    tr_team_share(n, c->form == TR_STEP_TAKEN ? 0 : c->id, c->form == TR_STEP_TAKEN ? 1 : c->n, begin, end);
}

/* Rows [begin, end) that this worker has to see to. */
static inline void tr_step_rows(const tr_step *c, uint32_t rows, uint32_t *begin, uint32_t *end) {
    tr_team_share(rows, c->form == TR_STEP_SHARED ? c->id : 0, c->form == TR_STEP_SHARED ? c->n : 1, begin, end);
}

/* One row of the next matmul's input. */
static inline void tr_step_prepare(const tr_step *c, const tr_image_tensor *w, const float *in, uint32_t row) {
    tr_linear_prepare(c->ops, w, c->ready, row, in, c->w->tmp);
}

/* y[rows, 16 n] = W * the rows that are ready, over `n` blocks of output channels. */
static inline void tr_step_matmul_blocks(const tr_step *c, const tr_image_tensor *w, float *y, uint32_t ldy,
                                         uint32_t rows, uint32_t block0, uint32_t n) {
    tr_linear_matmul(c->ops, w, c->ready, rows, y, ldy, c->w->panel, block0, n);
}

/* Blocks of output channels that this worker takes one after the other, of a matmul that it shares with others. */
typedef struct tr_step_work {
    tr_forward_taken *taken; /* [workers]; NULL: all at once */
    uint32_t blocks, chunk;
    bool halving;    /* chunks are half of what is left of a share, and at last about `chunk` */
    uint32_t victim; /* whose share, counted from this worker's own */
    uint32_t begin, end;
} tr_step_work;

/* index: which matmul of the stage, one of the two below; k: its inputs. */
tr_step_work tr_step_work_begin(const tr_step *c, uint32_t index, uint32_t blocks, uint32_t k);
/* False: nothing is left. Else blocks [begin, end). */
bool tr_step_work_next(const tr_step *c, tr_step_work *w);
static inline uint32_t tr_step_index(const tr_step *c, uint32_t layer, tr_forward_matmul which) {
    return (layer - c->f->config.lo) * TR_FORWARD_MATMULS + which;
}
static inline uint32_t tr_step_index_last(const tr_step *c, tr_forward_last which) {
    return (c->f->config.hi - c->f->config.lo) * TR_FORWARD_MATMULS + which;
}

/* y[rows, n] = W * the rows that are ready, for the channels [from, to), multiples of a block; shared with the other
 * workers. */
void tr_step_matmul_range(const tr_step *c, uint32_t index, const tr_image_tensor *w, float *y, uint32_t ldy,
                          uint32_t rows, uint32_t from, uint32_t to);
static inline void tr_step_matmul(const tr_step *c, uint32_t index, const tr_image_tensor *w, float *y, uint32_t ldy,
                                  uint32_t rows) {
    tr_step_matmul_range(c, index, w, y, ldy, rows, 0, (w->n + TR_OPS_BLOCK_N - 1) / TR_OPS_BLOCK_N * TR_OPS_BLOCK_N);
}

/* The first `rows` rows of the step, for this worker. */
tr_step tr_step_make(tr_forward *f, uint32_t worker, uint32_t n_workers, uint32_t rows, tr_step_form form);
tr_step_form tr_step_form_of(uint32_t rows, uint32_t n_workers);
/* The next rows to work on between attentions `pass` and pass + 1: a block that nobody has taken, or once the whole
 * step. b: what was worked on before, rows 0 at first. False: none is left. */
bool tr_step_next(const tr_step *step, uint32_t pass, tr_step *b);
/* Only the rows that ask for logits need the last layer beyond its keys and values: they move to the front, with their
 * angles (their queries are not there yet), when they are fewer than all. No rows: none ask, or a rank has left. */
bool tr_step_asks_fewer(const tr_step *c);
tr_step tr_step_asking(const tr_step *c);
#endif
