#include "actors/cli/cli.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t first, at_once;
static char lock_path[640], folder_path[640]; /* written before at_once is set */

/* Only calls that are safe in a signal handler. */
static void leave(void) {
    if (lock_path[0]) {
        unlink(lock_path);
        rmdir(folder_path);
    }
    _exit(130);
}

static void on_signal(int signal) {
    if (at_once || first) leave();
    first = signal;
}

void tr_cli_catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: waiting calls come back */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file limit is an error of the call */
}

int tr_cli_signalled(void) { return first; }

bool tr_cli_interrupt_take(void) {
    if (first != SIGINT) return false;
    first = 0;
    return true;
}

void tr_cli_interrupt_now(bool on, const tr_cli_home *home) {
    if (on && home && home->held) {
        snprintf(folder_path, sizeof folder_path, "%s", home->path);
        snprintf(lock_path, sizeof lock_path, "%s/lock", home->path);
    }
    at_once = on;
    if (on && first) leave();
}

int tr_cli_fail(const tr_error *err, tr_status status) {
    if (err->text[0])
        tr_cli_say("%s", err->text);
    else if (status != TR_CANCELLED)
        tr_cli_say("%s", tr_status_text(status));
    return tr_status_exit_code(status);
}

void tr_cli_say(const char *fmt, ...) {
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127) *p = '?'; /* one line, and nothing that steers a terminal */
    fprintf(stderr, "troupe: %s\n", line);
}
