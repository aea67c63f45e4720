/* model/jinja_eval.h - one rendering: scopes, calls, and what jinja_eval.c and the built-ins (jinja_filter.c,
 * jinja_method.c) know of each other; private to model/jinja*.c. Failures jump (model/jinja_value.h). */
#ifndef TR_JINJA_EVAL_H
#define TR_JINJA_EVAL_H
#include "model/jinja_parse.h"

typedef struct tr_jinja_binding {
    uint32_t name;
    tr_jinja_value value;
} tr_jinja_binding;

typedef struct tr_jinja_scope {
    struct tr_jinja_scope *outer;
    uint32_t n, room;
    tr_jinja_binding *binding;
} tr_jinja_scope;

typedef struct tr_jinja_eval {
    tr_jinja_arena *a;
    tr_jinja_names *names;
    tr_jinja_scope *scope;
    tr_jinja_text *out;
    tr_jinja_value hole; /* text of the block that is being filtered */
    uint32_t depth, depth_max;
    uint32_t loop, caller; /* names */
    int64_t now_s;
} tr_jinja_eval;

typedef struct tr_jinja_args {
    const tr_jinja_value *item; /* by position */
    uint32_t n;
    const tr_jinja_pair *named;
    uint32_t n_named;
} tr_jinja_args;

typedef struct tr_jinja_method {
    tr_jinja_value self, name;
} tr_jinja_method;

void tr_jinja_eval_run(tr_jinja_eval *e, const tr_jinja_node *block);
/* Bind a name in the innermost scope. */
void tr_jinja_eval_bind(tr_jinja_eval *e, uint32_t name, tr_jinja_value value);
tr_jinja_value tr_jinja_eval_call(tr_jinja_eval *e, tr_jinja_value f, const tr_jinja_args *args);
/* value.name, then value[name] */
tr_jinja_value tr_jinja_eval_attribute(tr_jinja_eval *e, tr_jinja_value v, tr_jinja_value name);
/* value[index], then value.index */
tr_jinja_value tr_jinja_eval_index(tr_jinja_eval *e, tr_jinja_value v, tr_jinja_value index);
/* jinja_operator.c */
void tr_jinja_eval_need(tr_jinja_eval *e, tr_jinja_value v); /* fails where it is undefined */
tr_jinja_value tr_jinja_eval_binary(tr_jinja_eval *e, tr_jinja_op op, tr_jinja_value x, tr_jinja_value y);
bool tr_jinja_eval_holds(tr_jinja_eval *e, tr_jinja_op op, tr_jinja_value x, tr_jinja_value y); /* comparisons */

/* Argument i, or the one named so; missing: `otherwise`. */
tr_jinja_value tr_jinja_eval_arg(const tr_jinja_args *args, uint32_t i, const char *name, tr_jinja_value otherwise);
int64_t tr_jinja_eval_int(tr_jinja_eval *e, tr_jinja_value v, const char *what);
tr_jinja_value tr_jinja_eval_text(tr_jinja_eval *e, tr_jinja_value v, const char *what); /* a string, or fails */

/* jinja_filter.c, jinja_tests.c */
tr_jinja_value tr_jinja_eval_filter(tr_jinja_eval *e, tr_jinja_value name, tr_jinja_value v, const tr_jinja_args *args);
bool tr_jinja_eval_test(tr_jinja_eval *e, tr_jinja_value name, tr_jinja_value v, const tr_jinja_args *args);
/* jinja_method.c */
bool tr_jinja_eval_has_method(tr_jinja_value v, tr_jinja_value name);
tr_jinja_value tr_jinja_eval_method(tr_jinja_eval *e, const tr_jinja_method *m, const tr_jinja_args *args);
bool tr_jinja_eval_find_function(tr_jinja_value name, tr_jinja_value *function_out);
tr_jinja_value tr_jinja_eval_function(tr_jinja_eval *e, int64_t index, const tr_jinja_args *args);
/* Used by filters and methods alike. */
tr_jinja_value tr_jinja_eval_strip(tr_jinja_eval *e, tr_jinja_value s, tr_jinja_value chars, bool left, bool right);
tr_jinja_value tr_jinja_eval_replace(tr_jinja_eval *e, tr_jinja_value s, tr_jinja_value from, tr_jinja_value to,
                                     int64_t most);
tr_jinja_value tr_jinja_eval_case(tr_jinja_eval *e, tr_jinja_value s, char form); /* u l t c */
#endif
