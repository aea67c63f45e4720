/* Key files: what keygen writes is read back, and everything else is refused in words. */
#include "transport/curve_key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64], path[96];
static tr_error err;

static const char *file(const char *name) {
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int fresh(void **state) {
    (void)state;
    strcpy(dir, "/tmp/tr-keys-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}
static int clean(void **state) {
    (void)state;
    unlink(file("a.key"));
    unlink(file("a.pub"));
    return rmdir(dir);
}

static void write_file(const char *name, const char *text, mode_t mode) {
    unlink(file(name));
    FILE *f = fopen(file(name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    chmod(file(name), mode);
}

static void test_round_trip(void **state) {
    (void)state;
    tr_curve_key made, read;
    char public[TR_CURVE_KEY_TEXT];
    struct stat st;
    assert_int_equal(tr_curve_key_create(dir, "a", &made, &err), TR_OK);
    assert_int_equal(tr_curve_key_read(dir, "a", &read, &err), TR_OK);
    assert_string_equal(made.secret_text, read.secret_text);
    assert_string_equal(made.public_text, read.public_text); /* computed from the secret */
    assert_int_equal(tr_curve_key_read_public(dir, "a", public, &err), TR_OK);
    assert_string_equal(public, made.public_text);
    stat(file("a.key"), &st);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(tr_curve_key_create(dir, "a", &made, &err), TR_CANNOT_CREATE); /* never overwritten */
    tr_curve_key_wipe(&made);
    assert_int_equal(made.secret_text[0], 0);
}

static void test_refused(void **state) {
    (void)state;
    tr_curve_key key;
    static const char *const bad[] = {"", "short", "0123456789012345678901234567890123456789x",
                                      "~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~\n"};
    assert_int_equal(tr_curve_key_read(dir, "a", &key, &err), TR_CONFIG);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file("a.key", bad[i], 0600);
        if (tr_curve_key_read(dir, "a", &key, &err) != TR_CONFIG) fail_msg("accepted: %s", bad[i]);
    }
    unlink(file("a.key"));
    assert_int_equal(tr_curve_key_create(dir, "a", &key, &err), TR_OK);
    chmod(file("a.key"), 0644);
    assert_int_equal(tr_curve_key_read(dir, "a", &key, &err), TR_CONFIG);
    assert_non_null(strstr(err.text, "open to others"));
    assert_int_equal(tr_curve_key_read(dir, "../a", &key, &err), TR_CONFIG);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_round_trip, fresh, clean),
                                       cmocka_unit_test_setup_teardown(test_refused, fresh, clean)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
