/* scheduler/transfer.h - the life of what is carried for a sequence: its KV from the prefill pool to the decode pool
 * (move), from a file or the swap space into a pool (restore), from a pool to a file (save) or to the swap space
 * (swap). Pure: one table says for every state and event what comes next and what is done; docs/protocol.md shows it (a
 * test compares), the scheduler obeys it.
 *
 * Quarantine: in every state but OPEN and ENDED a job may be at work on the pages of the sequence, so that none of them
 * goes back to its pool and none is given to another. The end of a request, whatever its cause, is defined in each of
 * them: the client is told at once, the pages follow when the last job has been answered, or when its resharder has
 * said after a reset that nothing of it runs any more.
 * Lease: a job lives on the lease of the resharder that runs it (actors/supervisor/supervisor_core.h) and, between
 * hosts, on that of the link (actors/node/node_core.h). One that lapses is a death to all who watch: event DOWN here.
 * To add something that is carried: its state, the lost twin of it, an ISSUE event, and their rules in transfer.c. */
#ifndef TR_TRANSFER_H
#define TR_TRANSFER_H
#include <stdbool.h>
#include <stdint.h>

/* X(NAME, meaning) */
#define TR_TRANSFER_STATES(X)                                                                                          \
    X(OPEN, "no job is out; positions may be left to be moved, or all are")                                            \
    X(MOVING, "hand-off jobs are out: whole positions, or layers of a step that still runs")                           \
    X(MOVE_LOST, "their resharder or its link went down, or the scheduler is new: what they wrote is unknown")         \
    X(RESTORING, "a job fills the pages from a file")                                                                  \
    X(RESTORE_LOST, "its resharder or the link went down")                                                             \
    X(SWAPPING, "a job writes its pages to the swap space; nothing else happens to it")                                \
    X(SWAP_LOST, "its resharder or the link went down")                                                                \
    X(ENDED, "the request has ended, no job is out: its pages go back unless they are to be saved")                    \
    X(SAVING, "the request has ended, a job writes its pages to a file")                                               \
    X(SAVE_LOST, "its resharder or the link went down")                                                                \
    X(DRAINING, "the request has ended, jobs of it are still out")                                                     \
    X(DRAIN_LOST, "so it has, and their resharder or the link went down")

#define TR_TRANSFER_EVENTS(X)                                                                                          \
    X(ISSUE_MOVE, "a hand-off job is sent")                                                                            \
    X(ISSUE_RESTORE, "a restore, or a way back from the swap space, is sent")                                          \
    X(ISSUE_SWAP, "a way to the swap space is sent")                                                                   \
    X(ISSUE_SAVE, "a save is sent")                                                                                    \
    X(ANSWER, "a job is done, others are out")                                                                         \
    X(ANSWER_LAST, "the last job that was out is done")                                                                \
    X(REFUSED, "a job could not be done, others are out")                                                              \
    X(REFUSED_LAST, "the last job that was out could not be done")                                                     \
    X(END, "the request ends: abort, timeout, stop text, error, last token")                                           \
    X(DOWN, "the resharder died, hung or was reset, or its link broke")                                                \
    X(SETTLED, "after a reset nothing of before runs any more")

#define TR_TRANSFER_ACTIONS(X)                                                                                         \
    X(WRONG, "cannot happen")                                                                                          \
    X(NONE, "nothing")                                                                                                 \
    X(TAKE, "what the job did counts")                                                                                 \
    X(DROP, "nobody asks for it any more")                                                                             \
    X(FAIL, "the request ends with an error")                                                                          \
    X(RECOMPUTE, "the prompt is computed, a note says why")                                                            \
    X(UNSAVED, "it stays unsaved, a note says why")                                                                    \
    X(FREE, "the pages go back")                                                                                       \
    X(REISSUE, "what was not answered is sent again")

#define TR_TRANSFER_STATE_ENUM(N, text)  TR_TRANSFER_##N,
#define TR_TRANSFER_EVENT_ENUM(N, text)  TR_TRANSFER_ON_##N,
#define TR_TRANSFER_ACTION_ENUM(N, text) TR_TRANSFER_DO_##N,
typedef enum tr_transfer_state { TR_TRANSFER_STATES(TR_TRANSFER_STATE_ENUM) TR_TRANSFER_N_STATES } tr_transfer_state;
typedef enum tr_transfer_event { TR_TRANSFER_EVENTS(TR_TRANSFER_EVENT_ENUM) TR_TRANSFER_N_EVENTS } tr_transfer_event;
typedef enum tr_transfer_action {
    TR_TRANSFER_ACTIONS(TR_TRANSFER_ACTION_ENUM) TR_TRANSFER_N_ACTIONS
} tr_transfer_action;

typedef struct tr_transfer_rule {
    uint8_t next;   /* tr_transfer_state */
    uint8_t action; /* tr_transfer_action; WRONG (0, for what the table leaves out): next means nothing */
} tr_transfer_rule;

extern const tr_transfer_rule tr_transfer_table[TR_TRANSFER_N_STATES][TR_TRANSFER_N_EVENTS];

/* Take the step and say what is to be done. WRONG leaves the state as it is. */
tr_transfer_action tr_transfer_step(tr_transfer_state *state, tr_transfer_event event);
/* A job may be at work on its pages. */
bool tr_transfer_flies(tr_transfer_state state);
/* Nobody knows whether one is. */
bool tr_transfer_lost(tr_transfer_state state);
bool tr_transfer_ended(tr_transfer_state state);
const char *tr_transfer_state_name(tr_transfer_state state);
#endif
