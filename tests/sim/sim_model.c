/* The hash model. Weights of the two phases differ; so do the cells that the resharder converts. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

/* Where both phases have one precision, a path is as good as the other. */
static uint32_t path_of(const world *w, uint32_t phase) { return w->scheduler.one_path ? TR_PHASE_PREFILL : phase; }
static uint64_t path_key(uint32_t phase) { return phase == TR_PHASE_PREFILL ? 0x70ull : 0xd0ull; }
static uint64_t embed(uint32_t phase, uint32_t token) { return tr_rng_hash(path_key(phase) ^ 0xe000, token); }
static uint64_t cell_of(uint32_t phase, uint32_t layer, uint32_t head, uint32_t pos, uint64_t act) {
    return tr_rng_hash(path_key(phase) << 32 | layer << 24 | head << 16 | pos, act);
}
static uint64_t converted(uint64_t cell) { return tr_rng_mix(cell ^ 0xc04); }
static uint32_t sample(const world *w, uint64_t act, uint64_t seed, uint32_t index, uint32_t pos) {
    return (uint32_t)(tr_rng_hash(tr_rng_hash(act, seed + index), pos) % w->scheduler.vocab);
}
static uint32_t window_begin(const world *w, uint32_t layer, uint32_t pos) {
    uint32_t n = w->model.layer_is_global[layer] ? 0 : w->model.window;
    return n == 0 || pos < n ? 0 : pos - n + 1;
}

/* ---- oracle: one request alone, no pages, no stages ---- */
static uint64_t oracle_row(const world *w, uint64_t (*kv)[MAX_HEADS][MAX_CONTEXT], uint32_t phase, uint32_t pos,
                           uint32_t token) {
    phase = path_of(w, phase);
    uint64_t act = embed(phase, token);
    for (uint32_t l = 0; l < w->model.n_layers; l++) {
        uint64_t sum = act;
        for (uint32_t h = 0; h < w->model.n_kv_heads; h++) {
            kv[l][h][pos] = cell_of(phase, l, h, pos, act);
            for (uint32_t q = window_begin(w, l, pos); q <= pos; q++) sum = tr_rng_hash(sum, kv[l][h][q]);
        }
        act = sum;
    }
    return act;
}

void sim_model_prefill(const world *w, const uint32_t *token, uint32_t n, uint64_t (*kv)[MAX_HEADS][MAX_CONTEXT]) {
    for (uint32_t pos = 0; pos < n; pos++) oracle_row(w, kv, TR_PHASE_PREFILL, pos, token[pos]);
}

static void oracle_convert(const world *w, uint64_t (*kv)[MAX_HEADS][MAX_CONTEXT], uint32_t n) {
    for (uint32_t l = 0; l < w->model.n_layers && !w->scheduler.one_pool; l++)
        for (uint32_t h = 0; h < w->model.n_kv_heads; h++)
            for (uint32_t q = 0; q < n; q++) kv[l][h][q] = converted(kv[l][h][q]);
}

void sim_model_oracle(world *w, request *r) {
    static uint64_t kv[MAX_LAYERS][MAX_HEADS][MAX_CONTEXT];
    uint32_t token[MAX_CONTEXT + 1], n = r->n_prompt, split = r->n_prompt - r->forced;
    uint32_t left = w->scheduler.context - n, max = r->max_tokens < left ? r->max_tokens : left;
    memcpy(token, r->prompt, n * sizeof *token);
    r->n_oracle = 0;
    r->oracle_finish = TR_FINISH_LENGTH;
    for (uint32_t pos = 0; r->n_oracle < max; pos++) {
        if (pos == split) oracle_convert(w, kv, split);
        uint64_t act = oracle_row(w, kv, pos < split ? TR_PHASE_PREFILL : TR_PHASE_DECODE, pos, token[pos]);
        if (pos + 1 < n) continue;
        uint32_t t = sample(w, act, r->seed, r->sample, pos + 1);
        if (t == w->scheduler.eos[0] && !r->ignore_eos) {
            r->oracle_finish = TR_FINISH_STOP;
            return;
        }
        r->oracle[r->n_oracle++] = t;
        token[n++] = t;
    }
}

/* ---- the same on pages, layers [lo, hi) of one stage ---- */
static uint64_t *cell_of_page(world *w, uint32_t pool, uint32_t layer, uint32_t head, uint32_t page) {
    const tr_kv_layout *l = &w->scheduler.layout[pool];
    size_t run = (size_t)layer * w->model.n_kv_heads + head, most = 0;
    for (uint32_t k = 0; k < l->n_groups; k++) most = l->group[k].n_pages > most ? l->group[k].n_pages : most;
    return &w->cells[pool][(run * most + page) * l->page_tok];
}

static uint64_t *cell_at(world *w, uint32_t pool, uint32_t slot, uint32_t layer, uint32_t head, uint32_t pos) {
    const tr_kv_layout *l = &w->scheduler.layout[pool];
    uint32_t g = l->layer_group[layer], page = w->table[pool][tr_kv_layout_entry(l, slot, g, pos / l->page_tok)];
    if (page >= l->group[g].n_pages)
        sim_fail(w, "pool %u slot %u layer %u: no page for position %u", pool, slot, layer, pos);
    return cell_of_page(w, pool, layer, head, page) + pos % l->page_tok;
}

uint64_t *sim_model_cell(world *w, uint32_t pool, uint32_t slot, uint32_t layer, uint32_t head, uint32_t pos) {
    return cell_at(w, pool, slot, layer, head, pos);
}

static uint32_t pool_of_step(const world *w, const tr_msg_step *step) {
    return w->scheduler.one_pool || step->phase == TR_PHASE_PREFILL ? 0 : 1;
}

static uint64_t row(world *w, uint32_t actor, const tr_msg_step *step, const tr_msg_span *span, uint32_t pos,
                    uint64_t act) {
    uint32_t pool = pool_of_step(w, step), phase = path_of(w, step->phase);
    const uint32_t hi = step->layer1 > 0 && step->layer1 < w->hi[actor] ? step->layer1 : w->hi[actor];
    for (uint32_t l = step->layer0 > w->lo[actor] ? step->layer0 : w->lo[actor]; l < hi; l++) {
        uint64_t sum = act;
        for (uint32_t h = 0; h < w->model.n_kv_heads; h++) {
            *cell_at(w, pool, span->slot, l, h, pos) = cell_of(phase, l, h, pos, act);
            for (uint32_t q = window_begin(w, l, pos); q <= pos; q++)
                sum = tr_rng_hash(sum, *cell_at(w, pool, span->slot, l, h, q));
        }
        act = sum;
    }
    return act;
}

/* All tokens of a page, in the layers of this stage. */
static void copy_page(world *w, uint32_t actor, const tr_msg_step *step, const uint32_t *copy) {
    uint32_t pool = pool_of_step(w, step);
    const tr_kv_layout *l = &w->scheduler.layout[pool];
    if (copy[1] >= l->group[copy[0]].n_pages || copy[2] >= l->group[copy[0]].n_pages || copy[1] == copy[2])
        sim_fail(w, "copy of page %u to %u of group %u", copy[1], copy[2], copy[0]);
    w->total_copies++;
    for (uint32_t layer = w->lo[actor]; layer < w->hi[actor]; layer++)
        for (uint32_t h = 0; h < w->model.n_kv_heads && l->layer_group[layer] == copy[0]; h++)
            memcpy(cell_of_page(w, pool, layer, h, copy[2]), cell_of_page(w, pool, layer, h, copy[1]),
                   l->page_tok * sizeof(uint64_t));
}

void sim_model_step(world *w, uint32_t actor, const tr_msg_step *step, const uint64_t *in, uint64_t *out,
                    uint32_t *sampled, uint32_t max_rows) {
    bool last = w->hi[actor] == w->model.n_layers && step->layer1 == 0;
    for (uint32_t i = 0; i + 2 < step->copies.len; i += 3) copy_page(w, actor, step, step->copies.data + i);
    for (uint32_t i = 0, r = 0, at = 0; i < step->spans.len; i++) {
        const tr_msg_span *span = &step->spans.data[i];
        uint32_t draws = span->draws > 1 ? span->draws : 1;
        for (uint32_t k = 0; k < draws; k++) sampled[at + k] = 0;
        for (uint32_t k = 0; k < span->rows; k++, r++) {
            if (r >= max_rows) return;
            uint64_t act = in ? in[r] : embed(path_of(w, step->phase), step->tokens.data[r]);
            out[r] = row(w, actor, step, span, span->pos0 + k, act);
        }
        for (uint32_t k = 0; k < draws && last && (span->flags & 1); k++)
            sampled[at + k] = sample(w, out[r - 1], span->seed, span->sample + k, span->pos0 + span->rows);
        at += draws;
    }
}

void sim_model_garble(world *w, uint32_t actor, const tr_msg_step *step, uint32_t max_rows) {
    uint32_t pool = w->scheduler.one_pool || step->phase == TR_PHASE_PREFILL ? 0 : 1;
    for (uint32_t i = 0, r = 0; i < step->spans.len; i++)
        for (uint32_t k = 0; k < step->spans.data[i].rows && r < max_rows; k++, r++)
            for (uint32_t l = w->lo[actor]; l < w->hi[actor]; l++)
                for (uint32_t h = 0; h < w->model.n_kv_heads; h++)
                    *cell_at(w, pool, step->spans.data[i].slot, l, h, step->spans.data[i].pos0 + k) =
                        tr_rng_next(&w->rng);
}

/* ---- saved sequences; a name is "f" and the index of the request that saves ---- */
static bool fits(world *w, const saved *f, const tr_journal_entry *e, const tr_msg_reshard *job) {
    if (f == NULL || f->n_kv < job->tok1 || f->n_prefill != e->prompt_len - e->forced) return false;
    for (uint32_t g = 0; g < w->scheduler.layout[1].n_groups; g++)
        if (f->tok_min[g] > job->tok_min.data[g]) return false;
    return memcmp(f->token, e->tokens, job->tok1 * sizeof *f->token) == 0;
}

static saved *begin_save(world *w, uint32_t i, tr_journal_entry *e, const tr_msg_reshard *job) {
    free(w->file[i]);
    saved *f = w->file[i] = calloc(1, sizeof *f);
    if (f == NULL) abort();
    f->n_tokens = e->prompt_len + e->kept;
    f->n_prefill = e->prompt_len - e->forced;
    f->n_kv = job->tok1;
    f->pool = job->pool;
    memcpy(f->tok_min, job->tok_min.data, job->tok_min.len * sizeof *f->tok_min);
    memcpy(f->token, e->tokens, f->n_tokens * sizeof *f->token);
    return f;
}

bool sim_model_file(world *w, const tr_msg_reshard *job, uint64_t max_cells) {
    tr_journal_entry *e = tr_journal_at(w->journal_mem, job->dst_slot);
    const tr_kv_layout *layout = &w->scheduler.layout[job->pool];
    bool save = job->file == 1;
    uint32_t i = (uint32_t)strtoul((save ? e->save : e->restore) + 1, NULL, 10);
    if (e->rid != job->rid || job->tok_min.len != layout->n_groups) sim_fail(w, "file job of another request");
    if (save && max_cells < UINT32_MAX) return true; /* died before the file had its name */
    saved *f = save ? begin_save(w, i, e, job) : w->file[i];
    if (!save && !fits(w, f, e, job)) return false;
    for (uint32_t l = 0; l < w->model.n_layers; l++)
        for (uint32_t h = 0; h < w->model.n_kv_heads; h++)
            for (uint32_t pos = job->tok_min.data[layout->layer_group[l]]; pos < job->tok1 && max_cells > 0; pos++) {
                uint64_t *cell = cell_at(w, job->pool, job->dst_slot, l, h, pos);
                if (save)
                    f->cell[l][h][pos] = *cell;
                else
                    *cell = f->pool == job->pool ? f->cell[l][h][pos] : converted(f->cell[l][h][pos]);
                max_cells--;
            }
    return true;
}

uint64_t sim_model_reshard(world *w, const tr_msg_reshard *job, uint64_t max_ops) {
    tr_reshard_side side[2];
    for (uint32_t p = 0; p < 2; p++)
        side[p] = (tr_reshard_side){.layout = &w->scheduler.layout[p],
                                    .table = w->table[p],
                                    .slot = p == 0 ? job->src_slot : job->dst_slot,
                                    .n_stages = w->n_stages[w->n_pipelines == 1 ? 0 : p],
                                    .layer_begin = w->split[w->n_pipelines == 1 ? 0 : p],
                                    .tp = 1};
    const tr_reshard_range range = {job->tok0,   job->tok1,         job->layer0,
                                    job->layer1, job->tok_min.data, job->tok_min.len};
    tr_reshard_plan plan;
    tr_error err;
    if (tr_reshard_plan_init(&plan, &side[0], &side[1], &range, &err) != TR_OK) sim_fail(w, "%s", err.text);
    uint64_t n = 0;
    for (tr_reshard_op op; n < max_ops && tr_reshard_plan_next(&plan, &op); n++)
        for (uint32_t t = 0; t < op.n_tok; t++) {
            uint64_t *src = cell_at(w, 0, job->src_slot, op.layer, op.kv_head, op.pos + t);
            uint64_t *dst = cell_at(w, 1, job->dst_slot, op.layer, op.kv_head, op.pos + t);
            *dst = converted(*src);
        }
    return n;
}
