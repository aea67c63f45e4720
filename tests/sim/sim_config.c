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

/* Further ranks of the stages, one to three in all each. */
static void followers(world *w) {
    tr_scheduler_config *c = &w->scheduler;
    for (uint32_t p = 0; p < w->n_pipelines; p++) {
        c->pipeline[p].n_ranks = w->n_stages[p];
        for (uint32_t i = 0; i < w->n_stages[p]; i++) {
            const uint32_t lead = c->pipeline[p].stage[i];
            for (uint32_t tp = between(w, 1, 3); tp > 1 && w->n_actors < MAX_ACTORS - 1; tp--) {
                const uint32_t a = w->n_actors++;
                c->pipeline[p].stage[c->pipeline[p].n_ranks++] = a;
                w->lead_of[a] = lead;
                w->lo[a] = w->lo[lead];
                w->hi[a] = w->hi[lead];
                w->pipeline_of[a] = p;
            }
        }
    }
}

static void pipelines(world *w) {
    tr_scheduler_config *c = &w->scheduler;
    uint32_t most = w->model.n_layers < 4 ? w->model.n_layers : 4, actor = FIRST_STAGE;
    w->n_pipelines = c->n_pipelines = between(w, 1, 3) == 1 ? 1 : 2;
    c->one_pool = sim_random(w, 4) == 0;
    if (c->one_pool && w->seed % 2) c->resharder = TR_NOBODY;
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
    w->n_actors = w->first_follower = actor;
    for (uint32_t a = 0; a < actor; a++) w->lead_of[a] = a;
    if (w->ranks) followers(w);
    c->exclusive = sim_random(w, 2) == 0;
    c->frontend = FRONTEND;
    c->resharder = RESHARDER_ACTOR;
}

static void knobs(world *w) {
    tr_scheduler_config *c = &w->scheduler;
    static const uint32_t contexts[] = {20, 40, 64, 96, 96, 160};
    c->context = contexts[w->tight ? 2 + sim_random(w, 4) : sim_random(w, 6)] + between(w, 0, 7);
    c->vocab = between(w, 20, 200);
    c->n_eos = 1;
    c->eos[0] = between(w, 0, c->vocab - 1);
    c->chunk = sim_random(w, 3) == 0 ? between(w, 1, 8) : between(w, 8, 48);
    c->max_rows = c->chunk + between(w, 0, 40);
    c->max_batch = between(w, 1, 8);
    c->max_waiting = between(w, w->tight ? 6 : 1, 12);
    c->prefix_cache = sim_random(w, 4) != 0;
    c->one_path = c->one_pool && sim_random(w, 2) == 0;
    c->prefix_key = (tr_siphash_key){{tr_rng_next(&w->rng), tr_rng_next(&w->rng)}};
    c->watermark = sim_random(w, 4) == 0 ? between(w, 1, 40) : 0;
    c->promise_tok = !w->tight ? TR_SCHEDULER_PROMISE_ALL : sim_random(w, 2) == 0 ? 1 : between(w, 1, 32);
    tr_rng rng = {w->seed ^ 0x901};
    c->policy = (tr_policy_id)tr_rng_below(&rng, TR_POLICY_END);
    c->slo_ns = tr_rng_below(&rng, 2) ? tr_rng_below(&rng, 4 * w->compute_max) : 0;
    c->fair = tr_rng_below(&rng, 2) == 0;
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
    uint32_t slots = between(w, w->tight ? 6 : 2, 12), groups = 0;
    uint64_t journal_bytes = tr_journal_bytes(slots, c->context);
    w->journal_mem = zeroed(journal_bytes);
    c->journal = w->journal_mem;
    tr_journal_init(c->journal, slots, c->context);
    for (uint32_t p = 0; p < 2; p++) {
        tr_kv_layout *l = &c->layout[p];
        uint32_t page_tok = page_toks[sim_random(w, w->tight ? 3 : 4)], pages[TR_KV_GROUPS_MAX] = {0},
                 times = between(w, 2, 8);
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
            pages[groups] = w->tight
                                ? full + (uint32_t)sim_random(w, 2 + full / 2)
                                : (full * times + 1) / (sim_random(w, 8) == 0 ? 4 : 2) + (uint32_t)sim_random(w, 3);
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

/* It goes on where an earlier one ended, with or without more prompt; the file may be there by then, or not. */
static void restore(world *w, uint32_t i, tr_rng *rng) {
    request *r = &w->request[i];
    uint32_t from = (uint32_t)tr_rng_below(rng, i);
    const request *old = &w->request[from];
    uint32_t n = old->n_prompt + old->n_oracle, more = (uint32_t)tr_rng_below(rng, 3), n_prefill;
    n_prefill = old->n_prompt - old->forced;
    if (w->aimed && old->n == 1) w->request[from].save = true; /* else restores are rare */
    if (!old->save || n + more >= w->scheduler.context || old->n_oracle == 0) return;
    memcpy(r->prompt, old->prompt, old->n_prompt * sizeof *r->prompt);
    memcpy(r->prompt + old->n_prompt, old->oracle, old->n_oracle * sizeof *r->prompt);
    for (uint32_t k = 0; k < more; k++) r->prompt[n + k] = (uint32_t)tr_rng_below(rng, w->scheduler.vocab);
    r->n_prompt = n + more;
    r->forced = r->n_prompt - n_prefill;
    r->restore = 1 + from;
    r->restore_end = n - 1;
    r->logits = 0;
    r->poison = r->bad = false;
    r->submit_ns += old->submit_ns;
}

/* A prompt of its own, or one that begins as an earlier request ended: with its prompt, perhaps with its output. */
static void prompt(world *w, uint32_t i, bool alike) {
    request *r = &w->request[i];
    uint32_t known = 0, most = w->scheduler.context * 3 / 4;
    if (alike && r->n_prompt < most) r->n_prompt = between(w, r->n_prompt, most);
    if (i > 0 && (alike || sim_random(w, 3) == 0)) {
        const request *old = &w->request[sim_random(w, alike ? (i + 1) / 2 : i)];
        uint32_t have = old->n_prompt + old->n_oracle, keep = between(w, alike ? r->n_prompt / 2 : 1, r->n_prompt);
        for (; known < keep && known < have; known++)
            r->prompt[known] = known < old->n_prompt ? old->prompt[known] : old->oracle[known - old->n_prompt];
        if (alike || sim_random(w, 4) != 0) memcpy(r->salt, old->salt, sizeof r->salt);
    } else if (sim_random(w, 3) == 0) {
        r->salt[0] = (char)between(w, 'a', 'c');
    }
    for (uint32_t k = known; k < r->n_prompt; k++) r->prompt[k] = between(w, 0, w->scheduler.vocab - 1);
}

/* Sample k of the prompt of request `lead`. */
static void sample_of(world *w, uint32_t lead, uint32_t k) {
    request *r = &w->request[lead + k];
    *r = w->request[lead];
    r->rid += k;
    r->sample = k;
    r->poison = r->bad = false;
    r->stop_at = sim_random(w, 4) == 0 ? between(w, 1, 12) : 0;
    r->cancel_ns = (w->faults & CANCELS) && sim_random(w, 3) == 0 ? r->submit_ns + sim_random(w, 20 * MS) : 0;
    sim_model_oracle(w, r);
    if (r->cancel_ns) sim_push(w, r->cancel_ns, W_CANCEL, lead + k, 0, 0);
}

static void requests(world *w) {
    tr_rng files = {w->seed ^ 0xf11e};
    const tr_scheduler_config *c = &w->scheduler;
    uint32_t poison_odds = between(w, 2, 8);
    bool alike = sim_random(w, 2) == 0;
    w->n_requests = between(w, w->tight ? 5 : 2, 14);
    for (uint32_t i = 0; i < w->n_requests; i++) {
        request *r = &w->request[i];
        r->rid = (tr_rng_mix(w->seed * 1000 + i) | TR_MAX_SAMPLES) & ~(uint64_t)(TR_MAX_SAMPLES - 1);
        r->n = 1;
        r->lead = i;
        r->n_prompt =
            sim_random(w, 4) == 0 ? between(w, 1, c->context) : between(w, 1, c->context / (w->tight ? 4 : 2));
        r->max_tokens = between(w, 0, 4) == 0 ? between(w, 0, 2) : between(w, 1, c->context);
        if (w->tight) r->max_tokens = between(w, 1, 4) == 1 ? r->max_tokens : between(w, c->context / 2, c->context);
        prompt(w, i, alike);
        r->forced = sim_random(w, 4) == 0 ? between(w, 0, r->n_prompt - 1) : 0;
        r->logits = sim_random(w, 5) == 0;
        r->ignore_eos = sim_random(w, 2) == 0;
        r->seed = tr_rng_next(&w->rng);
        r->priority = tr_rng_mix(r->seed) % 3 ? 0 : (int32_t)(tr_rng_mix(r->seed) % 5) - 2;
        r->stop_at = sim_random(w, 4) == 0 ? between(w, 1, 12) : 0;
        r->submit_ns = sim_random(w, 2) == 0 ? sim_random(w, 2 * MS) : sim_random(w, w->faults_until);
        if ((w->faults & CANCELS) && sim_random(w, 3) == 0) r->cancel_ns = r->submit_ns + sim_random(w, 20 * MS);
        uint32_t last = r->n_prompt + r->max_tokens;
        r->fault_pos = (uint32_t)sim_random(w, last < c->context ? last : c->context);
        r->poison = (w->faults & POISON) && sim_random(w, poison_odds) == 0;
        r->bad = !r->poison && (w->faults & BAD_REQUEST) && sim_random(w, 5) == 0;
        r->save = tr_rng_below(&files, 3) == 0;
        if (i > 0 && tr_rng_below(&files, 3) == 0) restore(w, i, &files);
        sim_model_oracle(w, r);
        sim_push(w, r->submit_ns, W_SUBMIT, i, 0, 0);
        if (r->cancel_ns) sim_push(w, r->cancel_ns, W_CANCEL, i, 0, 0);
        if (r->logits || r->max_tokens == 0 || r->restore || sim_random(w, 3) != 0) continue;
        r->save = false;
        uint32_t n = between(w, 2, 5), most = w->n_requests - i;
        r->n = n < most ? n : most;
        for (uint32_t k = 1; k < r->n; k++) sample_of(w, i, k);
        i += r->n - 1;
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
    if (w->aimed) sim_faults_config(w);
    model(w);
    pipelines(w);
    knobs(w);
    pools(w);
    sim_swap_config(w);
    if (w->store) sim_store_config(w);
    for (uint32_t a = FIRST_STAGE; a < w->first_follower; a++) {
        w->channel[a] = calloc(1, sizeof(channel));
        if (w->channel[a] == NULL) abort();
        w->channel[a]->cap = between(w, 1, MAX_ACTIVATIONS);
    }
    w->slow_actor = sim_random(w, 3) == 0 ? between(w, RESHARDER_ACTOR, w->n_actors - 1) : TR_NOBODY;
    w->slow_factor = between(w, 2, 40);
    requests(w);
    if (w->store) sim_store_fill(w);
    for (uint32_t i = 0; w->aimed && i < w->n_requests; i++)
        if (tr_rng_below(&w->aim_rng, 6) == 0)
            sim_push(w, w->request[i].submit_ns + tr_rng_below(&w->aim_rng, 20 * MS), W_CLIENT_DIES, i, 0, 0);
    tr_rng timeouts = {w->seed ^ 0x71e0};
    for (uint32_t i = 0; w->aimed && i < w->n_requests; i++) {
        const bool leads = w->request[i].lead == i;
        w->request[i].timeout_ms = leads ? 0 : w->request[w->request[i].lead].timeout_ms;
        if (leads && tr_rng_below(&timeouts, 5) == 0)
            w->request[i].timeout_ms = 1 + (uint32_t)tr_rng_below(&timeouts, tr_rng_below(&timeouts, 2) ? 5 : 60);
    }
    if (w->nodes) sim_nodes_config(w);
}
