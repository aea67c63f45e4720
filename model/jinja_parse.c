#include "model/jinja_parser.h"

typedef tr_jinja_node node;

static void statements(tr_jinja_parser *p, tr_jinja_nodes *out, const char *const *ends);

static node *target(tr_jinja_parser *p, bool attribute) {
    node *first, *t;
    bool bracket = tr_jinja_parser_take_operator(p, "(");
    first = tr_jinja_parser_name_node(p);
    if (attribute && tr_jinja_parser_take_operator(p, ".")) {
        node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_ATTRIBUTE);
        n->a = first;
        n->value = p->t->value;
        tr_jinja_parser_name(p);
        return n;
    }
    if (!tr_jinja_parser_is_operator(p, ",")) {
        if (bracket) tr_jinja_parser_expect_operator(p, ")");
        return first;
    }
    t = tr_jinja_parser_make(p, TR_JINJA_NODE_TUPLE);
    tr_jinja_parser_push(p, &t->list, first);
    while (tr_jinja_parser_take_operator(p, ","))
        if (p->t->kind == TR_JINJA_TOKEN_NAME && !tr_jinja_parser_is_name(p, "in"))
            tr_jinja_parser_push(p, &t->list, tr_jinja_parser_name_node(p));
    if (bracket) tr_jinja_parser_expect_operator(p, ")");
    return t;
}

/* Body up to one of the end words; the parser stands on the word. */
static void body(tr_jinja_parser *p, tr_jinja_nodes *out, const char *const *ends) {
    tr_jinja_parser_expect(p, TR_JINJA_TOKEN_BLOCK_END, "the end of the tag");
    tr_jinja_parser_enter(p);
    statements(p, out, ends);
    p->depth--;
}

static node *block(tr_jinja_parser *p, tr_jinja_node_kind kind, const char *const *ends) {
    node *n = tr_jinja_parser_make(p, kind);
    body(p, &n->list, ends);
    return n;
}

static node *if_(tr_jinja_parser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif", NULL};
    node *first = tr_jinja_parser_make(p, TR_JINJA_NODE_IF), *n = first;
    for (;;) {
        n->a = tr_jinja_parser_tuple(p, false, false);
        if (tr_jinja_parser_is_name(p, "if")) tr_jinja_parser_unexpected(p, "the end of the tag");
        n->b = block(p, TR_JINJA_NODE_BLOCK, ends);
        if (tr_jinja_parser_take_name(p, "elif")) {
            n = n->c = tr_jinja_parser_make(p, TR_JINJA_NODE_IF);
        } else if (tr_jinja_parser_take_name(p, "else")) {
            n->c = block(p, TR_JINJA_NODE_BLOCK, last);
        } else
            break;
        if (n->kind == TR_JINJA_NODE_IF && n->c) break;
    }
    tr_jinja_parser_next(p);
    return first;
}

static node *for_(tr_jinja_parser *p) {
    static const char *const ends[] = {"endfor", "else", NULL}, *const last[] = {"endfor", NULL};
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_FOR);
    n->a = target(p, false);
    if (!tr_jinja_parser_take_name(p, "in")) tr_jinja_parser_unexpected(p, "in");
    n->b = tr_jinja_parser_tuple(p, false, false);
    if (tr_jinja_parser_take_name(p, "if")) n->c = tr_jinja_parser_expression(p);
    if (tr_jinja_parser_is_name(p, "recursive")) tr_jinja_value_fail(p->a, "recursive loops are not supported");
    p->loops++;
    body(p, &n->list, ends);
    p->loops--;
    if (tr_jinja_parser_take_name(p, "else")) body(p, &n->more, last);
    tr_jinja_parser_next(p);
    return n;
}

static node *set(tr_jinja_parser *p) {
    static const char *const ends[] = {"endset", NULL};
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_SET);
    n->a = target(p, true);
    if (tr_jinja_parser_take_operator(p, "=")) {
        n->b = tr_jinja_parser_tuple(p, true, false);
        return n;
    }
    n->kind = TR_JINJA_NODE_SET_TEXT;
    if (tr_jinja_parser_is_operator(p, "|"))
        n->b = tr_jinja_parser_filtered(p, tr_jinja_parser_make(p, TR_JINJA_NODE_HOLE));
    body(p, &n->list, ends);
    tr_jinja_parser_next(p);
    return n;
}

static void parameters(tr_jinja_parser *p, node *macro) {
    tr_jinja_parser_expect_operator(p, "(");
    while (!tr_jinja_parser_is_operator(p, ")")) {
        node *n = tr_jinja_parser_name_node(p);
        if (tr_jinja_parser_take_operator(p, "=")) n->a = tr_jinja_parser_expression(p);
        tr_jinja_parser_push(p, &macro->more, n);
        if (!tr_jinja_parser_is_operator(p, ")")) tr_jinja_parser_expect_operator(p, ",");
    }
    tr_jinja_parser_next(p);
}

static node *macro(tr_jinja_parser *p) {
    static const char *const ends[] = {"endmacro", NULL};
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_MACRO);
    n->value = p->t->value;
    n->name = tr_jinja_parser_name(p);
    parameters(p, n);
    uint32_t loops = p->loops;
    p->loops = 0;
    body(p, &n->list, ends);
    p->loops = loops;
    tr_jinja_parser_next(p);
    return n;
}

static node *call_block(tr_jinja_parser *p) {
    static const char *const ends[] = {"endcall", NULL};
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_CALLING);
    n->b = tr_jinja_parser_make(p, TR_JINJA_NODE_MACRO);
    n->b->value = tr_jinja_value_string("caller", 6);
    if (tr_jinja_parser_is_operator(p, "(")) parameters(p, n->b);
    n->a = tr_jinja_parser_expression(p);
    if (n->a->kind != TR_JINJA_NODE_CALL) tr_jinja_parser_unexpected(p, "a call");
    body(p, &n->b->list, ends);
    tr_jinja_parser_next(p);
    return n;
}

static node *filter_block(tr_jinja_parser *p) {
    static const char *const ends[] = {"endfilter", NULL};
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_FILTERED);
    n->b = tr_jinja_parser_filtered(p, tr_jinja_parser_filter(p, tr_jinja_parser_make(p, TR_JINJA_NODE_HOLE)));
    body(p, &n->list, ends);
    tr_jinja_parser_next(p);
    return n;
}

static node *generation(tr_jinja_parser *p) {
    static const char *const ends[] = {"endgeneration", NULL};
    node *n = block(p, TR_JINJA_NODE_SCOPE, ends);
    tr_jinja_parser_next(p);
    return n;
}

static node *leave(tr_jinja_parser *p, tr_jinja_node_kind kind) {
    if (p->loops == 0) tr_jinja_value_fail(p->a, "break and continue belong into a loop");
    return tr_jinja_parser_make(p, kind);
}
static node *break_(tr_jinja_parser *p) { return leave(p, TR_JINJA_NODE_BREAK); }
static node *continue_(tr_jinja_parser *p) { return leave(p, TR_JINJA_NODE_CONTINUE); }

static node *statement(tr_jinja_parser *p) {
    static const struct {
        const char *word;
        node *(*parse)(tr_jinja_parser *p);
    } table[] = {{"if", if_},       {"for", for_},           {"set", set},
                 {"macro", macro},  {"call", call_block},    {"filter", filter_block},
                 {"break", break_}, {"continue", continue_}, {"generation", generation}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (tr_jinja_parser_take_name(p, table[i].word)) return table[i].parse(p);
    if (p->t->kind == TR_JINJA_TOKEN_NAME)
        tr_jinja_value_fail(p->a, "the tag '%.*s' is not supported", (int)(p->t->value.len < 40 ? p->t->value.len : 40),
                            p->t->value.as.s);
    tr_jinja_parser_unexpected(p, "a tag");
}

static void statements(tr_jinja_parser *p, tr_jinja_nodes *out, const char *const *ends) {
    for (;;) {
        if (p->t->kind == TR_JINJA_TOKEN_END) {
            if (ends) tr_jinja_value_fail(p->a, "%s is missing at the end", ends[0]);
            return;
        }
        if (p->t->kind == TR_JINJA_TOKEN_TEXT) {
            node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_TEXT);
            n->value = p->t->value;
            tr_jinja_parser_next(p);
            tr_jinja_parser_push(p, out, n);
        } else if (p->t->kind == TR_JINJA_TOKEN_OUTPUT_BEGIN) {
            node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_OUTPUT);
            tr_jinja_parser_next(p);
            n->a = tr_jinja_parser_tuple(p, true, false);
            tr_jinja_parser_expect(p, TR_JINJA_TOKEN_OUTPUT_END, "}}");
            tr_jinja_parser_push(p, out, n);
        } else {
            tr_jinja_parser_expect(p, TR_JINJA_TOKEN_BLOCK_BEGIN, "a tag");
            for (const char *const *end = ends; end && *end; end++)
                if (tr_jinja_parser_is_name(p, *end)) return;
            tr_jinja_parser_push(p, out, statement(p));
            tr_jinja_parser_expect(p, TR_JINJA_TOKEN_BLOCK_END, "the end of the tag");
        }
    }
}

node *tr_jinja_parse(tr_jinja_arena *a, const char *text, size_t bytes, tr_jinja_names *names) {
    tr_jinja_parser p = {.a = a, .t = tr_jinja_parse_tokens(a, text, bytes), .names = names};
    a->line = p.t->line;
    node *n = tr_jinja_parser_make(&p, TR_JINJA_NODE_BLOCK);
    statements(&p, &n->list, NULL);
    return n;
}
