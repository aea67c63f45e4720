#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *tr_status_text(tr_status s) {
    switch (s) {
#define X(name, value, code, text)                                                                                     \
    case TR_##name: return text;
        TR_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}

int tr_status_exit_code(tr_status s) {
    switch (s) {
#define X(name, value, code, text)                                                                                     \
    case TR_##name: return code;
        TR_STATUS_MAP(X)
#undef X
    }
    return 70;
}

tr_status tr_error_set(tr_error *err, tr_status status, const char *fmt, ...) {
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        err->status = status;
    }
    return status;
}

void tr_check_failed(const char *cond, const char *file, int line) {
    fprintf(stderr, "troupe: invariant broken: %s at %s:%d\n", cond, file, line);
    abort();
}
