/* A store of prefixes outside of the company, and its server. What others have put there is what the prefill path of
 * any company with the same numbers computes; what this company puts there is checked against that. The server loses
 * blocks, is down, says that it has what it has not, and fails in the middle of a fetch, with garbage laid down. */
#include "tests/sim/sim.h"

#include "kv/kv_block.h"

#include <stdlib.h>
#include <string.h>

static uint64_t oracle[MAX_LAYERS][MAX_HEADS][MAX_CONTEXT];

static block *find(const world *w, const uint8_t *tenant, uint32_t group, const uint32_t *token, uint32_t end) {
    for (block *b = w->block; b != NULL; b = b->next)
        if (b->group == group && b->end == end && memcmp(b->tenant, tenant, sizeof b->tenant) == 0 &&
            memcmp(b->token, token, end * sizeof *token) == 0)
            return b;
    return NULL;
}

static void add(world *w, const uint8_t *tenant, uint32_t group, const uint32_t *token, uint32_t end) {
    const uint32_t pos = end - TR_KV_TILE_TOK;
    if (find(w, tenant, group, token, end)) return;
    block *b = calloc(1, sizeof *b);
    if (b == NULL) abort();
    b->next = w->block;
    w->block = b;
    b->group = group;
    b->end = end;
    memcpy(b->tenant, tenant, sizeof b->tenant);
    memcpy(b->token, token, end * sizeof *token);
    for (uint32_t l = 0; l < w->model.n_layers; l++)
        for (uint32_t h = 0; h < w->model.n_kv_heads; h++)
            memcpy(b->cell[l][h], &oracle[l][h][pos], sizeof b->cell[l][h]);
}

/* Other companies were here before, with some of the prompts that will be asked. */
void sim_store_fill(world *w) {
    for (uint32_t i = 0; i < w->n_requests; i++) {
        const request *r = &w->request[i];
        uint8_t tenant[32];
        if (sim_random(w, 3) != 0) continue;
        const uint32_t end = (uint32_t)sim_random(w, r->n_prompt + 1), holes = (uint32_t)sim_random(w, 200);
        tr_kv_block_tenant(r->salt, strlen(r->salt), tenant);
        sim_model_prefill(w, r->prompt, end, oracle);
        for (uint32_t e = TR_KV_TILE_TOK; e <= end; e += TR_KV_TILE_TOK)
            for (uint32_t g = 0; g < w->scheduler.layout[0].n_groups; g++)
                if (!sim_chance(w, holes)) add(w, tenant, g, r->prompt, e);
    }
}

void sim_store_config(world *w) {
    static const uint32_t least[] = {0, 1, 16, 48};
    w->store_actor = w->n_actors++;
    w->lead_of[w->store_actor] = w->store_actor;
    w->scheduler.has_store = 1;
    w->scheduler.store = w->store_actor;
    w->scheduler.store_least = least[sim_random(w, 4)];
    w->store_down = sim_random(w, 2) == 0 ? 0 : (uint32_t)sim_random(w, 500);
    w->store_loses = sim_random(w, 2) == 0 ? 0 : (uint32_t)sim_random(w, 500);
}

void sim_store_free(world *w) {
    for (block *b = w->block, *next; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    w->block = NULL;
}

static void look(world *w, process *p, const tr_journal_entry *e, uint32_t tok1) {
    static bool there[TR_KV_GROUPS_MAX][MAX_CONTEXT / TR_KV_TILE_TOK];
    const bool *const rows[TR_KV_GROUPS_MAX] = {there[0], there[1]};
    const tr_kv_layout *l = &w->scheduler.layout[0];
    memset(there, 0, sizeof there);
    const bool lies = sim_chance(w, w->store_down / 4);
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t i = 0; (i + 1) * TR_KV_TILE_TOK <= tok1; i++)
            there[g][i] = lies || find(w, e->store_tenant, g, e->tokens, (i + 1) * TR_KV_TILE_TOK);
    p->positions = sim_chance(w, w->store_down / 4) ? 0 : tr_kv_block_usable(l, rows, tok1);
}

static void garbage(world *w, const tr_msg_store_get *m, uint32_t layer, uint32_t from) {
    for (uint32_t h = 0; h < w->model.n_kv_heads; h++)
        for (uint32_t pos = from; pos < m->tok1; pos += 3)
            *sim_model_cell(w, 0, m->slot, layer, h, pos) = tr_rng_next(&w->rng);
}

static void fetch(world *w, process *p, const tr_journal_entry *e, const tr_msg_store_get *m, uint64_t max_cells) {
    const tr_kv_layout *l = &w->scheduler.layout[0];
    const bool fails = sim_chance(w, w->store_down / 2);
    if (m->tok1 % l->page_tok != 0) sim_fail(w, "fetch of half a page");
    for (uint32_t layer = 0; layer < w->model.n_layers; layer++) {
        const uint32_t g = l->layer_group[layer];
        for (uint32_t pos = m->tok_min.data[g]; pos < m->tok1; pos += TR_KV_TILE_TOK) {
            const block *b = find(w, e->store_tenant, g, e->tokens, pos + TR_KV_TILE_TOK);
            if (b == NULL || (fails && sim_random(w, 4) == 0)) {
                garbage(w, m, layer, pos);
                p->status = 1;
                return;
            }
            for (uint32_t h = 0; h < w->model.n_kv_heads; h++)
                for (uint32_t t = 0; t < TR_KV_TILE_TOK; t++) {
                    if (max_cells-- == 0) return;
                    *sim_model_cell(w, 0, m->slot, layer, h, pos + t) = b->cell[layer][h][t];
                }
        }
    }
    p->positions = m->tok1;
}

static void put(world *w, process *p, const tr_journal_entry *e, const tr_msg_store_put *m) {
    const tr_kv_layout *l = &w->scheduler.layout[0];
    sim_model_prefill(w, e->tokens, m->tok1, oracle);
    for (uint32_t layer = 0; layer < w->model.n_layers; layer++)
        for (uint32_t h = 0; h < w->model.n_kv_heads; h++)
            for (uint32_t pos = m->tok_min.data[l->layer_group[layer]]; pos < m->tok1; pos++)
                if (*sim_model_cell(w, 0, m->slot, layer, h, pos) != oracle[layer][h][pos])
                    sim_fail(w, "slot %u: a wrong cell is stored, layer %u position %u of %u", m->slot, layer, pos,
                             m->tok1);
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t pos = m->tok_min.data[g]; pos < m->tok1; pos += TR_KV_TILE_TOK) {
            w->total_stored++;
            if (!sim_chance(w, w->store_loses)) add(w, e->store_tenant, g, e->tokens, pos + TR_KV_TILE_TOK);
        }
    p->positions = m->tok1;
}

void sim_store_run(world *w, uint32_t actor, uint64_t max_cells) {
    process *p = &w->process[actor];
    const tr_msg *m = &p->compute;
    const bool puts = m->type == TR_MSG_STORE_PUT;
    const uint32_t slot = puts ? m->as.store_put.slot : m->as.store_get.slot;
    const tr_journal_entry *e = tr_journal_at(w->journal_mem, slot);
    if (e->rid != (puts ? m->as.store_put.rid : m->as.store_get.rid)) sim_fail(w, "store job of another request");
    if (puts) {
        if (max_cells == UINT32_MAX) put(w, p, e, &m->as.store_put); /* else it died before anything was sent */
    } else if (m->as.store_get.fetch) {
        fetch(w, p, e, &m->as.store_get, max_cells);
    } else {
        look(w, p, e, m->as.store_get.tok1);
    }
}
