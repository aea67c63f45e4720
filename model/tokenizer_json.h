/* model/tokenizer_json.h - a Hugging Face tokenizer.json as the tables of a tokenizer.
 * Two families of its BPE models: byte-level (GPT-2, Llama 3, Qwen, SmolLM2) and characters with byte fallback (Gemma,
 * Llama 2, Mistral 7B), by the merge list in both. Ids are those of the `tokenizers` library; what that would take and
 * is not built is refused by name: other model types, normalizers, pre-tokenizers (also expressions), decoders and
 * post-processors, tokens with lstrip or single_word, tokens appended to a text.
 * The text is hostile input: sizes are bounded, nothing recurses, every id is checked.
 * Errors: TR_DATA "FILE: reason", TR_SYSTEM (memory). Threads: pure. */
#ifndef TR_TOKENIZER_JSON_H
#define TR_TOKENIZER_JSON_H
#include "model/tokenizer.h"

/* A text; data NULL: there is no such file. */
typedef struct tr_tokenizer_json_text {
    const char *data;
    size_t len;
    const char *name; /* for messages */
} tr_tokenizer_json_text;

/* config: tokenizer_config.json (bos_token, eos_token, add_bos_token).
 * n_rows: of the model's embedding, 0 if not known. The vocabulary gets as many tokens: rows without a token have no
 * text, added tokens without a row do not exist; a token of the model's vocabulary without a row is an error. */
tr_status tr_tokenizer_json_read(const tr_tokenizer_json_text *text, const tr_tokenizer_json_text *config,
                                 uint32_t n_rows, tr_tokenizer **tokenizer_out, tr_error *err);
#endif
