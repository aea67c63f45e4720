/* I1: a page is in at most one node, and page_node says which. I2: a node has at least one page, else it is on the free
 * list; so nodes never run out. I3: cached bits, the lists and n_cached speak of the known pages that nobody holds. */
#include "kv/kv_prefix.h"

#include "base/checked.h"

#include <string.h>

#define NONE UINT32_MAX

typedef struct node {
    uint64_t id, parent; /* ids are never used twice: a child of a node that is gone is never found again */
    tr_kv_prefix_tenant tenant;
    uint32_t next; /* in its bucket, or in the free list */
    uint32_t page[TR_KV_GROUPS_MAX];
} node;

typedef struct list { /* of page ids, oldest first */
    uint32_t first, last, n;
} list;

struct tr_kv_prefix {
    const tr_kv_layout *layout;
    tr_siphash_key key;
    uint32_t n_nodes, n_buckets; /* n_buckets: a power of two */
    uint32_t free_node;
    uint64_t next_id;
    uint32_t word0[TR_KV_GROUPS_MAX + 1], page0[TR_KV_GROUPS_MAX + 1];
    list lru[TR_KV_GROUPS_MAX];
    node *node;          /* [n_nodes] */
    uint32_t *tokens;    /* [n_nodes][page_tok] */
    uint32_t *bucket;    /* [n_buckets] first node */
    uint32_t *page_node; /* [pages of all groups] */
    uint32_t *before;    /* [pages of all groups] in the list of the group */
    uint32_t *after;
    uint64_t *cached; /* [words of all groups] */
    uint32_t *path;   /* [pages_per_seq] nodes of the last find */
    uint32_t n_path;
    tr_kv_prefix_stats stats;
};

static uint32_t pages_of(const tr_kv_layout *l) {
    uint32_t n = 0;
    for (uint32_t g = 0; g < l->n_groups; g++) n += l->group[g].n_pages;
    return n;
}

static uint32_t words_of(const tr_kv_layout *l) {
    uint32_t n = 0;
    for (uint32_t g = 0; g < l->n_groups; g++) n += (uint32_t)tr_div_up(l->group[g].n_pages, 64);
    return n;
}

static uint32_t buckets_of(uint32_t nodes) {
    uint32_t n = 64;
    while (n < nodes && n < 1u << 31) n *= 2;
    return n;
}

static size_t u32s(size_t n) { return tr_align_up(n * sizeof(uint32_t), 64); }

size_t tr_kv_prefix_bytes(const tr_kv_layout *l) {
    size_t pages = pages_of(l);
    return tr_align_up(sizeof(tr_kv_prefix), 64) + tr_align_up(pages * sizeof(node), 64) + u32s(pages * l->page_tok) +
           u32s(buckets_of((uint32_t)pages)) + 3 * u32s(pages) + tr_align_up(words_of(l) * sizeof(uint64_t), 64) +
           u32s(l->pages_per_seq);
}

static void *carve(char **at, size_t bytes) {
    void *here = *at;
    *at += tr_align_up(bytes, 64);
    return here;
}

void tr_kv_prefix_init(tr_kv_prefix *c, const tr_kv_layout *l, tr_siphash_key key) {
    char *at = (char *)c + tr_align_up(sizeof *c, 64);
    uint32_t pages = pages_of(l);
    memset(c, 0, sizeof *c);
    c->layout = l;
    c->key = key;
    c->n_nodes = pages;
    c->n_buckets = buckets_of(pages);
    c->next_id = 1;
    for (uint32_t g = 0; g < l->n_groups; g++) {
        c->word0[g + 1] = c->word0[g] + (uint32_t)tr_div_up(l->group[g].n_pages, 64);
        c->page0[g + 1] = c->page0[g] + l->group[g].n_pages;
    }
    c->node = carve(&at, pages * sizeof *c->node);
    c->tokens = carve(&at, (size_t)pages * l->page_tok * sizeof *c->tokens);
    c->bucket = carve(&at, c->n_buckets * sizeof *c->bucket);
    c->page_node = carve(&at, pages * sizeof *c->page_node);
    c->before = carve(&at, pages * sizeof *c->before);
    c->after = carve(&at, pages * sizeof *c->after);
    c->cached = carve(&at, words_of(l) * sizeof *c->cached);
    c->path = carve(&at, l->pages_per_seq * sizeof *c->path);
    tr_kv_prefix_flush(c);
}

void tr_kv_prefix_flush(tr_kv_prefix *c) {
    for (uint32_t i = 0; i < c->n_nodes; i++) c->node[i].next = i + 1 < c->n_nodes ? i + 1 : NONE;
    c->free_node = c->n_nodes > 0 ? 0 : NONE;
    for (uint32_t i = 0; i < c->n_buckets; i++) c->bucket[i] = NONE;
    for (uint32_t i = 0; i < c->page0[c->layout->n_groups]; i++) c->page_node[i] = NONE;
    memset(c->cached, 0, words_of(c->layout) * sizeof *c->cached);
    for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++) c->lru[g] = (list){NONE, NONE, 0};
    c->n_path = 0;
}

tr_kv_prefix_tenant tr_kv_prefix_tenant_of(tr_siphash_key key, const char *name, size_t len) {
    if (len == 0) return (tr_kv_prefix_tenant){{0, 0}};
    const tr_siphash_key other = {{~key.k[0], ~key.k[1]}};
    return (tr_kv_prefix_tenant){{tr_siphash(key, name, len), tr_siphash(other, name, len)}};
}

/* ---- the list of a group ---- */
static uint32_t *slot(uint32_t *array, const tr_kv_prefix *c, uint32_t g, uint32_t page) {
    return &array[c->page0[g] + page];
}

static void set_cached(tr_kv_prefix *c, uint32_t g, uint32_t page, bool on) {
    uint64_t *word = &c->cached[c->word0[g] + page / 64], bit = UINT64_C(1) << page % 64;
    *word = on ? *word | bit : *word & ~bit;
}

static bool is_cached(const tr_kv_prefix *c, uint32_t g, uint32_t page) {
    return c->cached[c->word0[g] + page / 64] >> page % 64 & 1;
}

static void append(tr_kv_prefix *c, uint32_t g, uint32_t page) {
    list *l = &c->lru[g];
    *slot(c->before, c, g, page) = l->last;
    *slot(c->after, c, g, page) = NONE;
    if (l->last == NONE)
        l->first = page;
    else
        *slot(c->after, c, g, l->last) = page;
    l->last = page;
    l->n++;
    set_cached(c, g, page, true);
}

static void unlink_page(tr_kv_prefix *c, uint32_t g, uint32_t page) {
    list *l = &c->lru[g];
    uint32_t before = *slot(c->before, c, g, page), after = *slot(c->after, c, g, page);
    if (before == NONE)
        l->first = after;
    else
        *slot(c->after, c, g, before) = after;
    if (after == NONE)
        l->last = before;
    else
        *slot(c->before, c, g, after) = before;
    l->n--;
    set_cached(c, g, page, false);
}

uint32_t tr_kv_prefix_cached(const tr_kv_prefix *c, uint32_t g) { return c->lru[g].n; }
uint64_t tr_kv_prefix_cached_word(const tr_kv_prefix *c, uint32_t g, uint32_t word) {
    return c->cached[c->word0[g] + word];
}
bool tr_kv_prefix_knows(const tr_kv_prefix *c, uint32_t g, uint32_t page) {
    return c->page_node[c->page0[g] + page] != NONE;
}
void tr_kv_prefix_pin(tr_kv_prefix *c, uint32_t g, uint32_t page) {
    if (is_cached(c, g, page)) unlink_page(c, g, page);
}
void tr_kv_prefix_park(tr_kv_prefix *c, uint32_t g, uint32_t page) {
    if (tr_kv_prefix_knows(c, g, page)) append(c, g, page);
}

/* ---- nodes ---- */
static uint32_t bucket_of(const tr_kv_prefix *c, uint64_t parent, tr_kv_prefix_tenant tenant, const uint32_t *tokens) {
    const tr_siphash_key key = {{c->key.k[0] ^ parent ^ tenant.h[0], c->key.k[1] ^ tenant.h[1]}};
    return (uint32_t)tr_siphash(key, tokens, c->layout->page_tok * sizeof *tokens) & (c->n_buckets - 1);
}

static uint32_t *tokens_of(const tr_kv_prefix *c, uint32_t n) { return c->tokens + (size_t)n * c->layout->page_tok; }

static uint32_t find_node(const tr_kv_prefix *c, uint32_t bucket, uint64_t parent, tr_kv_prefix_tenant tenant,
                          const uint32_t *tokens) {
    for (uint32_t i = c->bucket[bucket]; i != NONE; i = c->node[i].next) {
        const node *n = &c->node[i];
        if (n->parent == parent && n->tenant.h[0] == tenant.h[0] && n->tenant.h[1] == tenant.h[1] &&
            memcmp(tokens_of(c, i), tokens, c->layout->page_tok * sizeof *tokens) == 0)
            return i;
    }
    return NONE;
}

static uint32_t add_node(tr_kv_prefix *c, uint32_t bucket, uint64_t parent, tr_kv_prefix_tenant tenant,
                         const uint32_t *tokens) {
    uint32_t i = c->free_node;
    tr_check(i != NONE); /* I2: the page that comes now is in no node */
    node *n = &c->node[i];
    c->free_node = n->next;
    *n = (node){.id = c->next_id++, .parent = parent, .tenant = tenant, .next = c->bucket[bucket]};
    for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++) n->page[g] = TR_KV_NO_PAGE;
    memcpy(tokens_of(c, i), tokens, c->layout->page_tok * sizeof *tokens);
    c->bucket[bucket] = i;
    return i;
}

static void remove_node(tr_kv_prefix *c, uint32_t i) {
    node *n = &c->node[i];
    uint32_t *at = &c->bucket[bucket_of(c, n->parent, n->tenant, tokens_of(c, i))];
    while (*at != i) at = &c->node[*at].next;
    *at = n->next;
    n->id = 0;
    n->next = c->free_node;
    c->free_node = i;
}

uint32_t tr_kv_prefix_evict(tr_kv_prefix *c, uint32_t g) {
    uint32_t page = c->lru[g].first, i;
    tr_check(page != NONE);
    i = *slot(c->page_node, c, g, page);
    unlink_page(c, g, page);
    *slot(c->page_node, c, g, page) = NONE;
    c->node[i].page[g] = TR_KV_NO_PAGE;
    c->n_path = 0;
    c->stats.evicted++;
    for (uint32_t k = 0; k < c->layout->n_groups; k++)
        if (c->node[i].page[k] != TR_KV_NO_PAGE) return page;
    remove_node(c, i);
    return page;
}

uint32_t tr_kv_prefix_find(tr_kv_prefix *c, tr_kv_prefix_tenant tenant, const uint32_t *tokens, uint32_t n) {
    const uint32_t page_tok = c->layout->page_tok;
    uint64_t parent = 0;
    c->n_path = 0;
    for (uint32_t at = 0; at + page_tok <= n && c->n_path < c->layout->pages_per_seq; at += page_tok) {
        uint32_t i = find_node(c, bucket_of(c, parent, tenant, tokens + at), parent, tenant, tokens + at);
        if (i == NONE) break;
        c->path[c->n_path++] = i;
        parent = c->node[i].id;
    }
    return c->n_path;
}

uint32_t tr_kv_prefix_page(const tr_kv_prefix *c, uint32_t i, uint32_t g) {
    return i < c->n_path ? c->node[c->path[i]].page[g] : TR_KV_NO_PAGE;
}

uint64_t tr_kv_prefix_node(const tr_kv_prefix *c, uint32_t i) { return i < c->n_path ? c->node[c->path[i]].id : 0; }

uint32_t tr_kv_prefix_usable(const tr_kv_prefix *c, uint32_t max, uint32_t query) {
    const tr_kv_layout *l = c->layout;
    uint32_t best = 0, since[TR_KV_GROUPS_MAX] = {0}; /* since[g]: first page of the unbroken run up to here */
    for (uint32_t end = 1; end <= c->n_path && end <= max; end++) {
        bool whole = true;
        for (uint32_t g = 0; g < l->n_groups; g++) {
            if (tr_kv_prefix_page(c, end - 1, g) == TR_KV_NO_PAGE) since[g] = end;
            uint32_t pos = query > 0 ? query : end * l->page_tok, window = l->group[g].window;
            uint32_t begin = window == 0 || pos + 1 <= window ? 0 : (pos + 1 - window) / l->page_tok;
            whole &= since[g] <= begin || begin >= end; /* nothing of it is seen, or all that is seen is there */
        }
        if (whole) best = end;
    }
    return best;
}

uint64_t tr_kv_prefix_insert(tr_kv_prefix *c, uint64_t parent, tr_kv_prefix_tenant tenant, const uint32_t *tokens,
                             const uint32_t page[TR_KV_GROUPS_MAX]) {
    uint32_t bucket = bucket_of(c, parent, tenant, tokens), i = find_node(c, bucket, parent, tenant, tokens);
    c->n_path = 0;
    for (uint32_t g = 0; g < c->layout->n_groups; g++) {
        if (page[g] == TR_KV_NO_PAGE || tr_kv_prefix_knows(c, g, page[g])) continue;
        if (i == NONE) i = add_node(c, bucket, parent, tenant, tokens);
        if (c->node[i].page[g] != TR_KV_NO_PAGE) continue;
        c->node[i].page[g] = page[g];
        *slot(c->page_node, c, g, page[g]) = i;
        c->stats.inserted++;
    }
    return i == NONE ? 0 : c->node[i].id;
}

void tr_kv_prefix_get_stats(const tr_kv_prefix *c, tr_kv_prefix_stats *out) { *out = c->stats; }
