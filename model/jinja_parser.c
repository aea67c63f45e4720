#include "model/jinja_parser.h"

#include <string.h>

enum { DEPTH_MAX = 100 };

typedef tr_jinja_node node;

node *tr_jinja_parser_make(tr_jinja_parser *p, tr_jinja_node_kind kind) {
    node *n = tr_jinja_value_alloc(p->a, sizeof *n);
    n->kind = kind;
    n->line = p->t->line;
    return n;
}

void tr_jinja_parser_push(tr_jinja_parser *p, tr_jinja_nodes *l, node *n) {
    if (l->n == l->room) {
        uint32_t room = l->room ? 2 * l->room : 4;
        node **more = tr_jinja_value_alloc(p->a, room * sizeof *more);
        if (l->n) memcpy(more, l->item, l->n * sizeof *more);
        l->item = more;
        l->room = room;
    }
    l->item[l->n++] = n;
}

void tr_jinja_parser_next(tr_jinja_parser *p) {
    p->t++;
    p->a->line = p->t->line;
}
static bool is(const tr_jinja_parser *p, tr_jinja_token_kind kind, const char *text) {
    return p->t->kind == kind && tr_jinja_value_is(p->t->value, text);
}
bool tr_jinja_parser_is_operator(const tr_jinja_parser *p, const char *text) {
    return is(p, TR_JINJA_TOKEN_OPERATOR, text);
}
bool tr_jinja_parser_is_name(const tr_jinja_parser *p, const char *text) { return is(p, TR_JINJA_TOKEN_NAME, text); }
static bool take(tr_jinja_parser *p, tr_jinja_token_kind kind, const char *text) {
    if (!is(p, kind, text)) return false;
    tr_jinja_parser_next(p);
    return true;
}
bool tr_jinja_parser_take_operator(tr_jinja_parser *p, const char *text) {
    return take(p, TR_JINJA_TOKEN_OPERATOR, text);
}
bool tr_jinja_parser_take_name(tr_jinja_parser *p, const char *text) { return take(p, TR_JINJA_TOKEN_NAME, text); }

_Noreturn void tr_jinja_parser_unexpected(tr_jinja_parser *p, const char *wanted) {
    const tr_jinja_value v = p->t->value;
    if (v.kind == TR_JINJA_STRING)
        tr_jinja_value_fail(p->a, "'%.*s' where %s belongs", (int)(v.len < 40 ? v.len : 40), v.as.s, wanted);
    tr_jinja_value_fail(p->a, "%s is missing", wanted);
}
void tr_jinja_parser_expect_operator(tr_jinja_parser *p, const char *text) {
    if (!tr_jinja_parser_take_operator(p, text)) tr_jinja_parser_unexpected(p, text);
}
void tr_jinja_parser_expect(tr_jinja_parser *p, tr_jinja_token_kind kind, const char *what) {
    if (p->t->kind != kind) tr_jinja_parser_unexpected(p, what);
    tr_jinja_parser_next(p);
}
void tr_jinja_parser_enter(tr_jinja_parser *p) {
    if (++p->depth > DEPTH_MAX) tr_jinja_value_fail(p->a, "it is nested too deeply");
}

uint32_t tr_jinja_parse_name(tr_jinja_arena *a, tr_jinja_names *names, const char *s, size_t len) {
    for (uint32_t i = 0; i < names->n; i++)
        if (names->name[i].len == len && memcmp(names->name[i].as.s, s, len) == 0) return i;
    if (names->n == names->room) {
        uint32_t room = names->room ? 2 * names->room : 64;
        if (room > 8192) tr_jinja_value_fail(a, "it has too many names");
        tr_jinja_value *more = tr_jinja_value_alloc(a, room * sizeof *more);
        if (names->n) memcpy(more, names->name, names->n * sizeof *more);
        names->name = more;
        names->room = room;
    }
    names->name[names->n] = tr_jinja_value_string(s, len);
    return names->n++;
}

uint32_t tr_jinja_parser_name(tr_jinja_parser *p) {
    if (p->t->kind != TR_JINJA_TOKEN_NAME) tr_jinja_parser_unexpected(p, "a name");
    uint32_t id = tr_jinja_parse_name(p->a, p->names, p->t->value.as.s, p->t->value.len);
    tr_jinja_parser_next(p);
    return id;
}

node *tr_jinja_parser_name_node(tr_jinja_parser *p) {
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_NAME);
    n->value = p->t->value;
    n->name = tr_jinja_parser_name(p);
    return n;
}
