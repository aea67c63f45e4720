/* Every state meets every event: what the table must keep, whatever is added to it. */
#include "scheduler/transfer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const tr_transfer_event issues[] = {TR_TRANSFER_ON_ISSUE_MOVE, TR_TRANSFER_ON_ISSUE_RESTORE,
                                           TR_TRANSFER_ON_ISSUE_SWAP, TR_TRANSFER_ON_ISSUE_SAVE};

static bool is_issue(uint32_t e) {
    for (uint32_t i = 0; i < 4; i++)
        if (issues[i] == e) return true;
    return false;
}
static bool last(uint32_t e) { return e == TR_TRANSFER_ON_ANSWER_LAST || e == TR_TRANSFER_ON_REFUSED_LAST; }
static bool rests(tr_transfer_state s) { return !tr_transfer_flies(s); }

/* The step does what the table says, and nothing where it says nothing. */
static void steps(void **state) {
    (void)state;
    for (uint32_t s = 0; s < TR_TRANSFER_N_STATES; s++)
        for (uint32_t e = 0; e < TR_TRANSFER_N_EVENTS; e++) {
            const tr_transfer_rule *r = &tr_transfer_table[s][e];
            tr_transfer_state at = (tr_transfer_state)s;
            assert_int_equal(tr_transfer_step(&at, (tr_transfer_event)e), r->action);
            assert_int_equal(at, r->action == TR_TRANSFER_DO_WRONG ? s : r->next);
            assert_true(r->next < TR_TRANSFER_N_STATES && r->action < TR_TRANSFER_N_ACTIONS);
        }
}

/* An end, a death and, where one is possible, a reset are defined everywhere. */
static void defined(void **state) {
    (void)state;
    for (uint32_t i = 0; i < TR_TRANSFER_N_STATES; i++) {
        tr_transfer_state s = (tr_transfer_state)i, end = s, down = s, settled = s;
        assert_int_not_equal(tr_transfer_step(&end, TR_TRANSFER_ON_END), TR_TRANSFER_DO_WRONG);
        assert_true(tr_transfer_ended(end));
        assert_int_equal(rests(end), rests(s));
        assert_int_equal(tr_transfer_lost(end), tr_transfer_lost(s));
        assert_int_not_equal(tr_transfer_step(&down, TR_TRANSFER_ON_DOWN), TR_TRANSFER_DO_WRONG);
        assert_int_equal(tr_transfer_lost(down), tr_transfer_flies(s));
        bool possible = rests(s) || tr_transfer_lost(s);
        assert_int_equal(tr_transfer_step(&settled, TR_TRANSFER_ON_SETTLED) != TR_TRANSFER_DO_WRONG, possible);
        assert_true(!possible || rests(settled));
    }
}

/* Quarantine: pages come to rest by the last answer or by the end of a reset alone, and are given back there alone. */
static void quarantine(void **state) {
    (void)state;
    for (uint32_t s = 0; s < TR_TRANSFER_N_STATES; s++)
        for (uint32_t e = 0; e < TR_TRANSFER_N_EVENTS; e++) {
            const tr_transfer_rule *r = &tr_transfer_table[s][e];
            if (r->action == TR_TRANSFER_DO_WRONG) continue;
            if (tr_transfer_flies((tr_transfer_state)s) && rests((tr_transfer_state)r->next))
                assert_true(last(e) || e == TR_TRANSFER_ON_SETTLED);
            if (r->action == TR_TRANSFER_DO_FREE) assert_int_equal(r->next, TR_TRANSFER_ENDED);
            if (last(e)) assert_true(rests((tr_transfer_state)r->next));
            if (is_issue(e)) assert_true(tr_transfer_flies((tr_transfer_state)r->next));
            /* nobody comes back to life, nobody ends but by an end */
            assert_int_equal(tr_transfer_ended((tr_transfer_state)r->next),
                             e == TR_TRANSFER_ON_END || tr_transfer_ended((tr_transfer_state)s));
        }
}

/* A lost state differs from its twin only in that it may settle, and that nothing is issued. */
static void twins(void **state) {
    (void)state;
    for (uint32_t i = 0; i < TR_TRANSFER_N_STATES; i++) {
        tr_transfer_state s = (tr_transfer_state)i, lost = s;
        if (rests(s) || tr_transfer_lost(s)) continue;
        tr_transfer_step(&lost, TR_TRANSFER_ON_DOWN);
        for (uint32_t e = 0; e < TR_TRANSFER_N_EVENTS; e++) {
            if (e == TR_TRANSFER_ON_SETTLED || e == TR_TRANSFER_ON_DOWN) continue;
            const tr_transfer_rule *a = &tr_transfer_table[s][e], *b = &tr_transfer_table[lost][e];
            if (is_issue(e))
                assert_int_equal(b->action, TR_TRANSFER_DO_WRONG);
            else
                assert_int_equal(a->action, b->action);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(steps), cmocka_unit_test(defined), cmocka_unit_test(quarantine),
                                       cmocka_unit_test(twins)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
