/* model/tokenizer_spm.h - SentencePiece-style BPE over one fragment of text.
 * Blanks become U+2581; symbols start as characters; the pair whose text is the token of highest score is joined first,
 * or, where there is a merge list, the pair that stands first in it.
 * What no token covers is written as byte tokens. */
#ifndef TR_TOKENIZER_SPM_H
#define TR_TOKENIZER_SPM_H
#include "model/tokenizer_impl.h"

/* prefix: put one blank before the text. TR_SYSTEM when memory is short. */
tr_status tr_tokenizer_spm_encode(const tr_tokenizer *t, tr_tokenizer_scratch *s, const char *text, size_t len,
                                  bool prefix, tr_tokenizer_sink *sink);
#endif
