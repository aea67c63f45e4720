/* model/jinja.h - the part of Jinja (jinja2 3.1, jinja.palletsprojects.com/templates) that chat templates are written
 * in, as a bounded interpreter: same text as Hugging Face transformers' apply_chat_template, which runs jinja2 in its
 * immutable sandbox with trim_blocks, lstrip_blocks, loop controls and the {% generation %} tag.
 * Left out: inheritance, include, import, recursive loops, autoescape, changes of lists and dicts (the sandbox refuses
 * these too). lower, upper, title and capitalize change ASCII, Latin-1, Greek and Cyrillic letters only.
 * Hostile templates and contexts: steps, nesting, output and memory are bounded, nothing else can be reached from a
 * template but its context and the clock. Errors: TR_DATA with the line, and also what a template itself refuses by
 * raise_exception. Threads: a compiled template is immutable, any thread may render it. Heap: freed whole at the end.
 */
#ifndef TR_JINJA_H
#define TR_JINJA_H
#include "base/status.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { TR_JINJA_TEMPLATE_MAX = 1 << 20 }; /* bytes of a template */

typedef struct tr_jinja_limits {
    uint64_t steps;      /* nodes evaluated, a step more for each 256 bytes of text that is made */
    uint32_t depth;      /* nested blocks, calls and expressions; a level takes up to 1 KiB of stack */
    size_t output_bytes; /* of the text */
    size_t memory_bytes; /* of all values of one rendering */
} tr_jinja_limits;
extern const tr_jinja_limits tr_jinja_limits_default;

typedef struct tr_jinja tr_jinja;
tr_status tr_jinja_compile(const char *text, size_t bytes, tr_jinja **template_out, tr_error *err);
void tr_jinja_free(tr_jinja **template);
/* context: an object, its members are the template's variables. now_s: seconds since 1970, what strftime_now shows in
 * local time. The text is the caller's (free) and ends with a NUL that *len_out does not count. */
tr_status tr_jinja_render(const tr_jinja *template, const json_t *context, const tr_jinja_limits *limits, int64_t now_s,
                          char **text_out, size_t *len_out, tr_error *err);
#endif
