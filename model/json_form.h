/* model/json_form.h - what a JSON text from outside may cost, checked before the parser sees it.
 * Why: the parser spends up to fifty bytes of memory on one of input, and recurses. This pass looks at brackets and
 *      commas only, in O(len) and without memory; broken JSON that passes is the parser's to find.
 * Threads: pure. */
#ifndef TR_JSON_FORM_H
#define TR_JSON_FORM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_json_form {
    uint32_t depth;      /* of nested arrays and objects */
    uint32_t containers; /* arrays and objects in all */
    uint32_t values;     /* commas and colons in all: members of objects count twice */
} tr_json_form;

/* False: more than the limits allow; *offset_out is the byte that is too much. */
bool tr_json_form_within(const char *text, size_t len, const tr_json_form *limits, size_t *offset_out);
#endif
