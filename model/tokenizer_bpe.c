/* model/tokenizer_bpe.c - see the header. */
#include "model/tokenizer_bpe.h"
#include "base/rng.h"
#include "model/unicode.h"
#include "model/unicode_nfc.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PROBES = 1024 };

void tr_tokenizer_bpe_alphabet(tr_tokenizer *t) {
    uint16_t spare = 256;
    memset(t->point_byte, -1, sizeof t->point_byte);
    for (unsigned b = 0; b < 256; b++) {
        bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        t->byte_point[b] = printable ? (uint16_t)b : spare++;
        t->point_byte[t->byte_point[b]] = (int16_t)b;
        char text[TR_UNICODE_MAX_BYTES];
        size_t len = tr_unicode_encode(t->byte_point[b], text);
        t->byte_ids[b] = tr_tokenizer_map_find(&t->map, text, len);
    }
}

tr_status tr_tokenizer_bpe_rules(tr_tokenizer *t, uint64_t n) {
    uint64_t size = 16;
    while (size < n + n / 2) size *= 2;
    t->rules = malloc(size * sizeof *t->rules);
    if (t->rules == NULL) return TR_SYSTEM;
    memset(t->rules, 0xff, size * sizeof *t->rules);
    t->rules_mask = size - 1;
    return TR_OK;
}

static uint64_t rule_slot(uint32_t left, uint32_t right) { return tr_rng_mix((uint64_t)left << 32 | right); }

bool tr_tokenizer_bpe_rule(tr_tokenizer *t, tr_tokenizer_rule rule) {
    uint64_t slot = rule_slot(rule.left, rule.right);
    for (uint64_t probe = 0; probe < MAX_PROBES; probe++) {
        tr_tokenizer_rule *r = &t->rules[(slot + probe) & t->rules_mask];
        if (r->rank == TR_TOKENIZER_NONE) {
            *r = rule;
            return true;
        }
        if (r->left == rule.left && r->right == rule.right) return true;
    }
    return false;
}

bool tr_tokenizer_bpe_join(const void *ctx, const tr_tokenizer_symbol *left, const tr_tokenizer_symbol *right,
                           uint32_t *priority_out, uint32_t *result_out) {
    const tr_tokenizer *t = ctx;
    if (left->id == TR_TOKENIZER_NONE || right->id == TR_TOKENIZER_NONE) return false;
    uint64_t slot = rule_slot(left->id, right->id);
    for (uint64_t probe = 0; probe < MAX_PROBES; probe++) {
        const tr_tokenizer_rule *r = &t->rules[(slot + probe) & t->rules_mask];
        if (r->rank == TR_TOKENIZER_NONE) return false;
        if (r->left != left->id || r->right != right->id) continue;
        *priority_out = r->rank;
        *result_out = r->result;
        return true;
    }
    return false;
}

/* Token that is the whole word, for models that skip the merges then. s->word has room for max_len + 4 bytes. */
static uint32_t whole_word(const tr_tokenizer *t, tr_tokenizer_scratch *s, const char *word, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        n += tr_unicode_encode(t->byte_point[(uint8_t)word[i]], s->word + n);
        if (n > t->max_len) return TR_TOKENIZER_NONE;
    }
    return tr_tokenizer_map_find(&t->map, s->word, n);
}

static tr_status encode_word(const tr_tokenizer *t, tr_tokenizer_scratch *s, const char *word, size_t len,
                             tr_tokenizer_sink *sink) {
    uint32_t whole = t->ignore_merges ? whole_word(t, s, word, len) : TR_TOKENIZER_NONE;
    if (whole != TR_TOKENIZER_NONE) {
        tr_tokenizer_emit(sink, whole);
        return TR_OK;
    }
    TR_TRY(tr_tokenizer_scratch_symbols(s, len));
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        const uint32_t id = t->byte_ids[(uint8_t)word[i]];
        if (id == TR_TOKENIZER_NONE && t->declared) continue;
        s->symbols[n++] = (tr_tokenizer_symbol){.start = (uint32_t)i, .len = 1, .id = id};
    }
    if (n == 0) return TR_OK;
    tr_tokenizer_merge_run(s, n, tr_tokenizer_bpe_join, t);
    for (uint32_t i = 0; i != TR_TOKENIZER_MERGE_END; i = s->symbols[i].next) {
        /* A byte that the vocabulary lacks leaves nothing. */
        if (s->symbols[i].id != TR_TOKENIZER_NONE) tr_tokenizer_emit(sink, s->symbols[i].id);
    }
    return TR_OK;
}

tr_status tr_tokenizer_bpe_encode(const tr_tokenizer *t, tr_tokenizer_scratch *s, const char *text, size_t len,
                                  tr_tokenizer_sink *sink) {
    if (!tr_unicode_utf8_valid(text, len)) {
        TR_TRY(tr_tokenizer_scratch_text(s, 3 * len));
        len = tr_unicode_repair(text, len, s->text);
        text = s->text;
    }
    if (t->nfc) {
        TR_TRY(tr_tokenizer_scratch_normal(s, 3 * len));
        TR_TRY(tr_unicode_nfc(text, len, s->normal, &len));
        text = s->normal;
    }
    if (t->ignore_merges) TR_TRY(tr_tokenizer_scratch_word(s, t->max_len + TR_UNICODE_MAX_BYTES));
    tr_pretokenize words;
    tr_pretokenize_init(&words, t->pre, text, len);
    for (size_t begin, size; tr_pretokenize_next(&words, &begin, &size);) {
        TR_TRY(encode_word(t, s, text + begin, size, sink));
    }
    return TR_OK;
}
