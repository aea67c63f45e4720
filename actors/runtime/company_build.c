#include "actors/runtime/company_build.h"

#include "actors/runtime/company_kv.h"
#include "actors/runtime/company_links.h"
#include "actors/runtime/control.h"
#include "base/checked.h"
#include "base/crc32c.h"
#include "kv/kv_pool.h"
#include "scheduler/scheduler.h"
#include "stages/forward.h"
#include "stages/layer_split.h"
#include "transport/codec.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    BATCH_DEFAULT = 16,
    SERVE_CONTEXTS = 8,    /* full contexts that a company which stays holds, memory permitting */
    SERVE_MEMORY_PART = 4, /* at most this part of the memory */
    SPIN_NS = 5000,        /* of an actor with cores of its own, before it sleeps */
    KV_RECORDS = 8         /* of a hand-off between nodes, under way at once */
};

/* ---- context, slots, pools ------------------------------------------------------------------------------------------
 */

typedef struct build {
    const tr_company_build_want *want;
    const tr_model_config *model;
    const tr_machine *machine; /* [n_nodes] */
    tr_kv_model kv;
    tr_placement placement;
    bool crowded[TR_COMPANY_NODES_MAX]; /* stages of that node share cores */
    tr_company *c;
} build;

static uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint32_t side_node(const build *b, uint32_t side) { return b->want->side_node[b->want->unified ? 0 : side]; }

/* Of the smaller of the machines that hold a pool. */
static uint64_t pool_memory(const build *b) {
    uint64_t a = b->machine[side_node(b, 0)].memory_bytes, z = b->machine[side_node(b, 1)].memory_bytes;
    return a < z ? a : z;
}

/* Bytes of one sequence over the pools. */
static uint64_t sequence_bytes(const build *b, uint32_t tokens) {
    uint64_t bytes = tr_company_kv_bytes(b->model, &b->want->side[0], tokens, b->c->chunk);
    if (!b->c->one_pool) bytes += tr_company_kv_bytes(b->model, &b->want->side[1], tokens, b->c->chunk);
    return bytes;
}

/* Each layer of a pool ends on a border of 4096 bytes. */
static uint64_t pool_rounding(const build *b) { return (uint64_t)b->kv.n_layers * 4096; }

static uint64_t serve_budget(const build *b, uint32_t context) {
    uint64_t part = pool_memory(b) / SERVE_MEMORY_PART;
    uint64_t full = SERVE_CONTEXTS * sequence_bytes(b, context) + 2 * pool_rounding(b);
    return part < full ? part : full;
}

static tr_status choose_context(build *b, tr_error *err) {
    const tr_company_build_want *w = b->want;
    uint32_t most = min_u32(b->model->context_max, TR_MAX_TOKENS);
    if (w->context > b->model->context_max)
        return tr_error_set(err, TR_CONFIG, "-c %u: the model was made for a context of at most %u tokens", w->context,
                            b->model->context_max);
    if (w->context > TR_MAX_TOKENS)
        return tr_error_set(err, TR_CONFIG, "-c %u: this version takes at most %d tokens", w->context, TR_MAX_TOKENS);
    if (w->context) {
        b->c->context = w->context;
    } else if (w->n_requests) {
        b->c->context = min_u32(most, (uint32_t)tr_align_up(w->request_tokens, 16));
    } else {
        uint64_t memory = w->kv_memory ? w->kv_memory : pool_memory(b) / SERVE_MEMORY_PART;
        while (most > 512 && sequence_bytes(b, most) > memory) most /= 2;
        b->c->context = most;
    }
    if (w->request_tokens > b->c->context)
        return tr_error_set(err, TR_DATA, "%u tokens do not fit into the context of %u tokens: raise -c or shorten",
                            w->request_tokens, b->c->context);
    return TR_OK;
}

static void choose_batch(build *b) {
    const tr_company_build_want *w = b->want;
    tr_company *c = b->c;
    c->max_batch = w->max_batch ? w->max_batch : w->n_requests ? w->n_requests : BATCH_DEFAULT;
    c->max_batch = min_u32(c->max_batch, TR_MAX_SPANS);
    c->max_waiting = w->n_requests ? w->n_requests + 1 : w->max_waiting;
    /* Entries that ended keep their slot until the client has its end. */
    c->n_slots = w->n_requests ? 2 * w->n_requests + 2 : 2 * c->max_batch + c->max_waiting;
    c->max_rows = c->chunk > c->max_batch ? c->chunk : c->max_batch;
    if (c->unified && c->one_path) c->max_rows = min_u32(c->chunk + c->max_batch, TR_MAX_STEP_ROWS); /* in one step */
}

/* Pages for exactly n sequences of that length; pipelined chunks of sliding groups have room to run ahead. */
static void pages_for(const build *b, const tr_company_build_side *side, uint32_t n, uint32_t depth,
                      uint32_t pages[TR_KV_GROUPS_MAX]) {
    uint32_t window[TR_KV_GROUPS_MAX], layers[TR_KV_GROUPS_MAX], groups = tr_company_kv_windows(&b->kv, window, layers);
    for (uint32_t g = 0; g < groups; g++) {
        uint64_t all = (uint64_t)n * tr_kv_layout_pages_needed(&b->kv, window[g], side->page, b->want->request_tokens,
                                                               b->c->chunk * depth);
        pages[g] = all < TR_KV_NO_PAGE ? (uint32_t)all : TR_KV_NO_PAGE - 1;
    }
}

static tr_status size_pool(build *b, uint32_t pool, uint64_t budget, tr_error *err) {
    const tr_company_build_side *side = &b->want->side[pool];
    tr_company *c = b->c;
    uint32_t pages[TR_KV_GROUPS_MAX] = {0};
    if (budget)
        TR_TRY(tr_kv_layout_fit(&b->kv, side->kv, side->page, c->context, c->chunk, budget, c->n_slots, pages, err));
    else
        pages_for(b, side, b->want->n_requests, pool == 0 ? c->max_in_flight[0] : 1, pages);
    return tr_kv_layout_init(&c->layout[pool], &b->kv, side->kv, side->page, c->n_slots, c->context, pages, err);
}

/* The budget goes to the pools in proportion to what one full context takes in each, so that both hold as many. */
static tr_status size_pools(build *b, tr_error *err) {
    tr_company *c = b->c;
    uint64_t budget = b->want->kv_memory;
    if (!budget && !b->want->n_requests) budget = serve_budget(b, c->context);
    if (budget && sequence_bytes(b, c->context) > budget)
        return tr_error_set(err, TR_CONFIG,
                            "one sequence of %u tokens needs %" PRIu64 " KiB of KV in all, %" PRIu64
                            " KiB are allowed: raise --kv-memory or lower -c",
                            c->context, (sequence_bytes(b, c->context) >> 10) + 1, budget >> 10);
    if (budget >= sequence_bytes(b, c->context) + 2 * pool_rounding(b)) budget -= 2 * pool_rounding(b);
    uint64_t share[2] = {budget, 0};
    if (budget && !c->one_pool) {
        uint64_t one[2];
        for (int p = 0; p < 2; p++) one[p] = tr_company_kv_bytes(b->model, &b->want->side[p], c->context, c->chunk);
        uint64_t n = budget / (one[0] + one[1]), rest = budget - n * (one[0] + one[1]);
        for (int p = 0; p < 2; p++)
            share[p] = n * one[p] + (uint64_t)((double)rest * (double)one[p] / (double)(one[0] + one[1]));
    }
    TR_TRY(size_pool(b, 0, share[0], err));
    if (c->one_pool) {
        c->layout[1] = c->layout[0];
        return TR_OK;
    }
    return size_pool(b, 1, share[1], err);
}

/* ---- actors ---------------------------------------------------------------------------------------------------------
 */

static tr_status split(const build *b, const tr_company_build_side *side, const char *name, uint32_t rows_a_head,
                       uint32_t *begin, tr_error *err) {
    tr_error inner = {0};
    tr_status status;
    if (side->n_layers && side->n_layers != side->pp)
        return tr_error_set(err, TR_CONFIG, "%s.layers has %u entries for %u stages: give one a stage", name,
                            side->n_layers, side->pp);
    status = side->n_layers ? tr_layer_split_given(b->model, side->pp, side->layers, begin, &inner)
                            : tr_layer_split_auto(b->model, side->pp, rows_a_head, begin, &inner);
    return status == TR_OK ? TR_OK : tr_error_set(err, status, "%s: %.400s", name, inner.text);
}

static tr_company_actor *add_actor(tr_company *c, tr_role role, uint32_t node, const char *name) {
    tr_check(c->n_actors < TR_COMPANY_ACTORS_MAX);
    tr_company_actor *a = &c->actor[c->n_actors++];
    a->role = (uint32_t)role;
    a->node = node;
    a->numa_node = -1;
    snprintf(a->name, sizeof a->name, "%s", name);
    return a;
}

static void place(const build *b, const tr_placement_rank *p, tr_company_actor *a) {
    a->workers = p->n_cpus;
    if (!b->machine[a->node].is_this_system) { /* planned for another machine: run unbound on what there is */
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        if (online > 0 && a->workers > (uint32_t)online) a->workers = (uint32_t)online;
        return;
    }
    a->n_cpus = p->n_cpus;
    memcpy(a->cpus, p->cpus, p->n_cpus * sizeof p->cpus[0]);
    a->numa_node = p->numa_node;
    a->spin_ns = b->crowded[a->node] || a->rank > 0 ? 0 : SPIN_NS; /* a follower's cores are its workers' */
}

/* Of the last n actors, which are stages rank by rank. */
static tr_status number_workers(tr_company *c, uint32_t n, tr_error *err) {
    for (tr_company_actor *lead = c->actor + c->n_actors - n; lead < c->actor + c->n_actors; lead += lead->tp) {
        uint32_t sum = 0;
        for (uint32_t r = 0; r < lead->tp; r++) {
            lead[r].worker0 = sum;
            sum += lead[r].workers;
        }
        for (uint32_t r = 0; r < lead->tp; r++) lead[r].team_workers = sum;
        if (sum > TR_TEAM_WORKERS_MAX)
            return tr_error_set(err, TR_CONFIG, "%s has %u workers over its ranks, %d are possible: limit them by -t",
                                lead->name, sum, TR_TEAM_WORKERS_MAX);
    }
    return TR_OK;
}

static tr_status add_pipeline(build *b, uint32_t pipeline, const char *name, tr_error *err) {
    const tr_company_build_side *side = &b->want->side[pipeline];
    uint32_t begin[TR_COMPANY_BUILD_STAGES_MAX + 1];
    bool prefill_only = !b->want->unified && pipeline == 0;
    TR_TRY(split(b, side, name, prefill_only ? b->want->chunk : 1, begin, err));
    for (uint32_t i = 0; i < side->pp * side->tp; i++) {
        const uint32_t stage = i / side->tp, rank = i % side->tp;
        char label[32];
        snprintf(label, sizeof label, rank ? "%.8s.%u.%u" : "%.8s.%u", name, stage, rank);
        tr_company_actor *a = add_actor(b->c, TR_ROLE_STAGE, side_node(b, pipeline), label);
        a->pipeline = pipeline;
        a->stage = stage;
        a->n_stages = side->pp;
        a->rank = rank;
        a->tp = side->tp;
        a->lo = begin[stage];
        a->hi = begin[stage + 1];
        for (uint32_t phase = 0; phase < 2; phase++) {
            if (!b->want->unified && phase != pipeline) continue;
            a->phase[phase] = (tr_company_phase){
                .active = 1, .precision = b->want->side[phase].dtype, .pool = b->c->one_pool ? 0 : phase};
        }
        place(b, &b->placement.rank[pipeline][i], a);
    }
    return number_workers(b->c, side->pp * side->tp, err);
}

/* "resharder" on the head, "resharder.b" on node b. */
static uint32_t add_service(build *b, tr_role role, const char *name, uint32_t node) {
    tr_company *c = b->c;
    char label[32];
    snprintf(label, sizeof label, "%s%s%s", name, node ? "." : "", node ? c->node[node].name : "");
    add_actor(c, role, node, label);
    return c->n_actors - 1;
}

static tr_status add_actors(build *b, tr_error *err) {
    tr_company *c = b->c;
    for (uint32_t n = 0; n < c->n_nodes; n++) {
        c->node[n].supervisor = add_service(b, TR_ROLE_SUPERVISOR, "supervisor", n);
        c->node[n].agent = c->n_nodes > 1 ? add_service(b, TR_ROLE_NODE, "node", n) : TR_NOBODY;
    }
    c->frontend = add_service(b, TR_ROLE_FRONTEND, "frontend", 0);
    c->scheduler = add_service(b, TR_ROLE_SCHEDULER, "scheduler", 0);
    c->resharder = c->resharder_to = TR_NOBODY;
    if (!c->one_pool || b->want->files || b->want->swap_bytes > 0) {
        c->resharder = c->resharder_to = add_service(b, TR_ROLE_RESHARDER, "resharder", c->pool_node[0]);
        if (c->pool_node[1] != c->pool_node[0])
            c->resharder_to = add_service(b, TR_ROLE_RESHARDER, "resharder", c->pool_node[1]);
    }
    c->store_actor = b->want->store ? add_service(b, TR_ROLE_STORE, "store", 0) : TR_NOBODY;
    if (b->want->http) add_service(b, TR_ROLE_GATEWAY, "gateway", 0);
    if (b->want->unified) return add_pipeline(b, 0, "unified", err);
    TR_TRY(add_pipeline(b, 0, "prefill", err));
    return add_pipeline(b, 1, "decode", err);
}

/* ---- segments -------------------------------------------------------------------------------------------------------
 */

/* What the ranks of a stage share, of the phase that wants more. */
static void size_team(const tr_model_config *m, const tr_company *c, tr_company_actor *lead) {
    for (uint32_t phase = 0; phase < 2; phase++) {
        if (!lead->phase[phase].active) continue;
        const tr_forward_config f = {.precision = (tr_precision)lead->phase[phase].precision,
                                     .lo = lead->lo,
                                     .hi = lead->hi,
                                     .max_rows = c->max_rows,
                                     .max_spans = TR_MAX_SPANS,
                                     .context = c->context};
        uint64_t filled = 0, bytes = tr_forward_common_bytes(m, &f, lead->team_workers, &filled);
        lead->team_bytes = max_u64(lead->team_bytes, tr_align_up(sizeof(tr_team_meeting) + bytes, 4096));
        lead->team_filled = max_u64(lead->team_filled, tr_align_up(sizeof(tr_team_meeting) + filled, 4096));
    }
}

static void size_teams(const tr_model_config *m, tr_company *c) {
    uint64_t at = 0, sparse = 0;
    for (uint32_t a = 0; a < c->n_actors; a++) {
        tr_company_actor *actor = &c->actor[a];
        if (actor->role != TR_ROLE_STAGE || actor->tp == 1) continue;
        if (actor->rank == 0) size_team(m, c, actor);
        const tr_company_actor *lead = actor - actor->rank;
        actor->team_bytes = lead->team_bytes;
        actor->team_filled = lead->team_filled;
        actor->team_offset = at;
        if (actor->rank + 1 < actor->tp) continue;
        at += actor->team_bytes;
        sparse += actor->team_bytes - actor->team_filled;
    }
    c->segment[TR_SEGMENT_TEAMS].bytes = at;
    c->segment[TR_SEGMENT_TEAMS].sparse = sparse;
}

static tr_status size_segments(tr_company *c, bool in_file, tr_error *err) {
    static const char *const names[TR_SEGMENT_COUNT] = {"control",    "links",     "journal", "tables",
                                                        "prefill-kv", "decode-kv", "swap",    "teams"};
    uint64_t at = 0;
    for (uint32_t i = 0; i < TR_SEGMENT_COUNT; i++)
        snprintf(c->segment[i].name, sizeof c->segment[i].name, "troupe-%s", names[i]);
    c->segment[TR_SEGMENT_CONTROL].bytes = sizeof(tr_control);
    c->segment[TR_SEGMENT_JOURNAL].bytes = tr_journal_bytes(c->n_slots, c->context);
    if (c->segment[TR_SEGMENT_JOURNAL].bytes == 0)
        return tr_error_set(err, TR_CONFIG, "%u requests of %u tokens are too many: lower -c or scheduler.max_waiting",
                            c->n_slots, c->context);
    for (uint32_t p = 0; p < (c->one_pool ? 1u : 2u); p++) {
        c->table_offset[p] = at;
        at = tr_align_up(at + c->layout[p].table_bytes, 64);
        c->bitmap_offset[p] = at;
        at = tr_align_up(at + tr_kv_pool_bitmap_bytes(&c->layout[p]), 64);
    }
    if (c->one_pool) {
        c->table_offset[1] = c->table_offset[0];
        c->bitmap_offset[1] = c->bitmap_offset[0];
    }
    c->segment[TR_SEGMENT_TABLES].bytes = at;
    c->segment[TR_SEGMENT_POOL_PREFILL].bytes = c->layout[0].pool_bytes;
    c->segment[TR_SEGMENT_POOL_DECODE].bytes = c->one_pool ? 0 : c->layout[1].pool_bytes;
    c->segment[TR_SEGMENT_SWAP].bytes = in_file ? 0 : c->swap_bytes;
    return TR_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------
 */

static tr_status check_want(const tr_company_build_want *w, const tr_model_config *m, tr_error *err) {
    uint32_t ranks = 0;
    for (uint32_t p = 0; p < (w->unified ? 1u : 2u); p++) {
        const tr_company_build_side *s = &w->side[p];
        const char *name = w->unified ? "unified" : p == 0 ? "prefill" : "decode";
        if (s->pp == 0 || s->pp > m->n_layers)
            return tr_error_set(err, TR_CONFIG, "%s.pp: %u stages for the %u layers of the model: give at most %u",
                                name, s->pp, m->n_layers, m->n_layers);
        if (s->tp == 0 || s->tp > TR_COMPANY_BUILD_RANKS_MAX)
            return tr_error_set(err, TR_CONFIG, "%s.tp: %u ranks a stage: 1 to %d are possible", name, s->tp,
                                TR_COMPANY_BUILD_RANKS_MAX);
        ranks += s->pp * s->tp;
    }
    if (ranks > TR_COMPANY_BUILD_RANKS_MAX)
        return tr_error_set(err, TR_CONFIG, "%u ranks of stages in all: at most %d are possible", ranks,
                            TR_COMPANY_BUILD_RANKS_MAX);
    for (uint32_t p = 0; p < 2; p++) {
        uint32_t page = w->side[p].page;
        if (page != 16 && page != 32 && page != 64)
            return tr_error_set(err, TR_CONFIG, "page: %u is not 16, 32 or 64 tokens", page);
    }
    for (uint32_t p = 0; p < 2; p++)
        if (w->side_node[p] >= (w->n_nodes > 1 ? w->n_nodes : 1))
            return tr_error_set(err, TR_INTERNAL, "a pipeline on node %u of %u", w->side_node[p], w->n_nodes);
    if (w->n_nodes > TR_COMPANY_NODES_MAX || (w->n_nodes > 1 && ranks + 4 * w->n_nodes > TR_COMPANY_ACTORS_MAX))
        return tr_error_set(err, TR_CONFIG, "%u ranks on %u hosts: too many for one company", ranks, w->n_nodes);
    if (w->chunk == 0 || w->chunk > TR_MAX_STEP_ROWS)
        return tr_error_set(err, TR_CONFIG, "--chunk %u: 1 to %d tokens are possible", w->chunk, TR_MAX_STEP_ROWS);
    return TR_OK;
}

/* Pipelines of one node share its cores; those of different nodes know nothing of each other. */
static tr_status place_stages(build *b, tr_error *err) {
    const tr_company_build_want *w = b->want;
    const bool apart = !w->unified && w->side_node[0] != w->side_node[1];
    for (uint32_t first = 0; first < (apart ? 2u : 1u); first++) {
        tr_placement_want want = {.n_pipelines = w->unified || apart ? 1 : 2,
                                  .n_stages = {w->side[first].pp, w->unified || apart ? 0 : w->side[1].pp},
                                  .tp = {w->side[first].tp, w->side[1].tp},
                                  .max_cores = w->threads,
                                  .cores = w->cores};
        tr_placement placed;
        TR_TRY(tr_placement_compute(&b->machine[side_node(b, first)], &want, &placed, err));
        b->crowded[side_node(b, first)] = placed.exclusive;
        if (!apart) {
            b->placement = placed;
            b->c->exclusive = placed.exclusive;
            for (uint32_t p = 0; p < 2; p++) b->c->max_in_flight[p] = placed.max_in_flight[p];
            return TR_OK;
        }
        memcpy(b->placement.rank[first], placed.rank[0], sizeof placed.rank[0]);
        b->c->max_in_flight[first] = placed.max_in_flight[0];
    }
    return TR_OK;
}

static void copy_nodes(build *b) {
    const tr_company_build_want *w = b->want;
    tr_company *c = b->c;
    c->n_nodes = w->n_nodes > 1 ? w->n_nodes : 1;
    for (uint32_t n = 0; n < w->n_nodes; n++) memcpy(c->node[n].name, w->node[n], sizeof c->node[n].name);
    for (uint32_t p = 0; p < 2; p++) c->pool_node[p] = side_node(b, p);
}

/* Pages may change owner instead of being copied when they are the same bytes in the same place. */
static bool same_pool(const build *b) {
    const tr_company_build_side *s = b->want->side;
    return s[0].kv == s[1].kv && s[0].page == s[1].page &&
           (b->want->unified || (side_node(b, 0) == side_node(b, 1) && b->machine[side_node(b, 0)].n_nodes == 1));
}

static void copy_model(const tr_model_config *m, tr_company *c) {
    c->vocab = m->vocab;
    c->hidden = m->hidden;
    c->instruct = m->is_instruct;
    for (uint32_t i = 0; i < m->n_eos && c->n_eos < sizeof c->eos / sizeof c->eos[0]; i++)
        if (m->eos_ids[i] >= 0) c->eos[c->n_eos++] = (uint32_t)m->eos_ids[i];
}

/* Shared memory is allocated in full at the start: under a limit of the cgroup too much of it gets a process killed,
 * and that tells nobody why. */
static tr_status check_memory(const build *b, tr_error *err) {
    tr_company *c = b->c;
    for (uint32_t n = 0; n < c->n_nodes; n++) {
        const tr_machine *m = &b->machine[n];
        uint64_t sum = 0;
        c->self = n;
        for (uint32_t i = 0; i < TR_SEGMENT_COUNT; i++) sum += tr_company_segment_memory(c, i);
        c->self = 0;
        if (!m->is_this_system || m->memory_bytes == 0 || sum < m->memory_bytes) continue;
        return tr_error_set(err, TR_CONFIG,
                            "the company needs %" PRIu64 " MiB of shared memory, %" PRIu64
                            " MiB may be used %s%s: lower --kv-memory or -c",
                            (sum >> 20) + 1, m->memory_bytes >> 20, c->n_nodes > 1 ? "on " : "here", c->node[n].name);
    }
    return TR_OK;
}

tr_status tr_company_build(const tr_company_build_want *want, const tr_model_config *model, const tr_machine *machine,
                           tr_company *c, tr_error *err) {
    build b = {.want = want, .model = model, .machine = machine, .c = c};
    memset(c, 0, sizeof *c);
    c->magic = TR_COMPANY_MAGIC;
    c->version = TR_COMPANY_VERSION;
    for (int i = 0; i < TR_PRECISION_END; i++) c->image_fd[i] = -1;
    c->unified = want->unified;
    c->transport_zmq = want->zmq;
    c->chunk = want->chunk;
    TR_TRY(check_want(want, model, err));
    TR_TRY(tr_company_kv_model(model, &b.kv, err));
    copy_nodes(&b);
    c->one_pool = same_pool(&b);
    c->prefix_cache = want->prefix_cache;
    c->one_path = want->side[0].dtype == want->side[1].dtype && want->side[0].kv == want->side[1].kv;
    c->watermark = want->watermark, c->policy = want->policy, c->slo_ns = want->slo_ns, c->fair = want->fair;
    c->lease = want->lease;
    c->swap_bytes = want->swap_bytes;
    c->promise_tok = want->reserve_full ? TR_SCHEDULER_PROMISE_ALL : TR_SCHEDULER_PROMISE_TOK;
    copy_model(model, c);
    TR_TRY(place_stages(&b, err));
    choose_batch(&b);
    TR_TRY(choose_context(&b, err));
    TR_TRY(size_pools(&b, err));
    TR_TRY(add_actors(&b, err));
    tr_company_links_add(c, want->logits);
    size_teams(model, c);
    TR_TRY(size_segments(c, want->swap_file, err));
    TR_TRY(check_memory(&b, err));
    c->plan_hash = (uint64_t)TR_COMPANY_VERSION << 32 | tr_crc32c(0, c, sizeof *c);
    return TR_OK;
}
