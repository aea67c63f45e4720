/* Memory of a forward pass: what all workers of a stage share, what a process keeps, what a worker has for itself.
 * The common part is laid out by one function for its three uses: measuring it, placing it in memory that several
 * processes map (offsets alone decide where a thing lies), and allocating it piece by piece, so that a sanitizer sees
 * the borders. */
#include "base/checked.h"
#include "stages/forward_state.h"
#include "stages/rope.h"

#include <stdlib.h>
#include <sys/mman.h>

static void *aligned_floats(size_t n) { return aligned_alloc(64, tr_align_up(n * sizeof(float) + 64, 64)); }

static uint32_t widest(const tr_forward *f) {
    const tr_model_config *m = f->model;
    uint32_t w = m->hidden;
    if (f->n_q > w) w = f->n_q;
    if (m->ffn > w) w = m->ffn;
    return w;
}

static bool a16(const tr_forward *f) { return f->config.precision == TR_PRECISION_INT8A16; }
static bool two_bases(const tr_forward *f) { return f->model->sliding_window > 0; }
static uint64_t logits_bytes(const tr_forward *f) {
    return f->last ? (uint64_t)f->config.max_rows * f->n_vocab * sizeof(float) : 0;
}

void tr_forward_set_shapes(tr_forward *f) {
    const tr_model_config *m = f->model;
    f->first = f->config.lo == 0;
    f->last = f->config.hi == m->n_layers;
    f->n_q = m->n_heads * m->head_dim;
    f->n_kv = m->n_kv_heads * m->head_dim;
    f->n_qkv = f->n_q + 2 * f->n_kv;
    f->n_vocab = (uint32_t)tr_align_up(m->vocab, 16);
    f->heads_a_kv = m->n_heads / m->n_kv_heads;
}

/* ---- common ---------------------------------------------------------------------------------------------------------
 */

typedef struct layout {
    tr_forward *f;
    bool measure;
    uint8_t *base; /* of shared memory, or NULL */
    uint64_t at;   /* bytes so far */
    bool failed;
} layout;

static void *take(layout *l, uint64_t n, size_t size) {
    const uint64_t bytes = tr_align_up(n * size + 64, 64), at = l->at;
    l->at += bytes;
    if (l->measure) return NULL;
    if (l->base) return l->base + at;
    tr_check(l->f->n_own < TR_FORWARD_COMMON_MAX);
    void *own = aligned_alloc(64, bytes);
    l->f->own[l->f->n_own++] = own;
    l->failed |= own == NULL;
    return own;
}
#define TAKE(pointer, n) pointer = take(l, n, sizeof *(pointer))

static void lay_out_head(layout *l, uint32_t n_workers) {
    tr_forward *f = l->f;
    const uint64_t shares = (uint64_t)n_workers * f->config.max_spans;
    TAKE(f->logit_row, f->config.max_rows);
    TAKE(f->asking_spans, f->config.max_spans);
    TAKE(f->sampled, f->config.max_spans);
    TAKE(f->draw, f->config.max_spans);
    TAKE(f->best, shares);
    TAKE(f->floor, f->config.max_spans);
}

static void lay_out(layout *l, uint32_t n_workers) {
    tr_forward *f = l->f;
    const uint64_t rows = f->config.max_rows, hidden = f->model->hidden, layers = f->config.hi - f->config.lo;
    TAKE(f->step, 1);
    TAKE(f->spans, f->config.max_spans);
    TAKE(f->tokens, f->first ? rows : 0);
    if (l->measure || l->base) TAKE(f->common_x, rows * hidden);
    TAKE(f->row_slot, rows);
    TAKE(f->row_pos, rows);
    TAKE(f->next_item, layers);
    TAKE(f->next_block, layers + 1);
    TAKE(f->taken, (uint64_t)tr_forward_taken_rows(f) * n_workers);
    const uint64_t splits = (f->config.context - 1) / TR_OPS_ATTN_SPLIT_TOK + 1;
    const uint64_t parts = n_workers > 1 ? splits * f->config.max_spans : 0;
    f->n_parts = parts < TR_FORWARD_PARTS_MAX ? (uint32_t)parts : TR_FORWARD_PARTS_MAX;
    TAKE(f->part, (uint64_t)f->n_parts * f->model->n_heads * tr_ops_attn_part_floats(f->model->head_dim));
    TAKE(f->part_done, (uint64_t)f->config.max_spans * f->model->n_kv_heads);
    for (uint32_t kind = 0; kind <= two_bases(f); kind++) TAKE(f->rope[kind], rows * f->model->head_dim);
    TAKE(f->norm, rows * hidden);
    TAKE(f->qkv, rows * f->n_qkv);
    TAKE(f->attn, rows * f->n_q);
    TAKE(f->proj, rows * hidden);
    TAKE(f->gate_up, rows * 2 * f->model->ffn);
    TAKE(f->act, rows * f->model->ffn);
    f->ready.x = take(l, tr_linear_rows_bytes(f->config.max_rows, widest(f)), 1);
    TAKE(f->ready.scale, rows);
    f->ready.a16 = a16(f);
    if (f->last) lay_out_head(l, n_workers);
}

uint64_t tr_forward_common_bytes(const tr_model_config *model, const tr_forward_config *config, uint32_t n_workers,
                                 uint64_t *filled_out) {
    tr_forward f = {.config = *config, .model = model};
    layout l = {.f = &f, .measure = true};
    tr_forward_set_shapes(&f);
    lay_out(&l, n_workers);
    *filled_out = l.at;
    return l.at + logits_bytes(&f);
}

/* Only evaluation ever asks for the logits of all rows: address space, not memory. */
static tr_status map_logits(tr_forward *f, layout *l) {
    if (!f->last) return TR_OK;
    if (l->base) {
        f->logits = (float *)(void *)(l->base + l->at);
        return TR_OK;
    }
    void *logits =
        mmap(NULL, logits_bytes(f), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    f->logits = logits == MAP_FAILED ? NULL : logits;
    return f->logits ? TR_OK : TR_UNAVAILABLE;
}

/* ---- of this process ------------------------------------------------------------------------------------------------
 */

static tr_status make_frequencies(tr_forward *f) {
    for (uint32_t kind = 0; kind <= two_bases(f); kind++) {
        f->inv_freq[kind] = malloc(f->model->head_dim / 2 * sizeof(float));
        if (!f->inv_freq[kind]) return TR_UNAVAILABLE;
        tr_rope_frequencies(f->model, kind == 0, f->inv_freq[kind]);
    }
    f->slot_used = calloc(f->config.kv.layout->n_slots, sizeof *f->slot_used);
    if (f->last && f->head->kind == TR_IMAGE_INT8_PLANES)
        TR_TRY(tr_screen_rows_init(&f->screen, &f->head->planes, f->floor));
    return f->slot_used ? TR_OK : TR_UNAVAILABLE;
}

static tr_status allocate_logprobs(tr_forward *f) {
    const size_t n = (size_t)f->config.max_spans * (1 + TR_SAMPLER_TOP_MAX);
    if (!f->last) return TR_OK;
    f->logprob_ids = malloc(n * sizeof *f->logprob_ids);
    f->logprobs = malloc(n * sizeof *f->logprobs);
    return f->logprob_ids && f->logprobs ? TR_OK : TR_UNAVAILABLE;
}

static tr_status allocate_workers(tr_forward *f) {
    const size_t wide = tr_align_up(widest(f), 16);
    const uint32_t rows = f->config.max_rows < TR_FORWARD_TAKEN_ROWS ? f->config.max_rows : TR_FORWARD_TAKEN_ROWS;
    f->n_local = tr_team_local(f->config.team, &f->first_worker);
    f->worker = calloc(f->n_local, sizeof *f->worker);
    for (uint32_t i = 0; f->worker && i < f->n_local; i++) {
        tr_forward_worker *w = &f->worker[i];
        w->panel = aligned_floats(tr_ops_panel_floats(wide));
        w->scratch = aligned_floats(tr_ops_attn_scratch_floats(f->heads_a_kv, f->model->head_dim));
        w->tmp = aligned_floats(wide);
        w->x = aligned_floats(TR_FORWARD_NARROW_ROWS * f->model->hidden);
        w->norm = aligned_floats((size_t)rows * f->model->hidden);
        w->proj = aligned_floats((size_t)rows * f->model->hidden);
        w->gate_up = aligned_floats((size_t)rows * 2 * f->model->ffn);
        w->act = aligned_floats((size_t)rows * f->model->ffn);
        const bool planes = f->last && f->head->kind == TR_IMAGE_INT8_PLANES;
        if (planes && tr_screen_init(&w->screen, f->ops) != TR_OK) return TR_UNAVAILABLE;
        w->logits = f->last ? aligned_floats((size_t)f->config.max_spans * TR_FORWARD_HEAD_IDS) : NULL;
        w->sampler = f->last ? malloc(tr_sampler_scratch_bytes(f->model->vocab)) : NULL;
        w->edited = f->last ? aligned_floats(f->n_vocab) : NULL;
        if (tr_linear_rows_init(&w->ready, rows, (uint32_t)wide, a16(f)) != TR_OK ||
            tr_linear_rows_init(&w->act_ready, rows, f->model->ffn, a16(f)) != TR_OK || !w->panel || !w->scratch ||
            !w->tmp || !w->x || !w->norm || !w->proj || !w->gate_up || !w->act ||
            (f->last && !(w->sampler && w->logits && w->edited)))
            return TR_UNAVAILABLE;
    }
    return f->worker ? TR_OK : TR_UNAVAILABLE;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------
 */

tr_status tr_forward_memory_init(tr_forward *f) {
    layout l = {.f = f, .base = f->config.common};
    lay_out(&l, tr_team_size(f->config.team));
    if (l.failed) return TR_UNAVAILABLE;
    TR_TRY(map_logits(f, &l));
    TR_TRY(make_frequencies(f));
    TR_TRY(allocate_logprobs(f));
    return allocate_workers(f);
}

void tr_forward_memory_fini(tr_forward *f) {
    for (uint32_t i = 0; f->worker && i < f->n_local; i++) {
        tr_forward_worker *w = &f->worker[i];
        void *own[] = {w->panel,   w->scratch, w->tmp,    w->x,       w->norm,  w->proj,
                       w->gate_up, w->act,     w->logits, w->sampler, w->edited};
        for (size_t k = 0; k < sizeof own / sizeof *own; k++) free(own[k]);
        tr_linear_rows_fini(&w->ready);
        tr_linear_rows_fini(&w->act_ready);
        tr_screen_fini(&w->screen);
    }
    free(f->worker);
    tr_screen_rows_fini(&f->screen);
    for (uint32_t i = 0; i < f->n_own; i++) free(f->own[i]);
    if (f->logits && !f->config.common) munmap(f->logits, logits_bytes(f));
    free(f->logprob_ids);
    free(f->logprobs);
    free(f->slot_used);
    free(f->inv_freq[0]);
    free(f->inv_freq[1]);
}
