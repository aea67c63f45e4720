#include "model/jinja_eval.h"

#include "model/jinja.h"

#include <string.h>

typedef tr_jinja_node node;
typedef tr_jinja_value value;

typedef enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;

typedef struct loop_state {
    value items;
    uint32_t index;
} loop_state;

typedef struct closure {
    const node *macro;
    tr_jinja_scope *scope;
} closure;

const tr_jinja_limits tr_jinja_limits_default = {
    .steps = 4000000, .depth = 1000, .output_bytes = 8u << 20, .memory_bytes = 128u << 20};

static value eval(tr_jinja_eval *e, const node *n);
static flow run(tr_jinja_eval *e, const tr_jinja_nodes *list);

/* ---- scopes ---- */

static void push_scope(tr_jinja_eval *e, tr_jinja_scope *outer) {
    tr_jinja_scope *s = tr_jinja_value_alloc(e->a, sizeof *s);
    s->outer = outer;
    e->scope = s;
}

void tr_jinja_eval_bind(tr_jinja_eval *e, uint32_t name, value v) {
    tr_jinja_scope *s = e->scope;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->binding[i].name == name) {
            s->binding[i].value = v;
            return;
        }
    if (s->n == s->room) {
        s->room = s->room ? 2 * s->room : 8;
        tr_jinja_binding *more = tr_jinja_value_alloc(e->a, s->room * sizeof *more);
        if (s->n) memcpy(more, s->binding, s->n * sizeof *more);
        s->binding = more;
    }
    s->binding[s->n++] = (tr_jinja_binding){name, v};
}

static value lookup(tr_jinja_eval *e, uint32_t name) {
    for (const tr_jinja_scope *s = e->scope; s; s = s->outer)
        for (uint32_t i = 0; i < s->n; i++)
            if (s->binding[i].name == name) return s->binding[i].value;
    value f, text = e->names->name[name];
    if (tr_jinja_eval_find_function(text, &f)) return f;
    return tr_jinja_value_undefined(text.as.s, text.len);
}

/* ---- arguments ---- */

value tr_jinja_eval_arg(const tr_jinja_args *args, uint32_t i, const char *name, value otherwise) {
    if (i < args->n) return args->item[i];
    for (uint32_t k = 0; k < args->n_named; k++)
        if (tr_jinja_value_is(args->named[k].key, name)) return args->named[k].value;
    return otherwise;
}

int64_t tr_jinja_eval_int(tr_jinja_eval *e, value v, const char *what) {
    if (v.kind != TR_JINJA_INT && v.kind != TR_JINJA_BOOL)
        tr_jinja_value_fail(e->a, "%s takes a whole number, not %s", what, tr_jinja_value_kind_name(v));
    return v.as.i;
}

value tr_jinja_eval_text(tr_jinja_eval *e, value v, const char *what) {
    if (v.kind != TR_JINJA_STRING)
        tr_jinja_value_fail(e->a, "%s takes a text, not %s", what, tr_jinja_value_kind_name(v));
    return v;
}

static tr_jinja_args arguments(tr_jinja_eval *e, const node *n) {
    value *item = tr_jinja_value_alloc(e->a, (n->list.n + 1) * sizeof *item);
    tr_jinja_pair *named = tr_jinja_value_alloc(e->a, (n->more.n + 1) * sizeof *named);
    for (uint32_t i = 0; i < n->list.n; i++) item[i] = eval(e, n->list.item[i]);
    for (uint32_t i = 0; i < n->more.n; i++)
        named[i] = (tr_jinja_pair){n->more.item[i]->value, eval(e, n->more.item[i]->a)};
    return (tr_jinja_args){item, n->list.n, named, n->more.n};
}

/* ---- attributes and indices ---- */

static value loop_attribute(const loop_state *l, value name) {
    const uint32_t n = l->items.len, i = l->index;
    const struct {
        const char *name;
        value v;
    } table[] = {{"index", tr_jinja_value_int(i + 1)},
                 {"index0", tr_jinja_value_int(i)},
                 {"revindex", tr_jinja_value_int(n - i)},
                 {"revindex0", tr_jinja_value_int(n - i - 1)},
                 {"first", tr_jinja_value_bool(i == 0)},
                 {"last", tr_jinja_value_bool(i + 1 == n)},
                 {"length", tr_jinja_value_int(n)},
                 {"previtem", i > 0 ? l->items.as.items[i - 1] : tr_jinja_value_undefined("previtem", 8)},
                 {"nextitem", i + 1 < n ? l->items.as.items[i + 1] : tr_jinja_value_undefined("nextitem", 8)}};
    for (size_t k = 0; k < sizeof table / sizeof table[0]; k++)
        if (tr_jinja_value_is(name, table[k].name)) return table[k].v;
    return tr_jinja_value_undefined(name.as.s, name.len);
}

value tr_jinja_eval_attribute(tr_jinja_eval *e, value v, value name) {
    tr_jinja_eval_need(e, v);
    if (v.kind == TR_JINJA_LOOP) return loop_attribute(v.as.other, name);
    if (tr_jinja_eval_has_method(v, name)) {
        tr_jinja_method *m = tr_jinja_value_alloc(e->a, sizeof *m);
        *m = (tr_jinja_method){v, name};
        return (value){.kind = TR_JINJA_METHOD, .as.other = m};
    }
    const value *member = NULL;
    if (v.kind == TR_JINJA_DICT || v.kind == TR_JINJA_NAMESPACE) member = tr_jinja_value_get(e->a, v.as.dict, name);
    return member ? *member : tr_jinja_value_undefined(name.as.s, name.len);
}

static value item_of(tr_jinja_eval *e, value v, int64_t i) {
    uint32_t n = v.kind == TR_JINJA_STRING ? tr_jinja_value_points(v) : v.len;
    if (i < 0) i += n;
    if (i < 0 || i >= n) return tr_jinja_value_undefined("item", 4);
    if (v.kind != TR_JINJA_STRING) return v.as.items[i];
    tr_jinja_value_spend(e->a, v.len / 256);
    uint32_t from = tr_jinja_value_offset(v, (uint32_t)i);
    value rest = tr_jinja_value_string(v.as.s + from, v.len - from);
    return tr_jinja_value_string(rest.as.s, tr_jinja_value_offset(rest, 1));
}

value tr_jinja_eval_index(tr_jinja_eval *e, value v, value index) {
    tr_jinja_eval_need(e, v);
    if ((tr_jinja_value_is_list(v) || v.kind == TR_JINJA_STRING) &&
        (index.kind == TR_JINJA_INT || index.kind == TR_JINJA_BOOL))
        return item_of(e, v, index.as.i);
    if (v.kind == TR_JINJA_DICT) {
        const value *member = tr_jinja_value_get(e->a, v.as.dict, index);
        if (member) return *member;
    }
    if (index.kind == TR_JINJA_STRING) return tr_jinja_eval_attribute(e, v, index);
    return tr_jinja_value_undefined("item", 4);
}

/* Python's bounds of a slice. */
static int64_t bound(tr_jinja_eval *e, const node *n, int64_t len, int64_t step, bool begin) {
    value v = n ? eval(e, n) : tr_jinja_value_none();
    if (v.kind == TR_JINJA_NONE) return (step > 0) == begin ? (step > 0 ? 0 : -1) : (step > 0 ? len : len - 1);
    int64_t i = tr_jinja_eval_int(e, v, "a slice"), low = step > 0 ? 0 : -1, high = step > 0 ? len : len - 1;
    if (i < 0) i += len;
    return i < low ? low : i > high ? high : i;
}

static value slice(tr_jinja_eval *e, const node *n) {
    value v = eval(e, n->a);
    tr_jinja_eval_need(e, v);
    if (!tr_jinja_value_is_list(v) && v.kind != TR_JINJA_STRING)
        tr_jinja_value_fail(e->a, "%s cannot be sliced", tr_jinja_value_kind_name(v));
    value s = n->list.item[2] ? eval(e, n->list.item[2]) : tr_jinja_value_int(1);
    int64_t step = s.kind == TR_JINJA_NONE ? 1 : tr_jinja_eval_int(e, s, "a slice");
    if (step == 0) tr_jinja_value_fail(e->a, "a slice has step 0");
    value from = tr_jinja_value_iterate(e->a, v), *items;
    int64_t begin = step > 0 ? bound(e, n->list.item[0], from.len, step, true)
                             : (n->list.item[0] ? bound(e, n->list.item[0], from.len, step, true) : from.len - 1);
    int64_t end = step > 0 ? bound(e, n->list.item[1], from.len, step, false)
                           : (n->list.item[1] ? bound(e, n->list.item[1], from.len, step, false) : -1);
    uint32_t count = 0;
    if (step > 0 && end > begin) count = (uint32_t)((end - begin + step - 1) / step);
    if (step < 0 && begin > end) count = (uint32_t)((begin - end - step - 1) / -step);
    value list = tr_jinja_value_list(e->a, v.kind == TR_JINJA_TUPLE ? TR_JINJA_TUPLE : TR_JINJA_LIST, count, &items);
    for (uint32_t i = 0; i < count; i++) items[i] = from.as.items[begin + (int64_t)i * step];
    if (v.kind != TR_JINJA_STRING) return list;
    tr_jinja_text t = {.most = UINT32_MAX};
    for (uint32_t i = 0; i < count; i++) tr_jinja_value_append(e->a, &t, items[i].as.s, items[i].len);
    return tr_jinja_value_take(&t);
}

/* ---- operators ---- */

static value unary(tr_jinja_eval *e, const node *n) {
    value v = eval(e, n->a);
    if (n->op == TR_JINJA_OP_NOT) return tr_jinja_value_bool(!tr_jinja_value_truth(v));
    tr_jinja_eval_need(e, v);
    if (!tr_jinja_value_is_number(v)) tr_jinja_value_fail(e->a, "%s has no sign", tr_jinja_value_kind_name(v));
    if (v.kind == TR_JINJA_FLOAT) return tr_jinja_value_float(n->op == TR_JINJA_OP_SUB ? -v.as.f : v.as.f);
    return tr_jinja_eval_binary(e, n->op, tr_jinja_value_int(0), v);
}

static value compare(tr_jinja_eval *e, const node *n) {
    value left = eval(e, n->a);
    for (uint32_t i = 0; i < n->list.n; i++) {
        value right = eval(e, n->list.item[i]->b);
        if (!tr_jinja_eval_holds(e, n->list.item[i]->op, left, right)) return tr_jinja_value_bool(false);
        left = right;
    }
    return tr_jinja_value_bool(true);
}

static value binary(tr_jinja_eval *e, const node *n) {
    value left = eval(e, n->a);
    if (n->op == TR_JINJA_OP_AND) return tr_jinja_value_truth(left) ? eval(e, n->b) : left;
    if (n->op == TR_JINJA_OP_OR) return tr_jinja_value_truth(left) ? left : eval(e, n->b);
    return tr_jinja_eval_binary(e, n->op, left, eval(e, n->b));
}

/* ---- calls ---- */

static void enter(tr_jinja_eval *e) {
    if (++e->depth > e->depth_max) tr_jinja_value_fail(e->a, "it is nested too deeply");
}

/* Text that the block writes, in the scope of now. */
static value captured(tr_jinja_eval *e, const tr_jinja_nodes *list) {
    tr_jinja_text t = {.most = UINT32_MAX}, *before = e->out;
    e->out = &t;
    run(e, list);
    e->out = before;
    return tr_jinja_value_take(&t);
}

static value call_macro(tr_jinja_eval *e, const closure *c, const tr_jinja_args *args) {
    const node *m = c->macro;
    tr_jinja_scope *before = e->scope;
    if (args->n > m->more.n) tr_jinja_value_fail(e->a, "a macro takes at most %u arguments", m->more.n);
    push_scope(e, c->scope);
    for (uint32_t k = 0; k < args->n_named; k++) {
        bool known = tr_jinja_value_is(args->named[k].key, "caller");
        for (uint32_t i = 0; i < m->more.n; i++)
            known |= tr_jinja_value_equal(e->a, m->more.item[i]->value, args->named[k].key);
        if (!known) tr_jinja_value_fail(e->a, "a macro has no argument of that name");
        if (tr_jinja_value_is(args->named[k].key, "caller")) tr_jinja_eval_bind(e, e->caller, args->named[k].value);
    }
    static const value missing = {.kind = TR_JINJA_UNDEFINED};
    for (uint32_t i = 0; i < m->more.n; i++) {
        const node *parameter = m->more.item[i];
        value v = missing;
        bool given = i < args->n;
        if (given) v = args->item[i];
        for (uint32_t k = 0; !given && k < args->n_named; k++)
            if (tr_jinja_value_equal(e->a, parameter->value, args->named[k].key))
                v = args->named[k].value, given = true;
        if (!given)
            v = parameter->a ? eval(e, parameter->a)
                             : tr_jinja_value_undefined(parameter->value.as.s, parameter->value.len);
        tr_jinja_eval_bind(e, parameter->name, v);
    }
    value text = captured(e, &m->list);
    e->scope = before;
    return text;
}

value tr_jinja_eval_call(tr_jinja_eval *e, value f, const tr_jinja_args *args) {
    value v;
    tr_jinja_eval_need(e, f);
    if (f.kind == TR_JINJA_MACRO)
        v = call_macro(e, f.as.other, args);
    else if (f.kind == TR_JINJA_METHOD)
        v = tr_jinja_eval_method(e, f.as.other, args);
    else if (f.kind == TR_JINJA_FUNCTION)
        v = tr_jinja_eval_function(e, f.as.i, args);
    else
        tr_jinja_value_fail(e->a, "%s cannot be called", tr_jinja_value_kind_name(f));
    return v;
}

static value call(tr_jinja_eval *e, const node *n) {
    value f = eval(e, n->a);
    tr_jinja_args args = arguments(e, n);
    e->a->line = n->line;
    return tr_jinja_eval_call(e, f, &args);
}

static value macro(tr_jinja_eval *e, const node *n) {
    closure *c = tr_jinja_value_alloc(e->a, sizeof *c);
    *c = (closure){n, e->scope};
    return (value){.kind = TR_JINJA_MACRO, .as.other = c};
}

static value calling(tr_jinja_eval *e, const node *n) {
    value f = eval(e, n->a->a);
    tr_jinja_args args = arguments(e, n->a);
    tr_jinja_pair *named = tr_jinja_value_alloc(e->a, (args.n_named + 1) * sizeof *named);
    if (args.n_named) memcpy(named, args.named, args.n_named * sizeof *named);
    named[args.n_named] = (tr_jinja_pair){tr_jinja_value_string("caller", 6), macro(e, n->b)};
    args.named = named;
    args.n_named++;
    return tr_jinja_eval_call(e, f, &args);
}

static value collection(tr_jinja_eval *e, const node *n) {
    if (n->kind == TR_JINJA_NODE_DICT) {
        value d = tr_jinja_value_dict(e->a, n->list.n / 2);
        for (uint32_t i = 0; i + 1 < n->list.n; i += 2) {
            value key = eval(e, n->list.item[i]);
            tr_jinja_value_set(e->a, d.as.dict, key, eval(e, n->list.item[i + 1]));
        }
        return d;
    }
    value *items;
    value list =
        tr_jinja_value_list(e->a, n->kind == TR_JINJA_NODE_LIST ? TR_JINJA_LIST : TR_JINJA_TUPLE, n->list.n, &items);
    for (uint32_t i = 0; i < n->list.n; i++) items[i] = eval(e, n->list.item[i]);
    return list;
}

static value expression(tr_jinja_eval *e, const node *n) {
    tr_jinja_args args;
    value v;
    switch (n->kind) {
    case TR_JINJA_NODE_CONST: return n->value;
    case TR_JINJA_NODE_NAME: return lookup(e, n->name);
    case TR_JINJA_NODE_HOLE: return e->hole;
    case TR_JINJA_NODE_LIST:
    case TR_JINJA_NODE_TUPLE:
    case TR_JINJA_NODE_DICT: return collection(e, n);
    case TR_JINJA_NODE_ATTRIBUTE: return tr_jinja_eval_attribute(e, eval(e, n->a), n->value);
    case TR_JINJA_NODE_INDEX: v = eval(e, n->a); return tr_jinja_eval_index(e, v, eval(e, n->b));
    case TR_JINJA_NODE_SLICE: return slice(e, n);
    case TR_JINJA_NODE_CALL: return call(e, n);
    case TR_JINJA_NODE_FILTER:
        v = eval(e, n->a);
        args = arguments(e, n);
        return tr_jinja_eval_filter(e, n->value, v, &args);
    case TR_JINJA_NODE_TEST:
        v = eval(e, n->a);
        args = arguments(e, n);
        return tr_jinja_value_bool(tr_jinja_eval_test(e, n->value, v, &args));
    case TR_JINJA_NODE_UNARY: return unary(e, n);
    case TR_JINJA_NODE_BINARY: return binary(e, n);
    case TR_JINJA_NODE_COMPARE: return compare(e, n);
    case TR_JINJA_NODE_CONDITION:
        if (tr_jinja_value_truth(eval(e, n->b))) return eval(e, n->a);
        return n->c ? eval(e, n->c) : tr_jinja_value_undefined("value", 5);
    default: tr_jinja_value_fail(e->a, "a statement where an expression belongs");
    }
}

static value eval(tr_jinja_eval *e, const node *n) {
    tr_jinja_value_spend(e->a, 1);
    e->a->line = n->line;
    enter(e);
    value v = expression(e, n);
    e->depth--;
    return v;
}

/* ---- statements ---- */

static void assign(tr_jinja_eval *e, const node *target, value v) {
    if (target->kind == TR_JINJA_NODE_NAME) {
        tr_jinja_eval_bind(e, target->name, v);
    } else if (target->kind == TR_JINJA_NODE_ATTRIBUTE) {
        value ns = eval(e, target->a);
        if (ns.kind != TR_JINJA_NAMESPACE) tr_jinja_value_fail(e->a, "only a namespace takes attributes");
        tr_jinja_value_set(e->a, ns.as.dict, target->value, v);
    } else {
        value items = tr_jinja_value_iterate(e->a, v);
        if (items.len != target->list.n) tr_jinja_value_fail(e->a, "%u values for %u names", items.len, target->list.n);
        for (uint32_t i = 0; i < items.len; i++) assign(e, target->list.item[i], items.as.items[i]);
    }
}

/* Items of the loop, less those that its condition leaves out. */
static value loop_items(tr_jinja_eval *e, const node *n, tr_jinja_scope *outer) {
    value all = tr_jinja_value_iterate(e->a, eval(e, n->b)), *items;
    if (!n->c) return all;
    value some = tr_jinja_value_list(e->a, TR_JINJA_LIST, all.len, &items);
    some.len = 0;
    for (uint32_t i = 0; i < all.len; i++) {
        push_scope(e, outer);
        assign(e, n->a, all.as.items[i]);
        if (tr_jinja_value_truth(eval(e, n->c))) items[some.len++] = all.as.items[i];
    }
    e->scope = outer;
    return some;
}

static void for_(tr_jinja_eval *e, const node *n) {
    tr_jinja_scope *outer = e->scope;
    loop_state *l = tr_jinja_value_alloc(e->a, sizeof *l);
    l->items = loop_items(e, n, outer);
    for (l->index = 0; l->index < l->items.len; l->index++) {
        tr_jinja_value_spend(e->a, 1);
        push_scope(e, outer);
        assign(e, n->a, l->items.as.items[l->index]);
        tr_jinja_eval_bind(e, e->loop, (value){.kind = TR_JINJA_LOOP, .as.other = l});
        if (run(e, &n->list) == FLOW_BREAK) break;
    }
    e->scope = outer;
    if (l->items.len == 0) run(e, &n->more);
}

static value scoped_text(tr_jinja_eval *e, const node *n) {
    tr_jinja_scope *outer = e->scope;
    push_scope(e, outer);
    value text = captured(e, &n->list), before = e->hole;
    e->scope = outer;
    if (!n->b) return text;
    e->hole = text;
    text = eval(e, n->b);
    e->hole = before;
    return text;
}

static void write(tr_jinja_eval *e, value v) {
    value s = tr_jinja_value_str(e->a, v);
    tr_jinja_value_append(e->a, e->out, s.as.s, s.len);
}

static flow if_(tr_jinja_eval *e, const node *n) {
    for (; n && n->kind == TR_JINJA_NODE_IF; n = n->c)
        if (tr_jinja_value_truth(eval(e, n->a))) return run(e, &n->b->list);
    return n ? run(e, &n->list) : FLOW_ON;
}

static flow statement(tr_jinja_eval *e, const node *n) {
    tr_jinja_scope *outer = e->scope;
    flow f;
    switch (n->kind) {
    case TR_JINJA_NODE_TEXT: tr_jinja_value_append(e->a, e->out, n->value.as.s, n->value.len); break;
    case TR_JINJA_NODE_OUTPUT: write(e, eval(e, n->a)); break;
    case TR_JINJA_NODE_IF: return if_(e, n);
    case TR_JINJA_NODE_FOR: for_(e, n); break;
    case TR_JINJA_NODE_SET: assign(e, n->a, eval(e, n->b)); break;
    case TR_JINJA_NODE_SET_TEXT: assign(e, n->a, scoped_text(e, n)); break;
    case TR_JINJA_NODE_FILTERED: write(e, scoped_text(e, n)); break;
    case TR_JINJA_NODE_MACRO: tr_jinja_eval_bind(e, n->name, macro(e, n)); break;
    case TR_JINJA_NODE_CALLING: write(e, calling(e, n)); break;
    case TR_JINJA_NODE_BREAK: return FLOW_BREAK;
    case TR_JINJA_NODE_CONTINUE: return FLOW_CONTINUE;
    default: /* a block */
        if (n->kind == TR_JINJA_NODE_SCOPE) push_scope(e, outer);
        f = run(e, &n->list);
        e->scope = outer;
        return f;
    }
    return FLOW_ON;
}

static flow run(tr_jinja_eval *e, const tr_jinja_nodes *list) {
    flow f = FLOW_ON;
    enter(e);
    for (uint32_t i = 0; i < list->n && f == FLOW_ON; i++) {
        tr_jinja_value_spend(e->a, 1);
        e->a->line = list->item[i]->line;
        f = statement(e, list->item[i]);
    }
    e->depth--;
    return f;
}

void tr_jinja_eval_run(tr_jinja_eval *e, const node *block) { run(e, &block->list); }
