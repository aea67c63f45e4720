/* model/tokenizer_names.h - roles that GGUF files leave to the text of a token: what ends a generation, what is control
 * although the file does not say so. The list is llama.cpp's, since files are written with it in mind. */
#ifndef TR_TOKENIZER_NAMES_H
#define TR_TOKENIZER_NAMES_H
#include "model/tokenizer_impl.h"

/* Fill eot, eom and the fill-in-the-middle ids where the file left them open, set TR_TOKENIZER_EOG and the control and
 * user bits that follow from names; with t->declared only those of tokens that are special already. Needs map, attrs
 * and the ids from the file. */
void tr_tokenizer_names_apply(tr_tokenizer *t);
/* Phi-3: special tokens take the white space behind them. model_name is "general.name" of the file. */
void tr_tokenizer_names_strip(tr_tokenizer *t, const char *model_name, size_t len);
#endif
