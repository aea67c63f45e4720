/* model/tokenizer_source.h - the tokenizer of a model by its path: the vocabulary of a GGUF, or tokenizer.json in a
 * Hugging Face folder, with tokenizer_config.json and the size of the embedding from config.json where they are there.
 * Errors: TR_UNAVAILABLE: a folder without tokenizer.json (the model runs on token ids); TR_NO_INPUT; those of
 * tr_tokenizer_create and model/tokenizer_json.h. */
#ifndef TR_TOKENIZER_SOURCE_H
#define TR_TOKENIZER_SOURCE_H
#include "model/tokenizer.h"

/* model_path: a file of weights (GGUF, .safetensors, an index of shards), or a folder; no weights are needed. */
tr_status tr_tokenizer_source_open(const char *model_path, tr_tokenizer **tokenizer_out, tr_error *err);
#endif
