#include "scheduler/transfer.h"

#define ON(STATE, EVENT, NEXT, ACTION)                                                                                 \
    [TR_TRANSFER_##STATE][TR_TRANSFER_ON_##EVENT] = {TR_TRANSFER_##NEXT, TR_TRANSFER_DO_##ACTION}

/* One rule a line. A job is sent only where its kind is possible and answered only where one is out; SETTLED follows
 * DOWN. */
/* clang-format off */
const tr_transfer_rule tr_transfer_table[TR_TRANSFER_N_STATES][TR_TRANSFER_N_EVENTS] = {
    /* At rest. */
    ON(OPEN,         ISSUE_MOVE,    MOVING,       NONE),
    ON(OPEN,         ISSUE_RESTORE, RESTORING,    NONE),
    ON(OPEN,         END,           ENDED,        FREE),
    ON(OPEN,         DOWN,          OPEN,         NONE),
    ON(OPEN,         SETTLED,       OPEN,         NONE),
    ON(ENDED,        ISSUE_SAVE,    SAVING,       NONE),
    ON(ENDED,        END,           ENDED,        NONE),
    ON(ENDED,        DOWN,          ENDED,        NONE),
    ON(ENDED,        SETTLED,       ENDED,        NONE),
    /* Hand-off: several jobs at once. */
    ON(MOVING,       ISSUE_MOVE,    MOVING,       NONE),
    ON(MOVING,       ANSWER,        MOVING,       TAKE),
    ON(MOVING,       ANSWER_LAST,   OPEN,         TAKE),
    ON(MOVING,       REFUSED,       MOVING,       FAIL),
    ON(MOVING,       REFUSED_LAST,  OPEN,         FAIL),
    ON(MOVING,       END,           DRAINING,     NONE),
    ON(MOVING,       DOWN,          MOVE_LOST,    NONE),
    ON(MOVE_LOST,    ANSWER,        MOVE_LOST,    TAKE),
    ON(MOVE_LOST,    ANSWER_LAST,   OPEN,         TAKE),
    ON(MOVE_LOST,    REFUSED,       MOVE_LOST,    FAIL),
    ON(MOVE_LOST,    REFUSED_LAST,  OPEN,         FAIL),
    ON(MOVE_LOST,    END,           DRAIN_LOST,   NONE),
    ON(MOVE_LOST,    DOWN,          MOVE_LOST,    NONE),
    ON(MOVE_LOST,    SETTLED,       OPEN,         REISSUE),
    /* Restore: one job, before anything else. */
    ON(RESTORING,    ANSWER_LAST,   OPEN,         TAKE),
    ON(RESTORING,    REFUSED_LAST,  OPEN,         RECOMPUTE),
    ON(RESTORING,    END,           DRAINING,     NONE),
    ON(RESTORING,    DOWN,          RESTORE_LOST, NONE),
    ON(RESTORE_LOST, ANSWER_LAST,   OPEN,         TAKE),
    ON(RESTORE_LOST, REFUSED_LAST,  OPEN,         RECOMPUTE),
    ON(RESTORE_LOST, END,           DRAIN_LOST,   NONE),
    ON(RESTORE_LOST, DOWN,          RESTORE_LOST, NONE),
    ON(RESTORE_LOST, SETTLED,       OPEN,         REISSUE),
    /* To the swap space: one job, for one that is stopped. Unanswered, it is given up. */
    ON(OPEN,         ISSUE_SWAP,    SWAPPING,     NONE),
    ON(SWAPPING,     ANSWER_LAST,   OPEN,         TAKE),
    ON(SWAPPING,     REFUSED_LAST,  OPEN,         RECOMPUTE),
    ON(SWAPPING,     END,           DRAINING,     NONE),
    ON(SWAPPING,     DOWN,          SWAP_LOST,    NONE),
    ON(SWAP_LOST,    ANSWER_LAST,   OPEN,         TAKE),
    ON(SWAP_LOST,    REFUSED_LAST,  OPEN,         RECOMPUTE),
    ON(SWAP_LOST,    END,           DRAIN_LOST,   NONE),
    ON(SWAP_LOST,    DOWN,          SWAP_LOST,    NONE),
    ON(SWAP_LOST,    SETTLED,       OPEN,         REISSUE),
    /* Save: one job, after everything else. */
    ON(SAVING,       ANSWER_LAST,   ENDED,        TAKE),
    ON(SAVING,       REFUSED_LAST,  ENDED,        UNSAVED),
    ON(SAVING,       END,           SAVING,       NONE),
    ON(SAVING,       DOWN,          SAVE_LOST,    NONE),
    ON(SAVE_LOST,    ANSWER_LAST,   ENDED,        TAKE),
    ON(SAVE_LOST,    REFUSED_LAST,  ENDED,        UNSAVED),
    ON(SAVE_LOST,    END,           SAVE_LOST,    NONE),
    ON(SAVE_LOST,    DOWN,          SAVE_LOST,    NONE),
    ON(SAVE_LOST,    SETTLED,       ENDED,        REISSUE),
    /* Too late for whatever they do. */
    ON(DRAINING,     ANSWER,        DRAINING,     DROP),
    ON(DRAINING,     ANSWER_LAST,   ENDED,        FREE),
    ON(DRAINING,     REFUSED,       DRAINING,     DROP),
    ON(DRAINING,     REFUSED_LAST,  ENDED,        FREE),
    ON(DRAINING,     END,           DRAINING,     NONE),
    ON(DRAINING,     DOWN,          DRAIN_LOST,   NONE),
    ON(DRAIN_LOST,   ANSWER,        DRAIN_LOST,   DROP),
    ON(DRAIN_LOST,   ANSWER_LAST,   ENDED,        FREE),
    ON(DRAIN_LOST,   REFUSED,       DRAIN_LOST,   DROP),
    ON(DRAIN_LOST,   REFUSED_LAST,  ENDED,        FREE),
    ON(DRAIN_LOST,   END,           DRAIN_LOST,   NONE),
    ON(DRAIN_LOST,   DOWN,          DRAIN_LOST,   NONE),
    ON(DRAIN_LOST,   SETTLED,       ENDED,        FREE),
};
/* clang-format on */

tr_transfer_action tr_transfer_step(tr_transfer_state *state, tr_transfer_event event) {
    const tr_transfer_rule *rule = &tr_transfer_table[*state][event];
    if (rule->action != TR_TRANSFER_DO_WRONG) *state = (tr_transfer_state)rule->next;
    return (tr_transfer_action)rule->action;
}

bool tr_transfer_flies(tr_transfer_state state) { return state != TR_TRANSFER_OPEN && state != TR_TRANSFER_ENDED; }

bool tr_transfer_lost(tr_transfer_state state) {
    return state == TR_TRANSFER_MOVE_LOST || state == TR_TRANSFER_RESTORE_LOST || state == TR_TRANSFER_SWAP_LOST ||
           state == TR_TRANSFER_SAVE_LOST || state == TR_TRANSFER_DRAIN_LOST;
}

bool tr_transfer_ended(tr_transfer_state state) { return state >= TR_TRANSFER_ENDED; }

const char *tr_transfer_state_name(tr_transfer_state state) {
    static const char *const name[] = {
#define NAME(N, text) #N,
        TR_TRANSFER_STATES(NAME)};
    return name[state];
}
