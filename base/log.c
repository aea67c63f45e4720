#include "base/log.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};
static const char *log_actor = "troupe";
static tr_log_level log_level = TR_LOG_WARN;

void tr_log_init(const char *actor) {
    log_actor = actor;
    const char *want = getenv("TROUPE_LOG");
    if (want) tr_log_level_of(want, &log_level); /* the command line has told about an unknown one, once */
}

bool tr_log_level_of(const char *name, tr_log_level *level_out) {
    for (int i = 0; i <= TR_LOG_TRACE; i++)
        if (strcmp(name, level_names[i]) == 0) {
            *level_out = (tr_log_level)i;
            return true;
        }
    return false;
}

void tr_log_set_level(tr_log_level level) { log_level = level; }
tr_log_level tr_log_get_level(void) { return log_level; }

void tr_log(tr_log_level level, const char *event, const char *fmt, ...) {
    if (level > log_level) return;
    char line[1024];
    uint64_t now = tr_clock_now_ns();
    int n = snprintf(line, sizeof line, "%llu.%06llu %s %s %s ", (unsigned long long)(now / TR_NS_PER_S),
                     (unsigned long long)(now % TR_NS_PER_S / 1000), level_names[level], log_actor, event);
    if (n < 0) return;
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    va_end(ap);
    if (m < 0) return;
    size_t len = (size_t)n + (size_t)m;
    if (len > sizeof line - 2) len = sizeof line - 2;
    line[len++] = '\n';
    /* One write keeps lines of several processes whole; a full stderr must not stop an actor. */
    ssize_t ignored = write(STDERR_FILENO, line, len);
    (void)ignored;
}
