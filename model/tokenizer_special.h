/* model/tokenizer_special.h - tokens that are found in the raw text before anything else: user-defined ones always,
 * control and unknown ones when the caller asks.
 * Rule of a tokenizer.json: the text is read from left to right, at each place the longest token is taken.
 * Rule of a GGUF (llama.cpp): the longest token takes its occurrences from left to right, then the next one takes what
 * is left. Here in one pass over a trie plus a heap of one candidate a position: O(len * longest + len log len). */
#ifndef TR_TOKENIZER_SPECIAL_H
#define TR_TOKENIZER_SPECIAL_H
#include "model/tokenizer_impl.h"

/* One token in the text. */
typedef struct tr_tokenizer_cut {
    size_t begin, end; /* bytes taken, stripped white space included */
    uint32_t id;
} tr_tokenizer_cut;

/* Build order, nodes and root from the attributes. */
tr_status tr_tokenizer_special_build(tr_tokenizer *t);
/* Cuts in text order, not overlapping; *cuts_out is freed by the caller, NULL when there are none.
 * *steps_out grows by the work done. */
tr_status tr_tokenizer_special_split(const tr_tokenizer *t, const char *text, size_t len, bool parse_special,
                                     tr_tokenizer_cut **cuts_out, size_t *n_out, int64_t *steps_out);
#endif
