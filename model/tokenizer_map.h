/* model/tokenizer_map.h - hash index from the bytes of a token to its id (open addressing, linear probing).
 * Borrows: the bytes and spans that it indexes (the tokenizer's arena).
 * Errors: a vocabulary made to collide is refused by the probe bound instead of being slow. */
#ifndef TR_TOKENIZER_MAP_H
#define TR_TOKENIZER_MAP_H
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define TR_TOKENIZER_MAP_NONE UINT32_MAX

/* Text of one token inside the arena. */
typedef struct tr_tokenizer_span {
    uint32_t offset, len; /* bytes */
} tr_tokenizer_span;

typedef struct tr_tokenizer_map {
    const char *bytes;              /* arena */
    const tr_tokenizer_span *spans; /* [tokens] */
    uint64_t *slots;                /* hash tag << 32 | id + 1; 0 is free */
    uint64_t mask;
} tr_tokenizer_map;

typedef enum tr_tokenizer_map_result {
    TR_TOKENIZER_MAP_ADDED,
    TR_TOKENIZER_MAP_DUPLICATE, /* *other_out is the id that has the text already */
    TR_TOKENIZER_MAP_CROWDED,   /* probe bound exceeded */
} tr_tokenizer_map_result;

/* Empty index with room for n tokens. TR_SYSTEM when memory is short. */
tr_status tr_tokenizer_map_init(tr_tokenizer_map *m, const char *bytes, const tr_tokenizer_span *spans, uint32_t n);
void tr_tokenizer_map_fini(tr_tokenizer_map *m);
tr_tokenizer_map_result tr_tokenizer_map_add(tr_tokenizer_map *m, uint32_t id, uint32_t *other_out);
/* Id of a text or TR_TOKENIZER_MAP_NONE. O(len). */
uint32_t tr_tokenizer_map_find(const tr_tokenizer_map *m, const char *text, size_t len);
#endif
