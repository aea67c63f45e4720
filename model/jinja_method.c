/* model/jinja_method.c - methods of texts, lists and dicts (Python 3), and the global functions. Methods that would
 * change a list or dict are known and refused, as the immutable sandbox does. */
#include "model/jinja_eval.h"

#include "model/unicode.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { RANGE_MAX = 100000 }; /* as the sandbox of jinja2 has it */

typedef tr_jinja_value value;

static value none(void) { return tr_jinja_value_none(); }

/* ---- texts ---- */

static bool in_set(value chars, uint32_t c) {
    for (size_t i = 0, size; i < chars.len; i += size)
        if (tr_unicode_decode(chars.as.s + i, chars.len - i, &size) == c) return true;
    return false;
}
static bool stripped(value chars, uint32_t c) {
    if (chars.kind == TR_JINJA_STRING) return in_set(chars, c);
    return tr_unicode_class_of(c) == TR_UNICODE_SPACE || (c >= 0x1c && c <= 0x1f);
}

value tr_jinja_eval_strip(tr_jinja_eval *e, value s, value chars, bool left, bool right) {
    uint32_t begin = 0, end = s.len;
    size_t size;
    tr_jinja_value_spend(e->a, 1);
    if (chars.kind != TR_JINJA_STRING && chars.kind != TR_JINJA_NONE) tr_jinja_eval_text(e, chars, "strip");
    while (left && begin < end && stripped(chars, tr_unicode_decode(s.as.s + begin, end - begin, &size)))
        begin += (uint32_t)size;
    while (right && end > begin) {
        uint32_t p = end - 1;
        while (p > begin && ((uint8_t)s.as.s[p] & 0xc0) == 0x80) p--;
        if (!stripped(chars, tr_unicode_decode(s.as.s + p, end - p, &size))) break;
        end = p;
    }
    return tr_jinja_value_string(s.as.s + begin, end - begin);
}

value tr_jinja_eval_replace(tr_jinja_eval *e, value s, value from, value to, int64_t most) {
    tr_jinja_text t = {.most = UINT32_MAX};
    uint32_t at = 0;
    while (most != 0) {
        const char *found = from.len == 0 ? (at < s.len || at == 0 ? s.as.s + at : NULL)
                                          : memmem(s.as.s + at, s.len - at, from.as.s, from.len);
        if (!found) break;
        uint32_t to_here = (uint32_t)(found - s.as.s);
        tr_jinja_value_spend(e->a, 1);
        tr_jinja_value_append(e->a, &t, s.as.s + at, to_here - at);
        tr_jinja_value_append(e->a, &t, to.as.s, to.len);
        at = to_here + from.len;
        if (most > 0) most--;
        if (from.len == 0) { /* before every character, and at the end */
            if (at >= s.len) return tr_jinja_value_take(&t);
            uint32_t size = (uint32_t)tr_unicode_lead_size((uint8_t)s.as.s[at]);
            if (size > s.len - at) size = s.len - at;
            tr_jinja_value_append(e->a, &t, s.as.s + at, size);
            at += size;
            if (at == s.len && most != 0) tr_jinja_value_append(e->a, &t, to.as.s, to.len);
        }
    }
    tr_jinja_value_append(e->a, &t, s.as.s + at, s.len - at);
    return tr_jinja_value_take(&t);
}

/* Letters of ASCII, Latin-1, Greek and Cyrillic. */
static uint32_t to_lower(uint32_t c) {
    if (c >= 'A' && c <= 'Z') return c + 32;
    if (c >= 0xc0 && c <= 0xde && c != 0xd7) return c + 32;
    if (c >= 0x100 && c <= 0x17e && c != 0x130 && c != 0x138 && c != 0x149 && c != 0x178) {
        bool odd_upper = (c >= 0x139 && c <= 0x148) || c >= 0x179;
        return (c & 1) == (odd_upper ? 1u : 0u) ? c + 1 : c;
    }
    if ((c >= 0x391 && c <= 0x3a9 && c != 0x3a2) || (c >= 0x410 && c <= 0x42f)) return c + 32;
    return c >= 0x400 && c <= 0x40f ? c + 80 : c;
}
static uint32_t to_upper(uint32_t c) {
    if (c >= 'a' && c <= 'z') return c - 32;
    if (c >= 0xe0 && c <= 0xfe && c != 0xf7) return c - 32;
    if (c > 0x100 && c <= 0x17e && to_lower(c - 1) == c) return c - 1;
    if ((c >= 0x3b1 && c <= 0x3c9 && c != 0x3c2) || (c >= 0x430 && c <= 0x44f)) return c - 32;
    return c >= 0x450 && c <= 0x45f ? c - 80 : c;
}

value tr_jinja_eval_case(tr_jinja_eval *e, value s, char form) {
    tr_jinja_text t = {.most = UINT32_MAX};
    bool word = false;
    for (size_t i = 0, size; i < s.len; i += size) {
        uint32_t c = tr_unicode_decode(s.as.s + i, s.len - i, &size);
        char bytes[TR_UNICODE_MAX_BYTES];
        bool up = form == 'u' || (form == 't' && !word) || (form == 'c' && i == 0);
        word = tr_unicode_class_of(c) == TR_UNICODE_LETTER;
        tr_jinja_value_append(e->a, &t, bytes, tr_unicode_encode(up ? to_upper(c) : to_lower(c), bytes));
    }
    return tr_jinja_value_take(&t);
}

static value arg_text(tr_jinja_eval *e, const tr_jinja_args *args, uint32_t i, const char *what) {
    return tr_jinja_eval_text(e, tr_jinja_eval_arg(args, i, what, none()), what);
}

static void push(tr_jinja_eval *e, value *list, uint32_t *room, value **items, value v) {
    if (list->len == *room) {
        value *more;
        *room = *room ? 2 * *room : 8;
        tr_jinja_value_list(e->a, TR_JINJA_LIST, *room, &more);
        if (list->len) memcpy(more, *items, list->len * sizeof *more);
        *items = more;
        list->as.items = more;
    }
    (*items)[list->len++] = v;
}

/* Parts between runs of white space. */
static value split_blanks(tr_jinja_eval *e, value s, int64_t most) {
    value list = {.kind = TR_JINJA_LIST}, *items = NULL;
    uint32_t room = 0;
    for (uint32_t at = 0; at < s.len;) {
        size_t size;
        value left = tr_jinja_eval_strip(e, tr_jinja_value_string(s.as.s + at, s.len - at), none(), true, false);
        at = s.len - left.len;
        if (left.len == 0) break;
        uint32_t end = at;
        while (end < s.len && (most == 0 || !stripped(none(), tr_unicode_decode(s.as.s + end, s.len - end, &size))))
            end += (uint32_t)(most == 0 ? 1 : size);
        push(e, &list, &room, &items, tr_jinja_value_string(s.as.s + at, end - at));
        at = end;
        if (most > 0) most--;
    }
    return list;
}

static value split(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    value by = tr_jinja_eval_arg(args, 0, "sep", none()), list = {.kind = TR_JINJA_LIST}, *items = NULL;
    int64_t most = tr_jinja_eval_int(e, tr_jinja_eval_arg(args, 1, "maxsplit", tr_jinja_value_int(-1)), "maxsplit");
    uint32_t room = 0, at = 0;
    if (by.kind == TR_JINJA_NONE) return split_blanks(e, s, most);
    if (tr_jinja_eval_text(e, by, "split").len == 0) tr_jinja_value_fail(e->a, "split takes a separator");
    for (const char *found; most != 0 && (found = memmem(s.as.s + at, s.len - at, by.as.s, by.len)); most--) {
        uint32_t end = (uint32_t)(found - s.as.s);
        push(e, &list, &room, &items, tr_jinja_value_string(s.as.s + at, end - at));
        at = end + by.len;
        tr_jinja_value_spend(e->a, 1);
    }
    push(e, &list, &room, &items, tr_jinja_value_string(s.as.s + at, s.len - at));
    return list;
}

/* From the right: parts in order. */
static value rsplit(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    value by = tr_jinja_eval_arg(args, 0, "sep", none());
    int64_t most = tr_jinja_eval_int(e, tr_jinja_eval_arg(args, 1, "maxsplit", tr_jinja_value_int(-1)), "maxsplit");
    if (most < 0) return split(e, s, args);
    if (by.kind != TR_JINJA_STRING || by.len == 0) tr_jinja_value_fail(e->a, "rsplit takes a separator");
    value all = split(e, s, &(tr_jinja_args){.item = &by, .n = 1});
    if (all.len <= most + 1) return all;
    value *items, list = tr_jinja_value_list(e->a, TR_JINJA_LIST, (uint32_t)most + 1, &items);
    uint32_t skipped = all.len - list.len;
    const char *end = all.as.items[skipped].as.s + all.as.items[skipped].len;
    items[0] = tr_jinja_value_string(s.as.s, (size_t)(end - s.as.s));
    for (uint32_t i = 1; i < list.len; i++) items[i] = all.as.items[skipped + i];
    return list;
}

static value splitlines(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    (void)args;
    value newline = tr_jinja_value_string("\n", 1);
    value list = split(e, s, &(tr_jinja_args){.item = &newline, .n = 1});
    if (list.len && list.as.items[list.len - 1].len == 0) list.len--;
    return list;
}

static bool has_end(value s, value part, bool begin) {
    if (part.kind != TR_JINJA_STRING || part.len > s.len) return false;
    return memcmp(s.as.s + (begin ? 0 : s.len - part.len), part.as.s, part.len) == 0;
}
static value ends(tr_jinja_eval *e, value s, const tr_jinja_args *args, bool begin) {
    value part = tr_jinja_eval_arg(args, 0, "prefix", none());
    bool any = has_end(s, part, begin);
    if (part.kind != TR_JINJA_STRING && part.kind != TR_JINJA_TUPLE) tr_jinja_eval_text(e, part, "startswith/endswith");
    for (uint32_t i = 0; part.kind == TR_JINJA_TUPLE && i < part.len; i++) any |= has_end(s, part.as.items[i], begin);
    return tr_jinja_value_bool(any);
}
static value startswith(tr_jinja_eval *e, value s, const tr_jinja_args *args) { return ends(e, s, args, true); }
static value endswith(tr_jinja_eval *e, value s, const tr_jinja_args *args) { return ends(e, s, args, false); }
static value removeprefix(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    value part = arg_text(e, args, 0, "removeprefix");
    return has_end(s, part, true) ? tr_jinja_value_string(s.as.s + part.len, s.len - part.len) : s;
}
static value removesuffix(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    value part = arg_text(e, args, 0, "removesuffix");
    return has_end(s, part, false) ? tr_jinja_value_string(s.as.s, s.len - part.len) : s;
}
static value strip(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    return tr_jinja_eval_strip(e, s, tr_jinja_eval_arg(args, 0, "chars", none()), true, true);
}
static value lstrip(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    return tr_jinja_eval_strip(e, s, tr_jinja_eval_arg(args, 0, "chars", none()), true, false);
}
static value rstrip(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    return tr_jinja_eval_strip(e, s, tr_jinja_eval_arg(args, 0, "chars", none()), false, true);
}
static value replace(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    value most = tr_jinja_eval_arg(args, 2, "count", tr_jinja_value_int(-1));
    return tr_jinja_eval_replace(e, s, arg_text(e, args, 0, "replace"), arg_text(e, args, 1, "replace"),
                                 tr_jinja_eval_int(e, most, "replace"));
}
static value lower(tr_jinja_eval *e, value s, const tr_jinja_args *a) { return (void)a, tr_jinja_eval_case(e, s, 'l'); }
static value upper(tr_jinja_eval *e, value s, const tr_jinja_args *a) { return (void)a, tr_jinja_eval_case(e, s, 'u'); }
static value title(tr_jinja_eval *e, value s, const tr_jinja_args *a) { return (void)a, tr_jinja_eval_case(e, s, 't'); }
static value capitalize(tr_jinja_eval *e, value s, const tr_jinja_args *a) {
    return (void)a, tr_jinja_eval_case(e, s, 'c');
}
static value join(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    value all = tr_jinja_eval_arg(args, 0, "iterable", none());
    all = tr_jinja_value_iterate(e->a, all);
    for (uint32_t i = 0; i < all.len; i++) tr_jinja_eval_text(e, all.as.items[i], "join");
    return tr_jinja_eval_filter(e, tr_jinja_value_string("join", 4), all, &(tr_jinja_args){.item = &s, .n = 1});
}
static value find(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    value part = arg_text(e, args, 0, "find");
    const char *found = part.len ? memmem(s.as.s, s.len, part.as.s, part.len) : s.as.s;
    if (!found) return tr_jinja_value_int(-1);
    return tr_jinja_value_int(tr_jinja_value_points(tr_jinja_value_string(s.as.s, (size_t)(found - s.as.s))));
}
static value count(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    value part = tr_jinja_eval_arg(args, 0, "sub", none());
    int64_t n = 0;
    if (tr_jinja_value_is_list(s)) {
        for (uint32_t i = 0; i < s.len; i++) n += tr_jinja_value_equal(e->a, s.as.items[i], part);
        return tr_jinja_value_int(n);
    }
    if (tr_jinja_eval_text(e, part, "count").len == 0) return tr_jinja_value_int(tr_jinja_value_points(s) + 1);
    return tr_jinja_value_int((int64_t)split(e, s, &(tr_jinja_args){.item = &part, .n = 1}).len - 1);
}

static bool all_of(value s, tr_unicode_class class) {
    for (size_t i = 0, size; i < s.len; i += size)
        if (tr_unicode_class_of(tr_unicode_decode(s.as.s + i, s.len - i, &size)) != class) return false;
    return s.len > 0;
}
static value isdigit_(tr_jinja_eval *e, value s, const tr_jinja_args *a) {
    (void)e, (void)a;
    return tr_jinja_value_bool(all_of(s, TR_UNICODE_NUMBER));
}
static value isalpha_(tr_jinja_eval *e, value s, const tr_jinja_args *a) {
    (void)e, (void)a;
    return tr_jinja_value_bool(all_of(s, TR_UNICODE_LETTER));
}
static value isspace_(tr_jinja_eval *e, value s, const tr_jinja_args *a) {
    (void)e, (void)a;
    return tr_jinja_value_bool(all_of(s, TR_UNICODE_SPACE));
}

/* str.format: {}, {0}, {name}; a format after a colon only as .Nf of a number. */
static value format(tr_jinja_eval *e, value s, const tr_jinja_args *args) {
    tr_jinja_text t = {.most = UINT32_MAX};
    uint32_t automatic = 0;
    for (uint32_t i = 0; i < s.len; i++) {
        char c = s.as.s[i];
        if (c != '{' && c != '}') {
            tr_jinja_value_append(e->a, &t, &c, 1);
            continue;
        }
        if (i + 1 < s.len && s.as.s[i + 1] == c) {
            tr_jinja_value_append(e->a, &t, &c, 1);
            i++;
            continue;
        }
        const char *close = c == '{' ? memchr(s.as.s + i, '}', s.len - i) : NULL;
        char field[64] = "", number[64];
        size_t n = close ? (size_t)(close - s.as.s) - i - 1 : sizeof field;
        if (n >= sizeof field) tr_jinja_value_fail(e->a, "format: a brace without its other");
        memcpy(field, s.as.s + i + 1, n);
        char *colon = strchr(field, ':');
        if (colon) *colon++ = 0;
        uint32_t index = field[0] == 0 ? automatic++ : UINT32_MAX;
        if (field[0] >= '0' && field[0] <= '9') index = (uint32_t)(field[0] - '0');
        value v = tr_jinja_eval_arg(args, index, field, tr_jinja_value_undefined(NULL, 0));
        if (v.kind == TR_JINJA_UNDEFINED) tr_jinja_value_fail(e->a, "format: there is no value for {%s}", field);
        unsigned decimals;
        char end;
        if (colon && sscanf(colon, ".%1u%c", &decimals, &end) == 2 && end == 'f' && tr_jinja_value_is_number(v)) {
            snprintf(number, sizeof number, "%.*f", (int)decimals, tr_jinja_value_double(v));
            v = tr_jinja_value_string(number, strlen(number));
        } else if (colon && *colon)
            tr_jinja_value_fail(e->a, "format: '%s' is not supported", colon);
        v = tr_jinja_value_str(e->a, v);
        tr_jinja_value_append(e->a, &t, v.as.s, v.len);
        i = (uint32_t)(close - s.as.s);
    }
    return tr_jinja_value_take(&t);
}

/* ---- dicts and lists ---- */

static value get(tr_jinja_eval *e, value d, const tr_jinja_args *args) {
    const value *v = tr_jinja_value_get(e->a, d.as.dict, tr_jinja_eval_arg(args, 0, "key", none()));
    return v ? *v : tr_jinja_eval_arg(args, 1, "default", none());
}
static value keys(tr_jinja_eval *e, value d, const tr_jinja_args *a) {
    return (void)a, tr_jinja_value_iterate(e->a, d);
}
static value dict_items(tr_jinja_eval *e, value d, const tr_jinja_args *args) {
    return tr_jinja_eval_filter(e, tr_jinja_value_string("items", 5), d, args);
}
static value values(tr_jinja_eval *e, value d, const tr_jinja_args *args) {
    (void)args;
    value *items, list = tr_jinja_value_list(e->a, TR_JINJA_LIST, d.as.dict->n, &items);
    for (uint32_t i = 0; i < list.len; i++) items[i] = d.as.dict->pair[i].value;
    return list;
}
static value copy(tr_jinja_eval *e, value d, const tr_jinja_args *args) { return (void)e, (void)args, d; }
static value index_of(tr_jinja_eval *e, value list, const tr_jinja_args *args) {
    for (uint32_t i = 0; i < list.len; i++)
        if (tr_jinja_value_equal(e->a, list.as.items[i], tr_jinja_eval_arg(args, 0, "value", none())))
            return tr_jinja_value_int(i);
    tr_jinja_value_fail(e->a, "index: the list has no such item");
}
static value refused(tr_jinja_eval *e, value v, const tr_jinja_args *args) {
    (void)args;
    tr_jinja_value_fail(e->a, "%s must not be changed by a template", tr_jinja_value_kind_name(v));
}

typedef struct method {
    const char *name;
    value (*fn)(tr_jinja_eval *e, value self, const tr_jinja_args *args);
} method;
static const method text_methods[] = {{"split", split},
                                      {"rsplit", rsplit},
                                      {"splitlines", splitlines},
                                      {"startswith", startswith},
                                      {"endswith", endswith},
                                      {"strip", strip},
                                      {"lstrip", lstrip},
                                      {"rstrip", rstrip},
                                      {"replace", replace},
                                      {"lower", lower},
                                      {"upper", upper},
                                      {"title", title},
                                      {"capitalize", capitalize},
                                      {"join", join},
                                      {"find", find},
                                      {"count", count},
                                      {"isdigit", isdigit_},
                                      {"isnumeric", isdigit_},
                                      {"isdecimal", isdigit_},
                                      {"isalpha", isalpha_},
                                      {"isspace", isspace_},
                                      {"removeprefix", removeprefix},
                                      {"removesuffix", removesuffix},
                                      {"format", format},
                                      {NULL, NULL}};
static const method dict_methods[] = {
    {"get", get},       {"keys", keys},       {"items", dict_items}, {"values", values},
    {"copy", copy},     {"pop", refused},     {"update", refused},   {"setdefault", refused},
    {"clear", refused}, {"popitem", refused}, {NULL, NULL}};
static const method list_methods[] = {{"index", index_of}, {"count", count},    {"copy", copy},
                                      {"append", refused}, {"extend", refused}, {"insert", refused},
                                      {"pop", refused},    {"remove", refused}, {"reverse", refused},
                                      {"sort", refused},   {"clear", refused},  {NULL, NULL}};

static const method *find_method(value v, value name) {
    const method *m = v.kind == TR_JINJA_STRING   ? text_methods
                      : v.kind == TR_JINJA_DICT   ? dict_methods
                      : tr_jinja_value_is_list(v) ? list_methods
                                                  : NULL;
    for (; m && m->name; m++)
        if (tr_jinja_value_is(name, m->name)) return m;
    return NULL;
}

bool tr_jinja_eval_has_method(value v, value name) { return find_method(v, name) != NULL; }

value tr_jinja_eval_method(tr_jinja_eval *e, const tr_jinja_method *m, const tr_jinja_args *args) {
    tr_jinja_value_spend(e->a, 1 + (m->self.kind == TR_JINJA_STRING ? m->self.len / 64 : 0));
    return find_method(m->self, m->name)->fn(e, m->self, args);
}

/* ---- functions ---- */

static value range(tr_jinja_eval *e, value self, const tr_jinja_args *args) {
    (void)self;
    int64_t from = 0, to = tr_jinja_eval_int(e, tr_jinja_eval_arg(args, 0, "", none()), "range"), step = 1;
    if (args->n > 1) from = to, to = tr_jinja_eval_int(e, args->item[1], "range");
    if (args->n > 2) step = tr_jinja_eval_int(e, args->item[2], "range");
    if (step == 0) tr_jinja_value_fail(e->a, "range has step 0");
    __int128 span = step > 0 ? (__int128)to - from : (__int128)from - to, size = step > 0 ? step : -(__int128)step;
    __int128 n = span > 0 ? (span + size - 1) / size : 0;
    if (n > RANGE_MAX) tr_jinja_value_fail(e->a, "a range of more than %d numbers is too long", RANGE_MAX);
    value *items, list = tr_jinja_value_list(e->a, TR_JINJA_LIST, (uint32_t)n, &items);
    for (uint32_t i = 0; i < list.len; i++) items[i] = tr_jinja_value_int(from + (int64_t)i * step);
    return list;
}

static value dict(tr_jinja_eval *e, value self, const tr_jinja_args *args) {
    (void)self;
    value d = tr_jinja_value_dict(e->a, args->n_named);
    if (args->n && args->item[0].kind == TR_JINJA_DICT)
        for (uint32_t i = 0; i < args->item[0].as.dict->n; i++)
            tr_jinja_value_set(e->a, d.as.dict, args->item[0].as.dict->pair[i].key,
                               args->item[0].as.dict->pair[i].value);
    for (uint32_t i = 0; i < args->n_named; i++)
        tr_jinja_value_set(e->a, d.as.dict, args->named[i].key, args->named[i].value);
    return d;
}

static value namespace(tr_jinja_eval *e, value self, const tr_jinja_args *args) {
    value d = dict(e, self, args);
    d.kind = TR_JINJA_NAMESPACE;
    return d;
}

static value raise_exception(tr_jinja_eval *e, value self, const tr_jinja_args *args) {
    (void)self;
    value text = tr_jinja_value_str(e->a, tr_jinja_eval_arg(args, 0, "message", none()));
    tr_jinja_value_fail(e->a, "%.*s", (int)(text.len < 300 ? text.len : 300), text.as.s);
}

static value strftime_now(tr_jinja_eval *e, value self, const tr_jinja_args *args) {
    (void)self;
    value f = arg_text(e, args, 0, "strftime_now");
    char form[128], out[512];
    time_t now = (time_t)e->now_s;
    struct tm tm;
    if (f.len + 2 > sizeof form) tr_jinja_value_fail(e->a, "strftime_now: the format is too long");
    memcpy(form, f.as.s, f.len);
    memcpy(form + f.len, "|", 2); /* so that an empty result is told from one that does not fit */
    localtime_r(&now, &tm);
    size_t n = strftime(out, sizeof out, form, &tm);
    if (n == 0) tr_jinja_value_fail(e->a, "strftime_now: the format is too long");
    char *text = tr_jinja_value_alloc(e->a, n);
    memcpy(text, out, n - 1);
    return tr_jinja_value_string(text, n - 1);
}

static const method functions[] = {{"range", range},
                                   {"dict", dict},
                                   {"namespace", namespace},
                                   {"raise_exception", raise_exception},
                                   {"strftime_now", strftime_now},
                                   {NULL, NULL}};

bool tr_jinja_eval_find_function(value name, value *function_out) {
    for (int64_t i = 0; functions[i].name; i++)
        if (tr_jinja_value_is(name, functions[i].name)) {
            *function_out = (value){.kind = TR_JINJA_FUNCTION, .as.i = i};
            return true;
        }
    return false;
}

value tr_jinja_eval_function(tr_jinja_eval *e, int64_t index, const tr_jinja_args *args) {
    tr_jinja_value_spend(e->a, 1);
    return functions[index].fn(e, none(), args);
}
