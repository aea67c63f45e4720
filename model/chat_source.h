/* model/chat_source.h - where a model keeps its chat template: tokenizer.chat_template of a GGUF; chat_template.jinja
 * or tokenizer_config.json in the folder of a safetensors file. */
#ifndef TR_CHAT_SOURCE_H
#define TR_CHAT_SOURCE_H
#include "model/chat_template.h"

/* *template_out is NULL, and the status TR_OK, where the model has none. TR_DATA: it has one that is broken. */
tr_status tr_chat_source_open(const char *model_path, tr_chat_template **template_out, tr_error *err);
#endif
