#include "actors/cli/cli_verify.h"

#include "actors/runtime/company_side.h"
#include "kv/reshard_verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT_MAX = 4096 - 7, NODES = 1 }; /* ends inside a tile */

typedef struct proof {
    tr_company_side side[2];
    uint32_t *table[2];
    void *scratch;
    uint32_t tokens, tok_min[TR_KV_GROUPS_MAX];
    tr_reshard_verify verify;
    tr_reshard_proof result;
} proof;

/* Pages of one sequence: the source's in falling order, the destination's with neighbours swapped. */
static uint32_t *make_table(const proof *p, const tr_kv_layout *l, bool source) {
    uint32_t *table = malloc(l->table_bytes);
    if (!table) return NULL;
    memset(table, 0xff, l->table_bytes);
    for (uint32_t g = 0; g < l->n_groups; g++) {
        uint32_t first = p->tok_min[g] / l->page_tok, end = (p->tokens - 1) / l->page_tok + 1, n = l->group[g].n_pages;
        for (uint32_t i = first, k = 0; i < end; i++, k++)
            table[tr_kv_layout_entry(l, 0, g, i)] = source ? n - 1 - k : (k ^ 1) < n ? k ^ 1 : k;
    }
    return table;
}

/* As the scheduler does: a job for each chunk of the prompt. */
static tr_status prove(proof *p, const tr_company *c, tr_error *err) {
    const tr_reshard_side *src = &p->side[0].side, *dst = &p->side[1].side;
    TR_TRY(tr_reshard_verify_begin(&p->verify, src, dst, p->tok_min, p->tokens, NODES, p->scratch, err));
    for (uint32_t at = 0, end; at < p->tokens; at = end) {
        end = p->tokens - at < c->chunk ? p->tokens : at + c->chunk;
        const tr_reshard_range range = {at, end, 0, dst->layout->n_layers, p->tok_min, dst->layout->n_groups};
        tr_reshard_plan plan;
        TR_TRY(tr_reshard_plan_init(&plan, src, dst, &range, err));
        TR_TRY(tr_reshard_verify_plan(&p->verify, &plan, err));
    }
    return tr_reshard_verify_end(&p->verify, &p->result, err);
}

static void describe(const tr_reshard_side *s, char *out, size_t cap) {
    snprintf(out, cap, "pp=%u tp=%u kv=%s page=%u", s->n_stages, s->tp, tr_kv_format_name(s->layout->format),
             s->layout->page_tok);
}

static void print_proof(const proof *p) {
    char from[96], to[96];
    const tr_reshard_proof *r = &p->result;
    describe(&p->side[0].side, from, sizeof from);
    describe(&p->side[1].side, to, sizeof to);
    fprintf(stderr,
            "verified: hand-off of a prompt of %u tokens, %s -> %s\n"
            "  each of %" PRIu64
            " cells (layer, kv head, token) is delivered exactly once, and read from where prefill "
            "wrote it\n"
            "  %" PRIu64 " cells copied in %" PRIu64 " operations, %" PRIu64 " bytes written; %" PRIu64
            " change owner without a copy\n"
            "  a fault would end this with exit 70 and name the cell: layer, kv head, position, and what is wrong with "
            "it\n",
            p->tokens, from, to, r->cells, r->copied, r->ops, r->bytes, r->kept);
}

static tr_status set_up(proof *p, const tr_company *c, tr_error *err) {
    p->tokens = c->context <= PROMPT_MAX ? c->context - 1 : PROMPT_MAX;
    if (p->tokens == 0) p->tokens = 1;
    for (uint32_t g = 0; g < c->layout[1].n_groups; g++) {
        uint32_t window = c->layout[1].group[g].window;
        p->tok_min[g] = window == 0 || p->tokens + 1 <= window ? 0 : p->tokens + 1 - window;
    }
    for (int i = 0; i < (c->one_pool ? 1 : 2); i++)
        if (!(p->table[i] = make_table(p, &c->layout[i], i == 0)))
            return tr_error_set(err, TR_UNAVAILABLE, "no memory for the proof");
    for (uint32_t i = 0; i < 2; i++) tr_company_side_init(&p->side[i], c, i, p->table[c->one_pool ? 0 : i]);
    size_t bytes = tr_reshard_verify_bytes(&p->side[0].side, &p->side[1].side, p->tok_min, p->tokens, NODES);
    p->scratch = bytes > 0 ? malloc(bytes) : NULL;
    return p->scratch ? TR_OK : tr_error_set(err, TR_UNAVAILABLE, "no memory for the proof");
}

tr_status tr_cli_verify(const tr_company *c, tr_error *err) {
    proof *p = calloc(1, sizeof *p);
    if (!p) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the proof");
    tr_status status = set_up(p, c, err);
    if (status == TR_OK) status = prove(p, c, err);
    if (status == TR_OK) print_proof(p);
    free(p->table[0]);
    free(p->table[1]);
    free(p->scratch);
    free(p);
    return status;
}
