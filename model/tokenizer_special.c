/* model/tokenizer_special.c - see the header.
 * Why one candidate a position is enough: while the longest match at a position may still be taken no shorter one can
 * come first, and once a part of it is taken it never becomes free again, so the next one is the longest that ends
 * before the taken part. */
#include "model/tokenizer_special.h"
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>

enum { SEARCHED = TR_TOKENIZER_CONTROL | TR_TOKENIZER_USER | TR_TOKENIZER_UNKNOWN };

typedef struct search {
    const tr_tokenizer *t;
    const char *text;
    size_t len;
    bool parse_special;
    uint8_t *taken; /* [len] 1 where a cut lies */
    tr_tokenizer_cut *cuts;
    size_t n, cap;
    int64_t steps;
} search;

/* Longest first, then lowest id: the ids travel with their lengths, since qsort has no context. */
static int by_length(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static tr_status sort_tokens(tr_tokenizer *t) {
    uint64_t *keys = malloc((t->n_special + 1) * sizeof *keys);
    t->order = malloc((t->n_special + 1) * sizeof *t->order);
    if (keys == NULL || t->order == NULL) {
        free(keys);
        return TR_SYSTEM;
    }
    uint32_t n = 0;
    for (uint32_t id = 0; id < t->n_tokens; id++) {
        if ((t->attrs[id] & SEARCHED) == 0 || t->spans[id].len == 0) continue;
        keys[n++] = (uint64_t)(UINT32_MAX - t->spans[id].len) << 32 | id;
    }
    qsort(keys, n, sizeof *keys, by_length);
    for (uint32_t i = 0; i < n; i++) t->order[i] = (uint32_t)keys[i];
    free(keys);
    return TR_OK;
}

/* Child of a node by byte, 0 when there is none. */
static uint32_t child_of(const tr_tokenizer *t, uint32_t node, uint8_t byte) {
    if (node == 0) return t->root[byte];
    uint32_t child = t->nodes[node].child;
    while (child != 0 && t->nodes[child].byte != byte) child = t->nodes[child].sibling;
    return child;
}

static void insert(tr_tokenizer *t, uint32_t rank, uint32_t *n_nodes) {
    tr_tokenizer_span span = t->spans[t->order[rank]];
    uint32_t node = 0;
    for (uint32_t i = 0; i < span.len; i++) {
        uint8_t byte = (uint8_t)t->bytes[span.offset + i];
        uint32_t child = child_of(t, node, byte);
        if (child == 0) {
            child = (*n_nodes)++;
            t->nodes[child] = (tr_tokenizer_node){.rank = TR_TOKENIZER_NONE, .byte = byte};
            if (node == 0) {
                t->root[byte] = child;
            } else {
                t->nodes[child].sibling = t->nodes[node].child;
                t->nodes[node].child = child;
            }
        }
        node = child;
    }
    t->nodes[node].rank = rank;
}

tr_status tr_tokenizer_special_build(tr_tokenizer *t) {
    uint64_t n_bytes = 0;
    for (uint32_t id = 0; id < t->n_tokens; id++) {
        if ((t->attrs[id] & SEARCHED) == 0 || t->spans[id].len == 0) continue;
        t->n_special++;
        n_bytes += t->spans[id].len;
        if ((t->attrs[id] & SEARCHED) == TR_TOKENIZER_USER) t->any_user = true;
    }
    TR_TRY(sort_tokens(t));
    t->nodes = malloc((n_bytes + 1) * sizeof *t->nodes);
    if (t->nodes == NULL) return TR_SYSTEM;
    t->nodes[0] = (tr_tokenizer_node){.rank = TR_TOKENIZER_NONE};
    uint32_t n_nodes = 1;
    for (uint32_t rank = 0; rank < t->n_special; rank++) insert(t, rank, &n_nodes);
    return TR_OK;
}

/* Rank of the longest wanted token at pos of at most limit bytes, or TR_TOKENIZER_NONE. */
static uint32_t longest_at(search *s, size_t pos, size_t limit) {
    uint32_t best = TR_TOKENIZER_NONE, node = 0;
    for (size_t i = 0; i < limit; i++) {
        node = child_of(s->t, node, (uint8_t)s->text[pos + i]);
        if (node == 0) break;
        s->steps++;
        uint32_t rank = s->t->nodes[node].rank;
        if (rank == TR_TOKENIZER_NONE) continue;
        uint8_t attr = s->t->attrs[s->t->order[rank]];
        if (s->parse_special || (attr & (TR_TOKENIZER_CONTROL | TR_TOKENIZER_UNKNOWN)) == 0) best = rank;
    }
    return best;
}

static tr_status cut(search *s, size_t pos, size_t end, uint32_t id) {
    if (s->n == s->cap) {
        size_t cap = s->cap > 0 ? 2 * s->cap : 64;
        tr_tokenizer_cut *cuts = realloc(s->cuts, cap * sizeof *cuts);
        if (cuts == NULL) return TR_SYSTEM;
        s->cuts = cuts;
        s->cap = cap;
    }
    s->cuts[s->n++] = (tr_tokenizer_cut){pos, end, id};
    return TR_OK;
}

static tr_status take(search *s, size_t pos, size_t size, uint32_t id) {
    size_t end = pos + size;
    if ((s->t->attrs[id] & TR_TOKENIZER_RSTRIP) != 0) {
        while (end < s->len && s->taken[end] == 0 && strchr(" \t\n\v\f\r", s->text[end]) && s->text[end] != 0) end++;
    }
    memset(s->taken + pos, 1, end - pos);
    return cut(s, pos, end, id);
}

/* End of the white space at pos. */
static size_t space_end(const search *s, size_t pos) {
    for (size_t size; pos < s->len; pos += size) {
        const uint32_t point = tr_unicode_decode(s->text + pos, s->len - pos, &size);
        if (tr_unicode_class_of(point) != TR_UNICODE_SPACE) break;
    }
    return pos;
}

static tr_status search_leftmost(search *s) {
    for (size_t pos = 0; pos < s->len;) {
        const uint32_t rank = longest_at(s, pos, s->len - pos);
        if (rank == TR_TOKENIZER_NONE) {
            pos++;
            continue;
        }
        const uint32_t id = s->t->order[rank];
        size_t end = pos + s->t->spans[id].len;
        if ((s->t->attrs[id] & TR_TOKENIZER_RSTRIP) != 0) end = space_end(s, end);
        TR_TRY(cut(s, pos, end, id));
        pos = end;
    }
    return TR_OK;
}

static void offer(tr_tokenizer_queue *q, uint32_t rank, size_t pos) {
    if (rank != TR_TOKENIZER_NONE) {
        tr_tokenizer_queue_push(q, (tr_tokenizer_pair){.key = (uint64_t)rank << 32 | pos});
    }
}

static tr_status search_all(search *s, tr_tokenizer_queue *q) {
    for (size_t pos = 0; pos < s->len; pos++) {
        if (s->t->root[(uint8_t)s->text[pos]] != 0) offer(q, longest_at(s, pos, s->len - pos), pos);
    }
    if (q->n == 0) return TR_OK;
    s->taken = calloc(s->len, 1);
    if (s->taken == NULL) return TR_SYSTEM;
    while (q->n > 0) {
        tr_tokenizer_pair top = tr_tokenizer_queue_pop(q);
        size_t pos = (uint32_t)top.key;
        if (s->taken[pos] != 0) continue;
        uint32_t id = s->t->order[top.key >> 32];
        size_t size = s->t->spans[id].len;
        const uint8_t *hit = memchr(s->taken + pos, 1, size);
        if (hit != NULL) {
            offer(q, longest_at(s, pos, (size_t)(hit - s->taken) - pos), pos);
        } else {
            TR_TRY(take(s, pos, size, id));
        }
    }
    return TR_OK;
}

static int by_begin(const void *a, const void *b) {
    const tr_tokenizer_cut *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

tr_status tr_tokenizer_special_split(const tr_tokenizer *t, const char *text, size_t len, bool parse_special,
                                     tr_tokenizer_cut **cuts_out, size_t *n_out, int64_t *steps_out) {
    *cuts_out = NULL;
    *n_out = 0;
    if (t->n_special == 0 || (!parse_special && !t->any_user)) return TR_OK;
    size_t hits = 0;
    for (size_t i = 0; i < len; i++) hits += t->root[(uint8_t)text[i]] != 0;
    if (hits == 0) return TR_OK;
    search s = {.t = t, .text = text, .len = len, .parse_special = parse_special};
    tr_tokenizer_queue q = {0};
    tr_status status = t->declared ? search_leftmost(&s) : tr_tokenizer_queue_reserve(&q, hits);
    if (status == TR_OK && !t->declared) status = search_all(&s, &q);
    *steps_out += s.steps + q.moves;
    free(q.items);
    free(s.taken);
    if (status != TR_OK || s.n == 0) {
        free(s.cuts);
        return status;
    }
    qsort(s.cuts, s.n, sizeof *s.cuts, by_begin);
    *cuts_out = s.cuts;
    *n_out = s.n;
    return TR_OK;
}

/* What a control token has to do with the text at pos: it begins here and is whole, or it is cut off by the end. */
typedef enum match { MATCH_NONE, MATCH_WHOLE, MATCH_CUT_OFF } match;

static bool is_control(const tr_tokenizer *t, uint32_t rank) {
    return rank != TR_TOKENIZER_NONE && (t->attrs[t->order[rank]] & (TR_TOKENIZER_CONTROL | TR_TOKENIZER_UNKNOWN)) != 0;
}

static match match_at(const tr_tokenizer *t, const char *text, size_t len) {
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        node = child_of(t, node, (uint8_t)text[i]);
        if (node == 0) return MATCH_NONE;
        if (is_control(t, t->nodes[node].rank)) return MATCH_WHOLE;
    }
    return node != 0 && t->nodes[node].child != 0 ? MATCH_CUT_OFF : MATCH_NONE;
}

typedef struct marked {
    char *text;
    size_t n, cap;
} marked;

static tr_status add(marked *m, const char *bytes, size_t n) {
    if (n == 0) return TR_OK;
    if (m->n + n > m->cap) {
        const size_t cap = 2 * (m->n + n) + 64;
        char *more = realloc(m->text, cap);
        if (!more) return TR_SYSTEM;
        m->text = more, m->cap = cap;
    }
    memcpy(m->text + m->n, bytes, n);
    m->n += n;
    return TR_OK;
}

/* A mark behind the first character of what begins here, and before the second half of a mark in the text itself. */
tr_status tr_tokenizer_mark(const tr_tokenizer *t, const char *text, size_t len, char **out, size_t *len_out) {
    marked m = {0};
    tr_status status = TR_OK;
    size_t done = 0; /* bytes of the text that are in m */
    bool cut_off = false;
    *out = NULL;
    for (size_t pos = 0; pos < len && status == TR_OK; pos++) {
        const bool own =
            len - pos >= TR_TOKENIZER_MARK_BYTES && memcmp(text + pos, TR_TOKENIZER_MARK, TR_TOKENIZER_MARK_BYTES) == 0;
        const match found = t->root[(uint8_t)text[pos]] != 0 ? match_at(t, text + pos, len - pos) : MATCH_NONE;
        cut_off |= found == MATCH_CUT_OFF;
        if (!own && found != MATCH_WHOLE) continue;
        size_t end = pos + 1;
        while (!own && end < len && ((uint8_t)text[end] & 0xc0) == 0x80) end++;
        status = add(&m, text + done, (own ? pos : end) - done);
        if (status == TR_OK) status = add(&m, TR_TOKENIZER_MARK, TR_TOKENIZER_MARK_BYTES);
        done = own ? pos : end;
    }
    if (status == TR_OK && (m.n > 0 || cut_off)) status = add(&m, text + done, len - done);
    if (status == TR_OK && cut_off) status = add(&m, TR_TOKENIZER_MARK, TR_TOKENIZER_MARK_BYTES);
    if (status != TR_OK) {
        free(m.text);
        return status;
    }
    *out = m.text, *len_out = m.n;
    return TR_OK;
}
