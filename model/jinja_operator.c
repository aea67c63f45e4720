/* model/jinja_operator.c - arithmetic, joining and comparing, as Python 3 has it; numbers beyond 64 bits are refused.
 */
#include "model/jinja_eval.h"

#include <math.h>
#include <string.h>

typedef tr_jinja_value value;

void tr_jinja_eval_need(tr_jinja_eval *e, value v) {
    if (v.kind == TR_JINJA_UNDEFINED)
        tr_jinja_value_fail(e->a, "'%.*s' is undefined", (int)(v.len < 60 ? v.len : 60), v.as.s ? v.as.s : "");
}

static value concat_lists(tr_jinja_eval *e, value x, value y) {
    value *items;
    if ((uint64_t)x.len + y.len > UINT32_MAX) tr_jinja_value_fail(e->a, "a list is too long");
    value list = tr_jinja_value_list(e->a, x.kind, x.len + y.len, &items);
    if (x.len) memcpy(items, x.as.items, x.len * sizeof *items);
    if (y.len) memcpy(items + x.len, y.as.items, y.len * sizeof *items);
    return list;
}

static value concat(tr_jinja_eval *e, value x, value y) {
    const tr_jinja_args none = {0};
    const uint8_t safe = x.safe | y.safe;
    if (safe && !x.safe) x = tr_jinja_eval_filter(e, tr_jinja_value_string("escape", 6), x, &none);
    if (safe && !y.safe) y = tr_jinja_eval_filter(e, tr_jinja_value_string("escape", 6), y, &none);
    x.safe = y.safe = safe;
    if (x.len == 0) return y;
    if (y.len == 0) return x;
    tr_jinja_text t = {.most = UINT32_MAX};
    char *both = tr_jinja_value_alloc(e->a, (size_t)x.len + y.len);
    t.data = both, t.room = (size_t)x.len + y.len;
    tr_jinja_value_append(e->a, &t, x.as.s, x.len);
    tr_jinja_value_append(e->a, &t, y.as.s, y.len);
    value both_text = tr_jinja_value_take(&t);
    both_text.safe = safe;
    return both_text;
}

static value repeat(tr_jinja_eval *e, value s, int64_t n) {
    tr_jinja_text t = {.most = UINT32_MAX};
    for (int64_t i = 0; i < n && s.len; i++) {
        tr_jinja_value_spend(e->a, 1);
        tr_jinja_value_append(e->a, &t, s.as.s, s.len);
    }
    return tr_jinja_value_take(&t);
}

static value whole_numbers(tr_jinja_eval *e, tr_jinja_op op, int64_t x, int64_t y) {
    int64_t r = 0;
    bool over = false;
    if ((op == TR_JINJA_OP_FLOOR || op == TR_JINJA_OP_MOD) && (y == 0 || (x == INT64_MIN && y == -1)))
        tr_jinja_value_fail(e->a, "division by zero, or out of range");
    switch (op) {
    case TR_JINJA_OP_ADD: over = __builtin_add_overflow(x, y, &r); break;
    case TR_JINJA_OP_SUB: over = __builtin_sub_overflow(x, y, &r); break;
    case TR_JINJA_OP_MUL: over = __builtin_mul_overflow(x, y, &r); break;
    case TR_JINJA_OP_FLOOR: r = x / y - (x % y != 0 && (x < 0) != (y < 0)); break;
    case TR_JINJA_OP_MOD: r = x % y + (x % y != 0 && (x < 0) != (y < 0) ? y : 0); break;
    default: /* power, exponent 0 and up */
        r = 1;
        for (int64_t i = 0; i < y && !over && (uint64_t)(x + 1) > 2; i++) over = __builtin_mul_overflow(r, x, &r);
        if ((uint64_t)(x + 1) <= 2 && y > 0) r = x == -1 ? (y % 2 ? -1 : 1) : x;
    }
    if (over) tr_jinja_value_fail(e->a, "a number is too large");
    return tr_jinja_value_int(r);
}

static value arithmetic(tr_jinja_eval *e, tr_jinja_op op, value x, value y) {
    bool whole = x.kind != TR_JINJA_FLOAT && y.kind != TR_JINJA_FLOAT;
    if (whole && op != TR_JINJA_OP_DIV && !(op == TR_JINJA_OP_POW && y.as.i < 0))
        return whole_numbers(e, op, x.as.i, y.as.i);
    double p = tr_jinja_value_double(x), q = tr_jinja_value_double(y);
    if (q == 0 && (op == TR_JINJA_OP_DIV || op == TR_JINJA_OP_FLOOR || op == TR_JINJA_OP_MOD))
        tr_jinja_value_fail(e->a, "division by zero");
    switch (op) {
    case TR_JINJA_OP_ADD: return tr_jinja_value_float(p + q);
    case TR_JINJA_OP_SUB: return tr_jinja_value_float(p - q);
    case TR_JINJA_OP_MUL: return tr_jinja_value_float(p * q);
    case TR_JINJA_OP_DIV: return tr_jinja_value_float(p / q);
    case TR_JINJA_OP_FLOOR: return tr_jinja_value_float(floor(p / q));
    case TR_JINJA_OP_MOD: return tr_jinja_value_float(p - floor(p / q) * q);
    default: return tr_jinja_value_float(pow(p, q));
    }
}

value tr_jinja_eval_binary(tr_jinja_eval *e, tr_jinja_op op, value x, value y) {
    if (op == TR_JINJA_OP_JOIN) { /* joins plain texts */
        x = tr_jinja_value_str(e->a, x), y = tr_jinja_value_str(e->a, y);
        x.safe = y.safe = 0;
        return concat(e, x, y);
    }
    tr_jinja_eval_need(e, x);
    tr_jinja_eval_need(e, y);
    if (tr_jinja_value_is_number(x) && tr_jinja_value_is_number(y)) return arithmetic(e, op, x, y);
    if (op == TR_JINJA_OP_ADD && x.kind == TR_JINJA_STRING && y.kind == TR_JINJA_STRING) return concat(e, x, y);
    if (op == TR_JINJA_OP_ADD && x.kind == y.kind && tr_jinja_value_is_list(x)) return concat_lists(e, x, y);
    if (op == TR_JINJA_OP_MUL && x.kind == TR_JINJA_STRING && y.kind == TR_JINJA_INT) return repeat(e, x, y.as.i);
    if (op == TR_JINJA_OP_MUL && y.kind == TR_JINJA_STRING && x.kind == TR_JINJA_INT) return repeat(e, y, x.as.i);
    tr_jinja_value_fail(e->a, "%s and %s cannot be combined so", tr_jinja_value_kind_name(x),
                        tr_jinja_value_kind_name(y));
}

bool tr_jinja_eval_holds(tr_jinja_eval *e, tr_jinja_op op, value x, value y) {
    switch (op) {
    case TR_JINJA_OP_EQ: return tr_jinja_value_equal(e->a, x, y);
    case TR_JINJA_OP_NE: return !tr_jinja_value_equal(e->a, x, y);
    case TR_JINJA_OP_IN: return tr_jinja_value_contains(e->a, y, x);
    case TR_JINJA_OP_NOT_IN: return !tr_jinja_value_contains(e->a, y, x);
    default: break;
    }
    tr_jinja_eval_need(e, x);
    tr_jinja_eval_need(e, y);
    int c = tr_jinja_value_compare(e->a, x, y);
    return op == TR_JINJA_OP_LT ? c < 0 : op == TR_JINJA_OP_LE ? c <= 0 : op == TR_JINJA_OP_GT ? c > 0 : c >= 0;
}
