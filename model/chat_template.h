/* model/chat_template.h - a conversation as the text that a model was trained on: by the model's own Jinja template
 * (tokenizer.chat_template of a GGUF, chat_template.jinja or tokenizer_config.json of a Hugging Face folder), or by one
 * of a few named ones. Same text as transformers' apply_chat_template. Everything from outside is data: arguments of a
 * request cannot stand in for messages, tools or the special tokens.
 * Threads: immutable after open. */
#ifndef TR_CHAT_TEMPLATE_H
#define TR_CHAT_TEMPLATE_H
#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_chat_template tr_chat_template;

/* Names of the built-in ones ("gemma", "chatml", "llama3", "qwen"), ended by NULL. */
extern const char *const tr_chat_template_names[];
/* text: a template, or the name of a built-in one. bos, eos: the special tokens as texts ("" where there is none).
 * TR_DATA: the template is broken. */
tr_status tr_chat_template_open(const char *text, size_t bytes, const char *bos, const char *eos,
                                tr_chat_template **template_out, tr_error *err);
void tr_chat_template_close(tr_chat_template **template);

typedef struct tr_chat_template_input {
    const json_t *messages;     /* array of objects with "role" */
    const json_t *tools;        /* array or NULL */
    const json_t *arguments;    /* object: more variables for the template, or NULL */
    bool add_generation_prompt; /* end where the assistant begins */
    int64_t now_s;              /* seconds since 1970 */
} tr_chat_template_input;

/* The text is the caller's (free). TR_DATA: the template refuses this conversation, or takes too long over it;
 * TR_USAGE: messages or arguments do not have their form. */
tr_status tr_chat_template_render(const tr_chat_template *template, const tr_chat_template_input *input,
                                  char **text_out, size_t *len_out, tr_error *err);
#endif
