/* actors/cli/cli.h - the commands of troupe and what they share. A command gets its options parsed, prints its result
 * to stdout and everything else to stderr, and returns the exit code. An error is one line: `troupe: what, where, what
 * to do`. */
#ifndef TR_CLI_H
#define TR_CLI_H
#include "base/options.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int (*tr_cli_command)(tr_options *options);
int tr_cli_run(tr_options *options);
int tr_cli_serve(tr_options *options);
int tr_cli_generate(tr_options *options);
int tr_cli_plan(tr_options *options);
int tr_cli_eval(tr_options *options);
int tr_cli_tokenize(tr_options *options);
int tr_cli_bench(tr_options *options);
int tr_cli_status(tr_options *options);
int tr_cli_drain(tr_options *options);
int tr_cli_stop(tr_options *options);
int tr_cli_doctor(tr_options *options);
int tr_cli_node(tr_options *options);
int tr_cli_keygen(tr_options *options);
int tr_cli_calibrate(tr_options *options);
int tr_cli_simulate(tr_options *options);

/* Print the error and return its exit code. An empty text has been printed by whoever failed. */
int tr_cli_fail(const tr_error *err, tr_status status);
__attribute__((format(printf, 1, 2))) void tr_cli_say(const char *fmt, ...); /* "troupe: ..." on stderr */

/* ---- interruption (cli_signal.c) ---- */

/* SIGINT and SIGTERM from now on set a flag; a second one ends the process at once. */
void tr_cli_catch_signals(void);
/* 0, or the first signal that came. Waiting calls return early. */
int tr_cli_signalled(void);
/* ---- input (cli_input.c) ---- */

typedef struct tr_cli_text {
    char *data; /* owned; NUL-terminated beyond len */
    size_t len;
} tr_cli_text;
void tr_cli_text_free(tr_cli_text *text); /* idempotent */
/* Whole file byte for byte; "-" is stdin. TR_NO_INPUT, TR_DATA when longer than limit. */
tr_status tr_cli_read_file(const char *path, size_t limit, tr_cli_text *out, tr_error *err);
/* The prompt: word, or stdin for NULL and "-". TR_DATA: not UTF-8 (names the byte), too long. */
tr_status tr_cli_read_prompt(const char *word, tr_cli_text *out, tr_error *err);
/* Write all of it to stdout's descriptor. TR_CANNOT_CREATE; TR_CANCELLED: a signal came while the reader was slow. */
tr_status tr_cli_write(const void *data, size_t bytes, tr_error *err);

/* ---- runtime folder (cli_home.c) ---- */

/* Folder of one company under its lock. */
typedef struct tr_cli_home {
    char path[512]; /* empty: not held */
    int lock_fd;
    bool held;
} tr_cli_home;
/* Create the folder of that name and take its lock. TR_UNAVAILABLE: the name is running (names the process);
 * TR_CANNOT_CREATE, TR_USAGE (bad name). */
tr_status tr_cli_home_take(const char *name, tr_cli_home *home_out, tr_error *err);
/* Note where clients find the company. */
tr_status tr_cli_home_publish(const tr_cli_home *home, const char *endpoint, tr_error *err);
/* Remove the folder and give the lock back; idempotent. */
void tr_cli_home_release(tr_cli_home *home);

typedef struct tr_cli_company {
    int pid; /* of the process that holds the lock; 0: unknown */
    char endpoint[1024];
    char lock_path[600];
} tr_cli_company;
/* A running company by name. TR_UNAVAILABLE: none runs under it. */
tr_status tr_cli_home_find(const char *name, tr_cli_company *out, tr_error *err);
bool tr_cli_home_running(const tr_cli_company *company);

/* While on, a signal ends the process with 130 at once: nothing has been started yet, only the runtime folder (NULL:
 * none) is there to be removed. */
void tr_cli_interrupt_now(bool on, const tr_cli_home *home);
#endif
