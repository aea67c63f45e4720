/* model/tokenizer.h - text to token ids and back, as llama.cpp does it for the same GGUF file.
 * Two families: SentencePiece-style BPE (tokenizer.ggml.model "llama": merges in order of the scores, <0xNN> byte
 *       fallback) and byte-level BPE ("gpt2": merge list; pre-tokenizers of model/pretokenize.h).
 * Owns: copies of every table and string; the reader may be closed after create.
 * Threads: immutable after create; any number of threads may use one. encode allocates its working memory per call.
 * Errors: TR_DATA (malformed vocabulary; "FILE: offset N: reason"), TR_EXHAUSTED (see each call), TR_SYSTEM (memory).
 * Differences from llama.cpp, all on purpose: it aborts or ignores where create returns TR_DATA (duplicate or missing
 *       tokens, ids out of range, merges of unknown tokens); no default BOS/EOS id 11 for byte-level files without one;
 *       EOS is never appended; a character outside the byte alphabet prints as itself, not as "[UNK_BYTE_...]"; an
 * empty token has no text. Special tokens of equal length that overlap in a text are taken in id order. Source:
 * Sennrich et al. 2016 (BPE); Kudo and Richardson 2018 (SentencePiece); GPT-2 (byte alphabet). */
#ifndef TR_TOKENIZER_H
#define TR_TOKENIZER_H
#include "base/status.h"
#include "model/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TR_TOKENIZER_NONE UINT32_MAX /* "no such token" */

enum {
    TR_TOKENIZER_MAX_TOKENS = 1 << 24,
    TR_TOKENIZER_MAX_TEXT = 1 << 28, /* bytes of one encode call */
};

typedef enum tr_tokenize_flags {
    TR_TOKENIZE_BOS = 1,           /* put BOS first where the model asks for it (add_bos_token) */
    TR_TOKENIZE_PARSE_SPECIAL = 2, /* control tokens written in the text become their ids; else they are plain text */
    TR_TOKENIZE_MARKED = 4, /* TR_TOKENIZER_MARK in the text stops control tokens and is no text; two are one of text */
} tr_tokenize_flags;
#define TR_TOKENIZER_MARK "\xef\xb7\x90" /* U+FDD0, which stands for no character */
enum { TR_TOKENIZER_MARK_BYTES = 3 };

typedef struct tr_tokenizer tr_tokenizer;

/* Read the vocabulary of a model or vocabulary-only file. O(size of the token and merge lists). */
tr_status tr_tokenizer_create(const tr_gguf *gguf, tr_tokenizer **tokenizer_out, tr_error *err);
void tr_tokenizer_destroy(tr_tokenizer **tokenizer); /* idempotent, sets NULL */

/* Tokens of text[0..len). Writes at most cap ids. TR_OK: *n_out ids are written. TR_EXHAUSTED: cap was too small,
 * *n_out is the number needed and the first cap ids are written. TR_DATA: text longer than TR_TOKENIZER_MAX_TEXT.
 * NUL is a character like any other. Broken UTF-8 has a defined result: SentencePiece takes each such byte by itself,
 * byte-level puts U+FFFD in its place. O(len log len), no recursion. */
tr_status tr_tokenizer_encode(const tr_tokenizer *t, const char *text, size_t len, unsigned flags, uint32_t *ids,
                              size_t cap, size_t *n_out, tr_error *err);
/* For text that is put between special tokens and must make none itself: a copy with TR_TOKENIZER_MARK inside what
 * would be a control token (of more than one character), and at the end where what follows could complete one; the
 * caller frees it. *out NULL: the text is harmless as it is, also with TR_TOKENIZE_MARKED. TR_SYSTEM: no memory. */
tr_status tr_tokenizer_mark(const tr_tokenizer *t, const char *text, size_t len, char **out, size_t *len_out);
/* A cap that always suffices for len bytes. */
static inline size_t tr_tokenizer_bound(size_t len) { return 3 * len + 4; }

/* Bytes that a token stands for, which need not be whole characters; control and unknown tokens have none unless
 * special asks for their text. TR_EXHAUSTED: cap too small, *n_out is the size. TR_INVALID: no such id. */
tr_status tr_tokenizer_piece(const tr_tokenizer *t, uint32_t id, bool special, char *buf, size_t cap, size_t *n_out);
size_t tr_tokenizer_max_piece(const tr_tokenizer *t); /* bytes; upper bound over all tokens */

/* Token whose text in the vocabulary is s ("<end_of_turn>"), or TR_TOKENIZER_NONE. */
uint32_t tr_tokenizer_find(const tr_tokenizer *t, const char *s);
uint32_t tr_tokenizer_vocab(const tr_tokenizer *t);               /* number of tokens */
uint32_t tr_tokenizer_bos(const tr_tokenizer *t);                 /* or TR_TOKENIZER_NONE */
uint32_t tr_tokenizer_eos(const tr_tokenizer *t);                 /* or TR_TOKENIZER_NONE */
bool tr_tokenizer_adds_bos(const tr_tokenizer *t);                /* what TR_TOKENIZE_BOS would do */
bool tr_tokenizer_is_eog(const tr_tokenizer *t, uint32_t id);     /* ends a generation: EOS, end of turn, ... */
bool tr_tokenizer_is_control(const tr_tokenizer *t, uint32_t id); /* prints nothing unless asked */
/* True when the first token of a text drops one leading space on the way back (SentencePiece's added prefix). */
bool tr_tokenizer_strips_space(const tr_tokenizer *t);
#endif
