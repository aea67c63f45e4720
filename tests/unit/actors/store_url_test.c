/* Addresses of a store. */
#include "actors/cli/store_url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void good(void **state) {
    (void)state;
    static const struct {
        const char *text, *host;
        uint32_t port, db;
        bool local;
    } all[] = {{"redis://127.0.0.1:7000/3", "127.0.0.1", 7000, 3, true},
               {"redis://127.0.0.1", "127.0.0.1", 6379, 0, true},
               {"redis://localhost/", "127.0.0.1", 6379, 0, true},
               {"redis://[::1]:1", "::1", 1, 0, true},
               {"redis://[fe80::2]", "fe80::2", 6379, 0, false},
               {"redis://10.0.0.7:65535", "10.0.0.7", 65535, 0, false},
               {"unix:///run/redis/s", "/run/redis/s", 6379, 0, true},
               {"unix:///s?db=12", "/s", 6379, 12, true}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        tr_company_store s;
        memset(&s, 0xee, sizeof s);
        assert_int_equal(tr_store_url_parse(all[i].text, &s, NULL), TR_OK);
        assert_string_equal(s.host, all[i].host);
        assert_true(s.port == all[i].port && s.db == all[i].db && tr_store_url_is_local(&s) == all[i].local);
    }
}

static void bad(void **state) {
    (void)state;
    char longest[400] = "unix:///", host[300] = "redis://";
    memset(longest + 8, 'a', 120);
    memset(host + 8, '1', 200);
    const char *const all[] = {"",
                               "127.0.0.1:6379",
                               "http://127.0.0.1",
                               "redis://",
                               "redis://:6379",
                               "redis://example.org",
                               "redis://me:word@127.0.0.1",
                               "redis://127.0.0.1:",
                               "redis://127.0.0.1:0",
                               "redis://127.0.0.1:65536",
                               "redis://127.0.0.1:6379999999999",
                               "redis://127.0.0.1:-1",
                               "redis://127.0.0.1/x",
                               "redis://127.0.0.1/1/2",
                               "redis://[::1",
                               "redis://[]",
                               "redis://::1]",
                               "unix://x",
                               "unix://",
                               "unix:///s?db=",
                               "unix:///s?x=1",
                               longest,
                               host};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        tr_company_store s = {.port = 0};
        tr_error err = {0};
        assert_int_equal(tr_store_url_parse(all[i], &s, &err), TR_CONFIG);
        assert_non_null(strstr(err.text, "kv.store"));
        assert_null(strstr(err.text, "word@"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(bad)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
