/* base/status.h - result codes and the one user-facing error of a call.
 * Why: every fallible call returns a tr_status; calls whose failure a person must act on also fill a tr_error
 *      (what failed, where, what to do). The first function that decides the error fills it; callers pass it up.
 * Rules: 0 is success, positive is "re-drive later", negative is failure. Outputs are set only on TR_OK. */
#ifndef TR_STATUS_H
#define TR_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, value, process exit code, text) */
#define TR_STATUS_MAP(X)                                                                                               \
    X(OK, 0, 0, "ok")                                                                                                  \
    X(AGAIN, 1, 70, "not ready, try again")                                                                            \
    X(EXHAUSTED, 2, 69, "no room left, retry after a release")                                                         \
    X(INVALID, -1, 70, "invalid argument")                                                                             \
    X(PROTO, -2, 70, "malformed or unexpected message")                                                                \
    X(USAGE, -3, 64, "usage error")                                                                                    \
    X(DATA, -4, 65, "bad input data")                                                                                  \
    X(NO_INPUT, -5, 66, "no such file")                                                                                \
    X(UNAVAILABLE, -6, 69, "unavailable")                                                                              \
    X(INTERNAL, -7, 70, "internal error")                                                                              \
    X(CANNOT_CREATE, -8, 73, "cannot create")                                                                          \
    X(CONFIG, -9, 78, "configuration error")                                                                           \
    X(SYSTEM, -10, 70, "system call failed")                                                                           \
    X(PEER, -11, 69, "peer is gone")                                                                                   \
    X(CANCELLED, -12, 130, "interrupted")

typedef enum tr_status {
#define X(name, value, code, text) TR_##name = (value),
    TR_STATUS_MAP(X)
#undef X
} tr_status;

/* Human text of a status; never NULL. */
const char *tr_status_text(tr_status s);
/* sysexits-style exit code for main(). */
int tr_status_exit_code(tr_status s);

enum { TR_ERROR_TEXT_BYTES = 512 };

typedef struct tr_error {
    tr_status status;
    char text[TR_ERROR_TEXT_BYTES]; /* one line, no newline: what, where, what to do */
} tr_error;

/* Fill err (may be NULL) and return status, so that callers can write `return tr_error_set(...)`. */
tr_status tr_error_set(tr_error *err, tr_status status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Pass a failure up where nothing has to be undone. */
#define TR_TRY(expr)                                                                                                   \
    do {                                                                                                               \
        tr_status tr_try_status_ = (expr);                                                                             \
        if (tr_try_status_ != TR_OK) return tr_try_status_;                                                            \
    } while (0)

/* Invariant of our own code: stays on in release. Never used to validate input. */
#define tr_check(cond) ((cond) ? (void)0 : tr_check_failed(#cond, __FILE__, __LINE__))
void tr_check_failed(const char *cond, const char *file, int line) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif
#endif
