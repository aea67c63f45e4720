/* The splitters on what tells them apart, and on random text: the words joined are the text, none is empty. */
#include "base/rng.h"
#include "model/pretokenize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *const kinds[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static tr_pretokenize_kind kind_of(const char *name) {
    tr_pretokenize_kind kind;
    assert_true(tr_pretokenize_find(name, strlen(name), &kind));
    return kind;
}

/* Expected words joined by '|', for gpt-2, smollm, llama-bpe, qwen2; NULL: as the one before. */
static const struct {
    const char *text, *words[N_KINDS];
} rows[] = {
    {"Hello world", {"Hello| world", NULL, NULL, NULL}},
    {"a  b", {"a| | b", NULL, NULL, NULL}},
    {"a   ", {"a|   ", NULL, NULL, NULL}},
    {" ", {" ", NULL, NULL, NULL}},
    {"  12", {" | 12", "  |1|2", " | |12", " | |1|2"}},
    {"12345", {"12345", "1|2|3|4|5", "123|45", "1|2|3|4|5"}},
    {"x 1", {"x| 1", "x| |1", "x| |1", NULL}},
    {"I'm DON'T we're THEY'VE he'll",
     {"I|'m| DON|'|T| we|'re| THEY|'|VE| he|'ll", NULL, "I|'m| DON|'T| we|'re| THEY|'VE| he|'ll", NULL}},
    {"'sx 'x", {"'s|x| '|x", NULL, "'s|x| '|x", NULL}},
    {"a\n\nb", {"a|\n|\n|b", NULL, "a|\n\n|b", NULL}},
    {"a \n b", {"a| \n| b", NULL, "a| \n| b", NULL}},
    {"a \r\n\t\n  b", {"a| \r\n\t\n | b", NULL, "a| \r\n\t\n| | b", NULL}},
    {"x!!\n\n y", {"x|!!|\n\n| y", NULL, "x|!!\n\n| y", NULL}},
    {"(word)", {"(|word|)", NULL, "(word|)", NULL}},
    {"\tword", {"\t|word", NULL, "\tword", NULL}},
    {" \xc3\xa9\xcc\x81x", {" \xc3\xa9|\xcc\x81|x", NULL, " \xc3\xa9|\xcc\x81x", NULL}},
    {"\xe4\xb8\xad\xe6\x96\x87 \xe3\x80\x82", {"\xe4\xb8\xad\xe6\x96\x87| \xe3\x80\x82", NULL, NULL, NULL}},
    {"\xc2\xbd\xd9\xa3", {"\xc2\xbd\xd9\xa3", "\xc2\xbd|\xd9\xa3", "\xc2\xbd\xd9\xa3", "\xc2\xbd|\xd9\xa3"}},
    {"a\xff", {"a|\xff", NULL, NULL, NULL}},
};

static void test_words(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *want = NULL;
        for (size_t k = 0; k < N_KINDS; k++) {
            if (rows[i].words[k] != NULL) want = rows[i].words[k];
            char got[128];
            size_t n = 0, begin, len;
            tr_pretokenize p;
            tr_pretokenize_init(&p, kind_of(kinds[k]), rows[i].text, strlen(rows[i].text));
            while (tr_pretokenize_next(&p, &begin, &len)) {
                if (n > 0) got[n++] = '|';
                memcpy(got + n, rows[i].text + begin, len);
                n += len;
            }
            got[n] = 0;
            if (strcmp(got, want) != 0) fail_msg("%s, text %zu: got \"%s\", want \"%s\"", kinds[k], i, got, want);
        }
    }
}

static void test_cover(void **state) {
    (void)state;
    static const char *const bits[] = {" ",
                                       "\n",
                                       "\r",
                                       "\t",
                                       "a",
                                       "Z",
                                       "1",
                                       "'",
                                       "s",
                                       "ll",
                                       "!",
                                       "\xcc\x81",
                                       "\xc2\xbd",
                                       "\xe4\xb8\xad",
                                       "\xf0\x9f\x98\x80",
                                       "\xff",
                                       "\xe3\x80\x80",
                                       "\xe4"};
    tr_rng rng = {5};
    for (int round = 0; round < 20000; round++) {
        char text[128];
        size_t len = 0, pos = 0, begin, size;
        for (uint64_t i = tr_rng_below(&rng, 24); i > 0; i--) {
            const char *bit = bits[tr_rng_below(&rng, sizeof bits / sizeof *bits)];
            memcpy(text + len, bit, strlen(bit));
            len += strlen(bit);
        }
        tr_pretokenize p;
        tr_pretokenize_init(&p, kind_of(kinds[round % N_KINDS]), text, len);
        for (; tr_pretokenize_next(&p, &begin, &size); pos += size) {
            assert_int_equal(begin, pos);
            assert_true(size > 0 && size <= len - pos);
        }
        assert_int_equal(pos, len);
    }
}

static void test_names(void **state) {
    (void)state;
    tr_pretokenize_kind kind = TR_PRETOKENIZE_QWEN2;
    assert_false(tr_pretokenize_find("", 0, &kind));
    assert_false(tr_pretokenize_find("gpt-2x", 6, &kind));
    assert_false(tr_pretokenize_find("default", 7, &kind));
    assert_int_equal(kind, TR_PRETOKENIZE_QWEN2);
    assert_int_equal(kind_of("llama-v3"), TR_PRETOKENIZE_LLAMA3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_words), cmocka_unit_test(test_cover),
                                       cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
