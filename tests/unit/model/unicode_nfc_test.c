/* Normalization form C: pairs of text and result (UAX 15), what is composed already, and a long run of marks. */
#include "model/unicode_nfc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const pairs[][2] = {
    {"", ""},
    {"plain text\n", "plain text\n"},
    {"e\xcc\x81", "\xc3\xa9"},                                /* e, acute */
    {"xe\xcc\x81y", "x\xc3\xa9y"},                            /* between others */
    {"\xc3\xa9", "\xc3\xa9"},                                 /* composed already */
    {"\xe2\x84\xab", "\xc3\x85"},                             /* the Angstrom sign, by way of A and ring */
    {"\xe2\x84\xa6", "\xce\xa9"},                             /* the Ohm sign: one for one */
    {"q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87"},               /* marks in order of their classes */
    {"s\xcc\x87\xcc\xa3", "\xe1\xb9\xa9"},                    /* both join, whatever their order */
    {"a\xcc\xb4\xcc\x80", "\xc3\xa0\xcc\xb4"},                /* a mark of another class does not block */
    {"a\xcc\x81\xcc\x80", "\xc3\xa1\xcc\x80"},                /* one of the same class does */
    {"\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"},             /* excluded from composition */
    {"\xe1\x84\x80\xe1\x85\xa1", "\xea\xb0\x80"},             /* Hangul L V */
    {"\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"}, /* L V T */
    {"\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81"},             /* LV T */
    {"\xea\xb0\x80\xe1\x86\xa7", "\xea\xb0\x80\xe1\x86\xa7"}, /* that T is none */
    {"\xcc\x81"
     "a",
     "\xcc\x81"
     "a"},                                                    /* a mark with nothing before it */
    {"\xf0\x9d\x85\x9e", "\xf0\x9d\x85\x97\xf0\x9d\x85\xa5"}, /* grows */
};

static void pairs_of_text_and_result(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char out[64];
        size_t n = 99;
        assert_int_equal(tr_unicode_nfc(pairs[i][0], strlen(pairs[i][0]), out, &n), TR_OK);
        out[n] = 0;
        assert_string_equal(out, pairs[i][1]);
        assert_int_equal(tr_unicode_nfc(pairs[i][1], strlen(pairs[i][1]), out, &n), TR_OK);
        assert_int_equal(n, strlen(pairs[i][1]));
    }
}

/* Half above, half below: sorted stably, in a moment. */
static void a_long_run_of_marks(void **state) {
    (void)state;
    enum { MARKS = 200000 };
    char *text = malloc(2 * MARKS + 1), *out = malloc(3 * (2 * MARKS + 1));
    size_t n;
    text[0] = 'q';
    for (size_t i = 0; i < MARKS; i++)
        memcpy(text + 1 + 2 * i, i % 2 ? "\xcc\xa3" : i % 4 ? "\xcc\x88" : "\xcc\x87", 2);
    assert_int_equal(tr_unicode_nfc(text, 2 * MARKS + 1, out, &n), TR_OK);
    assert_int_equal(n, 2 * MARKS + 1);
    assert_memory_equal(out, "q\xcc\xa3\xcc\xa3", 5);
    assert_memory_equal(out + 1 + MARKS, "\xcc\x87\xcc\x88\xcc\x87\xcc\x88", 8);
    free(text);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_of_text_and_result),
        cmocka_unit_test(a_long_run_of_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
