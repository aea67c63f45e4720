/* base/log.h - one line an event on stderr: `seconds level actor event key=value ...`.
 * Lower case, exact cause, no prompt text. Logged where the error is decided, once.
 * Threads: any. Level from tr_log_init or TROUPE_LOG (error, warn, info, debug, trace; default warn). */
#ifndef TR_LOG_H
#define TR_LOG_H
#include <stdbool.h>

typedef enum tr_log_level { TR_LOG_ERROR, TR_LOG_WARN, TR_LOG_INFO, TR_LOG_DEBUG, TR_LOG_TRACE } tr_log_level;

/* Name that this process writes on its lines ("decode.1"); borrows actor for the life of the process. */
void tr_log_init(const char *actor);
/* "warn" to TR_LOG_WARN; false, and nothing set: no level of that name. */
bool tr_log_level_of(const char *name, tr_log_level *level_out);
void tr_log_set_level(tr_log_level level);
tr_log_level tr_log_get_level(void);
void tr_log(tr_log_level level, const char *event, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
