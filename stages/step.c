#include "stages/step.h"

#include <string.h>

tr_step tr_step_make(tr_forward *f, uint32_t worker, uint32_t n_workers, uint32_t rows, tr_step_form form) {
    const bool taken = form == TR_STEP_TAKEN, shared = form == TR_STEP_SHARED;
    tr_forward_worker *w = &f->worker[worker - f->first_worker];
    return (tr_step){.f = f,
                     .ops = f->ops,
                     .spans = f->spans,
                     .n_spans = f->step->n_spans,
                     .id = worker,
                     .n = n_workers,
                     .form = form,
                     .rows = rows,
                     .w = w,
                     .x = form == TR_STEP_NARROW && worker > 0 ? w->x
                                                               : f->x, /* worker 0 keeps the one that is handed on */
                     .qkv = f->qkv,
                     .attn = f->attn,
                     .norm = shared ? f->norm : w->norm,
                     .proj = taken ? w->proj : f->proj,
                     .gate_up = taken ? w->gate_up : f->gate_up,
                     .act = taken ? w->act : f->act,
                     .ready = shared ? &f->ready : &w->ready};
}

tr_step_form tr_step_form_of(uint32_t rows, uint32_t n_workers) {
    if (rows >= n_workers * TR_FORWARD_TAKEN_MIN) return TR_STEP_TAKEN;
    return n_workers > 1 && rows <= TR_FORWARD_NARROW_ROWS ? TR_STEP_NARROW : TR_STEP_SHARED;
}

bool tr_step_next(const tr_step *step, uint32_t pass, tr_step *b) {
    bool first = b->rows == 0;
    *b = *step;
    if (step->form != TR_STEP_TAKEN) return first;
    const tr_forward *f = step->f;
    const uint32_t most = step->n * TR_FORWARD_TAKEN_ROWS;
    const uint32_t blocks = (step->rows + most - 1) / most * step->n; /* as many for each worker */
    uint32_t at = atomic_fetch_add_explicit(&f->next_block[pass], 1, memory_order_relaxed), end;
    if (at >= blocks) return false;
    tr_team_share(step->rows, at, blocks, &b->row0, &end);
    b->rows = end - b->row0;
    b->x += (size_t)b->row0 * f->model->hidden;
    b->qkv += (size_t)b->row0 * f->n_qkv;
    b->attn += (size_t)b->row0 * f->n_q;
    return true;
}

enum { SIDE = 4 /* blocks that kernels read side by side */ };

tr_step_work tr_step_work_begin(const tr_step *c, uint32_t index, uint32_t blocks, uint32_t k) {
    const uint32_t chunk = (TR_FORWARD_CHUNK / (TR_OPS_BLOCK_N * k) + SIDE - 1) / SIDE * SIDE;
    const bool alone = c->form == TR_STEP_TAKEN || c->n == 1;
    return (tr_step_work){.taken = alone ? NULL : c->f->taken + (size_t)index * c->n,
                          .blocks = blocks,
                          .chunk = chunk > SIDE ? chunk : SIDE,
                          .halving = c->rows == 1};
}

/* Where chunk `at` of a share of n blocks begins; n: there is no such chunk. */
static uint32_t chunk_begin(const tr_step_work *w, uint32_t n, uint32_t at) {
    if (!w->halving) return (uint64_t)at * w->chunk < n ? at * w->chunk : n;
    if (at > 0 && (at > 31 || n >> (at - 1) < 2 * w->chunk)) return n;
    return (n - (n >> at) + SIDE - 1) / SIDE * SIDE;
}

bool tr_step_work_next(const tr_step *c, tr_step_work *w) {
    if (!w->taken) {
        w->begin = w->end, w->end = w->blocks;
        return w->begin < w->end;
    }
    for (; w->victim < c->n; w->victim++) {
        const uint32_t who = (c->id + w->victim) % c->n;
        uint32_t begin, end;
        tr_team_share(w->blocks, who, c->n, &begin, &end);
        const uint32_t at = atomic_fetch_add_explicit(&w->taken[who].n, 1, memory_order_relaxed);
        const uint32_t from = chunk_begin(w, end - begin, at);
        if (from >= end - begin) continue;
        w->begin = begin + from;
        w->end = begin + chunk_begin(w, end - begin, at + 1);
        return true;
    }
    return false;
}

void tr_step_matmul_range(const tr_step *c, uint32_t index, const tr_image_tensor *w, float *y, uint32_t ldy,
                          uint32_t rows, uint32_t from, uint32_t to) {
    tr_step_work work = tr_step_work_begin(c, index, (to - from) / TR_OPS_BLOCK_N, w->k);
    while (tr_step_work_next(c, &work)) {
        const uint32_t block0 = from / TR_OPS_BLOCK_N + work.begin;
        tr_step_matmul_blocks(c, w, y + (size_t)block0 * TR_OPS_BLOCK_N, ldy, rows, block0, work.end - work.begin);
    }
}

bool tr_step_asks_fewer(const tr_step *c) {
    return c->form != TR_STEP_NARROW && c->f->step->n_logit_rows != c->f->step->n_rows;
}

tr_step tr_step_asking(const tr_step *c) {
    tr_forward *f = c->f;
    const uint32_t rows = f->step->n_logit_rows;
    if (!tr_step_asks_fewer(c)) return *c;
    if (c->id == 0) {
        uint32_t row = 0, n = 0;
        for (uint32_t i = 0; i < f->step->n_spans; i++) {
            tr_span s = f->spans[i];
            uint32_t skip = s.flags & (TR_SPAN_LOGITS | TR_SPAN_HIDDEN) ? 0
                            : s.flags & TR_SPAN_SAMPLE                  ? s.rows - 1
                                                                        : s.rows;
            s.pos0 += skip, s.rows -= skip, s.row0 = row;
            row += s.rows;
            if (s.rows > 0) f->asking_spans[n++] = s;
        }
        f->step->n_asking = n;
        const size_t hidden = f->model->hidden, d = f->model->head_dim;
        for (uint32_t i = 0; i < rows; i++) { /* never past a row that is still to move */
            const uint32_t from = f->logit_row[i];
            memmove(f->x + i * hidden, f->x + from * hidden, hidden * sizeof(float));
            for (uint32_t k = 0; k < 2; k++)
                if (f->rope[k]) memmove(f->rope[k] + i * d, f->rope[k] + from * d, d * sizeof(float));
            f->logit_row[i] = i;
        }
    }
    if (!tr_step_meet(c)) return (tr_step){.rows = 0};
    tr_step asking =
        tr_step_make(f, c->id, c->n, rows, rows >= c->n * TR_FORWARD_TAKEN_MIN ? TR_STEP_TAKEN : TR_STEP_SHARED);
    asking.spans = f->asking_spans;
    asking.n_spans = f->step->n_asking;
    return asking;
}
