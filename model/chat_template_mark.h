/* model/chat_template_mark.h - what users write in a chat stays text: a copy of messages, tools or arguments in which
 * every text that holds a control token is marked (tr_tokenizer_mark), so that only the template's own text makes
 * control tokens when what it renders is tokenized with TR_TOKENIZE_PARSE_SPECIAL | TR_TOKENIZE_MARKED. Texts without
 * such tokens, which is nearly all, are seen by the template as they are. Threads: none of its own. */
#ifndef TR_CHAT_TEMPLATE_MARK_H
#define TR_CHAT_TEMPLATE_MARK_H
#include "model/tokenizer.h"

#include <jansson.h>

/* *out is the caller's reference; parts without change are shared with value. value NULL: NULL. TR_SYSTEM: no memory.
 */
tr_status tr_chat_template_mark(const tr_tokenizer *t, const json_t *value, json_t **out);
#endif
