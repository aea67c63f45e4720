/* model/tokenizer.c - the public calls: a text is cut at special tokens, then each fragment goes to its family. */
#include "model/tokenizer.h"
#include "model/tokenizer_bpe.h"
#include "model/tokenizer_impl.h"
#include "model/tokenizer_load.h"
#include "model/tokenizer_special.h"
#include "model/tokenizer_spm.h"
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>

tr_status tr_tokenizer_create(const tr_gguf *gguf, tr_tokenizer **tokenizer_out, tr_error *err) {
    tr_tokenizer *t = calloc(1, sizeof *t);
    if (t == NULL) return tr_error_set(err, TR_SYSTEM, "no memory for the tokenizer");
    tr_status status = tr_tokenizer_load(t, gguf, err);
    if (status != TR_OK) {
        tr_tokenizer_destroy(&t);
        return status;
    }
    *tokenizer_out = t;
    return TR_OK;
}

void tr_tokenizer_destroy(tr_tokenizer **tokenizer) {
    tr_tokenizer *t = *tokenizer;
    if (t == NULL) return;
    if (!t->borrowed) {
        tr_tokenizer_map_fini(&t->map);
        free(t->bytes);
        free(t->spans);
        free(t->attrs);
        free(t->priorities);
        free(t->rules);
    }
    tr_file_map_close(&t->file);
    free(t->order);
    free(t->nodes);
    free(t);
    *tokenizer = NULL;
}

/* State of one encode call. */
typedef struct job {
    const tr_tokenizer *t;
    tr_tokenizer_scratch scratch;
    tr_tokenizer_sink sink;
    bool marked;        /* TR_TOKENIZE_MARKED */
    bool after_special; /* SentencePiece puts its blank only here */
    bool at_start;      /* nothing of the text has been encoded yet */
} job;

static bool takes_prefix(job *j, const char *text, size_t len) {
    const bool after_special = j->after_special, at_start = j->at_start;
    const bool blank = text[0] == ' ' || (len >= 3 && memcmp(text, "\xe2\x96\x81", 3) == 0);
    j->after_special = j->at_start = false;
    if (!j->t->add_space_prefix) return false;
    switch (j->t->prefix_rule) {
    case TR_TOKENIZER_PREFIX_EACH: return after_special;
    case TR_TOKENIZER_PREFIX_UNLESS_BLANK: return !blank;
    case TR_TOKENIZER_PREFIX_FIRST: return at_start && !blank;
    }
    return false;
}

static tr_status encode_fragment(job *j, const char *text, size_t len) {
    if (len == 0) return TR_OK;
    if (j->t->kind == TR_TOKENIZER_BPE) return tr_tokenizer_bpe_encode(j->t, &j->scratch, text, len, &j->sink);
    return tr_tokenizer_spm_encode(j->t, &j->scratch, text, len, takes_prefix(j, text, len), &j->sink);
}

/* The text without its marks; two in a row are one of the text. */
static tr_status encode_marked(job *j, const char *text, size_t len) {
    const char *mark = j->marked ? memmem(text, len, TR_TOKENIZER_MARK, TR_TOKENIZER_MARK_BYTES) : NULL;
    if (!mark) return encode_fragment(j, text, len);
    char *plain = malloc(len);
    if (!plain) return TR_SYSTEM;
    size_t n = 0;
    for (size_t at = 0; at < len;) {
        const bool marked =
            len - at >= TR_TOKENIZER_MARK_BYTES && memcmp(text + at, TR_TOKENIZER_MARK, TR_TOKENIZER_MARK_BYTES) == 0;
        if (marked) at += TR_TOKENIZER_MARK_BYTES;
        const bool twice = marked && len - at >= TR_TOKENIZER_MARK_BYTES &&
                           memcmp(text + at, TR_TOKENIZER_MARK, TR_TOKENIZER_MARK_BYTES) == 0;
        const size_t size = !marked ? 1 : twice ? TR_TOKENIZER_MARK_BYTES : 0;
        memcpy(plain + n, text + at, size);
        n += size, at += size;
    }
    tr_status status = encode_fragment(j, plain, n);
    free(plain);
    return status;
}

static tr_status encode_all(job *j, const char *text, size_t len, bool parse_special) {
    tr_tokenizer_cut *cuts;
    size_t n_cuts, pos = 0;
    TR_TRY(tr_tokenizer_special_split(j->t, text, len, parse_special, &cuts, &n_cuts, &j->scratch.lookups));
    tr_status status = TR_OK;
    for (size_t i = 0; i < n_cuts && status == TR_OK; i++) {
        status = encode_marked(j, text + pos, cuts[i].begin - pos);
        tr_tokenizer_emit(&j->sink, cuts[i].id);
        j->after_special = true;
        j->at_start = false;
        pos = cuts[i].end;
    }
    if (status == TR_OK) status = encode_marked(j, text + pos, len - pos);
    free(cuts);
    return status;
}

tr_status tr_tokenizer_encode_counted(const tr_tokenizer *t, const char *text, size_t len, unsigned flags,
                                      uint32_t *ids, size_t cap, size_t *n_out, int64_t *work_out, tr_error *err) {
    if (len > TR_TOKENIZER_MAX_TEXT) {
        return tr_error_set(err, TR_DATA, "text of %zu bytes; at most %d can be tokenized at once, split it", len,
                            TR_TOKENIZER_MAX_TEXT);
    }
    job j = {.t = t,
             .sink = {ids, cap, 0},
             .after_special = true,
             .at_start = true,
             .marked = (flags & TR_TOKENIZE_MARKED) != 0};
    if ((flags & TR_TOKENIZE_BOS) != 0 && t->add_bos) tr_tokenizer_emit(&j.sink, t->bos);
    tr_status status = encode_all(&j, text, len, (flags & TR_TOKENIZE_PARSE_SPECIAL) != 0);
    if (work_out != NULL) *work_out = j.scratch.lookups + j.scratch.queue.moves;
    tr_tokenizer_scratch_fini(&j.scratch);
    if (status != TR_OK) return tr_error_set(err, status, "no memory to tokenize %zu bytes", len);
    *n_out = j.sink.n;
    if (j.sink.n > cap) {
        return tr_error_set(err, TR_EXHAUSTED, "the text has %zu tokens, room was given for %zu", j.sink.n, cap);
    }
    return TR_OK;
}

tr_status tr_tokenizer_encode(const tr_tokenizer *t, const char *text, size_t len, unsigned flags, uint32_t *ids,
                              size_t cap, size_t *n_out, tr_error *err) {
    return tr_tokenizer_encode_counted(t, text, len, flags, ids, cap, n_out, NULL, err);
}

/* Bytes of the output so far; writes only while there is room. */
typedef struct writer {
    char *buf;
    size_t cap, n;
} writer;

static void put(writer *w, const char *bytes, size_t len) {
    if (len <= w->cap && w->n <= w->cap - len) memcpy(w->buf + w->n, bytes, len);
    w->n += len;
}

static void put_spm(writer *w, const char *text, size_t len) {
    for (size_t i = 0; i < len;) {
        bool blank = len - i >= 3 && memcmp(text + i, "\xe2\x96\x81", 3) == 0;
        put(w, blank ? " " : text + i, 1);
        i += blank ? 3 : 1;
    }
}

static void put_bpe(writer *w, const tr_tokenizer *t, const char *text, size_t len) {
    for (size_t i = 0, size; i < len; i += size) {
        uint32_t point = tr_unicode_decode(text + i, len - i, &size);
        if (point < TR_TOKENIZER_ALPHABET && t->point_byte[point] >= 0) {
            char byte = (char)t->point_byte[point];
            put(w, &byte, 1);
        } else {
            put(w, text + i, size);
        }
    }
}

static unsigned hex_digit(char c) { return c <= '9' ? (unsigned)(c - '0') : ((unsigned)c | 32u) - 'a' + 10u; }

tr_status tr_tokenizer_piece(const tr_tokenizer *t, uint32_t id, bool special, char *buf, size_t cap, size_t *n_out) {
    if (id >= t->n_tokens) return TR_INVALID;
    const char *text = t->bytes + t->spans[id].offset;
    size_t len = t->spans[id].len;
    uint8_t attr = t->attrs[id];
    writer w = {buf, cap, 0};
    if ((attr & (TR_TOKENIZER_CONTROL | TR_TOKENIZER_UNKNOWN)) != 0) {
        if (special) put(&w, text, len);
    } else if ((attr & (TR_TOKENIZER_USER | TR_TOKENIZER_NORMAL)) == TR_TOKENIZER_USER) {
        put(&w, text, len);
    } else if ((attr & TR_TOKENIZER_NORMAL) != 0) {
        if (t->kind == TR_TOKENIZER_SPM)
            put_spm(&w, text, len);
        else
            put_bpe(&w, t, text, len);
    } else if ((attr & TR_TOKENIZER_BYTE) != 0) {
        char byte = (char)(hex_digit(text[3]) << 4 | hex_digit(text[4]));
        put(&w, &byte, 1);
    }
    *n_out = w.n;
    return w.n <= cap ? TR_OK : TR_EXHAUSTED;
}

size_t tr_tokenizer_max_piece(const tr_tokenizer *t) { return t->max_len; }

uint32_t tr_tokenizer_find(const tr_tokenizer *t, const char *s) {
    uint32_t id = tr_tokenizer_map_find(&t->map, s, strlen(s));
    return id == TR_TOKENIZER_MAP_NONE ? TR_TOKENIZER_NONE : id;
}

uint32_t tr_tokenizer_vocab(const tr_tokenizer *t) { return t->n_tokens; }
uint32_t tr_tokenizer_bos(const tr_tokenizer *t) { return t->bos; }
uint32_t tr_tokenizer_eos(const tr_tokenizer *t) { return t->eos; }
bool tr_tokenizer_adds_bos(const tr_tokenizer *t) { return t->add_bos; }
bool tr_tokenizer_strips_space(const tr_tokenizer *t) { return t->add_space_prefix; }

bool tr_tokenizer_is_eog(const tr_tokenizer *t, uint32_t id) {
    return id < t->n_tokens && (t->attrs[id] & TR_TOKENIZER_EOG) != 0;
}

bool tr_tokenizer_is_control(const tr_tokenizer *t, uint32_t id) {
    return id < t->n_tokens && (t->attrs[id] & (TR_TOKENIZER_CONTROL | TR_TOKENIZER_UNKNOWN)) != 0;
}
