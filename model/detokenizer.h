/* model/detokenizer.h - token ids to text, one at a time, for streaming.
 * Guarantee: everything that comes out is valid UTF-8 and ends on a whole character. The beginning of a character is
 * held back until its last byte is there; bytes that can't become a character turn into U+FFFD, one for each maximal
 * part (Unicode 15.1, section 3.9, "substitution of maximal subparts").
 * The state is plain data: it may be copied, and needs no release. Nothing here allocates.
 * As in llama.cpp the first token of a text drops one leading space where the vocabulary adds one (whatever the first
 * token is: after BOS nothing is dropped). No other clean-up of spaces is done.
 * Threads: one state, one thread. */
#ifndef TR_DETOKENIZER_H
#define TR_DETOKENIZER_H
#include "model/tokenizer.h"

typedef enum tr_detokenize_flags {
    TR_DETOKENIZE_SPECIAL = 1,  /* print control tokens as their text */
    TR_DETOKENIZE_CONTINUE = 2, /* text goes before these tokens: keep the first leading space */
} tr_detokenize_flags;

typedef struct tr_detokenizer {
    uint8_t held[4]; /* beginning of a character */
    uint8_t n_held;
    bool special;
    bool strip; /* the next token is the first */
} tr_detokenizer;

enum { TR_DETOKENIZER_TAIL = 3 }; /* bytes that flush may write */

void tr_detokenizer_init(tr_detokenizer *d, const tr_tokenizer *t, unsigned flags);
/* Room that always suffices for one push. */
size_t tr_detokenizer_bound(const tr_tokenizer *t);
/* Text that token id completes; *n_out may be 0. TR_EXHAUSTED: cap is below tr_detokenizer_bound and too small, nothing
 * has changed. TR_INVALID: no such token, nothing has changed. */
tr_status tr_detokenizer_push(tr_detokenizer *d, const tr_tokenizer *t, uint32_t id, char *out, size_t cap,
                              size_t *n_out);
/* End of the tokens: a held beginning becomes U+FFFD. out holds TR_DETOKENIZER_TAIL bytes. Returns the bytes written;
 * the state is then as after a push without remainder. */
size_t tr_detokenizer_flush(tr_detokenizer *d, char *out);
#endif
