/* model/jinja_tests.c - what may stand behind `is`, a table. Names and meaning: jinja2 3.1 (tests.py). */
#include "model/jinja_eval.h"

typedef tr_jinja_value value;
typedef bool (*test_fn)(tr_jinja_eval *e, value v, const tr_jinja_args *args);

static bool is_defined(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return (void)e, (void)a, v.kind != TR_JINJA_UNDEFINED;
}
static bool is_undefined(tr_jinja_eval *e, value v, const tr_jinja_args *a) { return !is_defined(e, v, a); }
static bool is_none(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return (void)e, (void)a, v.kind == TR_JINJA_NONE;
}
static bool is_string(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return (void)e, (void)a, v.kind == TR_JINJA_STRING;
}
static bool is_mapping(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return (void)e, (void)a, v.kind == TR_JINJA_DICT;
}
static bool is_sequence(tr_jinja_eval *e, value v, const tr_jinja_args *a) { /* has a length and items by index */
    return (void)e, (void)a,
           v.kind == TR_JINJA_STRING || tr_jinja_value_is_list(v) || v.kind == TR_JINJA_DICT ||
               v.kind == TR_JINJA_UNDEFINED;
}
static bool is_number(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return (void)e, (void)a, tr_jinja_value_is_number(v);
}
static bool is_integer(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return (void)e, (void)a, v.kind == TR_JINJA_INT;
}
static bool is_float(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return (void)e, (void)a, v.kind == TR_JINJA_FLOAT;
}
static bool is_boolean(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return (void)e, (void)a, v.kind == TR_JINJA_BOOL;
}
static bool is_true(tr_jinja_eval *e, value v, const tr_jinja_args *a) { return is_boolean(e, v, a) && v.as.i; }
static bool is_false(tr_jinja_eval *e, value v, const tr_jinja_args *a) { return is_boolean(e, v, a) && !v.as.i; }
static bool is_callable(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return (void)e, (void)a, v.kind == TR_JINJA_MACRO || v.kind == TR_JINJA_FUNCTION || v.kind == TR_JINJA_METHOD;
}
static value other(const tr_jinja_args *a) { return tr_jinja_eval_arg(a, 0, "other", tr_jinja_value_none()); }
static bool is_eq(tr_jinja_eval *e, value v, const tr_jinja_args *a) { return tr_jinja_value_equal(e->a, v, other(a)); }
static bool is_ne(tr_jinja_eval *e, value v, const tr_jinja_args *a) { return !is_eq(e, v, a); }
static bool is_lt(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return tr_jinja_value_compare(e->a, v, other(a)) < 0;
}
static bool is_gt(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return tr_jinja_value_compare(e->a, v, other(a)) > 0;
}
static bool is_le(tr_jinja_eval *e, value v, const tr_jinja_args *a) { return !is_gt(e, v, a); }
static bool is_ge(tr_jinja_eval *e, value v, const tr_jinja_args *a) { return !is_lt(e, v, a); }
static bool is_in(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return tr_jinja_value_contains(e->a, other(a), v);
}
static bool is_divisible(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    value zero = tr_jinja_value_int(0);
    return tr_jinja_value_equal(e->a, tr_jinja_eval_binary(e, TR_JINJA_OP_MOD, v, other(a)), zero);
}
static bool is_odd(tr_jinja_eval *e, value v, const tr_jinja_args *a) {
    return (void)a, tr_jinja_eval_int(e, v, "odd") % 2 != 0;
}
static bool is_even(tr_jinja_eval *e, value v, const tr_jinja_args *a) { return !is_odd(e, v, a); }
static bool is_cased(tr_jinja_eval *e, value v, char form) {
    value s = tr_jinja_value_str(e->a, v);
    return tr_jinja_value_equal(e->a, s, tr_jinja_eval_case(e, s, form)) &&
           !tr_jinja_value_equal(e->a, s, tr_jinja_eval_case(e, s, form == 'l' ? 'u' : 'l'));
}
static bool is_lower(tr_jinja_eval *e, value v, const tr_jinja_args *a) { return (void)a, is_cased(e, v, 'l'); }
static bool is_upper(tr_jinja_eval *e, value v, const tr_jinja_args *a) { return (void)a, is_cased(e, v, 'u'); }

bool tr_jinja_eval_test(tr_jinja_eval *e, value name, value v, const tr_jinja_args *args) {
    static const struct {
        const char *name;
        test_fn fn;
    } table[] = {{"defined", is_defined},
                 {"undefined", is_undefined},
                 {"none", is_none},
                 {"string", is_string},
                 {"mapping", is_mapping},
                 {"iterable", is_sequence},
                 {"sequence", is_sequence},
                 {"number", is_number},
                 {"integer", is_integer},
                 {"float", is_float},
                 {"boolean", is_boolean},
                 {"true", is_true},
                 {"false", is_false},
                 {"callable", is_callable},
                 {"eq", is_eq},
                 {"equalto", is_eq},
                 {"==", is_eq},
                 {"sameas", is_eq},
                 {"ne", is_ne},
                 {"!=", is_ne},
                 {"lt", is_lt},
                 {"lessthan", is_lt},
                 {"<", is_lt},
                 {"gt", is_gt},
                 {"greaterthan", is_gt},
                 {">", is_gt},
                 {"le", is_le},
                 {"<=", is_le},
                 {"ge", is_ge},
                 {">=", is_ge},
                 {"in", is_in},
                 {"divisibleby", is_divisible},
                 {"odd", is_odd},
                 {"even", is_even},
                 {"lower", is_lower},
                 {"upper", is_upper}};
    tr_jinja_value_spend(e->a, 1);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (tr_jinja_value_is(name, table[i].name)) return table[i].fn(e, v, args);
    tr_jinja_value_fail(e->a, "there is no test '%.*s'", (int)(name.len < 60 ? name.len : 60), name.as.s);
}
