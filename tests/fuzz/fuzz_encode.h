/* tests/fuzz/fuzz_encode.h - whatever a vocabulary says, using it is harmless. */
#ifndef FUZZ_ENCODE_H
#define FUZZ_ENCODE_H
#include "base/status.h"
#include "model/tokenizer.h"

#include <stdlib.h>

static inline void fuzz_encode(const tr_tokenizer *t, const char *text, size_t len) {
    size_t cap = tr_tokenizer_bound(len), n = 0;
    uint32_t *ids = malloc(cap * sizeof *ids);
    tr_error err;
    tr_check(ids != NULL);
    for (unsigned flags = 0; flags < 4; flags++) {
        tr_check(tr_tokenizer_encode(t, text, len, flags, ids, cap, &n, &err) == TR_OK && n <= cap);
        for (size_t i = 0; i < n; i++) {
            size_t size;
            tr_check(ids[i] < tr_tokenizer_vocab(t));
            tr_status s = tr_tokenizer_piece(t, ids[i], true, NULL, 0, &size);
            tr_check((s == TR_OK || s == TR_EXHAUSTED) && size <= tr_tokenizer_max_piece(t));
        }
    }
    free(ids);
}
#endif
