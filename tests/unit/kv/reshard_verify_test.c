/* 100,000 random pairs of topologies (depth, ranks, nodes, layer split, page size, format, one pool or two, cut into
 * jobs) are proved right by kv/reshard_verify.h; and a plan with any one fault is not. RESHARD_SEED=N: another seed. */
#include "kv/reshard_verify.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 6, HEADS = 5, RANKS = 6, NODES = 4, CONTEXT = 150, PAGES = 16, TABLE = 2 * 16, PAIRS = 100000 };

typedef struct topology {
    tr_kv_layout layout;
    uint32_t table[TABLE], split[LAYERS + 1], node[LAYERS * RANKS];
    tr_reshard_side side;
} topology;

typedef struct pair {
    topology t[2];
    tr_kv_model model;
    uint32_t tok_min[TR_KV_GROUPS_MAX], end;
    tr_reshard_verify verify;
} pair;

static uint64_t scratch[1 << 16];

static uint32_t below(tr_rng *r, uint32_t n) { return (uint32_t)tr_rng_below(r, n); }

static void make_pipeline(tr_rng *r, topology *t, const tr_kv_model *m, const tr_kv_layout *layout,
                          const uint32_t *table) {
    uint32_t n = 1 + below(r, m->n_layers), nodes = 1 + below(r, NODES);
    t->split[0] = 0;
    for (uint32_t i = 1; i <= n; i++)
        t->split[i] = i == n ? m->n_layers : t->split[i - 1] + below(r, m->n_layers - t->split[i - 1] + 1);
    uint32_t tp = 1 + below(r, RANKS);
    for (uint32_t i = 0; i < n * tp; i++) t->node[i] = below(r, nodes);
    t->side = (tr_reshard_side){layout, table, 0, n, t->split, tp, nodes > 1 ? t->node : NULL};
}

/* Distinct pages of random order, often neighbours, for what the sequence holds. */
static void make_table(tr_rng *r, topology *t, const pair *p) {
    const tr_kv_layout *l = &t->layout;
    memset(t->table, 0xff, sizeof t->table);
    for (uint32_t g = 0; g < l->n_groups; g++) {
        uint32_t perm[PAGES], n = 0;
        for (uint32_t i = 0; i < PAGES; i++) perm[i] = i;
        for (uint32_t i = PAGES - 1; i > 0; i--) {
            uint32_t k = below(r, 2) ? i : below(r, i + 1), x = perm[i];
            perm[i] = perm[k];
            perm[k] = x;
        }
        for (uint32_t i = p->tok_min[g] / l->page_tok; i * l->page_tok < p->end; i++)
            t->table[tr_kv_layout_entry(l, 0, g, i)] = perm[n++];
    }
}

static void make_pair(tr_rng *r, pair *p) {
    memset(p, 0, sizeof *p);
    tr_kv_model *m = &p->model;
    m->n_layers = 1 + below(r, LAYERS);
    m->n_kv_heads = 1 + below(r, HEADS);
    m->head_dim = 16;
    m->window = 1 + below(r, 60);
    for (uint32_t l = 0; l < m->n_layers; l++) m->layer_is_global[l] = below(r, 2) > 0;
    p->end = 1 + below(r, CONTEXT);
    for (int i = 0; i < 2; i++) {
        tr_error err;
        assert_int_equal(tr_kv_layout_init(&p->t[i].layout, m, below(r, 2) ? TR_KV_BF16 : TR_KV_INT8,
                                           16u << below(r, 3), 1, CONTEXT, (const uint32_t[]){PAGES, PAGES}, &err),
                         TR_OK);
        for (uint32_t g = 0; g < p->t[i].layout.n_groups; g++) {
            uint32_t w = p->t[i].layout.group[g].window;
            p->tok_min[g] = w == 0 || p->end + 1 <= w ? 0 : p->end + 1 - w;
        }
        make_table(r, &p->t[i], p);
    }
    bool one_pool = below(r, 4) == 0;
    make_pipeline(r, &p->t[0], m, &p->t[0].layout, p->t[0].table);
    make_pipeline(r, &p->t[1], m, &p->t[one_pool ? 0 : 1].layout, p->t[one_pool ? 0 : 1].table);
}

/* A fault in one operation, as a broken plan would have it. */
typedef enum fault {
    NONE,
    SKIP,
    TWICE,
    LAYER,
    HEAD,
    POS,
    SRC_PAGE,
    DST_PAGE,
    SRC_TOK,
    DST_TOK,
    SHORT,
    LONG,
    SRC_STAGE,
    DST_STAGE,
    SRC_RANK,
    DST_RANK,
    SRC_NODE,
    DST_NODE,
    COPY,
    SWAP,
    FAULTS
} fault;

/* False: the fault cannot be put into this operation of this pair. */
static bool spoil(const pair *p, fault f, tr_reshard_op *op) {
    const tr_reshard_side *src = &p->t[0].side, *dst = &p->t[1].side;
    switch (f) {
    case LAYER: op->layer = (op->layer + 1) % p->model.n_layers; return p->model.n_layers > 1;
    case HEAD: op->kv_head = (op->kv_head + 1) % p->model.n_kv_heads; return p->model.n_kv_heads > 1;
    case POS: op->pos += 16; return true;
    case SRC_PAGE: op->src_page++; return true;
    case DST_PAGE: op->dst_page++; return true;
    case SRC_TOK: op->src_tok ^= 1; return true;
    case DST_TOK: op->dst_tok ^= 1; return true;
    case SHORT: op->n_tok--; return true;
    case LONG: op->n_tok++; return true;
    case SRC_STAGE: op->src_stage = (op->src_stage + 1) % src->n_stages; return src->n_stages > 1;
    case DST_STAGE: op->dst_stage = (op->dst_stage + 1) % dst->n_stages; return dst->n_stages > 1;
    /* another rank may hold the cell too: that is no fault */
    case SRC_RANK: op->src_rank += src->tp; return true;
    case DST_RANK:
        op->dst_rank = dst->tp > p->model.n_kv_heads ? dst->tp : (op->dst_rank + 1) % dst->tp;
        return dst->tp > 1;
    case SRC_NODE: op->src_node = (op->src_node + 1) % NODES; return true;
    case DST_NODE: op->dst_node = (op->dst_node + 1) % NODES; return true;
    case COPY: op->copy = !op->copy; return true;
    case SWAP: { /* the two sides mixed up */
        uint32_t page = op->src_page, tok = op->src_tok;
        op->src_page = op->dst_page;
        op->src_tok = op->dst_tok;
        op->dst_page = page;
        op->dst_tok = tok;
        return page != op->src_page || tok != op->src_tok;
    }
    default: return true;
    }
}

/* The hand-off in random jobs, with a fault in operation number `at`. False: `at` is beyond the end, or has no place.
 */
static bool hand_off(tr_rng *r, pair *p, fault f, uint32_t at, tr_status *status_out, tr_reshard_proof *proof,
                     tr_error *err) {
    const tr_reshard_side *src = &p->t[0].side, *dst = &p->t[1].side;
    size_t need = tr_reshard_verify_bytes(src, dst, p->tok_min, p->end, NODES);
    assert_true(need > 0 && need <= sizeof scratch);
    *status_out = tr_reshard_verify_begin(&p->verify, src, dst, p->tok_min, p->end, NODES, scratch, err);
    uint32_t n = 0;
    for (uint32_t pos = 0, end; pos < p->end && *status_out == TR_OK; pos = end) {
        end = below(r, 2) ? p->end : pos + 1 + below(r, p->end - pos);
        for (uint32_t layer = 0, layer1; layer < p->model.n_layers && *status_out == TR_OK; layer = layer1) {
            layer1 = below(r, 2) ? p->model.n_layers : layer + 1 + below(r, p->model.n_layers - layer);
            const tr_reshard_range range = {pos, end, layer, layer1, p->tok_min, src->layout->n_groups};
            tr_reshard_plan plan;
            tr_reshard_op op;
            assert_int_equal(tr_reshard_plan_init(&plan, src, dst, &range, err), TR_OK);
            if (f == NONE) {
                *status_out = tr_reshard_verify_plan(&p->verify, &plan, err);
                continue;
            }
            while (*status_out == TR_OK && tr_reshard_plan_next(&plan, &op)) {
                bool now = n++ == at;
                if (now && !spoil(p, f, &op)) return false;
                if (now && f == TWICE) *status_out = tr_reshard_verify_op(&p->verify, &op, err);
                if (*status_out == TR_OK && !(now && f == SKIP))
                    *status_out = tr_reshard_verify_op(&p->verify, &op, err);
            }
        }
    }
    if (*status_out == TR_OK) *status_out = tr_reshard_verify_end(&p->verify, proof, err);
    return f == NONE || n > at;
}

static uint64_t base_seed(void) {
    const char *text = getenv("RESHARD_SEED");
    return text ? strtoull(text, NULL, 0) : 20240601;
}

static void every_pair_is_right(void **state) {
    (void)state;
    static pair p;
    tr_reshard_proof sum = {0};
    printf("seed %llu, %d pairs\n", (unsigned long long)base_seed(), PAIRS);
    for (uint64_t i = 0; i < PAIRS; i++) {
        tr_rng rng = {base_seed() + i};
        tr_status status;
        tr_reshard_proof proof;
        tr_error err = {0};
        make_pair(&rng, &p);
        hand_off(&rng, &p, NONE, 0, &status, &proof, &err);
        if (status != TR_OK) fail_msg("RESHARD_SEED=%llu: %s", (unsigned long long)(base_seed() + i), err.text);
        sum.cells += proof.cells;
        sum.copied += proof.copied;
        sum.kept += proof.kept;
        sum.crossed += proof.crossed;
        sum.ops += proof.ops;
    }
    printf("%llu cells: %llu copied (%llu from another node), %llu kept, %llu operations\n",
           (unsigned long long)sum.cells, (unsigned long long)sum.copied, (unsigned long long)sum.crossed,
           (unsigned long long)sum.kept, (unsigned long long)sum.ops);
    assert_true(sum.kept > PAIRS && sum.crossed > PAIRS && sum.copied > sum.crossed);
}

static void every_fault_is_found(void **state) {
    (void)state;
    static pair p;
    for (fault f = SKIP; f < FAULTS; f++) {
        uint32_t tried = 0;
        for (uint64_t i = 0; i < 3000; i++) {
            tr_rng rng = {base_seed() + i * FAULTS + f};
            tr_status status;
            tr_reshard_proof proof;
            tr_error err = {0};
            make_pair(&rng, &p);
            if (!hand_off(&rng, &p, f, below(&rng, 12), &status, &proof, &err)) continue;
            tried++;
            if (status == TR_OK) fail_msg("fault %d is not found, i %llu", (int)f, (unsigned long long)i);
            assert_int_equal(status, TR_INTERNAL);
            assert_true(err.text[0]);
        }
        assert_in_range(tried, 100, 3000);
    }
}

/* Faults of the pools themselves. */
static void overlapping_pools(void **state) {
    (void)state;
    static pair p;
    tr_error err = {0};
    for (uint64_t i = 0;; i++) {
        tr_rng rng = {i};
        make_pair(&rng, &p);
        if (p.t[0].layout.page_tok == 16 && p.end > 32 && p.model.layer_is_global[0]) break;
    }
    const tr_reshard_side *src = &p.t[0].side, *dst = &p.t[1].side;
    uint32_t *entry = &p.t[0].table[tr_kv_layout_entry(&p.t[0].layout, 0, 0, 1)];
    assert_int_equal(tr_reshard_verify_begin(&p.verify, src, dst, p.tok_min, p.end, NODES, scratch, &err), TR_OK);
    *entry = p.t[0].table[tr_kv_layout_entry(&p.t[0].layout, 0, 0, 0)];
    assert_int_equal(tr_reshard_verify_begin(&p.verify, src, dst, p.tok_min, p.end, NODES, scratch, &err), TR_INTERNAL);
    *entry = PAGES;
    assert_int_equal(tr_reshard_verify_begin(&p.verify, src, dst, p.tok_min, p.end, NODES, scratch, &err), TR_INTERNAL);
    make_table(&(tr_rng){1}, &p.t[0], &p);
    p.t[0].layout.group[0].n_pages++; /* the last page of the last head is the first of what follows, or beyond */
    assert_int_equal(tr_reshard_verify_begin(&p.verify, src, dst, p.tok_min, p.end, NODES, scratch, &err), TR_INTERNAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_pair_is_right), cmocka_unit_test(every_fault_is_found),
                                       cmocka_unit_test(overlapping_pools)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
