/* One binary: the commands of the user, and by hidden first arguments every actor and the supervisor. */
#include "actors/cli/cli.h"
#include "actors/runtime/actor_main.h"
#include "actors/runtime/company.h"
#include "actors/supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef TROUPE_VERSION
#define TROUPE_VERSION "0.1.0"
#endif

static const tr_cli_command commands[TR_COMMAND_COUNT] = {
    [TR_COMMAND_RUN] = tr_cli_run,     [TR_COMMAND_SERVE] = tr_cli_serve,   [TR_COMMAND_GENERATE] = tr_cli_generate,
    [TR_COMMAND_PLAN] = tr_cli_plan,   [TR_COMMAND_EVAL] = tr_cli_eval,     [TR_COMMAND_TOKENIZE] = tr_cli_tokenize,
    [TR_COMMAND_BENCH] = tr_cli_bench, [TR_COMMAND_STATUS] = tr_cli_status, [TR_COMMAND_DRAIN] = tr_cli_drain,
    [TR_COMMAND_STOP] = tr_cli_stop,   [TR_COMMAND_DOCTOR] = tr_cli_doctor, [TR_COMMAND_CALIBRATE] = tr_cli_calibrate,
    [TR_COMMAND_NODE] = tr_cli_node,   [TR_COMMAND_KEYGEN] = tr_cli_keygen, [TR_COMMAND_SIMULATE] = tr_cli_simulate,
};

/* Words that are no flags, at most. */
static const uint32_t words[TR_COMMAND_COUNT] = {
    [TR_COMMAND_RUN] = 2,      [TR_COMMAND_SERVE] = 1,
    [TR_COMMAND_GENERATE] = 1, [TR_COMMAND_PLAN] = 1,
    [TR_COMMAND_EVAL] = 1,     [TR_COMMAND_TOKENIZE] = 1,
    [TR_COMMAND_BENCH] = 2,    [TR_COMMAND_CALIBRATE] = 1,
    [TR_COMMAND_NODE] = 2,     [TR_COMMAND_KEYGEN] = TR_COMPANY_NODES_MAX + 1,
    [TR_COMMAND_SIMULATE] = 1,
};

static int run_command(tr_command command, int argc, char **argv) {
    static tr_options options;
    tr_error err = {0};
    tr_options_init(&options, command);
    tr_status status = tr_options_parse(&options, argc, argv, words[command], &err);
    int code;
    if (tr_options_flag(&options, TR_OPTION_HELP)) {
        tr_options_print_help(stdout, command);
        code = 0;
    } else if (status != TR_OK) {
        code = tr_cli_fail(&err, status);
    } else {
        code = commands[command](&options);
    }
    tr_options_fini(&options);
    if (fflush(stdout) != 0 && code == 0) {
        tr_cli_say("cannot write to stdout");
        code = tr_status_exit_code(TR_CANNOT_CREATE);
    }
    return code;
}

/* A standard descriptor that the caller closed would be given to the next file that is opened, and texts and messages
 * would go into it. Held by /dev/null, opened the wrong way round: reading stdin and writing stdout fail as they
 * should. */
static void hold_standard_descriptors(void) {
    static const int mode[3] = {O_WRONLY, O_RDONLY, O_WRONLY};
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", mode[fd]) != fd) _exit(70);
}

int main(int argc, char **argv) {
    const char *first = argc > 1 ? argv[1] : "";
    hold_standard_descriptors();
    if (strcmp(first, "--actor") == 0 && argc == 3) return tr_actor_main(argv[2]);
    if (strcmp(first, "--supervisor") == 0) return tr_supervisor_main(argc > 2 ? atoi(argv[2]) : -1);
    if (strcmp(first, "--version") == 0) return printf("troupe %s\n", TROUPE_VERSION) < 0;
    if (strcmp(first, "--print-options") == 0) return tr_options_print_docs(stdout), fflush(stdout) != 0;
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0 || strcmp(first, "help") == 0) {
        tr_options_print_overview(stdout);
        return fflush(stdout) != 0;
    }
    if (!*first) {
        tr_options_print_overview(stderr);
        return 64;
    }
    tr_error err = {0};
    tr_command command;
    tr_cli_catch_signals();
    if (first[0] == '-') {
        tr_cli_say("%.60s: a command comes first: troupe --help lists them", first);
        return 64;
    }
    tr_status status = tr_options_command(first, &command, &err);
    return status == TR_OK ? run_command(command, argc - 2, argv + 2) : tr_cli_fail(&err, status);
}
