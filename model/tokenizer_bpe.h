/* model/tokenizer_bpe.h - byte-level BPE over one fragment of text: words of the pre-tokenizer, symbols start as bytes,
 * the pair that stands first in the merge list is joined first. Also the byte alphabet and the merge table. */
#ifndef TR_TOKENIZER_BPE_H
#define TR_TOKENIZER_BPE_H
#include "model/tokenizer_impl.h"

/* TR_SYSTEM when memory is short. */
tr_status tr_tokenizer_bpe_encode(const tr_tokenizer *t, tr_tokenizer_scratch *s, const char *text, size_t len,
                                  tr_tokenizer_sink *sink);
/* Fill byte_point, point_byte and byte_ids. */
void tr_tokenizer_bpe_alphabet(tr_tokenizer *t);
/* Empty merge table with room for n rules. */
tr_status tr_tokenizer_bpe_rules(tr_tokenizer *t, uint64_t n);
/* The rule of two symbols, for tr_tokenizer_merge_run; ctx: the tokenizer. */
bool tr_tokenizer_bpe_join(const void *ctx, const tr_tokenizer_symbol *left, const tr_tokenizer_symbol *right,
                           uint32_t *priority_out, uint32_t *result_out);
/* Add a rule; of two for the same pair the first stays. False when the table is crowded (a file made to collide). */
bool tr_tokenizer_bpe_rule(tr_tokenizer *t, tr_tokenizer_rule rule);
#endif
