/* model/pretokenize.h - cuts text into the words inside which byte-level BPE may merge.
 * Why: each model family trained with its own regular expression. These are hand-written splitters: linear, without a
 *      backtracking engine, and equal to llama.cpp, which is not always what the expression itself would give:
 *      "(?!\S)" and the end of text are seen inside a segment (SMOLLM), and case folding is ASCII only.
 *   GPT2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   SMOLLM  every \p{N} is a word and ends the segment on both sides; GPT2 inside the segments
 *   LLAMA3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
 *           \s+(?!\S)|\s+
 *   QWEN2   as LLAMA3 with \p{N} in place of \p{N}{1,3}
 * Threads: one iterator, one thread. */
#ifndef TR_PRETOKENIZE_H
#define TR_PRETOKENIZE_H
#include <stdbool.h>
#include <stddef.h>

typedef enum tr_pretokenize_kind {
    TR_PRETOKENIZE_GPT2,
    TR_PRETOKENIZE_SMOLLM,
    TR_PRETOKENIZE_LLAMA3,
    TR_PRETOKENIZE_QWEN2,
} tr_pretokenize_kind;

/* Walk over one text; borrows it. */
typedef struct tr_pretokenize {
    tr_pretokenize_kind kind;
    const char *text;
    size_t len;
    size_t pos;         /* start of the next word */
    size_t segment_end; /* SMOLLM: end of the digit-free segment that pos lies in */
} tr_pretokenize;

/* text is UTF-8 (broken bytes count as characters of class OTHER). */
void tr_pretokenize_init(tr_pretokenize *p, tr_pretokenize_kind kind, const char *text, size_t len);
/* Next word, never empty; the words joined are the text. False at the end. O(len) over the whole walk. */
bool tr_pretokenize_next(tr_pretokenize *p, size_t *begin_out, size_t *len_out);
/* Splitter of a GGUF "tokenizer.ggml.pre" name; false when there is none. */
bool tr_pretokenize_find(const char *name, size_t len, tr_pretokenize_kind *kind_out);
#endif
