/* model/jinja_filter.c - filters and tests, a table of each. Names and meaning: jinja2 3.1 (filters.py, tests.py),
 * tojson as transformers has it. */
#include "model/jinja_eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef tr_jinja_value value;
typedef value (*filter_fn)(tr_jinja_eval *e, value v, const tr_jinja_args *args);

static value none(void) { return tr_jinja_value_none(); }
static bool flag(const tr_jinja_args *args, uint32_t i, const char *name, bool otherwise) {
    return tr_jinja_value_truth(tr_jinja_eval_arg(args, i, name, tr_jinja_value_bool(otherwise)));
}
static value text_of(tr_jinja_eval *e, value v) { return tr_jinja_value_str(e->a, v); }

/* ---- filters ---- */

static value tojson(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    value indent = tr_jinja_eval_arg(args, 1, "indent", none());
    value separators = tr_jinja_eval_arg(args, 2, "separators", none());
    tr_jinja_json form = {.indent = -1,
                          .ascii = flag(args, 0, "ensure_ascii", false),
                          .sorted = flag(args, 3, "sort_keys", false),
                          .item_separator = tr_jinja_value_string(", ", 2),
                          .key_separator = tr_jinja_value_string(": ", 2)};
    if (indent.kind != TR_JINJA_NONE) {
        int64_t n = tr_jinja_eval_int(e, indent, "indent");
        form.indent = n < 0 ? 0 : n > 64 ? 64 : (int)n;
        form.item_separator.len = 1;
    }
    if (separators.kind != TR_JINJA_NONE) {
        if (!tr_jinja_value_is_list(separators) || separators.len != 2)
            tr_jinja_value_fail(e->a, "separators takes two texts");
        form.item_separator = tr_jinja_eval_text(e, separators.as.items[0], "separators");
        form.key_separator = tr_jinja_eval_text(e, separators.as.items[1], "separators");
    }
    tr_jinja_text t = {.most = UINT32_MAX};
    tr_jinja_value_json(e->a, &t, v, &form, 0);
    return tr_jinja_value_take(&t);
}

static value length(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    if (v.kind == TR_JINJA_UNDEFINED) return tr_jinja_value_int(0);
    if (v.kind == TR_JINJA_STRING) return tr_jinja_value_int(tr_jinja_value_points(v));
    return tr_jinja_value_int(tr_jinja_value_iterate(e->a, v).len);
}

static value trim(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    return tr_jinja_eval_strip(e, text_of(e, v), tr_jinja_eval_arg(args, 0, "chars", none()), true, true);
}
static value string(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    return text_of(e, v);
}
static value safe(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    v = string(e, v, args);
    v.safe = 1;
    return v;
}
static value same(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)e, (void)args;
    return v;
}
static value default_(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)e;
    bool use = v.kind == TR_JINJA_UNDEFINED || (flag(args, 1, "boolean", false) && !tr_jinja_value_truth(v));
    return use ? tr_jinja_eval_arg(args, 0, "default_value", tr_jinja_value_string("", 0)) : v;
}

/* "a.0.b" of an item, or item[number]. */
static value path(tr_jinja_eval *e, value item, value attribute) {
    if (attribute.kind != TR_JINJA_STRING) return tr_jinja_eval_index(e, item, attribute);
    for (uint32_t at = 0; at <= attribute.len;) {
        const char *dot = memchr(attribute.as.s + at, '.', attribute.len - at);
        uint32_t end = dot ? (uint32_t)(dot - attribute.as.s) : attribute.len;
        value part = tr_jinja_value_string(attribute.as.s + at, end - at);
        bool digits = part.len > 0 && part.len < 9;
        for (uint32_t i = 0; i < part.len; i++) digits &= part.as.s[i] >= '0' && part.as.s[i] <= '9';
        if (digits) part = tr_jinja_value_int(strtol(part.as.s, NULL, 10));
        item = tr_jinja_eval_index(e, item, part);
        at = end + 1;
    }
    return item;
}

static value join(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    value with = text_of(e, tr_jinja_eval_arg(args, 0, "d", tr_jinja_value_string("", 0)));
    value attribute = tr_jinja_eval_arg(args, 1, "attribute", none());
    value items = tr_jinja_value_iterate(e->a, v);
    tr_jinja_text t = {.most = UINT32_MAX};
    for (uint32_t i = 0; i < items.len; i++) {
        value item = items.as.items[i];
        if (attribute.kind != TR_JINJA_NONE) item = path(e, item, attribute);
        item = text_of(e, item);
        if (i) tr_jinja_value_append(e->a, &t, with.as.s, with.len);
        tr_jinja_value_append(e->a, &t, item.as.s, item.len);
    }
    return tr_jinja_value_take(&t);
}

static value pair(tr_jinja_eval *e, const tr_jinja_pair *p) {
    value *both, t = tr_jinja_value_list(e->a, TR_JINJA_TUPLE, 2, &both);
    both[0] = p->key;
    both[1] = p->value;
    return t;
}

static value items(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    value *item;
    if (v.kind == TR_JINJA_UNDEFINED) return tr_jinja_value_list(e->a, TR_JINJA_LIST, 0, &item);
    if (v.kind != TR_JINJA_DICT) tr_jinja_value_fail(e->a, "items takes a dict, not %s", tr_jinja_value_kind_name(v));
    value list = tr_jinja_value_list(e->a, TR_JINJA_LIST, v.as.dict->n, &item);
    for (uint32_t i = 0; i < list.len; i++) item[i] = pair(e, &v.as.dict->pair[i]);
    return list;
}

static value lower(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    return tr_jinja_eval_case(e, text_of(e, v), 'l');
}
static value upper(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    return tr_jinja_eval_case(e, text_of(e, v), 'u');
}
static value title(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    return tr_jinja_eval_case(e, text_of(e, v), 't');
}
static value capitalize(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    return tr_jinja_eval_case(e, text_of(e, v), 'c');
}

/* ---- sorting: an insertion of each item where it belongs, stable; steps bound what it may take ---- */

typedef struct order {
    value attribute;
    bool folded, reverse;
} order;

static value sort_key(tr_jinja_eval *e, value v, const order *o) {
    if (o->attribute.kind != TR_JINJA_NONE) v = path(e, v, o->attribute);
    return o->folded && v.kind == TR_JINJA_STRING ? tr_jinja_eval_case(e, v, 'l') : v;
}

static value sorted(tr_jinja_eval *e, value list, const order *o) {
    value *item, *key, out = tr_jinja_value_list(e->a, TR_JINJA_LIST, list.len, &item);
    tr_jinja_value_list(e->a, TR_JINJA_LIST, list.len, &key);
    for (uint32_t i = 0; i < list.len; i++) {
        value k = sort_key(e, list.as.items[i], o);
        uint32_t at = i;
        for (; at > 0; at--) {
            int c = tr_jinja_value_compare(e->a, key[at - 1], k);
            if (o->reverse ? c >= 0 : c <= 0) break;
            key[at] = key[at - 1];
            item[at] = item[at - 1];
        }
        key[at] = k;
        item[at] = list.as.items[i];
    }
    return out;
}

static value sort(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    order o = {.reverse = flag(args, 0, "reverse", false),
               .folded = !flag(args, 1, "case_sensitive", false),
               .attribute = tr_jinja_eval_arg(args, 2, "attribute", none())};
    return sorted(e, tr_jinja_value_iterate(e->a, v), &o);
}

static value dictsort(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    value by = tr_jinja_eval_arg(args, 1, "by", tr_jinja_value_string("key", 3));
    order o = {.folded = !flag(args, 0, "case_sensitive", false),
               .reverse = flag(args, 2, "reverse", false),
               .attribute = tr_jinja_value_int(tr_jinja_value_is(by, "value"))};
    return sorted(e, items(e, v, args), &o);
}

static value extreme(tr_jinja_eval *e, value v, const tr_jinja_args *args, int sign) {
    value list = tr_jinja_value_iterate(e->a, v), best = tr_jinja_value_undefined("item", 4);
    order o = {.folded = !flag(args, 0, "case_sensitive", false),
               .attribute = tr_jinja_eval_arg(args, 1, "attribute", none())};
    for (uint32_t i = 0; i < list.len; i++)
        if (i == 0 || sign * tr_jinja_value_compare(e->a, sort_key(e, list.as.items[i], &o), sort_key(e, best, &o)) > 0)
            best = list.as.items[i];
    return best;
}
static value min(tr_jinja_eval *e, value v, const tr_jinja_args *args) { return extreme(e, v, args, -1); }
static value max(tr_jinja_eval *e, value v, const tr_jinja_args *args) { return extreme(e, v, args, 1); }

/* ---- lists ---- */

static value list(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    value all = tr_jinja_value_iterate(e->a, v);
    all.kind = TR_JINJA_LIST;
    return all;
}
static value at(tr_jinja_eval *e, value v, bool last) {
    value all = tr_jinja_value_iterate(e->a, v);
    return all.len ? all.as.items[last ? all.len - 1 : 0] : tr_jinja_value_undefined("item", 4);
}
static value first(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    return at(e, v, false);
}
static value last(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    return at(e, v, true);
}
static value reverse(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    value all = tr_jinja_value_iterate(e->a, v), *item;
    value out = tr_jinja_value_list(e->a, TR_JINJA_LIST, all.len, &item);
    for (uint32_t i = 0; i < all.len; i++) item[i] = all.as.items[all.len - 1 - i];
    if (v.kind != TR_JINJA_STRING) return out;
    return join(e, out, &(tr_jinja_args){0});
}
static value unique(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    order o = {.folded = !flag(args, 0, "case_sensitive", false),
               .attribute = tr_jinja_eval_arg(args, 1, "attribute", none())};
    value all = tr_jinja_value_iterate(e->a, v), *item, *key;
    value out = tr_jinja_value_list(e->a, TR_JINJA_LIST, all.len, &item);
    value keys = tr_jinja_value_list(e->a, TR_JINJA_LIST, all.len, &key);
    out.len = keys.len = 0;
    for (uint32_t i = 0; i < all.len; i++) {
        value k = sort_key(e, all.as.items[i], &o);
        if (tr_jinja_value_contains(e->a, keys, k)) continue;
        key[keys.len++] = k;
        item[out.len++] = all.as.items[i];
    }
    return out;
}
static value sum(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    value attribute = tr_jinja_eval_arg(args, 0, "attribute", none());
    value total = tr_jinja_eval_arg(args, 1, "start", tr_jinja_value_int(0)), all = tr_jinja_value_iterate(e->a, v);
    for (uint32_t i = 0; i < all.len; i++) {
        value item = all.as.items[i];
        if (attribute.kind != TR_JINJA_NONE) item = path(e, item, attribute);
        total = tr_jinja_eval_binary(e, TR_JINJA_OP_ADD, total, item);
    }
    return total;
}

static tr_jinja_args rest(const tr_jinja_args *args, uint32_t n) {
    n = n < args->n ? n : args->n;
    return (tr_jinja_args){args->item + n, args->n - n, args->named, args->n_named};
}

/* What these filters loop over: nothing where the value is false. */
static value some(tr_jinja_eval *e, value v) {
    return tr_jinja_value_iterate(e->a, tr_jinja_value_truth(v) ? v : tr_jinja_value_undefined("", 0));
}

/* select, reject (attribute: 0) and selectattr, rejectattr (1): items for which a test holds, or not. */
static value pick(tr_jinja_eval *e, value v, const tr_jinja_args *args, uint32_t attribute, bool want) {
    value all = some(e, v), *item;
    value out = tr_jinja_value_list(e->a, TR_JINJA_LIST, all.len, &item);
    out.len = 0;
    if (args->n < attribute) tr_jinja_value_fail(e->a, "the filter takes the name of an attribute");
    tr_jinja_args more = rest(args, attribute + 1);
    for (uint32_t i = 0; i < all.len; i++) {
        value x = attribute ? path(e, all.as.items[i], args->item[0]) : all.as.items[i];
        bool holds = args->n > attribute
                         ? tr_jinja_eval_test(e, tr_jinja_eval_text(e, args->item[attribute], "a test"), x, &more)
                         : tr_jinja_value_truth(x);
        if (holds == want) item[out.len++] = all.as.items[i];
    }
    return out;
}
static value select_(tr_jinja_eval *e, value v, const tr_jinja_args *args) { return pick(e, v, args, 0, true); }
static value reject(tr_jinja_eval *e, value v, const tr_jinja_args *args) { return pick(e, v, args, 0, false); }
static value selectattr(tr_jinja_eval *e, value v, const tr_jinja_args *args) { return pick(e, v, args, 1, true); }
static value rejectattr(tr_jinja_eval *e, value v, const tr_jinja_args *args) { return pick(e, v, args, 1, false); }

static value map(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    value attribute =
        tr_jinja_eval_arg(&(tr_jinja_args){.named = args->named, .n_named = args->n_named}, 0, "attribute", none());
    value otherwise = tr_jinja_eval_arg(&(tr_jinja_args){.named = args->named, .n_named = args->n_named}, 0, "default",
                                        tr_jinja_value_undefined("default", 7));
    value all = some(e, v), *item;
    value out = tr_jinja_value_list(e->a, TR_JINJA_LIST, all.len, &item);
    tr_jinja_args more = rest(args, 1);
    if (attribute.kind == TR_JINJA_NONE && args->n == 0) tr_jinja_value_fail(e->a, "map takes a filter");
    for (uint32_t i = 0; i < all.len; i++) {
        if (attribute.kind == TR_JINJA_NONE) {
            item[i] = tr_jinja_eval_filter(e, tr_jinja_eval_text(e, args->item[0], "map"), all.as.items[i], &more);
            continue;
        }
        item[i] = path(e, all.as.items[i], attribute);
        if (item[i].kind == TR_JINJA_UNDEFINED && otherwise.kind != TR_JINJA_UNDEFINED) item[i] = otherwise;
    }
    return out;
}

/* ---- text and numbers ---- */

static value replace(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    value most = tr_jinja_eval_arg(args, 2, "count", none());
    return tr_jinja_eval_replace(e, text_of(e, v), text_of(e, tr_jinja_eval_arg(args, 0, "old", none())),
                                 text_of(e, tr_jinja_eval_arg(args, 1, "new", none())),
                                 most.kind == TR_JINJA_NONE ? -1 : tr_jinja_eval_int(e, most, "count"));
}

static value indent(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    value width = tr_jinja_eval_arg(args, 0, "width", tr_jinja_value_int(4)), s = text_of(e, v);
    bool first_too = flag(args, 1, "first", false), blank = flag(args, 2, "blank", false);
    if (width.kind != TR_JINJA_STRING)
        width = tr_jinja_eval_binary(e, TR_JINJA_OP_MUL, tr_jinja_value_string(" ", 1), width);
    tr_jinja_text t = {.most = UINT32_MAX};
    for (uint32_t begin = 0; begin <= s.len;) {
        const char *newline = memchr(s.as.s + begin, '\n', s.len - begin);
        uint32_t end = newline ? (uint32_t)(newline - s.as.s) : s.len;
        bool wanted = begin > 0 ? blank || end > begin : first_too;
        if (wanted) tr_jinja_value_append(e->a, &t, width.as.s, width.len);
        tr_jinja_value_append(e->a, &t, s.as.s + begin, end - begin + (newline != NULL));
        begin = end + 1;
    }
    return tr_jinja_value_take(&t);
}

static value int_(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    value otherwise = tr_jinja_eval_arg(args, 0, "default", tr_jinja_value_int(0));
    if (v.kind == TR_JINJA_INT || v.kind == TR_JINJA_BOOL) return tr_jinja_value_int(v.as.i);
    double f = 0;
    if (v.kind == TR_JINJA_FLOAT) {
        f = v.as.f;
    } else if (v.kind == TR_JINJA_STRING) {
        value s = tr_jinja_eval_strip(e, v, none(), true, true);
        char digits[64], *end;
        if (s.len == 0 || s.len >= sizeof digits) return otherwise;
        memcpy(digits, s.as.s, s.len);
        digits[s.len] = 0;
        int64_t whole = strtoll(digits, &end, 10);
        if (!*end) return tr_jinja_value_int(whole);
        f = strtod(digits, &end);
        if (*end) return otherwise;
    } else
        return otherwise;
    return fabs(f) < 9e18 ? tr_jinja_value_int((int64_t)f) : otherwise;
}

static value float_(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    if (tr_jinja_value_is_number(v)) return tr_jinja_value_float(tr_jinja_value_double(v));
    value s = v.kind == TR_JINJA_STRING ? tr_jinja_eval_strip(e, v, none(), true, true) : tr_jinja_value_string("", 0);
    char digits[64], *end = digits;
    if (s.len && s.len < sizeof digits) {
        memcpy(digits, s.as.s, s.len);
        digits[s.len] = 0;
        double f = strtod(digits, &end);
        if (!*end) return tr_jinja_value_float(f);
    }
    return tr_jinja_eval_arg(args, 0, "default", tr_jinja_value_float(0));
}

static value round_(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    value method = tr_jinja_eval_arg(args, 1, "method", tr_jinja_value_string("common", 6));
    int64_t digits = tr_jinja_eval_int(e, tr_jinja_eval_arg(args, 0, "precision", tr_jinja_value_int(0)), "round");
    if (!tr_jinja_value_is_number(v) || digits < -15 || digits > 15) tr_jinja_value_fail(e->a, "round takes a number");
    double scale = pow(10, (double)digits), f = tr_jinja_value_double(v) * scale;
    f = tr_jinja_value_is(method, "ceil") ? ceil(f) : tr_jinja_value_is(method, "floor") ? floor(f) : nearbyint(f);
    return tr_jinja_value_float(f / scale);
}

static value abs_(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    if (v.kind == TR_JINJA_FLOAT) return tr_jinja_value_float(fabs(v.as.f));
    return tr_jinja_value_int(llabs(tr_jinja_eval_int(e, v, "abs")));
}

static value escape(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    static const char *const to[][2] = {{"&", "&amp;"}, {">", "&gt;"}, {"<", "&lt;"}, {"'", "&#39;"}, {"\"", "&#34;"}};
    v = text_of(e, v);
    if (v.safe) return v;
    for (size_t i = 0; i < sizeof to / sizeof to[0]; i++)
        v = tr_jinja_eval_replace(e, v, tr_jinja_value_string(to[i][0], 1),
                                  tr_jinja_value_string(to[i][1], strlen(to[i][1])), -1);
    return safe(e, v, args);
}

static value attr(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    return tr_jinja_eval_attribute(e, v, tr_jinja_eval_text(e, tr_jinja_eval_arg(args, 0, "name", none()), "attr"));
}

value tr_jinja_eval_filter(tr_jinja_eval *e, value name, value v, const tr_jinja_args *args) {
    static const struct {
        const char *name;
        filter_fn fn;
    } table[] = {{"tojson", tojson},
                 {"length", length},
                 {"count", length},
                 {"trim", trim},
                 {"string", string},
                 {"safe", safe},
                 {"default", default_},
                 {"d", default_},
                 {"join", join},
                 {"items", items},
                 {"lower", lower},
                 {"upper", upper},
                 {"title", title},
                 {"sort", sort},
                 {"capitalize", capitalize},
                 {"dictsort", dictsort},
                 {"min", min},
                 {"max", max},
                 {"list", list},
                 {"first", first},
                 {"last", last},
                 {"reverse", reverse},
                 {"unique", unique},
                 {"sum", sum},
                 {"select", select_},
                 {"reject", reject},
                 {"selectattr", selectattr},
                 {"map", map},
                 {"rejectattr", rejectattr},
                 {"replace", replace},
                 {"indent", indent},
                 {"int", int_},
                 {"float", float_},
                 {"round", round_},
                 {"abs", abs_},
                 {"escape", escape},
                 {"e", escape},
                 {"attr", attr},
                 {"forceescape", escape},
                 {"pprint", same}};
    tr_jinja_value_spend(e->a, 1);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (tr_jinja_value_is(name, table[i].name)) return table[i].fn(e, v, args);
    tr_jinja_value_fail(e->a, "there is no filter '%.*s'", (int)(name.len < 60 ? name.len : 60), name.as.s);
}
