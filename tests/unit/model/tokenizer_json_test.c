/* tokenizer.json against stored answers of the tokenizers library (tests/golden/tokenizer_json, made by
 * tests/tools/compare_tokenizer_json.py --golden); then what the sections may say, and every refusal. */
#include "base/file_map.h"
#include "model/tokenizer_file.h"
#include "model/tokenizer_impl.h"
#include "model/tokenizer_json.h"
#include "model/tokenizer_source.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define GOLDEN "tests/golden/tokenizer_json/"

static tr_tokenizer *open_folder(const char *name) {
    char path[256];
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    snprintf(path, sizeof path, GOLDEN "%s", name);
    if (tr_tokenizer_source_open(path, &t, &err) != TR_OK) fail_msg("%s", err.text);
    return t;
}

/* One line "flags hex ids...". */
static void check_line(const tr_tokenizer *t, char *line, const char *where) {
    static char text[1 << 14];
    static uint32_t ids[1 << 14];
    size_t len = 0, n = 0, i = 0;
    char *save = NULL;
    const unsigned flags = (unsigned)strtoul(strtok_r(line, " \n", &save), NULL, 10);
    for (const char *p = strtok_r(NULL, " \n", &save); p[0] != '-' && p[0] != 0; p += 2) {
        unsigned byte;
        assert_int_equal(sscanf(p, "%2x", &byte), 1);
        assert_true(len < sizeof text);
        text[len++] = (char)byte;
    }
    if (tr_tokenizer_encode(t, text, len, flags, ids, sizeof ids / sizeof *ids, &n, NULL) != TR_OK)
        fail_msg("%s: no room", where);
    for (const char *word; (word = strtok_r(NULL, " \n", &save)) != NULL; i++)
        if (i >= n || ids[i] != strtoul(word, NULL, 10))
            fail_msg("%s: token %zu of %zu is %u, want %s", where, i, n, i < n ? ids[i] : 0, word);
    if (i != n) fail_msg("%s: %zu tokens, want %zu", where, n, i);
}

static int check_answers(const tr_tokenizer *t, const char *name) {
    char path[256], where[300], *line = NULL;
    size_t cap = 0;
    int number = 0, checked = 0;
    snprintf(path, sizeof path, GOLDEN "%s/answers.txt", name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (getline(&line, &cap, f) > 0) {
        snprintf(where, sizeof where, "%s:%d", path, ++number);
        if (line[0] == '#') continue;
        check_line(t, line, where);
        checked++;
    }
    free(line);
    fclose(f);
    return checked;
}

static const char *const names[] = {"llama-bpe", "qwen2", "smollm2-135m", "gemma3-270m", "llama-spm", "phi-3"};
enum { N_NAMES = sizeof names / sizeof *names };

static void equals_the_library(void **state) {
    (void)state;
    for (size_t i = 0; i < N_NAMES; i++) {
        tr_tokenizer *t = open_folder(names[i]);
        assert_true(check_answers(t, names[i]) > 200);
        tr_tokenizer_destroy(&t);
    }
}

/* The packed form holds all that the reading found. */
static void packed_is_the_same(void **state) {
    (void)state;
    for (size_t i = 0; i < N_NAMES; i++) {
        char path[] = "/tmp/tokenizer_json_XXXXXX";
        tr_tokenizer *t = open_folder(names[i]), *u = NULL;
        tr_error err = {0};
        const int fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(tr_tokenizer_file_write(t, 5, fd, &err), TR_OK);
        close(fd);
        if (tr_tokenizer_file_open(path, 5, &u, &err) != TR_OK) fail_msg("%s: %s", names[i], err.text);
        unlink(path);
        assert_true(check_answers(u, names[i]) > 200);
        assert_int_equal(tr_tokenizer_strips_space(u), tr_tokenizer_strips_space(t));
        assert_int_equal(tr_tokenizer_adds_bos(u), tr_tokenizer_adds_bos(t));
        tr_tokenizer_destroy(&u);
        tr_tokenizer_destroy(&t);
    }
}

/* ---- small files, written here ---- */

#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}"
#define VOCAB      "{\"a\":0,\"b\":1,\"ab\":2,\"\xc4\xa0\":3,\"c\":4,\"abc\":5}"
#define SMALL(model_more, vocab, merges, added, pre, post)                                                             \
    "{\"added_tokens\":[" added "],\"normalizer\":null,\"pre_tokenizer\":" pre ",\"post_processor\":" post             \
    ",\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\"" model_more ",\"vocab\":" vocab                 \
    ",\"merges\":" merges "}}"
#define ADDED(id, text, more) "{\"id\":" id ",\"content\":\"" text "\",\"special\":true" more "}"
#define PLAIN                 SMALL("", VOCAB, "[\"a b\",[\"ab\",\"c\"]]", ADDED("6", "<s>", ""), BYTE_LEVEL, "null")

static tr_status read_small(const char *text, const char *config, uint32_t rows, tr_tokenizer **out, tr_error *err) {
    const tr_tokenizer_json_text t = {text, strlen(text), "input"};
    const tr_tokenizer_json_text c = {config, config ? strlen(config) : 0, "config"};
    return tr_tokenizer_json_read(&t, &c, rows, out, err);
}

static void refuse(const char *text, const char *config, uint32_t rows, const char *reason) {
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    assert_int_equal(read_small(text, config, rows, &t, &err), TR_DATA);
    if (!strstr(err.text, reason)) fail_msg("\"%s\" lacks \"%s\"", err.text, reason);
    assert_null(t);
}

static tr_tokenizer *accept(const char *text, const char *config, uint32_t rows) {
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    if (read_small(text, config, rows, &t, &err) != TR_OK) fail_msg("%s", err.text);
    return t;
}

static void assert_ids(const tr_tokenizer *t, const char *text, unsigned flags, size_t n_want, const uint32_t *want) {
    uint32_t ids[64];
    size_t n;
    assert_int_equal(tr_tokenizer_encode(t, text, strlen(text), flags, ids, 64, &n, NULL), TR_OK);
    assert_int_equal(n, n_want);
    assert_memory_equal(ids, want, n * sizeof *ids);
}

static void small_ones(void **state) {
    (void)state;
    tr_tokenizer *t = accept(PLAIN, NULL, 0);
    assert_int_equal(tr_tokenizer_vocab(t), 7);
    assert_int_equal(tr_tokenizer_bos(t), TR_TOKENIZER_NONE);
    assert_ids(t, "abc", 0, 1, (uint32_t[]){5});
    assert_ids(t, "a bab", 0, 4, (uint32_t[]){0, 3, 1, 2});
    assert_ids(t, "azb", 0, 1, (uint32_t[]){2}); /* z is no token: what is around it meets */
    assert_ids(t, "zz", 0, 0, NULL);
    assert_ids(t, "a<s>b", TR_TOKENIZE_PARSE_SPECIAL, 3, (uint32_t[]){0, 6, 1});
    tr_tokenizer_destroy(&t);
    /* Rows without a token have no text; added tokens without a row are not there. */
    t = accept(PLAIN, NULL, 9);
    assert_int_equal(tr_tokenizer_vocab(t), 9);
    size_t n = 1;
    assert_int_equal(tr_tokenizer_piece(t, 8, true, NULL, 0, &n), TR_OK);
    assert_int_equal(n, 0);
    tr_tokenizer_destroy(&t);
    t = accept(PLAIN, NULL, 6);
    assert_int_equal(tr_tokenizer_vocab(t), 6);
    assert_int_equal(tr_tokenizer_find(t, "<s>"), TR_TOKENIZER_NONE);
    tr_tokenizer_destroy(&t);
    t = accept(PLAIN,
               "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"<s>\",\"add_bos_token\":true,"
               "\"model_max_length\":1000000000000000019884624838656}",
               0);
    assert_int_equal(tr_tokenizer_bos(t), 6);
    assert_true(tr_tokenizer_adds_bos(t) && tr_tokenizer_is_eog(t, 6));
    assert_ids(t, "a", TR_TOKENIZE_BOS, 2, (uint32_t[]){6, 0});
    tr_tokenizer_destroy(&t);
}

/* The library reads from left to right, and of the tokens at a place the longest. */
static void added_tokens_leftmost(void **state) {
    (void)state;
    tr_tokenizer *t = accept(SMALL("", VOCAB, "[]",
                                   ADDED("6", "xy", "") "," ADDED("7", "yzz", "") "," ADDED("8", "x", "") "," ADDED(
                                       "9", "[R]", ",\"rstrip\":true"),
                                   BYTE_LEVEL, "null"),
                             NULL, 0);
    assert_ids(t, "xyzz", TR_TOKENIZE_PARSE_SPECIAL, 1, (uint32_t[]){6});
    assert_ids(t, "xayzz", TR_TOKENIZE_PARSE_SPECIAL, 3, (uint32_t[]){8, 0, 7});
    assert_ids(t,
               "a[R] \n\xc2\xa0"
               "b",
               TR_TOKENIZE_PARSE_SPECIAL, 3, (uint32_t[]){0, 9, 1});
    tr_tokenizer_destroy(&t);
}

#define WORDS_AND(pre) SMALL("", VOCAB, "[]", "", pre, "null")
#define SPLIT(regex, behavior)                                                                                         \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex                    \
    "\"},\"behavior\":\"" behavior "\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"          \
    "\"use_regex\":false}]}"

static void refused_sections(void **state) {
    (void)state;
    refuse("[]", NULL, 0, "input: offset 0: not a JSON object");
    refuse("{\"a\":", NULL, 0, "syntax error");
    refuse("{}", NULL, 0, "model is missing");
    refuse("{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", NULL, 0, "model.type Unigram is not supported");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", NULL, 0, "neither byte_fallback nor");
    refuse(WORDS_AND("{\"type\":\"Whitespace\"}"), NULL, 0, "neither byte_fallback nor");
    refuse(WORDS_AND("{\"type\":\"ByteLevel\",\"add_prefix_space\":true}"), NULL, 0, "step ByteLevel is not supported");
    refuse(WORDS_AND(SPLIT("[a-z]+", "Isolated")), NULL, 0, "the expression [a-z]+ is not known");
    refuse(WORDS_AND(SPLIT("[a-z]+", "Removed")), NULL, 0, "step Split is not supported");
    refuse(SMALL("", VOCAB, "[]", "", BYTE_LEVEL, "{\"type\":\"BertProcessing\"}"), NULL, 0, "step BertProcessing");
    refuse(SMALL("", VOCAB, "[]", "", BYTE_LEVEL,
                 "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":"
                 "\"a\"}}],\"special_tokens\":{\"a\":{\"ids\":[0]}}}"),
           NULL, 0, "behind the text");
    refuse(
        SMALL("", VOCAB, "[]", "", BYTE_LEVEL,
              "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"q\"}}],\"special_tokens\":{}}"),
        NULL, 0, "something else than one token");
    refuse(SMALL(",\"continuing_subword_prefix\":\"##\"", VOCAB, "[]", "", BYTE_LEVEL, "null"), NULL, 0,
           "continuing_subword_prefix");
    refuse(SMALL(",\"dropout\":0.1", VOCAB, "[]", "", BYTE_LEVEL, "null"), NULL, 0, "dropout");
    refuse(SMALL(",\"unk_token\":\"a\"", VOCAB, "[]", "", BYTE_LEVEL, "null"), NULL, 0,
           "unknown token instead of byte");
    refuse(PLAIN, "{\"add_bos_token\":true}", 0, "bos_token names no token");
    refuse(PLAIN, "{\"add_eos_token\":true}", 0, "add_eos_token");
    refuse(PLAIN, "{\"a\":[", 0, "config: offset");
}

static void refused_tokens(void **state) {
    (void)state;
    refuse(SMALL("", "[]", "[]", "", BYTE_LEVEL, "null"), NULL, 0, "model.vocab is missing");
    refuse(SMALL("", "{\"a\":-1}", "[]", "", BYTE_LEVEL, "null"), NULL, 0, "the id of token a is no number");
    refuse(SMALL("", "{\"a\":0.5}", "[]", "", BYTE_LEVEL, "null"), NULL, 0, "the id of token a is no number");
    refuse(SMALL("", "{\"a\":1,\"b\":1}", "[]", "", BYTE_LEVEL, "null"), NULL, 0, "have the same id");
    refuse(SMALL("", "{\"a\":0,\"a\":1}", "[]", "", BYTE_LEVEL, "null"), NULL, 0, "syntax error");
    refuse(SMALL("", "{\"a\":5000}", "[]", "", BYTE_LEVEL, "null"), NULL, 0, "1 tokens with ids up to");
    refuse(PLAIN, NULL, 5, "the model's embedding has 5 rows");
    refuse(SMALL("", VOCAB, "[]", ADDED("0", "b", ""), BYTE_LEVEL, "null"), NULL, 0, "has the id of token a");
    refuse(SMALL("", VOCAB, "[]", ADDED("6", "b", ""), BYTE_LEVEL, "null"), NULL, 0,
           "tokens 1 and 6 have the same text");
    refuse(SMALL("", VOCAB, "[]", ADDED("6", "", ""), BYTE_LEVEL, "null"), NULL, 0, "content of added token 0");
    refuse(SMALL("", VOCAB, "[]", ADDED("6", "x", ",\"lstrip\":true"), BYTE_LEVEL, "null"), NULL, 0, "asks for lstrip");
    refuse(SMALL("", VOCAB, "[]", ADDED("6", "x", ",\"single_word\":true"), BYTE_LEVEL, "null"), NULL, 0,
           "single_word");
    refuse(SMALL("", VOCAB, "{}", "", BYTE_LEVEL, "null"), NULL, 0, "model.merges");
    refuse(SMALL("", VOCAB, "[\"a c\"]", "", BYTE_LEVEL, "null"), NULL, 0, "merge 0 is not a pair");
    refuse(SMALL("", VOCAB, "[\"a b c\"]", "", BYTE_LEVEL, "null"), NULL, 0, "merge 0 is not a pair");
    refuse(SMALL("", VOCAB, "[[\"a\",\"b\",\"c\"]]", "", BYTE_LEVEL, "null"), NULL, 0, "merge 0 is not a pair");
    refuse(SMALL("", VOCAB, "[[\"a\",1]]", "", BYTE_LEVEL, "null"), NULL, 0, "merge 0 is not a pair");
    refuse("{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{"
           "\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"first\",\"split\":false},"
           "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\"}}",
           NULL, 0, "byte_fallback without a token <0x00>");
}

/* A vocabulary of 256 byte tokens, a, b and the blank, with these sections. */
static tr_tokenizer *fallback(const char *normalizer, const char *pre, const char *decoder) {
    static char text[1 << 14];
    int n =
        snprintf(text, sizeof text,
                 "{\"normalizer\":%s,\"pre_tokenizer\":%s,\"decoder\":%s,\"added_tokens\":[" ADDED(
                     "259", "<s>", "") "],\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"merges\":[],\"vocab\":{",
                 normalizer, pre, decoder);
    for (int b = 0; b < 256; b++) n += snprintf(text + n, sizeof text - (size_t)n, "\"<0x%02X>\":%d,", b, b);
    snprintf(text + n, sizeof text - (size_t)n, "\"a\":256,\"b\":257,\"\xe2\x96\x81\":258}}}");
    return accept(text, NULL, 0);
}

#define METASPACE(scheme)                                                                                              \
    "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"" scheme "\",\"split\":false}"

static void blanks_in_front(void **state) {
    (void)state;
    const unsigned special = TR_TOKENIZE_PARSE_SPECIAL;
    tr_tokenizer *t = fallback("null", METASPACE("first"), METASPACE("first"));
    assert_true(tr_tokenizer_strips_space(t));
    assert_ids(t, "a<s>b", special, 4, (uint32_t[]){258, 256, 259, 257});
    assert_ids(t, " a", special, 2, (uint32_t[]){258, 256});
    assert_ids(t, "<s>a\xc3\xa9", special, 4, (uint32_t[]){259, 256, 0xc3, 0xa9});
    tr_tokenizer_destroy(&t);
    t = fallback("null", METASPACE("always"), METASPACE("always"));
    assert_ids(t, "a<s>b", special, 5, (uint32_t[]){258, 256, 259, 258, 257});
    assert_ids(t, " a", special, 2, (uint32_t[]){258, 256});
    tr_tokenizer_destroy(&t);
    t = fallback("null", METASPACE("never"), METASPACE("never"));
    assert_false(tr_tokenizer_strips_space(t));
    assert_ids(t, "a b", special, 3, (uint32_t[]){256, 258, 257});
    tr_tokenizer_destroy(&t);
}

static void folders(void **state) {
    (void)state;
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    assert_int_equal(tr_tokenizer_source_open("tests/golden/tiny/llama-hf", &t, &err), TR_UNAVAILABLE);
    assert_non_null(strstr(err.text, "tokenizer.json"));
    assert_int_equal(tr_tokenizer_source_open("tests/golden/tiny/no.gguf", &t, &err), TR_NO_INPUT);
    assert_int_equal(tr_tokenizer_source_open("tests/golden/tokenizer/gpt-2-small.gguf", &t, &err), TR_OK);
    tr_tokenizer_destroy(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_library), cmocka_unit_test(packed_is_the_same),
        cmocka_unit_test(small_ones),         cmocka_unit_test(added_tokens_leftmost),
        cmocka_unit_test(refused_sections),   cmocka_unit_test(refused_tokens),
        cmocka_unit_test(blanks_in_front),    cmocka_unit_test(folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
