/* model/jinja_lex.c - tokens of a template. White space around tags as jinja2 has it with trim_blocks (a newline after
 * a block or comment goes) and lstrip_blocks (blanks before one go where nothing else stands on the line). */
#include "model/jinja_parse.h"

#include "model/unicode.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct lexer {
    tr_jinja_arena *a;
    const char *at, *end;
    uint32_t line;
    bool line_begins; /* nothing but white space since the newline, as far as tags go */
    tr_jinja_token *token;
    uint32_t n, room;
} lexer;

static void add(lexer *l, tr_jinja_token_kind kind, tr_jinja_value value) {
    if (l->n == l->room) {
        uint32_t room = l->room ? 2 * l->room : 256;
        tr_jinja_token *more = tr_jinja_value_alloc(l->a, room * sizeof *more);
        if (l->n) memcpy(more, l->token, l->n * sizeof *more);
        l->token = more;
        l->room = room;
    }
    l->token[l->n++] = (tr_jinja_token){kind, l->line, value};
}

static void advance(lexer *l, const char *to) {
    for (; l->at < to; l->at++) l->line += *l->at == '\n';
    l->a->line = l->line;
}

static bool blank(const char *p, size_t left, size_t *size) {
    return tr_unicode_class_of(tr_unicode_decode(p, left, size)) == TR_UNICODE_SPACE || (*p >= 0x1c && *p <= 0x1f);
}

static void skip_blanks(lexer *l) {
    size_t size;
    const char *p = l->at;
    while (p < l->end && blank(p, (size_t)(l->end - p), &size)) p += size;
    advance(l, p);
}

static const char *strip_right(const char *begin, const char *end) {
    while (end > begin) {
        const char *p = end - 1;
        size_t size;
        while (p > begin && ((uint8_t)*p & 0xc0) == 0x80) p--;
        if (!blank(p, (size_t)(end - p), &size)) break;
        end = p;
    }
    return end;
}

/* Text before a tag that begins at `to`; sign: what follows its two characters. */
static void add_text(lexer *l, const char *to, char sign, bool output) {
    const char *end = to;
    if (sign == '-')
        end = strip_right(l->at, to);
    else if (sign != '+' && !output) {
        const char *p = to;
        while (p > l->at && p[-1] != '\n' && (p[-1] == ' ' || p[-1] == '\t')) p--;
        if ((p == l->at && l->line_begins) || (p > l->at && p[-1] == '\n')) end = p;
    }
    if (end > l->at) add(l, TR_JINJA_TOKEN_TEXT, tr_jinja_value_string(l->at, (size_t)(end - l->at)));
    advance(l, to);
}

/* After the end of a tag at l->at: what goes with it. */
static void after_tag(lexer *l, char sign, bool output) {
    const char *before = l->at;
    if (sign == '-')
        skip_blanks(l);
    else if (sign != '+' && !output && l->at < l->end && *l->at == '\n')
        advance(l, l->at + 1);
    l->line_begins = l->at > before && l->at[-1] == '\n';
}

static void comment(lexer *l) {
    const char *close = memmem(l->at, (size_t)(l->end - l->at), "#}", 2);
    if (!close) tr_jinja_value_fail(l->a, "a comment has no end: close it by #}");
    char sign = close > l->at + 2 ? close[-1] : 0;
    advance(l, close + 2);
    after_tag(l, sign == '-' || sign == '+' ? sign : 0, false);
}

/* `{%- word -%}` at p: its end, or NULL. signs: of its begin and end. */
static const char *lone_tag(const lexer *l, const char *p, const char *word, char signs[2]) {
    size_t n = strlen(word);
    if (l->end - p < 2 || p[0] != '{' || p[1] != '%') return NULL;
    p += 2;
    signs[0] = signs[1] = 0;
    if (p < l->end && (*p == '-' || *p == '+')) signs[0] = *p++;
    while (p < l->end && isspace((unsigned char)*p)) p++;
    if ((size_t)(l->end - p) < n || memcmp(p, word, n) != 0) return NULL;
    p += n;
    while (p < l->end && isspace((unsigned char)*p)) p++;
    if (p < l->end && (*p == '-' || *p == '+')) signs[1] = *p++;
    return l->end - p >= 2 && p[0] == '%' && p[1] == '}' ? p + 2 : NULL;
}

static bool raw(lexer *l) {
    char signs[2];
    const char *body = lone_tag(l, l->at, "raw", signs);
    if (!body) return false;
    advance(l, body);
    after_tag(l, signs[1], false);
    for (const char *p = l->at; (p = memmem(p, (size_t)(l->end - p), "{%", 2)) != NULL; p += 2) {
        const char *after = lone_tag(l, p, "endraw", signs);
        if (!after) continue;
        add_text(l, p, signs[0], false);
        advance(l, after);
        after_tag(l, signs[1], false);
        return true;
    }
    tr_jinja_value_fail(l->a, "raw has no endraw");
}

static uint32_t hex(lexer *l, const char *p, const char *end, int digits) {
    uint32_t v = 0;
    for (int i = 0; i < digits; i++, p++) {
        if (p >= end || !isxdigit((unsigned char)*p)) tr_jinja_value_fail(l->a, "a text has a broken escape");
        v = v << 4 | (uint32_t)(isdigit((unsigned char)*p) ? *p - '0' : (*p | 32) - 'a' + 10);
    }
    return v;
}

/* Escapes of Python. */
static void text(lexer *l) {
    static const char from[] = "ntrabfv\\'\"", to[] = "\n\t\r\a\b\f\v\\'\"";
    char quote = *l->at;
    const char *p = l->at + 1;
    tr_jinja_text out = {.most = UINT32_MAX};
    char c[TR_UNICODE_MAX_BYTES];
    while (p < l->end && *p != quote) {
        const char *escaped = p + 1 < l->end && p[1] ? strchr(from, p[1]) : NULL;
        if (*p != '\\' || p + 1 >= l->end) {
            tr_jinja_value_append(l->a, &out, p++, 1);
        } else if (escaped) {
            tr_jinja_value_append(l->a, &out, &to[escaped - from], 1);
            p += 2;
        } else if (p[1] == 'x' || p[1] == 'u' || p[1] == 'U') {
            int digits = p[1] == 'x' ? 2 : p[1] == 'u' ? 4 : 8;
            uint32_t point = hex(l, p + 2, l->end, digits);
            if (point >= TR_UNICODE_LIMIT || (point >= 0xd800 && point < 0xe000))
                tr_jinja_value_fail(l->a, "a text has a broken escape");
            tr_jinja_value_append(l->a, &out, c, tr_unicode_encode(point, c));
            p += 2 + digits;
        } else if (p[1] == '\n') {
            p += 2;
        } else if (p[1] >= '0' && p[1] <= '7') {
            uint32_t point = 0;
            for (p++; p < l->end && *p >= '0' && *p <= '7' && point < 32; p++) point = point * 8 + (uint32_t)(*p - '0');
            tr_jinja_value_append(l->a, &out, c, tr_unicode_encode(point, c));
        } else
            tr_jinja_value_append(l->a, &out, p++, 1);
    }
    if (p >= l->end) tr_jinja_value_fail(l->a, "a text has no end");
    add(l, TR_JINJA_TOKEN_CONST, tr_jinja_value_take(&out));
    advance(l, p + 1);
}

static void number(lexer *l) {
    char digits[64];
    size_t n = 0;
    const char *p = l->at;
    bool real = false;
    for (; p < l->end && n + 1 < sizeof digits; p++) {
        bool digit = isdigit((unsigned char)*p);
        if (*p == '_' && p + 1 < l->end && isdigit((unsigned char)p[1])) continue;
        if (*p == '.' && !real && p + 1 < l->end && isdigit((unsigned char)p[1]))
            real = true;
        else if ((*p == 'e' || *p == 'E') && p + 1 < l->end &&
                 (isdigit((unsigned char)p[1]) ||
                  ((p[1] == '+' || p[1] == '-') && p + 2 < l->end && isdigit((unsigned char)p[2])))) {
            real = true;
            digits[n++] = *p;
            if (p[1] == '+' || p[1] == '-') digits[n++] = *++p;
            continue;
        } else if (!digit)
            break;
        digits[n++] = *p;
    }
    digits[n] = 0;
    if (n > 18 && !real) tr_jinja_value_fail(l->a, "the number %s is too large", digits);
    add(l, TR_JINJA_TOKEN_CONST,
        real ? tr_jinja_value_float(strtod(digits, NULL)) : tr_jinja_value_int(strtoll(digits, NULL, 10)));
    advance(l, p);
}

static void operator_(lexer *l) {
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t n = 1;
    for (size_t i = 0; i < sizeof two / sizeof two[0]; i++)
        if (l->end - l->at >= 2 && memcmp(l->at, two[i], 2) == 0) n = 2;
    if (n == 1 && (*l->at == 0 || !strchr("+-/*%~[](){}><=.:|,", *l->at)))
        tr_jinja_value_fail(l->a, "unexpected character '%c'", *l->at);
    add(l, TR_JINJA_TOKEN_OPERATOR, tr_jinja_value_string(l->at, n));
    advance(l, l->at + n);
}

/* What stands inside {% %} or {{ }}; the end of the tag counts only outside of brackets. */
static void tag(lexer *l, bool output) {
    const char *close = output ? "}}" : "%}";
    int open = 0;
    add(l, output ? TR_JINJA_TOKEN_OUTPUT_BEGIN : TR_JINJA_TOKEN_BLOCK_BEGIN, tr_jinja_value_none());
    for (;;) {
        skip_blanks(l);
        size_t left = (size_t)(l->end - l->at);
        if (left < 2) tr_jinja_value_fail(l->a, "a tag has no end");
        char sign = (*l->at == '-' || (*l->at == '+' && !output)) && left > 2 ? *l->at : 0;
        if (open == 0 && memcmp(l->at + (sign != 0), close, 2) == 0) {
            add(l, output ? TR_JINJA_TOKEN_OUTPUT_END : TR_JINJA_TOKEN_BLOCK_END, tr_jinja_value_none());
            advance(l, l->at + 2 + (sign != 0));
            after_tag(l, sign, output);
            return;
        }
        unsigned char c = (unsigned char)*l->at;
        if (isdigit(c)) {
            number(l);
        } else if (isalpha(c) || c == '_') {
            const char *p = l->at;
            while (p < l->end && (isalnum((unsigned char)*p) || *p == '_')) p++;
            add(l, TR_JINJA_TOKEN_NAME, tr_jinja_value_string(l->at, (size_t)(p - l->at)));
            advance(l, p);
        } else if (c == '"' || c == '\'') {
            text(l);
        } else {
            open += strchr("([{", c) != NULL && c ? 1 : 0;
            if (c && strchr(")]}", c) && --open < 0) tr_jinja_value_fail(l->a, "unexpected '%c'", c);
            operator_(l);
        }
    }
}

tr_jinja_token *tr_jinja_parse_tokens(tr_jinja_arena *a, const char *text_begin, size_t bytes) {
    lexer l = {.a = a, .at = text_begin, .end = text_begin + bytes, .line = 1, .line_begins = true};
    if (bytes > 0 && l.end[-1] == '\n') l.end--; /* keep_trailing_newline is off */
    while (l.at < l.end) {
        const char *p = l.at;
        while ((p = memchr(p, '{', (size_t)(l.end - p))) && (p + 1 >= l.end || !strchr("{%#", p[1]) || !p[1])) p++;
        if (!p) {
            add(&l, TR_JINJA_TOKEN_TEXT, tr_jinja_value_string(l.at, (size_t)(l.end - l.at)));
            break;
        }
        char kind = p[1], sign = p + 2 < l.end && (p[2] == '-' || p[2] == '+') ? p[2] : 0;
        add_text(&l, p, sign, kind == '{');
        if (kind == '#') {
            comment(&l);
        } else if (kind == '{' || !raw(&l)) {
            if (sign == '+' && kind == '{') sign = 0; /* a plus of the expression */
            advance(&l, p + 2 + (sign != 0));
            tag(&l, kind == '{');
        }
    }
    add(&l, TR_JINJA_TOKEN_END, tr_jinja_value_none());
    return l.token;
}
