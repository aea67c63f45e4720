/* model/tokenizer_load.h - the vocabulary keys of a GGUF file -> tables. Every number and string is checked here, so
 * that the rest can index without asking. */
#ifndef TR_TOKENIZER_LOAD_H
#define TR_TOKENIZER_LOAD_H
#include "model/tokenizer_impl.h"

/* t is zeroed memory; on failure the caller releases what was allocated. TR_DATA, TR_SYSTEM. */
tr_status tr_tokenizer_load(tr_tokenizer *t, const tr_gguf *g, tr_error *err);
#endif
