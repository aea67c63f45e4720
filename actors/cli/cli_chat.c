/* troupe chat: a conversation in the terminal, with a company that lives as long as it. Each turn sends the whole
 * conversation through the model's chat template; what the pools still hold of it is not computed again. An interrupt
 * ends the answer that comes, never the conversation. */
#include "actors/cli/cli_ask.h"
#include "actors/cli/cli_session.h"
#include "base/clock.h"
#include "model/chat_source.h"
#include "model/chat_template_mark.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CONTEXT = 4096, POLL_MS = 100, READ_BYTES = 4096 };
#define ABORT_NS (2 * TR_NS_PER_S)

typedef struct text {
    char *data;
    size_t len, room;
} text;

typedef struct chat {
    tr_cli_session session;
    tr_chat_template *template;
    json_t *messages;
    size_t n_system; /* messages that stay: 1 with --system */
    text answer, input;
    bool input_ended;
} chat;

static tr_status append(text *t, const char *data, size_t len, tr_error *err) {
    if (t->len + len + 1 > t->room) {
        const size_t room = 2 * (t->len + len + 1);
        char *more = realloc(t->data, room);
        if (!more) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the conversation");
        t->data = more, t->room = room;
    }
    if (len) memcpy(t->data + t->len, data, len);
    t->len += len;
    t->data[t->len] = 0;
    return TR_OK;
}

/* ---- lines of stdin ---- */

/* The next line, without its end, taken out of the input. TR_NO_INPUT: there is none any more; TR_CANCELLED: a signal.
 */
static tr_status read_line(chat *c, text *line, tr_error *err) {
    text *in = &c->input;
    line->len = 0;
    for (;;) {
        const char *end = in->len ? memchr(in->data, '\n', in->len) : NULL;
        if (end || (c->input_ended && in->len)) {
            const size_t n = end ? (size_t)(end - in->data) : in->len, used = end ? n + 1 : n;
            TR_TRY(append(line, in->data, n > 0 && in->data[n - 1] == '\r' ? n - 1 : n, err));
            memmove(in->data, in->data + used, in->len - used);
            in->len -= used;
            return TR_OK;
        }
        if (c->input_ended) return TR_NO_INPUT;
        if (in->len > TR_MAX_TEXT_BYTES)
            return tr_error_set(err, TR_DATA, "a line of more than %d bytes: shorten it", TR_MAX_TEXT_BYTES);
        char bytes[READ_BYTES];
        const ssize_t n = tr_cli_signalled() ? -1 : read(STDIN_FILENO, bytes, sizeof bytes);
        if (n < 0 && (tr_cli_signalled() || errno == EINTR)) return TR_CANCELLED;
        if (n < 0) return tr_error_set(err, TR_NO_INPUT, "stdin: %s", strerror(errno));
        c->input_ended = n == 0;
        TR_TRY(append(in, bytes, (size_t)n, err));
    }
}

/* ---- a turn ---- */

/* Ids of the conversation; free them. */
static tr_status tokens_of(chat *c, uint32_t **ids_out, uint32_t *n_out, tr_error *err) {
    json_t *safe = NULL;
    char *rendered = NULL;
    size_t len = 0;
    if (tr_chat_template_mark(c->session.tokenizer, c->messages, &safe) != TR_OK)
        return tr_error_set(err, TR_UNAVAILABLE, "no memory for the conversation");
    const tr_chat_template_input in = {.messages = safe, .add_generation_prompt = true, .now_s = (int64_t)time(NULL)};
    tr_status status = tr_chat_template_render(c->template, &in, &rendered, &len, err);
    if (status == TR_OK)
        status = tr_cli_session_tokenize(&c->session, rendered, len, TR_TOKENIZE_PARSE_SPECIAL | TR_TOKENIZE_MARKED,
                                         ids_out, n_out, err);
    free(rendered);
    json_decref(safe);
    return status;
}

/* Leaves out the oldest turns until an answer has room behind the rest. */
static tr_status fit(chat *c, uint32_t **ids_out, uint32_t *n_out, uint32_t *most_out, tr_error *err) {
    const uint32_t context = c->session.company.context, wish = tr_options_u32(c->session.options, TR_OPTION_PREDICT);
    const uint32_t least = wish < context / 4 ? wish : context / 4 + 1;
    for (bool told = false;;) {
        TR_TRY(tokens_of(c, ids_out, n_out, err));
        *most_out = *n_out < context ? context - *n_out : 0;
        if (*most_out > wish) *most_out = wish;
        if (*most_out >= least) return TR_OK;
        free(*ids_out);
        *ids_out = NULL;
        if (json_array_size(c->messages) <= c->n_system + 1)
            return tr_error_set(err, TR_DATA, "%u tokens do not fit the context of %u with an answer: shorten it",
                                *n_out, context);
        if (!told) tr_cli_say("the context of %u tokens is full: the oldest turns are forgotten", context);
        told = true;
        json_array_remove(c->messages, c->n_system); /* a question, then its answer */
        json_array_remove(c->messages, c->n_system);
    }
}

static tr_status alive(chat *c, tr_error *err) {
    if (!tr_launch_wait_end(&c->session.launch, 0)) return TR_OK;
    return tr_error_set(err, TR_INTERNAL, "the company ended while the text was being made: run with TROUPE_LOG=warn");
}

static void tell_figures(const chat *c, const tr_client_event *e) {
    if (tr_options_flag(c->session.options, TR_OPTION_QUIET)) return;
    fprintf(stderr, "[%u prompt tokens (%u from the prefix cache), %u generated, TTFT %.0f ms]\n", e->prompt_tokens,
            e->cached_tokens, e->generated_tokens, (double)e->ttft_ns / 1e6);
}

/* False: the request is over. *refused: by an error of its own, err tells. */
static tr_status stream(chat *c, uint64_t id, bool *refused, tr_error *err) {
    for (uint64_t give_up = UINT64_MAX; tr_clock_now_ns() < give_up;) {
        tr_client_event e;
        if (give_up == UINT64_MAX && tr_cli_signalled()) {
            if (!tr_cli_interrupt_take()) return TR_CANCELLED;
            tr_client_abort(c->session.client, id);
            give_up = tr_clock_now_ns() + ABORT_NS;
        }
        const tr_status status = tr_client_poll(c->session.client, POLL_MS, &e, err);
        if (status == TR_AGAIN) TR_TRY(alive(c, err));
        if (status == TR_AGAIN) continue;
        TR_TRY(status);
        if (e.id != id || e.kind == TR_CLIENT_STATUS) continue;
        if (e.kind == TR_CLIENT_ERROR) {
            *refused = true;
            return tr_error_set(err, tr_cli_ask_code(e.code), "%s", e.error ? e.error : "the request failed");
        }
        if (e.text_bytes) {
            TR_TRY(append(&c->answer, e.text, e.text_bytes, err));
            const tr_status wrote = tr_cli_write(e.text, e.text_bytes, err);
            if (wrote != TR_OK && wrote != TR_CANCELLED) return wrote;
        }
        if (e.kind != TR_CLIENT_END) continue;
        TR_TRY(tr_cli_write("\n", 1, err));
        tell_figures(c, &e);
        return TR_OK;
    }
    return TR_OK;
}

static tr_status ask(chat *c, bool *refused, tr_error *err) {
    const char *stop[TR_OPTIONS_STOPS_MAX];
    tr_client_params p = tr_cli_ask_params(c->session.options, stop);
    uint32_t *ids = NULL, n = 0;
    uint64_t id = 0;
    *refused = true;
    TR_TRY(fit(c, &ids, &n, &p.max_tokens, err));
    p.tokens = ids, p.n_tokens = n;
    p.parse_special = p.no_bos = false;
    tr_status status = tr_client_add(c->session.client, &p, &id, err);
    free(ids);
    TR_TRY(status);
    *refused = false;
    c->answer.len = 0;
    return stream(c, id, refused, err);
}

/* What cannot be asked or answered is told and forgotten; other errors end the conversation. */
static tr_status turn(chat *c, const text *line, tr_error *err) {
    tr_error why = {0};
    bool refused = false;
    if (json_array_append_new(c->messages, json_pack("{s:s,s:s%}", "role", "user", "content", line->data, line->len)) !=
        0) {
        tr_cli_say("the line is not UTF-8: it is left out");
        return TR_OK;
    }
    const tr_status status = ask(c, &refused, &why);
    const bool answered = status == TR_OK && c->answer.len > 0;
    if (!answered)
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    else if (json_array_append_new(c->messages, json_pack("{s:s,s:s%}", "role", "assistant", "content", c->answer.data,
                                                          c->answer.len)) != 0)
        return tr_error_set(err, TR_UNAVAILABLE, "no memory for the conversation");
    if (status == TR_OK) return TR_OK;
    if (!refused) {
        *err = why;
        return status;
    }
    tr_cli_say("%s", why.text[0] ? why.text : tr_status_text(status));
    return TR_OK;
}

/* ---- the conversation ---- */

static bool reset(chat *c) {
    const char *system = tr_options_text(c->session.options, TR_OPTION_SYSTEM);
    json_decref(c->messages);
    c->messages = json_array();
    c->n_system = system[0] != 0;
    return c->messages && (!c->n_system || json_array_append_new(c->messages, json_pack("{s:s,s:s}", "role", "system",
                                                                                        "content", system)) == 0);
}

static tr_status talk(chat *c, tr_error *err) {
    const bool terminal = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
    text line = {0};
    tr_status status = TR_OK;
    if (!reset(c)) return tr_error_set(err, TR_USAGE, "--system: the text is not UTF-8");
    if (terminal) tr_cli_say("/reset forgets the conversation, /quit or Ctrl-D ends it, Ctrl-C ends an answer");
    while (status == TR_OK) {
        if (terminal) fputs("> ", stderr);
        status = read_line(c, &line, err);
        if (status == TR_CANCELLED && tr_cli_interrupt_take()) {
            if (terminal) fputc('\n', stderr);
            status = TR_OK;
            continue;
        }
        if (status != TR_OK || strcmp(line.data, "/quit") == 0) break;
        if (strcmp(line.data, "/reset") == 0)
            reset(c);
        else if (strspn(line.data, " \t") < line.len)
            status = turn(c, &line, err);
    }
    free(line.data);
    return status == TR_NO_INPUT && !err->text[0] ? TR_OK : status;
}

static tr_status open_template(chat *c, tr_error *err) {
    uint32_t *none = NULL, n = 0;
    TR_TRY(tr_cli_session_tokenize(&c->session, "", 0, 0, &none, &n, err)); /* opens the tokenizer */
    free(none);
    TR_TRY(tr_chat_source_open(tr_model_file_path(c->session.model), &c->template, err));
    if (c->template) return TR_OK;
    return tr_error_set(err, TR_DATA, "%s has no chat template: use troupe run", c->session.topology.model_name);
}

static tr_status run(chat *c, tr_options *o, tr_error *err) {
    tr_cli_session *s = &c->session;
    char name[64];
    TR_TRY(tr_cli_session_load(s, o, err));
    if (o->n_positional > s->words_used)
        return tr_error_set(err, TR_USAGE, "'%.60s' is one argument too many: what is said comes from stdin",
                            o->positional[s->words_used]);
    TR_TRY(open_template(c, err));
    tr_company_build_want *w = &s->topology.want;
    const uint32_t most = tr_model_file_config(s->model)->context_max;
    if (!w->context) w->context = most < CONTEXT ? most : CONTEXT;
    w->n_requests = 1;
    w->request_tokens = w->context;
    TR_TRY(tr_cli_session_plan(s, err));
    tr_cli_session_name(o, name);
    TR_TRY(tr_cli_session_start(s, name, err));
    return talk(c, err);
}

int tr_cli_chat(tr_options *o) {
    static chat c;
    tr_error err = {0};
    tr_status status = run(&c, o, &err);
    json_decref(c.messages);
    free(c.answer.data);
    free(c.input.data);
    tr_chat_template_close(&c.template);
    tr_cli_session_fini(&c.session);
    return tr_cli_session_exit(&c.session, status, &err);
}
