/* The vocabularies of tests/golden/tokenizer. Include after cmocka.h. */
#ifndef TR_TEST_VOCAB_H
#define TR_TEST_VOCAB_H
#include "model/gguf.h"
#include "model/tokenizer.h"

#define GOLDEN "tests/golden/tokenizer/"

static inline tr_tokenizer *open_vocab(const char *path) {
    tr_gguf *g = NULL;
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    if (tr_gguf_open(path, &g, &err) != TR_OK) fail_msg("%s", err.text);
    if (tr_tokenizer_create(g, &t, &err) != TR_OK) fail_msg("%s", err.text);
    tr_gguf_close(&g); /* the tokenizer owns what it needs */
    return t;
}

#endif
