/* model/tokenizer_merge.c - heap with four children a node (fewer cache lines a level than two), its lanes, and the
 * merge loop. */
#include "model/tokenizer_merge.h"

#include <stdlib.h>

enum { FANOUT = 4 };

/* Replace *items by room for at least n; contents are lost. Grows by doubling, so that a walk over words of rising
 * length stays linear. */
static tr_status grow(void **items, size_t *cap, size_t n, size_t item_bytes) {
    if (n <= *cap) return TR_OK;
    size_t want = n > 2 * *cap ? n : 2 * *cap;
    free(*items);
    *cap = 0;
    *items = malloc(want * item_bytes);
    if (*items == NULL) return TR_SYSTEM;
    *cap = want;
    return TR_OK;
}

tr_status tr_tokenizer_queue_reserve(tr_tokenizer_queue *q, size_t cap) {
    void *items = q->items;
    tr_status status = grow(&items, &q->cap, cap, (1 + TR_TOKENIZER_LANES) * sizeof *q->items);
    q->items = items;
    q->n = q->n_heap = 0;
    for (size_t i = 0; i < TR_TOKENIZER_LANES; i++) {
        q->lanes[i] = (tr_tokenizer_lane){.items = items != NULL ? q->items + (i + 1) * q->cap : NULL};
    }
    return status;
}

/* Put item at the end of the first lane that it keeps in order; false when there is none. */
static bool push_lane(tr_tokenizer_queue *q, tr_tokenizer_pair item) {
    for (size_t i = 0; i < TR_TOKENIZER_LANES; i++) {
        tr_tokenizer_lane *lane = &q->lanes[i];
        size_t end = lane->head + lane->n;
        if (end >= q->cap) end -= q->cap;
        if (lane->n > 0 && lane->items[end > 0 ? end - 1 : q->cap - 1].key > item.key) continue;
        lane->items[end] = item;
        lane->n++;
        return true;
    }
    return false;
}

void tr_tokenizer_queue_push(tr_tokenizer_queue *q, tr_tokenizer_pair item) {
    tr_check(q->n < q->cap);
    q->n++;
    if (push_lane(q, item)) return;
    size_t hole = q->n_heap++;
    for (; hole > 0; q->moves++) {
        size_t parent = (hole - 1) / FANOUT;
        if (q->items[parent].key <= item.key) break;
        q->items[hole] = q->items[parent];
        hole = parent;
    }
    q->items[hole] = item;
}

static tr_tokenizer_pair pop_heap(tr_tokenizer_queue *q) {
    tr_tokenizer_pair top = q->items[0], last = q->items[--q->n_heap];
    size_t hole = 0;
    for (; hole * FANOUT + 1 < q->n_heap; q->moves++) {
        size_t first = hole * FANOUT + 1, best = first;
        size_t end = first + FANOUT < q->n_heap ? first + FANOUT : q->n_heap;
        for (size_t child = first + 1; child < end; child++) {
            if (q->items[child].key < q->items[best].key) best = child;
        }
        if (last.key <= q->items[best].key) break;
        q->items[hole] = q->items[best];
        hole = best;
    }
    q->items[hole] = last;
    return top;
}

tr_tokenizer_pair tr_tokenizer_queue_pop(tr_tokenizer_queue *q) {
    tr_tokenizer_lane *best = NULL;
    uint64_t key = q->n_heap > 0 ? q->items[0].key : UINT64_MAX;
    for (size_t i = 0; i < TR_TOKENIZER_LANES; i++) {
        tr_tokenizer_lane *lane = &q->lanes[i];
        if (lane->n == 0 || lane->items[lane->head].key > key) continue;
        best = lane;
        key = lane->items[lane->head].key;
    }
    q->n--;
    if (best == NULL) return pop_heap(q);
    tr_tokenizer_pair first = best->items[best->head++];
    if (best->head == q->cap) best->head = 0;
    best->n--;
    return first;
}

tr_status tr_tokenizer_scratch_symbols(tr_tokenizer_scratch *s, size_t n) {
    TR_TRY(tr_tokenizer_queue_reserve(&s->queue, 2 * n));
    void *symbols = s->symbols;
    tr_status status = grow(&symbols, &s->cap, n, sizeof *s->symbols);
    s->symbols = symbols;
    return status;
}

static tr_status grow_bytes(char **bytes, size_t *cap, size_t n) {
    void *items = *bytes;
    tr_status status = grow(&items, cap, n, 1);
    *bytes = items;
    return status;
}

tr_status tr_tokenizer_scratch_text(tr_tokenizer_scratch *s, size_t bytes) {
    return grow_bytes(&s->text, &s->text_cap, bytes);
}

tr_status tr_tokenizer_scratch_word(tr_tokenizer_scratch *s, size_t bytes) {
    return grow_bytes(&s->word, &s->word_cap, bytes);
}

tr_status tr_tokenizer_scratch_normal(tr_tokenizer_scratch *s, size_t bytes) {
    return grow_bytes(&s->normal, &s->normal_cap, bytes);
}

void tr_tokenizer_scratch_fini(tr_tokenizer_scratch *s) {
    free(s->symbols);
    free(s->queue.items);
    free(s->text);
    free(s->normal);
    free(s->word);
    *s = (tr_tokenizer_scratch){0};
}

static void consider(tr_tokenizer_scratch *s, uint32_t left, uint32_t right, tr_tokenizer_join join, const void *ctx) {
    if (left == TR_TOKENIZER_MERGE_END || right == TR_TOKENIZER_MERGE_END) return;
    uint32_t priority, result;
    s->lookups++;
    if (!join(ctx, &s->symbols[left], &s->symbols[right], &priority, &result)) return;
    uint32_t size = s->symbols[left].len + s->symbols[right].len;
    tr_tokenizer_queue_push(&s->queue, (tr_tokenizer_pair){(uint64_t)priority << 32 | left, size, result});
}

void tr_tokenizer_merge_run(tr_tokenizer_scratch *s, size_t n, tr_tokenizer_join join, const void *ctx) {
    tr_tokenizer_symbol *symbols = s->symbols;
    tr_check(n > 0 && n <= s->cap);
    for (size_t i = 0; i < n; i++) {
        symbols[i].prev = i > 0 ? (uint32_t)(i - 1) : TR_TOKENIZER_MERGE_END;
        symbols[i].next = i + 1 < n ? (uint32_t)(i + 1) : TR_TOKENIZER_MERGE_END;
    }
    for (size_t i = 1; i < n; i++) consider(s, (uint32_t)(i - 1), (uint32_t)i, join, ctx);
    while (s->queue.n > 0) {
        tr_tokenizer_pair pair = tr_tokenizer_queue_pop(&s->queue);
        uint32_t left = (uint32_t)pair.key, right = symbols[left].next;
        if (symbols[left].len == 0 || right == TR_TOKENIZER_MERGE_END) continue;
        if (symbols[left].len + symbols[right].len != pair.size) continue;
        symbols[left].len = pair.size;
        symbols[left].id = pair.result;
        symbols[left].next = symbols[right].next;
        symbols[right].len = 0;
        if (symbols[left].next != TR_TOKENIZER_MERGE_END) symbols[symbols[left].next].prev = left;
        consider(s, symbols[left].prev, left, join, ctx);
        consider(s, left, symbols[left].next, join, ctx);
    }
}
