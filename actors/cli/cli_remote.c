/* Commands on a running company, found by --name or --connect: generate, status, drain, stop. */
#include "actors/cli/cli_remote.h"

#include "actors/cli/cli_ask.h"
#include "actors/cli/cli_saved.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

enum {
    START_SECONDS = 60,
    APPEAR_SECONDS = 3,
    TELL_SECONDS = 1,
    CONNECT_MS = 3000,
    STATUS_MS = 5000,
    STOP_SECONDS = 60
};

static const char *company_name(const tr_options *o) {
    return tr_options_given(o, TR_OPTION_NAME) ? tr_options_text(o, TR_OPTION_NAME) : "default";
}

static tr_status check_words(tr_options *o, tr_error *err) {
    char unknown[256];
    return tr_options_environment(o, environ, unknown, err);
}

/* wait_s: for a company that is starting; one that nobody has begun to start gets less. 0: it must be there now. */
static tr_status find(const tr_options *o, int wait_s, tr_cli_company *found, tr_error *err) {
    uint64_t began = tr_clock_now_ns(), end = began + (uint64_t)wait_s * TR_NS_PER_S;
    uint64_t appear = wait_s ? began + APPEAR_SECONDS * TR_NS_PER_S : began;
    memset(found, 0, sizeof *found);
    if (tr_options_given(o, TR_OPTION_CONNECT)) {
        snprintf(found->endpoint, sizeof found->endpoint, "%s", tr_options_text(o, TR_OPTION_CONNECT));
        return TR_OK;
    }
    for (bool told = false;;) {
        tr_status status = tr_cli_home_find(company_name(o), found, err);
        if (status == TR_OK && found->endpoint[0]) return TR_OK;
        if (status != TR_OK && status != TR_UNAVAILABLE) return status;
        if (tr_cli_signalled()) return TR_CANCELLED;
        if (tr_clock_now_ns() >= (status == TR_OK ? end : appear))
            return status == TR_OK ? tr_error_set(err, TR_UNAVAILABLE, "the company '%s' is still starting: try again",
                                                  company_name(o))
                                   : status;
        if (status == TR_OK && !told && tr_clock_now_ns() - began >= TELL_SECONDS * TR_NS_PER_S) {
            tr_cli_say("the company '%s' is starting, waiting for it", company_name(o));
            told = true;
        }
        usleep(50000);
    }
}

static tr_status open_client(const tr_options *o, int wait_s, tr_client **client, tr_error *err) {
    tr_cli_company found;
    TR_TRY(find(o, wait_s, &found, err));
    int first_ms = wait_s ? TELL_SECONDS * 1000 : CONNECT_MS;
    tr_client_options options = {.name = "troupe", .connect_timeout_ms = first_ms};
    uint64_t began = tr_clock_now_ns();
    tr_cli_interrupt_now(true, NULL);
    tr_status status = tr_client_connect(found.endpoint, &options, client, err);
    bool silent = status == TR_UNAVAILABLE && tr_clock_now_ns() - began >= (uint64_t)first_ms * TR_NS_PER_MS;
    if (wait_s && silent) {
        tr_cli_say("nobody answers at %s yet, waiting", found.endpoint);
        options.connect_timeout_ms = wait_s * 1000 - first_ms;
        status = tr_client_connect(found.endpoint, &options, client, err);
    }
    tr_cli_interrupt_now(false, NULL);
    return status;
}

tr_status tr_cli_remote_open(tr_options *o, tr_client **client, tr_error *err) {
    TR_TRY(check_words(o, err));
    return open_client(o, 0, client, err);
}

static int end(tr_client **client, const tr_error *err, tr_status status) {
    tr_client_close(client);
    return status == TR_OK ? 0 : tr_cli_fail(err, status);
}

/* ---- generate
 * --------------------------------------------------------------------------------------------------------- */

static tr_status generate(tr_options *o, tr_cli_saved *saved, tr_client **client, tr_error *err) {
    const char *stop[TR_OPTIONS_STOPS_MAX];
    tr_cli_text prompt = {0};
    tr_cli_answer a;
    TR_TRY(check_words(o, err));
    TR_TRY(tr_cli_saved_open(o, saved, err));
    if (saved->n_tokens && o->n_positional)
        return tr_error_set(err, TR_USAGE, "generate --restore goes on as it is: leave out the prompt");
    if (!saved->n_tokens) TR_TRY(tr_cli_read_prompt(o->n_positional ? o->positional[0] : NULL, &prompt, err));
    tr_status status = open_client(o, START_SECONDS, client, err);
    if (status == TR_OK) {
        const tr_client_info *info = tr_client_about(*client);
        tr_client_params params = tr_cli_ask_params(o, stop);
        params.prompt = prompt.data;
        params.prompt_len = prompt.len;
        params.tokens = saved->tokens;
        params.n_tokens = saved->n_tokens;
        tr_cli_saved_params(saved, saved->n_tokens, &params);
        if (info->instruct && !tr_options_flag(o, TR_OPTION_QUIET) && !tr_options_flag(o, TR_OPTION_SPECIAL))
            tr_cli_say("hint: %s is an instruct model; the prompt goes in as it is, without its chat template",
                       info->model);
        status = tr_cli_ask(*client, &params, NULL, NULL, &a, err);
        if ((status == TR_OK || status == TR_CANCELLED) && !tr_options_flag(o, TR_OPTION_QUIET))
            tr_cli_ask_table(*client, &a, status == TR_OK ? 2000 : 200);
        tr_cli_answer_fini(&a);
    }
    tr_cli_text_free(&prompt);
    return status;
}

int tr_cli_generate(tr_options *o) {
    tr_client *client = NULL;
    tr_error err = {0};
    static tr_cli_saved saved;
    tr_status status = generate(o, &saved, &client, &err);
    tr_cli_saved_fini(&saved);
    return end(&client, &err, status);
}

/* ---- status
 * ----------------------------------------------------------------------------------------------------------- */

static void print_status(const char *json) {
    json_t *root = json_loads(json, 0, NULL), *pool;
    const json_t *requests = json_object_get(root, "requests");
    const char *name = json_string_value(json_object_get(root, "name"));
    const char *model = json_string_value(json_object_get(root, "model"));
    size_t i;
    printf("%s: %s, %d running, %d waiting\n", name ? name : "?", model ? model : "?",
           (int)json_integer_value(json_object_get(requests, "running")),
           (int)json_integer_value(json_object_get(requests, "waiting")));
    json_array_foreach(json_object_get(root, "pools"), i, pool) {
        const char *label = json_string_value(json_object_get(pool, "name"));
        printf("pool %-8s %d pages, %d free\n", label ? label : "?",
               (int)json_integer_value(json_object_get(pool, "pages")),
               (int)json_integer_value(json_object_get(pool, "free")));
    }
    json_decref(root);
    tr_cli_ask_print_actors(stdout, json);
}

int tr_cli_status(tr_options *o) {
    tr_client *client = NULL;
    tr_error err = {0};
    tr_status status = check_words(o, &err);
    if (status == TR_OK) status = open_client(o, 0, &client, &err);
    char *json = status == TR_OK ? tr_cli_ask_status(client, STATUS_MS, &err) : NULL;
    if (status == TR_OK && !json) status = err.status ? err.status : TR_UNAVAILABLE;
    if (json && tr_options_flag(o, TR_OPTION_JSON))
        puts(json);
    else if (json)
        print_status(json);
    free(json);
    return end(&client, &err, status);
}

/* ---- drain and stop
 * --------------------------------------------------------------------------------------------------- */

static tr_status drain(tr_client *client, bool stop, tr_error *err) {
    uint64_t deadline = tr_clock_now_ns() + STATUS_MS * TR_NS_PER_MS;
    tr_client_event e;
    while (tr_client_drain(client, stop) == TR_AGAIN) {
        if (tr_clock_now_ns() > deadline) return tr_error_set(err, TR_UNAVAILABLE, "the company does not answer");
        tr_client_poll(client, 50, &e, err);
    }
    /* An answer to a later message shows that this one was taken. */
    char *json = tr_cli_ask_status(client, STATUS_MS, err);
    free(json);
    return TR_OK;
}

int tr_cli_drain(tr_options *o) {
    tr_client *client = NULL;
    tr_error err = {0};
    tr_status status = check_words(o, &err);
    if (status == TR_OK) status = open_client(o, 0, &client, &err);
    if (status == TR_OK) status = drain(client, tr_options_flag(o, TR_OPTION_DRAIN_STOP), &err);
    return end(&client, &err, status);
}

static bool has_ended(int pid_fd, const tr_cli_company *found) {
    struct pollfd p = {.fd = pid_fd, .events = POLLIN};
    if (pid_fd < 0) return !tr_cli_home_running(found);
    return poll(&p, 1, 20) > 0; /* also when nobody has waited for it yet */
}

/* The process that holds the lock ends when all others are gone. */
static tr_status stop_by_name(const tr_options *o, tr_error *err) {
    tr_cli_company found;
    TR_TRY(tr_cli_home_find(company_name(o), &found, err));
    if (found.pid <= 1)
        return tr_error_set(err, TR_UNAVAILABLE, "the company '%s' does not say its process: try again",
                            company_name(o));
    int pid_fd = (int)syscall(SYS_pidfd_open, found.pid, 0);
    if (kill(found.pid, SIGTERM) != 0 && errno != ESRCH)
        return tr_error_set(err, TR_UNAVAILABLE, "cannot stop process %d: %s", found.pid, strerror(errno));
    uint64_t deadline = tr_clock_now_ns() + STOP_SECONDS * TR_NS_PER_S;
    tr_status status = TR_OK;
    while (!has_ended(pid_fd, &found) && status == TR_OK) {
        if (tr_cli_signalled()) status = TR_CANCELLED;
        if (tr_clock_now_ns() > deadline)
            status = tr_error_set(err, TR_UNAVAILABLE, "process %d has not ended within %d s", found.pid, STOP_SECONDS);
        usleep(5000);
    }
    if (pid_fd >= 0) close(pid_fd);
    return status;
}

/* Without its runtime folder: it ends when its last stream has ended; silence says that it is gone. */
static tr_status stop_by_endpoint(const tr_options *o, tr_error *err) {
    tr_client *client = NULL;
    TR_TRY(open_client(o, 0, &client, err));
    tr_status status = drain(client, true, err);
    while (status == TR_OK && !tr_cli_signalled()) {
        tr_error gone = {0};
        char *json = tr_cli_ask_status(client, 1000, &gone);
        if (!json) break;
        free(json);
        usleep(20000);
    }
    tr_client_close(&client);
    return status == TR_OK && tr_cli_signalled() ? TR_CANCELLED : status;
}

int tr_cli_stop(tr_options *o) {
    tr_error err = {0};
    tr_status status = check_words(o, &err);
    if (status == TR_OK)
        status = tr_options_given(o, TR_OPTION_CONNECT) ? stop_by_endpoint(o, &err) : stop_by_name(o, &err);
    return status == TR_OK ? 0 : tr_cli_fail(&err, status);
}
