/* The tokenizers against llama.cpp's stored answers (tests/golden/tokenizer, made by
 * tests/tools/make_tokenizer_golden.py): reduced vocabularies always, full ones where the file is found in
 * $TROUPE_TEST_MODELS or the model cache. Then: malformed vocabularies, special tokens, capacity, the number of
 * operations on degenerate texts. */
#include "base/rng.h"
#include "model/tokenizer.h"
#include "model/tokenizer_impl.h"
#include "tests/tools/gguf_build.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/model/vocab.h"

static void assert_tokens(const tr_tokenizer *t, const char *text, size_t len, unsigned flags, const uint32_t *want,
                          size_t n_want, const char *where) {
    size_t cap = tr_tokenizer_bound(len), n = 0;
    uint32_t *ids = malloc(cap * sizeof *ids);
    tr_error err = {0};
    if (tr_tokenizer_encode(t, text, len, flags, ids, cap, &n, &err) != TR_OK) fail_msg("%s: %s", where, err.text);
    for (size_t i = 0; i < n && i < n_want; i++) {
        if (ids[i] != want[i]) fail_msg("%s: token %zu is %u, want %u", where, i, ids[i], want[i]);
    }
    if (n != n_want) fail_msg("%s: %zu tokens, want %zu", where, n, n_want);
    free(ids);
}

/* One line "flags hex ids...". */
static void check_line(const tr_tokenizer *t, char *line, const char *where) {
    static char text[1 << 16];
    static uint32_t want[1 << 16];
    size_t len = 0, n = 0;
    char *save = NULL, *word = strtok_r(line, " \n", &save);
    unsigned flags = (unsigned)strtoul(word, NULL, 10);
    word = strtok_r(NULL, " \n", &save);
    for (const char *p = word; p[0] != '-' && p[0] != 0; p += 2) {
        unsigned byte;
        assert_int_equal(sscanf(p, "%2x", &byte), 1);
        assert_true(len < sizeof text);
        text[len++] = (char)byte;
    }
    while ((word = strtok_r(NULL, " \n", &save)) != NULL) want[n++] = (uint32_t)strtoul(word, NULL, 10);
    assert_tokens(t, text, len, flags, want, n, where);
}

static int check_answers(const char *vocab, const char *answers) {
    tr_tokenizer *t = open_vocab(vocab);
    FILE *f = fopen(answers, "r");
    assert_non_null(f);
    char *line = NULL, where[256];
    size_t cap = 0;
    int number = 0, checked = 0;
    while (getline(&line, &cap, f) > 0) {
        snprintf(where, sizeof where, "%s:%d", answers, ++number);
        if (line[0] == '#') continue;
        check_line(t, line, where);
        checked++;
    }
    free(line);
    fclose(f);
    tr_tokenizer_destroy(&t);
    assert_null(t);
    return checked;
}

static const char *const vocabs[] = {"llama-spm", "phi-3",       "llama-bpe",   "gpt-2",
                                     "qwen2",     "gemma3-270m", "smollm2-135m"};
enum { N_VOCABS = sizeof vocabs / sizeof *vocabs };

static void test_small(void **state) {
    (void)state;
    for (size_t i = 0; i < N_VOCABS; i++) {
        char vocab[128], answers[128];
        snprintf(vocab, sizeof vocab, GOLDEN "%s-small.gguf", vocabs[i]);
        snprintf(answers, sizeof answers, GOLDEN "%s-small.txt", vocabs[i]);
        assert_true(check_answers(vocab, answers) > 300);
    }
}

/* Path of a full vocabulary on this machine; false when it is not there. */
static bool find_full(const char *name, char *path, size_t cap) {
    const char *test = getenv("TROUPE_TEST_MODELS"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char dirs[2][512] = {"", ""};
    if (test != NULL) snprintf(dirs[0], sizeof dirs[0], "%s", test);
    if (cache != NULL && cache[0] != 0)
        snprintf(dirs[1], sizeof dirs[1], "%s/troupe/models", cache);
    else if (home != NULL)
        snprintf(dirs[1], sizeof dirs[1], "%s/.cache/troupe/models", home);
    for (size_t d = 0; d < 2; d++) {
        for (size_t f = 0; f < 2 && dirs[d][0] != 0; f++) {
            snprintf(path, cap, f == 0 ? "%s/%s.gguf" : "%s/ggml-vocab-%s.gguf", dirs[d], name);
            if (access(path, R_OK) == 0) return true;
        }
    }
    return false;
}

static void test_full(void **state) {
    (void)state;
    int found = 0;
    for (size_t i = 0; i < N_VOCABS; i++) {
        char vocab[2048], answers[128];
        if (!find_full(vocabs[i], vocab, sizeof vocab)) {
            print_message("skipped %s: no such file in $TROUPE_TEST_MODELS or the model cache\n", vocabs[i]);
            continue;
        }
        snprintf(answers, sizeof answers, GOLDEN "%s.txt", vocabs[i]);
        assert_true(check_answers(vocab, answers) > 200);
        found++;
    }
    if (found == 0) skip();
}

/* ---- hand-made vocabularies ---- */

typedef struct entry {
    const char *text;
    int32_t type;
    float score;
} entry;

static void put_entries(tr_gguf_build *b, const entry *e, size_t n, bool scores) {
    tr_gguf_build_arr(b, "tokenizer.ggml.tokens", TR_GGUF_STR, n);
    for (size_t i = 0; i < n; i++) tr_gguf_build_text(b, e[i].text, strlen(e[i].text));
    tr_gguf_build_arr(b, "tokenizer.ggml.token_type", TR_GGUF_I32, n);
    for (size_t i = 0; i < n; i++) tr_gguf_build_raw(b, &e[i].type, 4);
    if (!scores) return;
    tr_gguf_build_arr(b, "tokenizer.ggml.scores", TR_GGUF_F32, n);
    for (size_t i = 0; i < n; i++) tr_gguf_build_raw(b, &e[i].score, 4);
}

static void put_merges(tr_gguf_build *b, const char *const *merges, size_t n) {
    tr_gguf_build_arr(b, "tokenizer.ggml.merges", TR_GGUF_STR, n);
    for (size_t i = 0; i < n; i++) tr_gguf_build_text(b, merges[i], strlen(merges[i]));
}

static tr_status create(tr_gguf_build *b, tr_tokenizer **t, tr_error *err) {
    tr_gguf *g = NULL;
    tr_gguf_build_end(b);
    if (tr_gguf_open_buffer(b->data, b->n, "vocab", &g, err) != TR_OK) fail_msg("%s", err->text);
    tr_status status = tr_tokenizer_create(g, t, err);
    tr_gguf_close(&g);
    return status;
}

static const entry spm[] = {{"<unk>", 2, 0},
                            {"<s>", 3, 0},
                            {"</s>", 3, 0},
                            {"\xe2\x96\x81", 1, -1},
                            {"a", 1, -2},
                            {"b", 1, -3},
                            {"ab", 1, -1.5f},
                            {"\xe2\x96\x81"
                             "a",
                             1, -1.25f},
                            {"<0x0A>", 6, 0},
                            {"<<", 4, 0},
                            {"<<>>", 4, 0},
                            {">>", 4, 0},
                            {"<end_of_turn>", 1, 0}};
enum { N_SPM = sizeof spm / sizeof *spm };

static void begin_spm(tr_gguf_build *b) {
    tr_gguf_build_begin(b);
    tr_gguf_build_str(b, "tokenizer.ggml.model", "llama");
}

static void test_spm_rules(void **state) {
    (void)state;
    static tr_gguf_build b;
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    begin_spm(&b);
    put_entries(&b, spm, N_SPM, true);
    if (create(&b, &t, &err) != TR_OK) fail_msg("%s", err.text);
    assert_tokens(t, "", 0, 0, NULL, 0, "empty");
    assert_tokens(t, "", 0, TR_TOKENIZE_BOS, (uint32_t[]){1}, 1, "empty with BOS");
    assert_tokens(t, "ab", 2, TR_TOKENIZE_BOS, (uint32_t[]){1, 7, 5}, 3, "blank first: best score wins");
    assert_tokens(t, "a\n", 2, 0, (uint32_t[]){7, 8}, 2, "byte token");
    assert_tokens(t, "z", 1, 0, (uint32_t[]){3, 0}, 2, "unknown");
    assert_tokens(t, "ab<<>>ab", 8, 0, (uint32_t[]){7, 5, 10, 7, 5}, 5, "longest user-defined token, blank after it");
    assert_tokens(t, "<<<>>", 5, 0, (uint32_t[]){3, 0, 10}, 3, "the longer token takes its bytes first");
    assert_tokens(t, "<<<>", 4, 0, (uint32_t[]){9, 3, 0, 0}, 4, "leftmost first");
    assert_tokens(t, "</s>a", 5, TR_TOKENIZE_PARSE_SPECIAL, (uint32_t[]){2, 7}, 2, "control parsed");
    assert_tokens(t, "</s>", 4, 0, (uint32_t[]){3, 0, 0, 0, 0}, 5, "control is text");
    assert_tokens(t, "<end_of_turn>", 13, TR_TOKENIZE_PARSE_SPECIAL, (uint32_t[]){12}, 1, "control by its name");
    assert_true(tr_tokenizer_is_eog(t, 2) && tr_tokenizer_is_eog(t, 12) && !tr_tokenizer_is_eog(t, 1));
    assert_false(tr_tokenizer_is_eog(t, 1000));
    assert_true(tr_tokenizer_is_control(t, 12) && tr_tokenizer_is_control(t, 0) && !tr_tokenizer_is_control(t, 4));
    assert_int_equal(tr_tokenizer_find(t, "ab"), 6);
    assert_int_equal(tr_tokenizer_find(t, "abab"), TR_TOKENIZER_NONE);
    assert_int_equal(tr_tokenizer_bos(t), 1);
    assert_int_equal(tr_tokenizer_eos(t), 2);
    assert_int_equal(tr_tokenizer_vocab(t), N_SPM);

    uint32_t ids[2] = {0, 99};
    size_t n = 0;
    assert_int_equal(tr_tokenizer_encode(t, "ab", 2, 0, ids, 1, &n, &err), TR_EXHAUSTED);
    assert_true(n == 2 && ids[0] == 7 && ids[1] == 99);
    char buf[8];
    assert_int_equal(tr_tokenizer_piece(t, 7, false, buf, 1, &n), TR_EXHAUSTED);
    assert_int_equal(n, 2);
    assert_int_equal(tr_tokenizer_piece(t, 7, false, buf, 2, &n), TR_OK);
    assert_memory_equal(buf, " a", 2);
    assert_int_equal(tr_tokenizer_piece(t, N_SPM, false, buf, 2, &n), TR_INVALID);
    tr_tokenizer_destroy(&t);
    tr_tokenizer_destroy(&t);
}

/* What a bad vocabulary is and what the message must say. */
enum {
    BAD_MODEL,
    BAD_PRE,
    NO_TOKENS,
    TOKENS_TYPE,
    DUPLICATE,
    TYPE_COUNT,
    TYPE_TYPE,
    BYTE_FORM,
    NO_SCORES,
    SCORE_COUNT,
    SCORE_NAN,
    SCORE_TYPE,
    EOS_RANGE,
    NO_MERGES,
    MERGE_UNKNOWN,
    MERGE_SPACE,
    MERGE_RESULT,
    MERGE_TYPE,
    N_BAD
};
static const char *const reasons[N_BAD] = {
    [BAD_MODEL] = "\"rwkv\" is not supported",
    [BAD_PRE] = "pre-tokenizer \"tekken\"",
    [NO_TOKENS] = "tokenizer.ggml.tokens, which is missing",
    [TOKENS_TYPE] = "tokenizer.ggml.tokens",
    [DUPLICATE] = "tokens 1 and 2 have the same text",
    [TYPE_COUNT] = "1 token types for 3 tokens",
    [TYPE_TYPE] = "tokenizer.ggml.token_type",
    [BYTE_FORM] = "byte token 2",
    [NO_SCORES] = "tokenizer.ggml.scores, which is missing",
    [SCORE_COUNT] = "1 scores for 3 tokens",
    [SCORE_NAN] = "score of token 0",
    [SCORE_TYPE] = "tokenizer.ggml.scores",
    [EOS_RANGE] = "eos_token_id is 3, but there are 3 tokens",
    [NO_MERGES] = "tokenizer.ggml.merges, which is missing",
    [MERGE_UNKNOWN] = "merge 0 is not",
    [MERGE_SPACE] = "merge 0 is not",
    [MERGE_RESULT] = "merge 1 is not",
    [MERGE_TYPE] = "tokenizer.ggml.merges",
};

static void put_bad_spm(tr_gguf_build *b, int bad) {
    entry e[3] = {{"<unk>", 2, 0}, {"a", 1, 0}, {bad == DUPLICATE ? "a" : "b", bad == BYTE_FORM ? 6 : 1, 0}};
    begin_spm(b);
    if (bad == EOS_RANGE) tr_gguf_build_num(b, "tokenizer.ggml.eos_token_id", 3);
    if (bad == TOKENS_TYPE) {
        tr_gguf_build_arr(b, "tokenizer.ggml.tokens", TR_GGUF_U32, 1);
        tr_gguf_build_u32(b, 5);
    } else if (bad == TYPE_COUNT || bad == TYPE_TYPE) {
        tr_gguf_build_arr(b, "tokenizer.ggml.token_type", bad == TYPE_COUNT ? TR_GGUF_I32 : TR_GGUF_F32, 1);
        tr_gguf_build_u32(b, 1);
        tr_gguf_build_arr(b, "tokenizer.ggml.tokens", TR_GGUF_STR, 3);
        for (size_t i = 0; i < 3; i++) tr_gguf_build_text(b, e[i].text, strlen(e[i].text));
    } else if (bad == SCORE_COUNT || bad == SCORE_TYPE) {
        put_entries(b, e, 3, false);
        tr_gguf_build_arr(b, "tokenizer.ggml.scores", bad == SCORE_COUNT ? TR_GGUF_F32 : TR_GGUF_STR, 1);
        tr_gguf_build_raw(b, (uint8_t[8]){0}, bad == SCORE_COUNT ? 4 : 8);
    } else if (bad != NO_TOKENS) {
        if (bad == SCORE_NAN) e[0].score = __builtin_nanf("");
        put_entries(b, e, 3, bad != NO_SCORES);
    }
}

static void put_bad_bpe(tr_gguf_build *b, int bad) {
    static const entry e[] = {{"a", 1, 0}, {"b", 1, 0}, {"ab", 1, 0}};
    tr_gguf_build_begin(b);
    tr_gguf_build_str(b, "tokenizer.ggml.model", bad == BAD_MODEL ? "rwkv" : "gpt2");
    tr_gguf_build_str(b, "tokenizer.ggml.pre", bad == BAD_PRE ? "tekken" : "qwen2");
    put_entries(b, e, 3, false);
    if (bad == MERGE_UNKNOWN) put_merges(b, (const char *const[]){"a c"}, 1);
    if (bad == MERGE_SPACE) put_merges(b, (const char *const[]){"ab"}, 1);
    if (bad == MERGE_RESULT) put_merges(b, (const char *const[]){"a b", "b a"}, 2);
    if (bad == MERGE_TYPE) tr_gguf_build_str(b, "tokenizer.ggml.merges", "a b");
}

static void test_malformed(void **state) {
    (void)state;
    static tr_gguf_build b;
    for (int bad = 0; bad < N_BAD; bad++) {
        tr_tokenizer *t = NULL;
        tr_error err = {0};
        if (bad == BAD_MODEL || bad == BAD_PRE || bad >= NO_MERGES)
            put_bad_bpe(&b, bad);
        else
            put_bad_spm(&b, bad);
        tr_status status = create(&b, &t, &err);
        if (status != TR_DATA || strstr(err.text, reasons[bad]) == NULL) {
            fail_msg("case %d: status %d, \"%s\", want \"%s\"", bad, status, err.text, reasons[bad]);
        }
        assert_null(t);
    }
}

/* A merge that stands twice keeps its first place; a byte that the vocabulary lacks leaves nothing. */
static void test_bpe_rules(void **state) {
    (void)state;
    static const entry e[] = {{"a", 1, 0}, {"b", 1, 0}, {"c", 1, 0}, {"ab", 1, 0}, {"bc", 1, 0}, {"abc", 1, 0}};
    static tr_gguf_build b;
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    tr_gguf_build_begin(&b);
    tr_gguf_build_str(&b, "tokenizer.ggml.model", "gpt2");
    tr_gguf_build_str(&b, "tokenizer.ggml.pre", "gpt-2");
    put_entries(&b, e, sizeof e / sizeof *e, false);
    put_merges(&b, (const char *const[]){"b c", "a b", "b c", "ab c"}, 4);
    if (create(&b, &t, &err) != TR_OK) fail_msg("%s", err.text);
    assert_tokens(t, "abc", 3, TR_TOKENIZE_BOS, (uint32_t[]){0, 4}, 2, "rank order");
    assert_tokens(t, "abxab", 5, 0, (uint32_t[]){3, 3}, 2, "missing byte");
    assert_int_equal(tr_tokenizer_bos(t), TR_TOKENIZER_NONE);
    tr_tokenizer_destroy(&t);
}

/* Special tokens found in random text: the straightforward definition (each token in turn, longest first, takes its
 * occurrences in what is left) against the heap. */
static size_t naive_cuts(const tr_tokenizer *t, const char *text, size_t len, uint32_t *at) {
    size_t n = 0;
    memset(at, 0xff, len * sizeof *at);
    for (uint32_t rank = 0; rank < t->n_special; rank++) {
        tr_tokenizer_span span = t->spans[t->order[rank]];
        if ((t->attrs[t->order[rank]] & (TR_TOKENIZER_CONTROL | TR_TOKENIZER_UNKNOWN)) != 0) continue;
        for (size_t i = 0; i + span.len <= len; i++) {
            bool free_run = memcmp(text + i, t->bytes + span.offset, span.len) == 0;
            for (size_t k = 0; k < span.len && free_run; k++) free_run = at[i + k] == UINT32_MAX;
            if (!free_run) continue;
            for (size_t k = 0; k < span.len; k++) at[i + k] = UINT32_MAX - 1;
            at[i] = t->order[rank];
            n++;
        }
    }
    return n;
}

static void test_special_order(void **state) {
    (void)state;
    static const entry e[] = {{"<unk>", 2, 0}, {"<s>", 3, 0}, {"</s>", 3, 0}, {"ab", 4, 0}, {"abc", 4, 0},
                              {"bc", 4, 0},    {"cab", 4, 0}, {"aaaa", 4, 0}, {"aa", 4, 0}, {"cc", 4, 0},
                              {"bcaab", 4, 0}, {"a", 1, 0},   {"b", 1, 0},    {"c", 1, 0}};
    static tr_gguf_build b;
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    begin_spm(&b);
    tr_gguf_build_bool(&b, "tokenizer.ggml.add_space_prefix", false);
    put_entries(&b, e, sizeof e / sizeof *e, true);
    if (create(&b, &t, &err) != TR_OK) fail_msg("%s", err.text);
    tr_rng rng = {9};
    for (int round = 0; round < 20000; round++) {
        char text[40];
        uint32_t at[40], want[40];
        size_t len = 1 + tr_rng_below(&rng, sizeof text - 1), n = 0;
        for (size_t i = 0; i < len; i++) text[i] = (char)('a' + tr_rng_below(&rng, 3));
        naive_cuts(t, text, len, at);
        for (size_t i = 0; i < len; i++) {
            if (at[i] == UINT32_MAX)
                want[n++] = tr_tokenizer_find(t, (char[]){text[i], 0});
            else if (at[i] != UINT32_MAX - 1)
                want[n++] = at[i];
        }
        assert_tokens(t, text, len, 0, want, n, "cuts");
    }
    tr_tokenizer_destroy(&t);
}

/* Operations (heap moves, lookups, trie steps) on 256 KiB of one character, and their growth from a quarter of it:
 * n log n stays below 64 a byte and grows by about 4; a quadratic step would be at 65,536 a byte. */
static void test_work(void **state) {
    (void)state;
    static const char *const units[] = {
        " ",  "a", "\n", "\t",           "-",    "1",    "\xcc\x81", "\xe4\xb8\xad", "\xf0\x9f\x98\x80",
        "ab", "<", "a ", "\xe2\x96\x81", "\xff", "</s>", "'"};
    size_t len = 1 << 18, cap = tr_tokenizer_bound(len);
    char *text = malloc(len);
    uint32_t *ids = malloc(cap * sizeof *ids);
    for (size_t v = 0; v < N_VOCABS; v++) {
        char path[128];
        snprintf(path, sizeof path, GOLDEN "%s-small.gguf", vocabs[v]);
        tr_tokenizer *t = open_vocab(path);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t size = strlen(units[u]), n;
            int64_t work[2];
            tr_error err = {0};
            for (size_t i = 0; i < len; i++) text[i] = units[u][i % size];
            for (int k = 0; k < 2; k++) {
                size_t part = k == 0 ? len / 4 : len;
                assert_int_equal(
                    tr_tokenizer_encode_counted(t, text, part, TR_TOKENIZE_PARSE_SPECIAL, ids, cap, &n, &work[k], &err),
                    TR_OK);
            }
            if (work[1] > 64 * (int64_t)len || work[1] > 6 * work[0] + 1000) {
                fail_msg("%s, '%s': %lld operations on 64 KiB, %lld on 256 KiB", vocabs[v], units[u],
                         (long long)work[0], (long long)work[1]);
            }
        }
        tr_tokenizer_destroy(&t);
    }
    free(ids);
    free(text);
}

static void test_too_long(void **state) {
    (void)state;
    tr_tokenizer *t = open_vocab(GOLDEN "gpt-2-small.gguf");
    tr_error err = {0};
    size_t n = 7;
    assert_int_equal(tr_tokenizer_encode(t, "", (size_t)TR_TOKENIZER_MAX_TEXT + 1, 0, NULL, 0, &n, &err), TR_DATA);
    assert_int_equal(n, 7);
    tr_tokenizer_destroy(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),     cmocka_unit_test(test_full),      cmocka_unit_test(test_spm_rules),
        cmocka_unit_test(test_bpe_rules), cmocka_unit_test(test_malformed), cmocka_unit_test(test_special_order),
        cmocka_unit_test(test_work),      cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
