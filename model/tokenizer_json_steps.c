/* model/tokenizer_json_steps.c - what a tokenizer.json does around its model: each of the four sections is one step or
 * a sequence of steps; the steps that the two families are made of are known here, by their exact arguments. */
#include "model/tokenizer_json_impl.h"

#include <string.h>

#define BLANK "\xe2\x96\x81" /* U+2581 */

enum { MAX_STEPS = 16 };

/* The steps of a section, sequences laid flat. */
typedef struct steps {
    const char *section;
    const json_t *at[MAX_STEPS];
    const char *type[MAX_STEPS];
    size_t n;
} steps;

static tr_status add_step(const tr_tokenizer_json *j, const json_t *step, steps *out) {
    const char *type = json_string_value(json_object_get(step, "type"));
    if (!type) return tr_tokenizer_json_fail(j, "a step of %s has no type", out->section);
    if (out->n == MAX_STEPS) return tr_tokenizer_json_fail(j, "%s has more than %d steps", out->section, MAX_STEPS);
    out->at[out->n] = step;
    out->type[out->n++] = type;
    return TR_OK;
}

static tr_status read_steps(const tr_tokenizer_json *j, const char *section, const char *list, steps *out) {
    const json_t *all = tr_tokenizer_json_value(j->root, section);
    *out = (steps){.section = section};
    if (!all) return TR_OK;
    const char *type = json_string_value(json_object_get(all, "type"));
    if (!type || strcmp(type, "Sequence") != 0) return add_step(j, all, out);
    const json_t *inner = json_object_get(all, list);
    for (size_t i = 0; i < json_array_size(inner); i++) TR_TRY(add_step(j, json_array_get(inner, i), out));
    return TR_OK;
}

static bool is(const steps *s, size_t i, const char *type) { return strcmp(s->type[i], type) == 0; }

static bool text_is(const json_t *object, const char *key, const char *text) {
    const char *s = json_string_value(json_object_get(object, key));
    return s && strcmp(s, text) == 0;
}

/* {"pattern": {"String": from}} */
static bool pattern_is(const json_t *step, const char *from) {
    return text_is(json_object_get(step, "pattern"), "String", from);
}

static tr_status unknown(const tr_tokenizer_json *j, const steps *s, size_t i) {
    return tr_tokenizer_json_fail(j, "%s: the step %s is not supported here, or not with these arguments", s->section,
                                  tr_tokenizer_json_show(s->type[i]).text);
}

/* ---- byte-level ---- */

/* Expressions by their exact text. */
static const struct {
    const char *text;
    tr_pretokenize_kind kind;
} expressions[] = {
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     TR_PRETOKENIZE_LLAMA3},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     TR_PRETOKENIZE_QWEN2},
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", TR_PRETOKENIZE_GPT2},
};

static tr_status read_split(tr_tokenizer_json *j, const steps *s, size_t i) {
    const char *text = json_string_value(json_object_get(json_object_get(s->at[i], "pattern"), "Regex"));
    if (!text || !text_is(s->at[i], "behavior", "Isolated") || tr_tokenizer_json_flag(s->at[i], "invert", false))
        return unknown(j, s, i);
    for (size_t k = 0; k < sizeof expressions / sizeof *expressions; k++)
        if (strcmp(expressions[k].text, text) == 0) {
            j->t->pre = expressions[k].kind;
            return TR_OK;
        }
    return tr_tokenizer_json_fail(j, "pre_tokenizer: the expression %s is not known here",
                                  tr_tokenizer_json_show(text).text);
}

/* ByteLevel comes last; before it nothing (GPT-2), the digits (SmolLM2) or an expression (Llama 3, Qwen). */
static tr_status read_words(tr_tokenizer_json *j, const steps *s) {
    bool split = false, digits = false;
    for (size_t i = 0; i < s->n; i++) {
        const bool last = i + 1 == s->n;
        if (!last && !split && !digits && is(s, i, "Split")) {
            TR_TRY(read_split(j, s, i));
            split = true;
        } else if (!last && !split && !digits && is(s, i, "Digits") &&
                   tr_tokenizer_json_flag(s->at[i], "individual_digits", false)) {
            digits = true;
        } else if (last && is(s, i, "ByteLevel") && !tr_tokenizer_json_flag(s->at[i], "add_prefix_space", true) &&
                   tr_tokenizer_json_flag(s->at[i], "use_regex", true) == !split) {
            if (!split) j->t->pre = digits ? TR_PRETOKENIZE_SMOLLM : TR_PRETOKENIZE_GPT2;
        } else {
            return unknown(j, s, i);
        }
    }
    return TR_OK;
}

static tr_status read_byte_level(tr_tokenizer_json *j, const steps *normalizer, const steps *words,
                                 const steps *decoder) {
    for (size_t i = 0; i < normalizer->n; i++) {
        if (!is(normalizer, i, "NFC")) return unknown(j, normalizer, i);
        j->t->nfc = true;
    }
    if (decoder->n != 1 || !is(decoder, 0, "ByteLevel"))
        return tr_tokenizer_json_fail(j, "the decoder of a byte-level vocabulary is not ByteLevel alone");
    return read_words(j, words);
}

/* ---- characters with byte fallback ---- */

/* "never", "always" or "first"; older files have add_prefix_space. False: none of them. */
static bool read_scheme(const json_t *step, tr_tokenizer *t) {
    const json_t *scheme = json_object_get(step, "prepend_scheme");
    const char *text = scheme ? json_string_value(scheme)
                              : (tr_tokenizer_json_flag(step, "add_prefix_space", true) ? "always" : "never");
    if (!text) return false;
    t->add_space_prefix = strcmp(text, "never") != 0;
    t->prefix_rule = strcmp(text, "first") == 0 ? TR_TOKENIZER_PREFIX_FIRST : TR_TOKENIZER_PREFIX_UNLESS_BLANK;
    return strcmp(text, "never") == 0 || strcmp(text, "always") == 0 || strcmp(text, "first") == 0;
}

/* Blanks become U+2581 in one of two ways: by normalizer steps, or by a Metaspace that does not split. */
static tr_status read_blanks(tr_tokenizer_json *j, const steps *normalizer, const steps *words) {
    tr_tokenizer *t = j->t;
    bool replaced = false;
    for (size_t i = 0; i < normalizer->n; i++) {
        const json_t *step = normalizer->at[i];
        if (is(normalizer, i, "Prepend") && text_is(step, "prepend", BLANK) && !replaced && !t->add_space_prefix) {
            t->add_space_prefix = true;
            t->prefix_rule = TR_TOKENIZER_PREFIX_EACH;
        } else if (is(normalizer, i, "Replace") && pattern_is(step, " ") && text_is(step, "content", BLANK)) {
            replaced = true;
        } else {
            return unknown(j, normalizer, i);
        }
    }
    for (size_t i = 0; i < words->n; i++) {
        const json_t *step = words->at[i];
        if (replaced && is(words, i, "Split") && pattern_is(step, " ")) continue; /* no blank is left to split at */
        if (replaced || !is(words, i, "Metaspace") || !text_is(step, "replacement", BLANK) ||
            tr_tokenizer_json_flag(step, "split", true) || !read_scheme(step, t))
            return unknown(j, words, i);
        replaced = true;
    }
    return replaced ? TR_OK
                    : tr_tokenizer_json_fail(j, "neither normalizer nor pre_tokenizer turns blanks into U+2581");
}

static tr_status read_fallback(tr_tokenizer_json *j, const steps *normalizer, const steps *words,
                               const steps *decoder) {
    bool strip = false;
    TR_TRY(read_blanks(j, normalizer, words));
    for (size_t i = 0; i < decoder->n; i++) {
        const json_t *step = decoder->at[i];
        const bool metaspace = is(decoder, i, "Metaspace") && text_is(step, "replacement", BLANK);
        if (is(decoder, i, "Strip") && text_is(step, "content", " ") &&
            json_integer_value(json_object_get(step, "start")) == 1 &&
            json_integer_value(json_object_get(step, "stop")) == 0)
            strip = true;
        else if (metaspace)
            strip = j->t->add_space_prefix;
        else if (!is(decoder, i, "ByteFallback") && !is(decoder, i, "Fuse") &&
                 !(is(decoder, i, "Replace") && pattern_is(step, BLANK) && text_is(step, "content", " ")))
            return unknown(j, decoder, i);
    }
    if (decoder->n == 0 || strip != j->t->add_space_prefix)
        return tr_tokenizer_json_fail(j,
                                      "the decoder does not take off the blank that encoding adds, or there is none");
    return TR_OK;
}

/* ---- post-processor ---- */

/* One token before the text at most, none behind it. */
static tr_status read_template(tr_tokenizer_json *j, const json_t *step) {
    const json_t *single = json_object_get(step, "single");
    bool text = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *part = json_array_get(single, i);
        if (json_object_get(part, "Sequence")) {
            text = true;
            continue;
        }
        const char *id = json_string_value(json_object_get(json_object_get(part, "SpecialToken"), "id"));
        const json_t *ids =
            json_object_get(json_object_get(json_object_get(step, "special_tokens"), id ? id : ""), "ids");
        if (text)
            return tr_tokenizer_json_fail(j, "post_processor puts a token behind the text, which is not supported");
        if (j->template_bos >= 0 || json_array_size(ids) != 1 || !json_is_integer(json_array_get(ids, 0)))
            return tr_tokenizer_json_fail(j, "post_processor puts something else than one token before the text");
        j->template_bos = json_integer_value(json_array_get(ids, 0));
    }
    return TR_OK;
}

static tr_status read_post(tr_tokenizer_json *j) {
    steps s;
    TR_TRY(read_steps(j, "post_processor", "processors", &s));
    for (size_t i = 0; i < s.n; i++) {
        if (is(&s, i, "ByteLevel")) continue; /* moves offsets only */
        if (!is(&s, i, "TemplateProcessing")) return unknown(j, &s, i);
        TR_TRY(read_template(j, s.at[i]));
    }
    return TR_OK;
}

tr_status tr_tokenizer_json_steps(tr_tokenizer_json *j) {
    steps normalizer, words, decoder;
    TR_TRY(read_steps(j, "normalizer", "normalizers", &normalizer));
    TR_TRY(read_steps(j, "pre_tokenizer", "pretokenizers", &words));
    TR_TRY(read_steps(j, "decoder", "decoders", &decoder));
    if (tr_tokenizer_json_flag(j->model, "byte_fallback", false)) {
        j->t->kind = TR_TOKENIZER_SPM;
        TR_TRY(read_fallback(j, &normalizer, &words, &decoder));
    } else if (words.n > 0 && is(&words, words.n - 1, "ByteLevel")) {
        j->t->kind = TR_TOKENIZER_BPE;
        TR_TRY(read_byte_level(j, &normalizer, &words, &decoder));
    } else {
        return tr_tokenizer_json_fail(j,
                                      "BPE with neither byte_fallback nor a ByteLevel pre_tokenizer is not supported");
    }
    return read_post(j);
}
