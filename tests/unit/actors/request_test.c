/* Finding requests in the table and in the journal. */
#include "actors/frontend/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SLOTS = 3, CONTEXT = 16 };
static const uint8_t alice[2] = {1, 2}, bob[3] = {1, 2, 3};

static tr_journal *journal(void) {
    tr_journal *j = calloc(1, tr_journal_bytes(SLOTS, CONTEXT));
    assert_non_null(j);
    tr_journal_init(j, SLOTS, CONTEXT);
    return j;
}

static tr_journal_entry *enter(tr_journal *j, uint32_t slot, tr_journal_state state, uint64_t rid, uint64_t id) {
    tr_journal_entry *e = tr_journal_at(j, slot);
    e->rid = rid;
    e->id = id;
    e->client_len = sizeof alice;
    memcpy(e->client, alice, sizeof alice);
    atomic_store(&e->state, (uint32_t)state);
    return e;
}

static void test_journal(void **state) {
    (void)state;
    tr_journal *j = journal();
    tr_journal_entry *done = enter(j, 0, TR_JOURNAL_DONE, 100, 7);
    assert_ptr_equal(tr_request_journal(j, 100), done);
    /* An id is free again once its request has ended, although the journal still holds it. */
    assert_null(tr_request_journal_client(j, alice, sizeof alice, 7, 0));
    tr_journal_entry *open = enter(j, 2, TR_JOURNAL_OPEN, 101, 7);
    assert_ptr_equal(tr_request_journal_client(j, alice, sizeof alice, 7, 0), open);
    assert_null(tr_request_journal_client(j, alice, sizeof alice, 8, 0));
    assert_null(tr_request_journal_client(j, bob, sizeof bob, 7, 0));
    enter(j, 2, TR_JOURNAL_FREE, 101, 7);
    assert_null(tr_request_journal(j, 101));
    assert_null(tr_request_journal_client(j, alice, sizeof alice, 7, 0));
    free(j);
}

static void test_table(void **state) {
    (void)state;
    tr_request_table t;
    assert_int_equal(tr_request_table_create(2, &t), TR_OK);
    tr_request *a = tr_request_add(&t, 1, alice, sizeof alice, 7), *b = tr_request_add(&t, 2, bob, sizeof bob, 7);
    assert_null(tr_request_add(&t, 3, bob, sizeof bob, 8));
    assert_ptr_equal(tr_request_find(&t, 2), b);
    assert_ptr_equal(tr_request_find_client(&t, alice, sizeof alice, 7, 0), a);
    assert_ptr_equal(tr_request_find_client(&t, bob, sizeof bob, 7, 0), b);
    tr_request_remove(&t, a);
    assert_null(tr_request_find(&t, 1));
    assert_null(tr_request_find_client(&t, alice, sizeof alice, 7, 0));
    assert_int_equal(t.n, 1);
    assert_non_null(tr_request_add(&t, 3, alice, sizeof alice, 8));
    tr_request_table_destroy(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_journal), cmocka_unit_test(test_table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
