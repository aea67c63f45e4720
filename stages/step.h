/* stages/step.h - one micro-batch on its way through the layers, as one worker sees it; private to stages/.
 * Attention is shared by (sequence, kv head, rows or splits); before and after it all workers meet. What lies between
 * two attentions works on the rows of a tr_step, in one of three forms, and its shares never change a number:
 *   TAKEN    a wide step is cut into blocks of rows, and a free worker takes the next: it carries its rows from one
 *            attention to the other without waiting for anyone, and what it writes it reads again from its own cache;
 *   SHARED   matmuls are shared by output channels, the work on rows (norms, rounding) by rows; tr_step_sync and
 *            tr_step_sync_rows are where the workers meet;
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

/* y[rows, n] = W * the rows that are ready, over `n` blocks of output channels. */
static inline void tr_step_matmul_blocks(const tr_step *c, const tr_image_tensor *w, float *y, uint32_t ldy,
                                         uint32_t rows, uint32_t block0, uint32_t n) {
    tr_linear_matmul(c->ops, w, c->ready, rows, y, ldy, c->w->panel, block0, n);
}

/* The same over this worker's share of the channels. */
static inline void tr_step_matmul(const tr_step *c, const tr_image_tensor *w, float *y, uint32_t ldy, uint32_t rows) {
    uint32_t begin, end;
    tr_step_share(c, (w->n + TR_OPS_BLOCK_N - 1) / TR_OPS_BLOCK_N, &begin, &end);
    if (begin != end) tr_step_matmul_blocks(c, w, y, ldy, rows, begin, end - begin);
}

/* All rows of the step over this worker's share of the channels [from, to), multiples of a block. */
static inline void tr_step_matmul_range(const tr_step *c, const tr_image_tensor *w, float *y, uint32_t ldy,
                                        uint32_t from, uint32_t to) {
    uint32_t begin, end;
    tr_step_share(c, (to - from) / TR_OPS_BLOCK_N, &begin, &end);
    if (begin != end) tr_step_matmul_blocks(c, w, y, ldy, c->rows, from / TR_OPS_BLOCK_N + begin, end - begin);
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
