/* model/jinja_expression.c - expressions, weakest first. */
#include "model/jinja_parser.h"

typedef tr_jinja_node node;

static node *unary(tr_jinja_parser *p, bool filters);
static node *primary(tr_jinja_parser *p);
static node *postfix(tr_jinja_parser *p, node *n);

static node *binary(tr_jinja_parser *p, tr_jinja_op op, node *a, node *b) {
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_BINARY);
    n->op = op;
    n->a = a;
    n->b = b;
    return n;
}

static node *negate(tr_jinja_parser *p, tr_jinja_op op, node *a) {
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_UNARY);
    n->op = op;
    n->a = a;
    return n;
}

static node *power(tr_jinja_parser *p) {
    node *left = unary(p, true);
    while (tr_jinja_parser_take_operator(p, "**")) left = binary(p, TR_JINJA_OP_POW, left, unary(p, true));
    return left;
}

static node *product(tr_jinja_parser *p) {
    static const struct {
        const char *text;
        tr_jinja_op op;
    } ops[] = {{"*", TR_JINJA_OP_MUL}, {"/", TR_JINJA_OP_DIV}, {"//", TR_JINJA_OP_FLOOR}, {"%", TR_JINJA_OP_MOD}};
    node *left = power(p);
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (tr_jinja_parser_take_operator(p, ops[i].text)) {
            left = binary(p, ops[i].op, left, power(p));
            i = (size_t)-1;
        }
    return left;
}

static node *joined(tr_jinja_parser *p) {
    node *left = product(p);
    while (tr_jinja_parser_take_operator(p, "~")) left = binary(p, TR_JINJA_OP_JOIN, left, product(p));
    return left;
}

static node *sum(tr_jinja_parser *p) {
    node *left = joined(p);
    for (;;) {
        if (tr_jinja_parser_take_operator(p, "+"))
            left = binary(p, TR_JINJA_OP_ADD, left, joined(p));
        else if (tr_jinja_parser_take_operator(p, "-"))
            left = binary(p, TR_JINJA_OP_SUB, left, joined(p));
        else
            return left;
    }
}

static tr_jinja_op comparison(tr_jinja_parser *p) {
    static const struct {
        const char *text;
        tr_jinja_op op;
    } ops[] = {{"==", TR_JINJA_OP_EQ}, {"!=", TR_JINJA_OP_NE}, {"<", TR_JINJA_OP_LT},
               {"<=", TR_JINJA_OP_LE}, {">", TR_JINJA_OP_GT},  {">=", TR_JINJA_OP_GE}};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (tr_jinja_parser_take_operator(p, ops[i].text)) return ops[i].op;
    if (tr_jinja_parser_take_name(p, "in")) return TR_JINJA_OP_IN;
    if (tr_jinja_parser_is_name(p, "not") && p->t[1].kind == TR_JINJA_TOKEN_NAME &&
        tr_jinja_value_is(p->t[1].value, "in")) {
        tr_jinja_parser_next(p);
        tr_jinja_parser_next(p);
        return TR_JINJA_OP_NOT_IN;
    }
    return TR_JINJA_OP_NONE;
}

static node *compare(tr_jinja_parser *p) {
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_COMPARE);
    n->a = sum(p);
    for (tr_jinja_op op; (op = comparison(p)) != TR_JINJA_OP_NONE;)
        tr_jinja_parser_push(p, &n->list, binary(p, op, NULL, sum(p)));
    return n->list.n ? n : n->a;
}

static node *not_(tr_jinja_parser *p) {
    if (!tr_jinja_parser_take_name(p, "not")) return compare(p);
    tr_jinja_parser_enter(p);
    node *n = negate(p, TR_JINJA_OP_NOT, not_(p));
    p->depth--;
    return n;
}

static node *and_(tr_jinja_parser *p) {
    node *left = not_(p);
    while (tr_jinja_parser_take_name(p, "and")) left = binary(p, TR_JINJA_OP_AND, left, not_(p));
    return left;
}

node *tr_jinja_parser_condition(tr_jinja_parser *p) {
    node *left = and_(p);
    while (tr_jinja_parser_take_name(p, "or")) left = binary(p, TR_JINJA_OP_OR, left, and_(p));
    return left;
}

node *tr_jinja_parser_expression(tr_jinja_parser *p) {
    tr_jinja_parser_enter(p);
    node *e = tr_jinja_parser_condition(p);
    while (tr_jinja_parser_take_name(p, "if")) {
        node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_CONDITION);
        n->a = e;
        n->b = tr_jinja_parser_condition(p);
        n->c = tr_jinja_parser_take_name(p, "else") ? tr_jinja_parser_expression(p) : NULL;
        e = n;
    }
    p->depth--;
    return e;
}

static void arguments(tr_jinja_parser *p, node *n) {
    tr_jinja_parser_expect_operator(p, "(");
    while (!tr_jinja_parser_is_operator(p, ")")) {
        if (tr_jinja_parser_is_operator(p, "*") || tr_jinja_parser_is_operator(p, "**"))
            tr_jinja_value_fail(p->a, "* in arguments is not supported");
        if (p->t->kind == TR_JINJA_TOKEN_NAME && p->t[1].kind == TR_JINJA_TOKEN_OPERATOR &&
            tr_jinja_value_is(p->t[1].value, "=")) {
            node *named = tr_jinja_parser_make(p, TR_JINJA_NODE_NAMED);
            named->value = p->t->value;
            named->name = tr_jinja_parser_name(p);
            tr_jinja_parser_next(p);
            named->a = tr_jinja_parser_expression(p);
            tr_jinja_parser_push(p, &n->more, named);
        } else {
            if (n->more.n) tr_jinja_parser_unexpected(p, "a named argument");
            tr_jinja_parser_push(p, &n->list, tr_jinja_parser_expression(p));
        }
        if (!tr_jinja_parser_is_operator(p, ")")) tr_jinja_parser_expect_operator(p, ",");
    }
    tr_jinja_parser_next(p);
}

static node *call(tr_jinja_parser *p, node *f) {
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_CALL);
    n->a = f;
    arguments(p, n);
    return n;
}

static tr_jinja_value dotted(tr_jinja_parser *p) {
    tr_jinja_value v = p->t->value;
    tr_jinja_parser_name(p);
    while (tr_jinja_parser_take_operator(p, ".")) {
        v = p->t->value; /* no filter or test here has a dotted name */
        tr_jinja_parser_name(p);
    }
    return v;
}

node *tr_jinja_parser_filter(tr_jinja_parser *p, node *n) {
    node *f = tr_jinja_parser_make(p, TR_JINJA_NODE_FILTER);
    f->a = n;
    f->value = dotted(p);
    if (tr_jinja_parser_is_operator(p, "(")) arguments(p, f);
    return f;
}

static bool argument_of_test(const tr_jinja_parser *p) {
    static const char *const operators[] = {"(", "[", "{"};
    if (p->t->kind == TR_JINJA_TOKEN_CONST) return true;
    if (p->t->kind == TR_JINJA_TOKEN_NAME)
        return !tr_jinja_parser_is_name(p, "else") && !tr_jinja_parser_is_name(p, "or") &&
               !tr_jinja_parser_is_name(p, "and") && !tr_jinja_parser_is_name(p, "is") &&
               !tr_jinja_parser_is_name(p, "if");
    for (size_t i = 0; i < 3; i++)
        if (tr_jinja_parser_is_operator(p, operators[i])) return true;
    return false;
}

static node *test(tr_jinja_parser *p, node *n) {
    bool not = tr_jinja_parser_take_name(p, "not");
    node *t = tr_jinja_parser_make(p, TR_JINJA_NODE_TEST);
    t->a = n;
    t->value = dotted(p);
    if (tr_jinja_parser_is_operator(p, "("))
        arguments(p, t);
    else if (argument_of_test(p))
        tr_jinja_parser_push(p, &t->list, postfix(p, primary(p)));
    return not ? negate(p, TR_JINJA_OP_NOT, t) : t;
}

node *tr_jinja_parser_filtered(tr_jinja_parser *p, node *n) {
    for (;;) {
        if (tr_jinja_parser_take_operator(p, "|"))
            n = tr_jinja_parser_filter(p, n);
        else if (tr_jinja_parser_take_name(p, "is"))
            n = test(p, n);
        else if (tr_jinja_parser_is_operator(p, "("))
            n = call(p, n);
        else
            return n;
    }
}

static node *subscript(tr_jinja_parser *p, node *a) {
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_INDEX), *part[3] = {NULL};
    uint32_t colons = 0;
    n->a = a;
    while (!tr_jinja_parser_is_operator(p, "]")) {
        if (tr_jinja_parser_take_operator(p, ":")) {
            if (++colons > 2) tr_jinja_parser_unexpected(p, "]");
        } else if (part[colons])
            tr_jinja_parser_unexpected(p, "]");
        else
            part[colons] = tr_jinja_parser_tuple(p, true, false);
    }
    tr_jinja_parser_next(p);
    if (colons == 0) {
        if (!part[0]) tr_jinja_parser_unexpected(p, "an index");
        n->b = part[0];
        return n;
    }
    n->kind = TR_JINJA_NODE_SLICE;
    for (int i = 0; i < 3; i++) tr_jinja_parser_push(p, &n->list, part[i]);
    return n;
}

static node *postfix(tr_jinja_parser *p, node *n) {
    for (;;) {
        if (tr_jinja_parser_take_operator(p, ".")) {
            node *attribute = tr_jinja_parser_make(p, TR_JINJA_NODE_ATTRIBUTE);
            attribute->a = n;
            attribute->value = p->t->value;
            if (p->t->kind == TR_JINJA_TOKEN_CONST && p->t->value.kind == TR_JINJA_INT) {
                attribute->kind = TR_JINJA_NODE_INDEX;
                attribute->b = tr_jinja_parser_make(p, TR_JINJA_NODE_CONST);
                attribute->b->value = p->t->value;
                tr_jinja_parser_next(p);
            } else
                tr_jinja_parser_name(p);
            n = attribute;
        } else if (tr_jinja_parser_take_operator(p, "[")) {
            n = subscript(p, n);
        } else if (tr_jinja_parser_is_operator(p, "(")) {
            n = call(p, n);
        } else
            return n;
    }
}

static node *list(tr_jinja_parser *p) {
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_LIST);
    while (!tr_jinja_parser_is_operator(p, "]")) {
        tr_jinja_parser_push(p, &n->list, tr_jinja_parser_expression(p));
        if (!tr_jinja_parser_is_operator(p, "]")) tr_jinja_parser_expect_operator(p, ",");
    }
    tr_jinja_parser_next(p);
    return n;
}

static node *dict(tr_jinja_parser *p) {
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_DICT);
    while (!tr_jinja_parser_is_operator(p, "}")) {
        tr_jinja_parser_push(p, &n->list, tr_jinja_parser_expression(p));
        tr_jinja_parser_expect_operator(p, ":");
        tr_jinja_parser_push(p, &n->list, tr_jinja_parser_expression(p));
        if (!tr_jinja_parser_is_operator(p, "}")) tr_jinja_parser_expect_operator(p, ",");
    }
    tr_jinja_parser_next(p);
    return n;
}

static node *constant(tr_jinja_parser *p, tr_jinja_value v) {
    node *n = tr_jinja_parser_make(p, TR_JINJA_NODE_CONST);
    n->value = v;
    tr_jinja_parser_next(p);
    return n;
}

static node *primary(tr_jinja_parser *p) {
    if (tr_jinja_parser_is_name(p, "true") || tr_jinja_parser_is_name(p, "True"))
        return constant(p, tr_jinja_value_bool(true));
    if (tr_jinja_parser_is_name(p, "false") || tr_jinja_parser_is_name(p, "False"))
        return constant(p, tr_jinja_value_bool(false));
    if (tr_jinja_parser_is_name(p, "none") || tr_jinja_parser_is_name(p, "None"))
        return constant(p, tr_jinja_value_none());
    if (p->t->kind == TR_JINJA_TOKEN_NAME) return tr_jinja_parser_name_node(p);
    if (p->t->kind == TR_JINJA_TOKEN_CONST) {
        node *n = constant(p, p->t->value);
        tr_jinja_text t = {.most = UINT32_MAX};
        if (n->value.kind != TR_JINJA_STRING || p->t->kind != TR_JINJA_TOKEN_CONST) return n;
        tr_jinja_value_append(p->a, &t, n->value.as.s, n->value.len);
        for (; p->t->kind == TR_JINJA_TOKEN_CONST && p->t->value.kind == TR_JINJA_STRING; tr_jinja_parser_next(p))
            tr_jinja_value_append(p->a, &t, p->t->value.as.s, p->t->value.len);
        n->value = tr_jinja_value_take(&t);
        return n;
    }
    if (tr_jinja_parser_take_operator(p, "(")) {
        node *n = tr_jinja_parser_tuple(p, true, true);
        tr_jinja_parser_expect_operator(p, ")");
        return n;
    }
    if (tr_jinja_parser_take_operator(p, "[")) return list(p);
    if (tr_jinja_parser_take_operator(p, "{")) return dict(p);
    tr_jinja_parser_unexpected(p, "an expression");
}

static node *unary(tr_jinja_parser *p, bool filters) {
    tr_jinja_parser_enter(p);
    node *n;
    if (tr_jinja_parser_take_operator(p, "-"))
        n = negate(p, TR_JINJA_OP_SUB, unary(p, false));
    else if (tr_jinja_parser_take_operator(p, "+"))
        n = negate(p, TR_JINJA_OP_ADD, unary(p, false));
    else
        n = primary(p);
    n = postfix(p, n);
    if (filters) n = tr_jinja_parser_filtered(p, n);
    p->depth--;
    return n;
}

static bool tuple_ends(const tr_jinja_parser *p) {
    return p->t->kind == TR_JINJA_TOKEN_OUTPUT_END || p->t->kind == TR_JINJA_TOKEN_BLOCK_END ||
           tr_jinja_parser_is_operator(p, ")") || tr_jinja_parser_is_operator(p, "]") ||
           tr_jinja_parser_is_operator(p, ":");
}

/* One expression, or several between commas. condition: a following `if` belongs to it. */
node *tr_jinja_parser_tuple(tr_jinja_parser *p, bool condition, bool brackets) {
    node *t = tr_jinja_parser_make(p, TR_JINJA_NODE_TUPLE);
    bool comma = false;
    while (!tuple_ends(p)) {
        tr_jinja_parser_push(p, &t->list, condition ? tr_jinja_parser_expression(p) : tr_jinja_parser_condition(p));
        if (!tr_jinja_parser_take_operator(p, ",")) break;
        comma = true;
    }
    if (t->list.n == 0 && !brackets) tr_jinja_parser_unexpected(p, "an expression");
    return t->list.n == 1 && !comma ? t->list.item[0] : t;
}
