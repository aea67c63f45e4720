/* actors/runtime/launch.h - start a company from the command line, learn when it is ready, stop it.
 * The supervisor is a child in a process group of its own (Ctrl-C reaches the command line alone) and ends when its
 * parent does. Threads: one. */
#ifndef TR_LAUNCH_H
#define TR_LAUNCH_H
#include "actors/runtime/company.h"
#include "actors/runtime/control.h"
#include "base/status.h"

#include <stdbool.h>
#include <sys/types.h>

typedef struct tr_launch {
    pid_t pid;           /* supervisor; 0: none */
    int pid_fd;          /* readable when it has ended */
    int notify_fd;       /* 'S' when the segments exist, 'R' when all actors are ready */
    tr_control *control; /* mapped after the company is ready */
    int exit_code;       /* of the supervisor, once it has ended; -1 before */
    bool forced;         /* we killed it */
    int killed_by;       /* signal that ended the supervisor though nobody here sent it; 0: none */
} tr_launch;

tr_status tr_launch_start(const tr_company *company, tr_launch *launch_out, tr_error *err);
/* TR_OK when every actor is READY. A company that fails to start has printed why: err->text is then empty and the exit
 * code is launch->exit_code. TR_AGAIN: timeout_ms passed, or a signal interrupted the wait. */
tr_status tr_launch_wait_ready(tr_launch *launch, int timeout_ms, tr_error *err);
/* Wait for the end at most timeout_ms; true when the supervisor has ended (exit_code is set). */
bool tr_launch_wait_end(tr_launch *launch, int timeout_ms);
/* Ask for an orderly end, force it after a second. Returns the exit code. */
int tr_launch_stop(tr_launch *launch);
tr_control *tr_launch_control(tr_launch *launch);
#endif
