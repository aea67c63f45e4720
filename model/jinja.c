#include "model/jinja.h"

#include "model/jinja_eval.h"
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>

enum { COMPILE_MEMORY = 64 << 20, COMPILE_STEPS = 16 << 20 };

struct tr_jinja {
    tr_jinja_arena arena; /* of the tree */
    char *text;           /* its newlines are \n; the tree points into it */
    tr_jinja_names names;
    uint32_t loop, caller;
    const tr_jinja_node *tree;
};

/* The only place where a failure of compiling lands: false. */
static bool compile(tr_jinja *t, size_t bytes) {
    if (setjmp(t->arena.fail)) return false;
    t->loop = tr_jinja_parse_name(&t->arena, &t->names, "loop", 4);
    t->caller = tr_jinja_parse_name(&t->arena, &t->names, "caller", 6);
    t->tree = tr_jinja_parse(&t->arena, t->text, bytes, &t->names);
    return true;
}

/* \r\n and \r become \n. */
static size_t copy_text(char *to, const char *from, size_t bytes) {
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (from[i] == '\r' && i + 1 < bytes && from[i + 1] == '\n') continue;
        to[n++] = from[i] == '\r' ? '\n' : from[i];
    }
    return n;
}

tr_status tr_jinja_compile(const char *text, size_t bytes, tr_jinja **template_out, tr_error *err) {
    if (bytes > TR_JINJA_TEMPLATE_MAX)
        return tr_error_set(err, TR_DATA, "chat template of %zu bytes: at most %d are read", bytes,
                            TR_JINJA_TEMPLATE_MAX);
    if (!tr_unicode_utf8_valid(text, bytes)) return tr_error_set(err, TR_DATA, "chat template: it is not valid UTF-8");
    tr_jinja *t = calloc(1, sizeof *t);
    if (t) t->text = malloc(bytes + 1);
    if (!t || !t->text) {
        free(t);
        return tr_error_set(err, TR_UNAVAILABLE, "no memory for the chat template");
    }
    t->arena = (tr_jinja_arena){.budget = COMPILE_MEMORY, .steps = COMPILE_STEPS, .err = err, .line = 1};
    if (!compile(t, copy_text(t->text, text, bytes))) {
        tr_jinja_free(&t);
        return TR_DATA;
    }
    t->arena.err = NULL;
    *template_out = t;
    return TR_OK;
}

void tr_jinja_free(tr_jinja **template) {
    tr_jinja *t = *template;
    if (!t) return;
    tr_jinja_value_free_all(&t->arena);
    free(t->text);
    free(t);
    *template = NULL;
}

/* The only place where a failure of rendering lands: false. */
static bool render(tr_jinja_eval *e, const tr_jinja *t, const json_t *context) {
    if (setjmp(e->a->fail)) return false;
    e->scope = tr_jinja_value_alloc(e->a, sizeof *e->scope);
    for (void *it = json_object_iter((json_t *)(uintptr_t)context); it;
         it = json_object_iter_next((json_t *)(uintptr_t)context, it)) {
        const char *key = json_object_iter_key(it);
        for (uint32_t i = 0; i < t->names.n; i++)
            if (tr_jinja_value_is(t->names.name[i], key))
                tr_jinja_eval_bind(e, i, tr_jinja_value_from_json(e->a, json_object_iter_value(it), 0));
    }
    tr_jinja_eval_run(e, t->tree);
    return true;
}

tr_status tr_jinja_render(const tr_jinja *t, const json_t *context, const tr_jinja_limits *limits, int64_t now_s,
                          char **text_out, size_t *len_out, tr_error *err) {
    tr_jinja_arena arena = {.budget = limits->memory_bytes, .steps = limits->steps, .err = err, .line = 1};
    tr_jinja_text out = {.most = limits->output_bytes};
    tr_jinja_names names = t->names;
    tr_jinja_eval e = {.a = &arena,
                       .names = &names,
                       .out = &out,
                       .hole = tr_jinja_value_none(),
                       .depth_max = limits->depth,
                       .loop = t->loop,
                       .caller = t->caller,
                       .now_s = now_s};
    tr_status status = render(&e, t, context) ? TR_OK : TR_DATA;
    char *text = status == TR_OK ? malloc(out.len + 1) : NULL;
    if (text) {
        if (out.len) memcpy(text, out.data, out.len);
        text[out.len] = 0;
        *text_out = text;
        *len_out = out.len;
    } else if (status == TR_OK)
        status = tr_error_set(err, TR_UNAVAILABLE, "no memory for a chat of %zu bytes", out.len);
    tr_jinja_value_free_all(&arena);
    return status;
}
