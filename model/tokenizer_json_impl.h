/* model/tokenizer_json_impl.h - between the two files of model/tokenizer_json*.c. */
#ifndef TR_TOKENIZER_JSON_IMPL_H
#define TR_TOKENIZER_JSON_IMPL_H
#include "model/tokenizer_impl.h"

#include <jansson.h>

/* One reading. */
typedef struct tr_tokenizer_json {
    const char *name;   /* of the file, for messages */
    const json_t *root; /* tokenizer.json */
    const json_t *model;
    tr_tokenizer *t;
    int64_t template_bos; /* token that the post-processor puts first, -1 for none */
    tr_error *err;
} tr_tokenizer_json;

/* Head of a string as printable ASCII. */
typedef struct tr_tokenizer_json_shown {
    char text[200];
} tr_tokenizer_json_shown;

tr_tokenizer_json_shown tr_tokenizer_json_show(const char *text);
tr_status tr_tokenizer_json_fail(const tr_tokenizer_json *j, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Value of a key; NULL also for a JSON null. */
const json_t *tr_tokenizer_json_value(const json_t *object, const char *key);
/* true, false, or missing where it is absent or no boolean. */
bool tr_tokenizer_json_flag(const json_t *object, const char *key, bool missing);

/* normalizer, pre_tokenizer, decoder and post_processor: sets kind, pre, nfc, the prefix, and template_bos. */
tr_status tr_tokenizer_json_steps(tr_tokenizer_json *j);
#endif
