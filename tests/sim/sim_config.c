#include "tests/sim/sim.h"

#include "kv/kv_budget.h"

#include <stdlib.h>
#include <string.h>

static uint32_t between(world *w, uint32_t lo, uint32_t hi) { return lo + (uint32_t)sim_random(w, hi - lo + 1); }

static void model(world *w) {
    tr_kv_model *m = &w->model;
    m->n_layers = between(w, 1, 5);
    m->n_kv_heads = between(w, 1, MAX_HEADS);
    m->head_dim = 16;
    m->window = between(w, 2, 40);
    uint32_t mix = between(w, 0, 2); /* all global, mixed, all sliding */
    for (uint32_t l = 0; l < m->n_layers; l++) m->layer_is_global[l] = mix == 0 || (mix == 1 && sim_random(w, 2) == 0);
}

/* Cut the layers into n parts, none empty. */
static void split(world *w, uint32_t p, uint32_t n) {
    uint32_t layers = w->model.n_layers;
    w->n_stages[p] = n;
    w->split[p][0] = 0;
    for (uint32_t i = 1; i <= n; i++)
        w->split[p][i] = i == n ? layers : between(w, w->split[p][i - 1] + 1, layers - (n - i));
}

static void pipelines(world *w) {
    tr_scheduler_config *c = &w->scheduler;
    uint32_t most = w->model.n_layers < 4 ? w->model.n_layers : 4, actor = FIRST_STAGE;
    w->n_pipelines = c->n_pipelines = between(w, 1, 3) == 1 ? 1 : 2;
    c->one_pool = sim_random(w, 4) == 0;
    for (uint32_t p = 0; p < w->n_pipelines; p++) {
        split(w, p, between(w, 1, most));
        c->pipeline[p].n_stages = w->n_stages[p];
        c->pipeline[p].max_in_flight = between(w, 1, w->n_stages[p] + 1);
        c->pipeline[p].feeds = p + 1 == w->n_pipelines && (tr_rng_mix(w->seed) & 1);
        w->queue_depth[p] = c->pipeline[p].max_in_flight + c->pipeline[p].feeds;
        for (uint32_t i = 0; i < w->n_stages[p]; i++, actor++) {
            c->pipeline[p].stage[i] = actor;
            w->lo[actor] = w->split[p][i];
            w->hi[actor] = w->split[p][i + 1];
            w->pipeline_of[actor] = p;
        }
    }
    w->n_actors = actor;
    c->exclusive = sim_random(w, 2) == 0;
    c->frontend = FRONTEND;
    c->resharder = RESHARDER_ACTOR;
}

static void knobs(world *w) {
    tr_scheduler_config *c = &w->scheduler;
    static const uint32_t contexts[] = {20, 40, 64, 96, 96, 160};
    c->context = contexts[sim_random(w, 6)] + between(w, 0, 7);
    c->vocab = between(w, 20, 200);
    c->n_eos = 1;
    c->eos[0] = between(w, 0, c->vocab - 1);
    c->chunk = sim_random(w, 3) == 0 ? between(w, 1, 8) : between(w, 8, 48);
    c->max_rows = c->chunk + between(w, 0, 40);
    c->max_batch = between(w, 1, 8);
    c->max_waiting = between(w, 1, 12);
}

static void *zeroed(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (p == NULL) abort();
    memset(p, 0, (bytes + 63) / 64 * 64 + 64);
    return p;
}

/* Pools between "one full context" and "several", now and then too small for the largest request. */
static void pools(world *w) {
    tr_scheduler_config *c = &w->scheduler;
    static const uint32_t page_toks[] = {16, 16, 32, 64};
    uint32_t slots = between(w, 2, 12), groups = 0;
    uint64_t journal_bytes = tr_journal_bytes(slots, c->context);
    w->journal_mem = zeroed(journal_bytes);
    c->journal = w->journal_mem;
    tr_journal_init(c->journal, slots, c->context);
    for (uint32_t p = 0; p < 2; p++) {
        tr_kv_layout *l = &c->layout[p];
        uint32_t page_tok = page_toks[sim_random(w, 4)], pages[TR_KV_GROUPS_MAX] = {0}, times = between(w, 2, 8);
        tr_error err;
        if (p == 1 && c->one_pool) {
            *l = c->layout[0];
            c->table[1] = c->table[0];
            c->bitmap[1] = c->bitmap[0];
            break;
        }
        uint32_t windows[2] = {0, w->model.window};
        bool any_global = false, any_sliding = false;
        for (uint32_t i = 0; i < w->model.n_layers; i++)
            *(w->model.layer_is_global[i] ? &any_global : &any_sliding) = true;
        groups = 0;
        for (uint32_t k = 0; k < 2; k++) {
            if (!(k == 0 ? any_global : any_sliding)) continue;
            uint32_t full = tr_kv_budget_pages(windows[k], page_tok, 0, c->context, c->chunk);
            pages[groups] = (full * times + 1) / (sim_random(w, 8) == 0 ? 4 : 2) + (uint32_t)sim_random(w, 3);
            if (pages[groups] == 0) pages[groups] = 1;
            groups++;
        }
        if (tr_kv_layout_init(l, &w->model, TR_KV_BF16, page_tok, slots, c->context, pages, &err) != TR_OK)
            sim_fail(w, "layout: %s", err.text);
        c->table[p] = w->table[p] = zeroed(l->table_bytes);
        c->bitmap[p] = w->bitmap[p] = zeroed(tr_kv_pool_bitmap_bytes(l));
        uint32_t most = 0;
        for (uint32_t g = 0; g < l->n_groups; g++) most = l->group[g].n_pages > most ? l->group[g].n_pages : most;
        w->n_cells[p] = (size_t)w->model.n_layers * w->model.n_kv_heads * most * l->page_tok;
        w->cells[p] = zeroed(w->n_cells[p] * sizeof(uint64_t));
        for (size_t i = 0; i < w->n_cells[p]; i++) w->cells[p][i] = tr_rng_mix(i ^ w->seed); /* garbage, not zero */
    }
    if (c->one_pool) {
        w->table[1] = w->table[0];
        w->bitmap[1] = w->bitmap[0];
        w->cells[1] = NULL;
    }
}

static void requests(world *w) {
    const tr_scheduler_config *c = &w->scheduler;
    uint32_t poison_odds = between(w, 2, 8);
    w->n_requests = between(w, 2, 14);
    for (uint32_t i = 0; i < w->n_requests; i++) {
        request *r = &w->request[i];
        r->rid = tr_rng_mix(w->seed * 1000 + i) | 1;
        r->n_prompt = sim_random(w, 4) == 0 ? between(w, 1, c->context) : between(w, 1, c->context / 2);
        r->max_tokens = between(w, 0, 4) == 0 ? between(w, 0, 2) : between(w, 1, c->context);
        r->forced = sim_random(w, 4) == 0 ? between(w, 0, r->n_prompt - 1) : 0;
        r->logits = sim_random(w, 5) == 0;
        r->ignore_eos = sim_random(w, 2) == 0;
        r->seed = tr_rng_next(&w->rng);
        r->stop_at = sim_random(w, 4) == 0 ? between(w, 1, 12) : 0;
        for (uint32_t k = 0; k < r->n_prompt; k++) r->prompt[k] = between(w, 0, c->vocab - 1);
        r->submit_ns = sim_random(w, 2) == 0 ? sim_random(w, 2 * MS) : sim_random(w, w->faults_until);
        if ((w->faults & CANCELS) && sim_random(w, 3) == 0) r->cancel_ns = r->submit_ns + sim_random(w, 20 * MS);
        uint32_t last = r->n_prompt + r->max_tokens;
        r->fault_pos = (uint32_t)sim_random(w, last < c->context ? last : c->context);
        r->poison = (w->faults & POISON) && sim_random(w, poison_odds) == 0;
        r->bad = !r->poison && (w->faults & BAD_REQUEST) && sim_random(w, 5) == 0;
        sim_model_oracle(w, r);
        sim_push(w, r->submit_ns, W_SUBMIT, i, 0, 0);
        if (r->cancel_ns) sim_push(w, r->cancel_ns, W_CANCEL, i, 0, 0);
    }
}

static void faults(world *w) {
    w->zmq = sim_random(w, 2) == 0;
    w->faults = sim_random(w, 5) == 0 ? 0 : (uint32_t)sim_random(w, FAULTS_END);
    if (sim_random(w, 4) == 0) w->faults &= (uint32_t)sim_random(w, FAULTS_END);
    w->faults_until = (5 + sim_random(w, 60)) * MS;
    w->crash_odds = between(w, 500, 20000);
    w->counted_left = 4;
    w->delay_max = sim_random(w, 2) == 0 ? 20 * US : (1 + sim_random(w, 500)) * US;
    w->compute_max = sim_random(w, 2) == 0 ? 100 * US : (1 + sim_random(w, 2000)) * US;
}

void sim_config(world *w) {
    faults(w);
    model(w);
    pipelines(w);
    knobs(w);
    pools(w);
    for (uint32_t a = FIRST_STAGE; a < w->n_actors; a++) {
        w->channel[a] = calloc(1, sizeof(channel));
        if (w->channel[a] == NULL) abort();
        w->channel[a]->cap = between(w, 1, MAX_ACTIVATIONS);
    }
    w->slow_actor = sim_random(w, 3) == 0 ? between(w, RESHARDER_ACTOR, w->n_actors - 1) : TR_NOBODY;
    w->slow_factor = between(w, 2, 40);
    requests(w);
}
