/* model/tokenizer_spm.c - see the header. */
#include "model/tokenizer_spm.h"
#include "model/tokenizer_bpe.h"
#include "model/unicode.h"

#include <string.h>

static const char blank[] = "\xe2\x96\x81"; /* U+2581 */

typedef struct join_ctx {
    const tr_tokenizer *t;
    const char *text;
} join_ctx;

static bool join(const void *ctx, const tr_tokenizer_symbol *left, const tr_tokenizer_symbol *right,
                 uint32_t *priority_out, uint32_t *result_out) {
    const join_ctx *c = ctx;
    size_t len = (size_t)left->len + right->len; /* the two are neighbours in the text */
    if (len > c->t->max_len) return false;
    uint32_t id = tr_tokenizer_map_find(&c->t->map, c->text + left->start, len);
    if (id == TR_TOKENIZER_MAP_NONE) return false;
    *priority_out = c->t->priorities[id];
    *result_out = id;
    return true;
}

/* Copy with blanks replaced; returns the size. out holds 3 * (len + 1) bytes. */
static size_t escape(const char *text, size_t len, bool prefix, char *out) {
    size_t n = 0;
    if (prefix) {
        memcpy(out, blank, 3);
        n = 3;
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] == ' ') {
            memcpy(out + n, blank, 3);
            n += 3;
        } else {
            out[n++] = text[i];
        }
    }
    return n;
}

/* Bytes of the character at i. A broken one may reach into the blank that follows, so that the blank's other bytes
 * stand alone: there can be more characters than the input had. */
static size_t char_size(const char *text, size_t i, size_t size) {
    size_t bytes = tr_unicode_lead_size((uint8_t)text[i]);
    return bytes < size - i ? bytes : size - i;
}

tr_status tr_tokenizer_spm_encode(const tr_tokenizer *t, tr_tokenizer_scratch *s, const char *text, size_t len,
                                  bool prefix, tr_tokenizer_sink *sink) {
    TR_TRY(tr_tokenizer_scratch_text(s, 3 * (len + 1)));
    size_t size = escape(text, len, prefix, s->text);
    if (size == 0) return TR_OK;
    size_t n = 0;
    for (size_t i = 0; i < size; n++) i += char_size(s->text, i, size);
    TR_TRY(tr_tokenizer_scratch_symbols(s, n));
    n = 0;
    for (size_t i = 0; i < size; n++) {
        size_t bytes = char_size(s->text, i, size);
        s->symbols[n] = (tr_tokenizer_symbol){.start = (uint32_t)i, .len = (uint32_t)bytes};
        s->symbols[n].id = tr_tokenizer_map_find(&t->map, s->text + i, bytes);
        i += bytes;
    }
    if (t->rules != NULL)
        tr_tokenizer_merge_run(s, n, tr_tokenizer_bpe_join, t);
    else
        tr_tokenizer_merge_run(s, n, join, &(join_ctx){t, s->text});
    for (uint32_t i = 0; i != TR_TOKENIZER_MERGE_END; i = s->symbols[i].next) {
        const tr_tokenizer_symbol *symbol = &s->symbols[i];
        if (symbol->id != TR_TOKENIZER_NONE) {
            tr_tokenizer_emit(sink, symbol->id);
            continue;
        }
        for (uint32_t k = 0; k < symbol->len; k++) {
            tr_tokenizer_emit(sink, t->byte_ids[(uint8_t)s->text[symbol->start + k]]);
        }
    }
    return TR_OK;
}
