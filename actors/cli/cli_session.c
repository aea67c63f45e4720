#include "actors/cli/cli_session.h"

#include "base/clock.h"
#include "base/log.h"
#include "kernels/ops.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

extern char **environ;

enum { READY_SECONDS = 120, CONNECT_MS = 10000 };

/* ---- what is wanted
 * -------------------------------------------------------------------------------------------------- */

/* The actors read it; told here, once. */
static void warn_log_level(void) {
    const char *level = getenv("TROUPE_LOG");
    tr_log_level ignored;
    if (level && *level && !tr_log_level_of(level, &ignored))
        tr_cli_say("warning: TROUPE_LOG=%.60s is no level: use error, warn, info, debug or trace", level);
}

static tr_status read_environment(tr_options *o, tr_error *err) {
    char unknown[256];
    TR_TRY(tr_options_environment(o, environ, unknown, err));
    if (unknown[0]) tr_cli_say("warning: the variable %s is not known, docs/options.md lists them", unknown);
    warn_log_level();
    return TR_OK;
}

static tr_status read_options(tr_cli_session *s, tr_error *err) {
    tr_options *o = s->options;
    TR_TRY(read_environment(o, err));
    const char *file = tr_options_given(o, TR_OPTION_FILE) ? tr_options_text(o, TR_OPTION_FILE) : NULL;
    if (file) TR_TRY(tr_topology_load(file, o, err));
    if (!file && !tr_options_given(o, TR_OPTION_MODEL)) {
        if (o->n_positional == 0)
            return tr_error_set(err, TR_USAGE, "no model named: give MODEL, or -f TOPOLOGY; see troupe run --help");
        TR_TRY(tr_options_set_key(o, TR_SOURCE_FLAG, "model", o->positional[0], "MODEL", err));
        s->words_used = 1;
    }
    return tr_topology_resolve(o, file, &s->topology, err);
}

static void init_session(tr_cli_session *s, tr_options *options) {
    memset(s, 0, sizeof *s);
    s->options = options;
    s->home.lock_fd = s->launch.pid_fd = s->launch.notify_fd = -1;
    for (int i = 0; i < TR_PRECISION_END; i++) s->image[i].fd = -1;
}

tr_status tr_cli_session_load_machine(tr_cli_session *s, tr_options *options, tr_error *err) {
    init_session(s, options);
    TR_TRY(read_environment(options, err));
    return tr_machine_discover(&s->machine, err);
}

tr_status tr_cli_session_load(tr_cli_session *s, tr_options *options, tr_error *err) {
    init_session(s, options);
    TR_TRY(read_options(s, err));
    TR_TRY(tr_model_file_open(s->topology.model, &s->model, err));
    return tr_machine_discover(&s->machine, err);
}

/* Hashing a model that was never met takes its time. */
static tr_status open_tokenizer(tr_cli_session *s, tr_error *err) {
    if (s->tokenizer) return TR_OK;
    tr_cli_interrupt_now(true, &s->home);
    tr_status status = tr_model_cache_tokenizer(s->model, &s->tokenizer, s->vocabulary, err);
    tr_cli_interrupt_now(false, NULL);
    return status;
}

tr_status tr_cli_session_tokenize(tr_cli_session *s, const char *text, size_t len, unsigned flags, uint32_t **ids_out,
                                  uint32_t *n_out, tr_error *err) {
    TR_TRY(open_tokenizer(s, err));
    size_t cap = tr_tokenizer_bound(len), n = 0;
    uint32_t *ids = malloc(cap * sizeof *ids);
    if (!ids) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %zu tokens", cap);
    tr_status status = tr_tokenizer_encode(s->tokenizer, text, len, flags, ids, cap, &n, err);
    if (status == TR_OK && n > TR_MAX_TOKENS)
        status = tr_error_set(err, TR_DATA, "the text has %zu tokens, at most %d are possible: shorten it", n,
                              TR_MAX_TOKENS);
    if (status != TR_OK) {
        free(ids);
        return status;
    }
    *ids_out = ids;
    *n_out = (uint32_t)n;
    return TR_OK;
}

tr_status tr_cli_session_kernels(char out[16], tr_error *err) {
    const tr_ops *ops = NULL;
    TR_TRY(tr_ops_select(&ops, err));
    snprintf(out, 16, "%s", ops->name);
    return TR_OK;
}

tr_status tr_cli_session_calibration_path(const tr_cli_session *s, uint64_t model_hash, char out[TR_COMPANY_PATH_MAX],
                                          tr_error *err) {
    const char *given = s->topology.kv_calibration;
    if (!*given) return tr_model_cache_calibration(model_hash, out, err);
    if (given[0] == '/' || realpath(given, out) == NULL) snprintf(out, TR_COMPANY_PATH_MAX, "%s", given);
    return TR_OK;
}

tr_status tr_cli_session_plan(tr_cli_session *s, tr_error *err) {
    tr_company *c = &s->company;
    const tr_topology *t = &s->topology;
    const bool others = t->hosts.n > 1;
    char kernels[16];
    if (others && s->options->command != TR_COMMAND_PLAN) TR_TRY(tr_cli_nodes_gather(&s->nodes, t, &s->machine, err));
    for (uint32_t i = 0; others && s->options->command == TR_COMMAND_PLAN && i < t->hosts.n; i++)
        s->nodes.machine[i] = s->machine; /* nothing is started: as if all were like this one */
    TR_TRY(tr_company_build(&t->want, tr_model_file_config(s->model), others ? s->nodes.machine : &s->machine, c, err));
    if (others && tr_company_calibrated(c))
        return tr_error_set(err, TR_UNAVAILABLE,
                            "calibrated KV formats are not available yet on several hosts: choose kv=int8 or bf16");
    if (others && t->want.files)
        return tr_error_set(err, TR_UNAVAILABLE,
                            "saving and restoring sequences is not available yet on several hosts: leave out "
                            "handoff.save_dir, --save and --restore");
    if (others && t->want.swap_bytes > 0)
        return tr_error_set(err, TR_UNAVAILABLE,
                            "a swap space is not available yet on several hosts: leave out scheduler.swap_memory");
    TR_TRY(tr_cli_session_kernels(kernels, err));
    if (s->nodes.socket)
        TR_TRY(tr_cli_nodes_kernels(&s->nodes, kernels, c->ops, err));
    else
        memcpy(c->ops, kernels, sizeof c->ops);
    snprintf(c->node_endpoint, sizeof c->node_endpoint, "%s", t->node_endpoint);
    if (t->keys_dir[0] && !realpath(t->keys_dir, c->keys_dir))
        return tr_error_set(err, TR_CONFIG, "no folder of keys %.200s: troupe keygen makes it", t->keys_dir);
    /* Of a folder: the file in it. */
    snprintf(c->model_path, sizeof c->model_path, "%s", tr_model_file_path(s->model));
    snprintf(c->model_name, sizeof c->model_name, "%s", t->model_name);
    c->store = t->store;
    snprintf(c->save_dir, sizeof c->save_dir, "%s", t->save_dir);
    snprintf(c->swap_file, sizeof c->swap_file, "%s", t->swap_file);
    snprintf(c->http_host, sizeof c->http_host, "%s", t->http_host);
    snprintf(c->api_key_file, sizeof c->api_key_file, "%s", t->api_key_file);
    c->http_port = t->http_port;
    return TR_OK;
}

void tr_cli_session_name(const tr_options *options, char out[64]) {
    if (tr_options_given(options, TR_OPTION_NAME))
        snprintf(out, 64, "%.63s", tr_options_text(options, TR_OPTION_NAME));
    else if (options->command == TR_COMMAND_SERVE)
        snprintf(out, 64, "default");
    else
        snprintf(out, 64, "run-%d", (int)getpid());
}

/* ---- images
 * ---------------------------------------------------------------------------------------------------------- */

static void show_progress(void *arg, uint64_t done, uint64_t total) {
    if (!isatty(STDERR_FILENO) || total == 0) return;
    fprintf(stderr, "\r\033[Kpacking %s weights: %3d %%", (const char *)arg, (int)(100 * done / total));
    if (done >= total) fputs("\r\033[K", stderr);
    fflush(stderr);
}

/* Two images mostly have the same reason: told once. */
static bool warned_before(const tr_cli_session *s, tr_precision precision) {
    for (int i = 0; i < TR_PRECISION_END; i++)
        if (i != (int)precision && strcmp(s->image[i].warning, s->image[precision].warning) == 0) return true;
    return false;
}

static tr_status get_image(tr_cli_session *s, tr_precision precision, tr_error *err) {
    tr_model_cache_image *image = &s->image[precision];
    tr_company *c = &s->company;
    if (!image->path[0] && image->fd < 0) {
        char label[16];
        snprintf(label, sizeof label, "%s", tr_precision_name(precision));
        tr_cli_interrupt_now(true, &s->home);
        tr_status status = tr_model_cache_get(c->model_path, precision, tr_machine_usable_cores(&s->machine),
                                              show_progress, label, image, err);
        tr_cli_interrupt_now(false, NULL);
        TR_TRY(status);
        if (image->warning[0] && !warned_before(s, precision)) tr_cli_say("warning: %s", image->warning);
    }
    snprintf(c->image_path[precision], sizeof c->image_path[0], "%s", image->path);
    c->image_fd[precision] = image->fd;
    c->model_hash = image->model_hash;
    return TR_OK;
}

/* The calibrated KV formats need a file that somebody has made. */
static tr_status get_calibration(tr_cli_session *s, tr_error *err) {
    tr_company *c = &s->company;
    tr_kv_calibration *calibration = NULL;
    if (!tr_company_calibrated(c)) return TR_OK;
    TR_TRY(tr_cli_session_calibration_path(s, c->model_hash, c->kv_calibration, err));
    const tr_kv_layout *l = &c->layout[0];
    const tr_kv_calibration_model model = {c->model_hash, l->n_layers, l->n_kv_heads, l->head_dim};
    tr_status status = tr_kv_calibration_open(c->kv_calibration, &model, &calibration, err);
    if (status == TR_NO_INPUT)
        return tr_error_set(err, TR_NO_INPUT,
                            "kv=int8-static needs a calibration of %.200s: make one with troupe calibrate MODEL --text "
                            "FILE",
                            c->model_name);
    TR_TRY(status);
    c->kv_calibration_crc = tr_kv_calibration_crc(calibration);
    tr_kv_calibration_destroy(&calibration);
    return TR_OK;
}

/* For the frontend; a model without a tokenizer is served by token ids. */
static tr_status get_vocabulary(tr_cli_session *s, tr_error *err) {
    const tr_status status = open_tokenizer(s, err);
    if (status == TR_UNAVAILABLE) return TR_OK;
    TR_TRY(status);
    snprintf(s->company.vocabulary_path, sizeof s->company.vocabulary_path, "%s", s->vocabulary);
    return TR_OK;
}

tr_status tr_cli_session_images(tr_cli_session *s, tr_error *err) {
    for (int i = 0; i < TR_PRECISION_END; i++) s->company.image_fd[i] = -1;
    for (uint32_t a = 0; a < s->company.n_actors; a++)
        for (int p = 0; p < 2; p++) {
            const tr_company_phase *phase = &s->company.actor[a].phase[p];
            if (phase->active && tr_company_is_local(&s->company, a))
                TR_TRY(get_image(s, tr_precision_image((tr_precision)phase->precision), err));
        }
    /* A node without stages packs nothing. */
    return s->company.model_hash ? TR_OK : tr_model_cache_hash(s->model, &s->company.model_hash, err);
}

/* ---- processes
 * ------------------------------------------------------------------------------------------------------- */

static tr_status name_company(tr_cli_session *s, const char *name, tr_error *err) {
    tr_company *c = &s->company;
    TR_TRY(tr_cli_home_take(name, &s->home, err));
    snprintf(c->name, sizeof c->name, "%s", name);
    snprintf(c->runtime_dir, sizeof c->runtime_dir, "%s", s->home.path);
    if (s->topology.endpoint[0])
        snprintf(c->endpoint, sizeof c->endpoint, "%s", s->topology.endpoint);
    else
        snprintf(c->endpoint, sizeof c->endpoint, "ipc://%s/api", s->home.path);
    if (strncmp(c->endpoint, "ipc:///", 7) != 0 && strncmp(c->endpoint, "tcp://", 6) != 0)
        return tr_error_set(err, TR_USAGE, "--endpoint '%.100s': use ipc:///PATH or tcp://ADDRESS:PORT", c->endpoint);
    if (strncmp(c->endpoint, "ipc://", 6) == 0 && strlen(c->endpoint) - 6 > 107)
        return tr_error_set(err, TR_USAGE, "--endpoint: a socket path holds at most 107 bytes, this one has %zu",
                            strlen(c->endpoint) - 6);
    if (getrandom(&c->id, sizeof c->id, 0) != (ssize_t)sizeof c->id) c->id = tr_clock_now_ns();
    if (getrandom(&c->prefix_key, sizeof c->prefix_key, 0) != (ssize_t)sizeof c->prefix_key)
        return tr_error_set(err, TR_SYSTEM, "no random numbers: %s", strerror(errno));
    return TR_OK;
}

static tr_status wait_ready(tr_cli_session *s, tr_error *err) {
    uint64_t end = tr_clock_now_ns() + READY_SECONDS * TR_NS_PER_S;
    for (;;) {
        if (tr_cli_signalled()) return TR_CANCELLED;
        tr_status status = tr_launch_wait_ready(&s->launch, 200, err);
        if (status != TR_AGAIN) return status;
        if (tr_clock_now_ns() > end)
            return tr_error_set(err, TR_UNAVAILABLE, "the company was not ready within %d s: run with TROUPE_LOG=info",
                                READY_SECONDS);
    }
}

/* Where a pin or a memory binding was refused, the company runs all the same: say so once. */
static void warn_placement(const tr_cli_session *s) {
    uint32_t refused = 0;
    for (uint32_t a = 0; a < s->company.n_actors; a++) refused += atomic_load(&s->launch.control->actor[a].placed) == 2;
    if (refused && s->machine.is_this_system)
        tr_cli_say("warning: this system refused the placement of %u actor%s; unbound, the company runs all the same "
                   "(see troupe "
                   "doctor)",
                   refused, refused == 1 ? "" : "s");
    if (!s->machine.is_this_system)
        tr_cli_say("warning: the machine is a description (HWLOC_SYNTHETIC or HWLOC_XMLFILE): nothing is bound to it");
}

tr_status tr_cli_session_launch(tr_cli_session *s, tr_error *err) {
    TR_TRY(tr_launch_start(&s->company, &s->launch, err));
    s->launched = true;
    TR_TRY(wait_ready(s, err));
    warn_placement(s);
    return TR_OK;
}

/* The other hosts prepare while this one does. */
static tr_status prepare_nodes(tr_cli_session *s, tr_error *err) {
    tr_status status = tr_cli_nodes_wait(&s->nodes, s->company.model_hash, err);
    tr_cli_nodes_close(&s->nodes);
    return status;
}

tr_status tr_cli_session_start(tr_cli_session *s, const char *name, tr_error *err) {
    const bool others = s->nodes.socket != NULL;
    TR_TRY(name_company(s, name, err));
    if (others) TR_TRY(tr_cli_nodes_send(&s->nodes, &s->company, err));
    TR_TRY(tr_cli_session_images(s, err));
    TR_TRY(get_calibration(s, err));
    TR_TRY(get_vocabulary(s, err));
    if (others) TR_TRY(prepare_nodes(s, err));
    if (tr_cli_signalled()) return TR_CANCELLED;
    TR_TRY(tr_cli_session_launch(s, err));
    TR_TRY(tr_cli_home_publish(&s->home, s->company.endpoint, err));
    if (tr_cli_signalled()) return TR_CANCELLED;
    tr_client_options options = {.name = "troupe", .connect_timeout_ms = CONNECT_MS};
    return tr_client_connect(s->company.endpoint, &options, &s->client, err);
}

void tr_cli_session_stop(tr_cli_session *s) {
    tr_client_close(&s->client);
    if (s->launched) s->exit_code = tr_launch_stop(&s->launch);
    s->launched = false;
    tr_cli_home_release(&s->home);
}

int tr_cli_session_exit(const tr_cli_session *s, tr_status status, const tr_error *err) {
    int company = s->exit_code > 0 ? s->exit_code : 0;
    if (status == TR_CANCELLED) return tr_cli_fail(err, status);
    if (company && s->launch.killed_by) {
        tr_cli_say("the supervisor was killed (signal %d: %s), and the company with it", s->launch.killed_by,
                   strsignal(s->launch.killed_by));
        return company;
    }
    if (status == TR_OK && company)
        tr_cli_say("the company ended by itself (exit %d): run with TROUPE_LOG=info to see why", company);
    if (status == TR_OK) return company;
    if (!err->text[0] && status == TR_UNAVAILABLE && company) return company; /* it has said why */
    return tr_cli_fail(err, status);
}

void tr_cli_session_fini(tr_cli_session *s) {
    if (!s->options) return; /* never loaded */
    tr_cli_session_stop(s);
    tr_cli_nodes_close(&s->nodes);
    tr_cli_home_release(&s->home);
    for (int i = 0; i < TR_PRECISION_END; i++) {
        if (s->image[i].fd >= 0) close(s->image[i].fd);
        s->image[i].fd = -1;
    }
    tr_tokenizer_destroy(&s->tokenizer);
    tr_model_file_close(&s->model);
}
