/* model/pretokenize.c - the splitters, each in the order of its expression's alternatives. */
#include "model/pretokenize.h"
#include "model/unicode.h"

#include <string.h>

/* One character; size 0 past the end, which belongs to no class. */
typedef struct glyph {
    uint32_t point;
    size_t size;
    tr_unicode_class cls;
} glyph;

static glyph look(const char *text, size_t pos, size_t end) {
    glyph g = {UINT32_MAX, 0, TR_UNICODE_OTHER};
    if (pos >= end) return g;
    g.point = tr_unicode_decode(text + pos, end - pos, &g.size);
    g.cls = tr_unicode_class_of(g.point);
    return g;
}

static bool is_newline(uint32_t point) { return point == '\r' || point == '\n'; }

static bool is_class(glyph g, tr_unicode_class cls) { return g.size > 0 && g.cls == cls; }

/* End of the run of one class that starts at pos. */
static size_t run_end(const char *text, size_t pos, size_t end, tr_unicode_class cls) {
    for (glyph g = look(text, pos, end); is_class(g, cls); g = look(text, pos, end)) pos += g.size;
    return pos;
}

/* Bytes of 's 't 'm 'd 're 've 'll at pos, 0 when there is none. */
static size_t contraction(const char *text, size_t pos, size_t end, bool fold) {
    static const char *const forms[] = {"s", "t", "m", "d", "re", "ve", "ll"};
    if (text[pos] != '\'') return 0;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        size_t n = strlen(forms[i]), k = 0;
        for (; k < n && pos + 1 + k < end; k++) {
            char c = text[pos + 1 + k];
            if (fold && c >= 'A' && c <= 'Z') c = (char)(c - 'A' + 'a');
            if (c != forms[i][k]) break;
        }
        if (k == n) return 1 + n;
    }
    return 0;
}

/* End of the white-space word at pos: \s+(?!\S) leaves the last character to the word that follows. */
static size_t space_end(const char *text, size_t pos, size_t end) {
    size_t last = pos, stop = pos;
    for (glyph g = look(text, pos, end); is_class(g, TR_UNICODE_SPACE); g = look(text, stop, end)) {
        last = stop;
        stop += g.size;
    }
    return stop < end && last > pos ? last : stop;
}

/* End of the last line break of the white-space run at pos; 0 when it has none. */
static size_t break_end(const char *text, size_t pos, size_t end) {
    size_t stop = 0;
    for (glyph g = look(text, pos, end); is_class(g, TR_UNICODE_SPACE); g = look(text, pos, end)) {
        pos += g.size;
        if (is_newline(g.point)) stop = pos;
    }
    return stop;
}

static size_t gpt2_word(const char *text, size_t pos, size_t end) {
    size_t n = contraction(text, pos, end, false);
    if (n > 0) return pos + n;
    glyph g = look(text, pos, end);
    glyph first = g.point == ' ' ? look(text, pos + 1, end) : g;
    if (first.size > 0 && first.cls != TR_UNICODE_SPACE) {
        return run_end(text, g.point == ' ' ? pos + 1 : pos, end, first.cls);
    }
    return space_end(text, pos, end);
}

static size_t llama3_word(const char *text, size_t pos, size_t end, size_t max_digits) {
    size_t n = contraction(text, pos, end, true);
    if (n > 0) return pos + n;
    glyph g = look(text, pos, end);
    if (g.cls == TR_UNICODE_NUMBER) {
        for (size_t i = 0; i < max_digits && is_class(g, TR_UNICODE_NUMBER); i++) {
            pos += g.size;
            g = look(text, pos, end);
        }
        return pos;
    }
    glyph second = look(text, pos + g.size, end);
    if (!is_newline(g.point) && (g.cls == TR_UNICODE_LETTER || is_class(second, TR_UNICODE_LETTER))) {
        return run_end(text, pos + g.size, end, TR_UNICODE_LETTER);
    }
    glyph first = g.point == ' ' ? second : g;
    if (is_class(first, TR_UNICODE_OTHER)) {
        pos = run_end(text, g.point == ' ' ? pos + 1 : pos, end, TR_UNICODE_OTHER);
        while (pos < end && is_newline((uint8_t)text[pos])) pos++;
        return pos;
    }
    size_t stop = break_end(text, pos, end);
    return stop > 0 ? stop : space_end(text, pos, end);
}

/* Every number is a word; what lies between two numbers is split as if it were a whole text. */
static size_t smollm_word(tr_pretokenize *p) {
    glyph g = look(p->text, p->pos, p->len);
    if (g.cls == TR_UNICODE_NUMBER) return p->pos + g.size;
    if (p->segment_end <= p->pos) {
        size_t stop = p->pos;
        for (; g.size > 0 && g.cls != TR_UNICODE_NUMBER; g = look(p->text, stop, p->len)) stop += g.size;
        p->segment_end = stop;
    }
    return gpt2_word(p->text, p->pos, p->segment_end);
}

void tr_pretokenize_init(tr_pretokenize *p, tr_pretokenize_kind kind, const char *text, size_t len) {
    *p = (tr_pretokenize){.kind = kind, .text = text, .len = len};
}

bool tr_pretokenize_next(tr_pretokenize *p, size_t *begin_out, size_t *len_out) {
    if (p->pos >= p->len) return false;
    size_t stop = p->len;
    switch (p->kind) {
    case TR_PRETOKENIZE_GPT2: stop = gpt2_word(p->text, p->pos, p->len); break;
    case TR_PRETOKENIZE_SMOLLM: stop = smollm_word(p); break;
    case TR_PRETOKENIZE_LLAMA3: stop = llama3_word(p->text, p->pos, p->len, 3); break;
    case TR_PRETOKENIZE_QWEN2: stop = llama3_word(p->text, p->pos, p->len, 1); break;
    }
    *begin_out = p->pos;
    *len_out = stop - p->pos;
    p->pos = stop;
    return true;
}

bool tr_pretokenize_find(const char *name, size_t len, tr_pretokenize_kind *kind_out) {
    static const struct {
        const char *name;
        tr_pretokenize_kind kind;
    } rows[] = {
        {"gpt-2", TR_PRETOKENIZE_GPT2},
        {"smollm", TR_PRETOKENIZE_SMOLLM},
        {"llama-bpe", TR_PRETOKENIZE_LLAMA3},
        {"llama3", TR_PRETOKENIZE_LLAMA3},
        {"llama-v3", TR_PRETOKENIZE_LLAMA3},
        {"qwen2", TR_PRETOKENIZE_QWEN2},
        {"deepseek-r1-qwen", TR_PRETOKENIZE_QWEN2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0) {
            *kind_out = rows[i].kind;
            return true;
        }
    }
    return false;
}
