/* model/tokenizer_merge.h - the merge loop that both families share: a linked list of symbols and a heap of pairs.
 * Each step joins the pair of lowest priority number, the leftmost of equals, until no pair can be joined.
 * A heap entry is stale when the sizes of its two symbols no longer add up to its own; it is dropped when it surfaces.
 * I1. At most 2 * n entries are alive: n - 1 at the start, and each of at most n - 1 joins takes one and adds two.
 * Cost: O(n log n). Threads: one scratch, one thread. */
#ifndef TR_TOKENIZER_MERGE_H
#define TR_TOKENIZER_MERGE_H
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TR_TOKENIZER_MERGE_END UINT32_MAX /* end of the list */

/* A run of bytes of the text. len 0: joined into its left neighbour. */
typedef struct tr_tokenizer_symbol {
    uint32_t start, len; /* bytes of the text being merged */
    uint32_t prev, next; /* symbol indices */
    uint32_t id;         /* token, or TR_TOKENIZER_NONE */
} tr_tokenizer_symbol;

/* Heap entry. */
typedef struct tr_tokenizer_pair {
    uint64_t key;    /* priority << 32 | left symbol; lowest first */
    uint32_t size;   /* bytes of both symbols when it was made */
    uint32_t result; /* token of the joined symbol */
} tr_tokenizer_pair;

enum { TR_TOKENIZER_LANES = 3 };

/* Entries that came in order: a ring, ascending from head. */
typedef struct tr_tokenizer_lane {
    tr_tokenizer_pair *items; /* [cap of the queue] */
    size_t head, n;
} tr_tokenizer_lane;

/* Min-queue of fixed capacity: a heap, and lanes for entries that come in order. Degenerate texts (a million equal
 * characters) make their pairs from left to right in a few priorities, so that most of theirs never enter the heap. */
typedef struct tr_tokenizer_queue {
    tr_tokenizer_pair *items; /* [cap] heap; the lanes lie behind it in the same allocation */
    tr_tokenizer_lane lanes[TR_TOKENIZER_LANES];
    size_t n_heap, n, cap; /* n: entries in all */
    int64_t moves;         /* entries moved so far: the work, for tests */
} tr_tokenizer_queue;

typedef struct tr_tokenizer_scratch {
    tr_tokenizer_symbol *symbols; /* [cap] */
    size_t cap;
    tr_tokenizer_queue queue;
    char *text; /* [text_cap] escaped or repaired copy of the input */
    size_t text_cap;
    char *normal; /* [normal_cap] normalized copy of the input */
    size_t normal_cap;
    char *word; /* [word_cap] one word in the byte alphabet */
    size_t word_cap;
    int64_t lookups; /* pairs looked up so far */
} tr_tokenizer_scratch;

/* May symbols left and right be joined? On true sets the priority and the token of the result. */
typedef bool (*tr_tokenizer_join)(const void *ctx, const tr_tokenizer_symbol *left, const tr_tokenizer_symbol *right,
                                  uint32_t *priority_out, uint32_t *result_out);

tr_status tr_tokenizer_queue_reserve(tr_tokenizer_queue *q, size_t cap);
void tr_tokenizer_queue_push(tr_tokenizer_queue *q, tr_tokenizer_pair item); /* room must be reserved */
tr_tokenizer_pair tr_tokenizer_queue_pop(tr_tokenizer_queue *q);             /* must not be empty */

/* Room for n symbols and their pairs; contents are not kept. */
tr_status tr_tokenizer_scratch_symbols(tr_tokenizer_scratch *s, size_t n);
tr_status tr_tokenizer_scratch_text(tr_tokenizer_scratch *s, size_t bytes);
tr_status tr_tokenizer_scratch_normal(tr_tokenizer_scratch *s, size_t bytes);
tr_status tr_tokenizer_scratch_word(tr_tokenizer_scratch *s, size_t bytes);
void tr_tokenizer_scratch_fini(tr_tokenizer_scratch *s);

/* Join the symbols [0, n), n > 0, whose start, len and id are set; prev and next are made here. The result is the list
 * that begins at symbol 0. */
void tr_tokenizer_merge_run(tr_tokenizer_scratch *s, size_t n, tr_tokenizer_join join, const void *ctx);
#endif
