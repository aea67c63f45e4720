/* troupe run: start a company for one prompt, stream the continuation, stop. Pools and context are sized by the prompt
 * and -n, so the prompt is tokenized here and sent as tokens. */
#include "actors/cli/cli_ask.h"
#include "actors/cli/cli_saved.h"
#include "actors/cli/cli_session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The company ended under us: its own exit code, 70 when it was killed. */
static tr_status alive(void *arg, tr_error *err) {
    tr_cli_session *s = arg;
    if (!tr_launch_wait_end(&s->launch, 0)) return TR_OK;
    return tr_error_set(err, TR_INTERNAL, "the company ended while the text was being made: run with TROUPE_LOG=warn");
}

/* Room for prompt and output in the context; a longer wish is cut with a warning. */
static tr_status fit(tr_cli_session *s, uint32_t n_prompt, uint32_t *n_predict, tr_error *err) {
    const tr_model_config *m = tr_model_file_config(s->model);
    tr_company_build_want *w = &s->topology.want;
    uint32_t most = m->context_max < TR_MAX_TOKENS ? m->context_max : TR_MAX_TOKENS;
    uint32_t context = w->context && w->context < most ? w->context : most;
    if (n_prompt == 0) return tr_error_set(err, TR_DATA, "the prompt is empty: give at least one token");
    if (n_prompt >= context)
        return tr_error_set(err, TR_DATA,
                            "the prompt has %u tokens, the context holds %u with one to generate: shorten it%s",
                            n_prompt, context, context < most ? " or raise -c" : "");
    if (*n_predict > context - n_prompt) {
        tr_cli_say("warning: -n %u does not fit the context of %u tokens, cut to %u", *n_predict, context,
                   context - n_prompt);
        *n_predict = context - n_prompt;
    }
    w->n_requests = tr_options_u32(s->options, TR_OPTION_SAMPLES);
    w->request_tokens = n_prompt + *n_predict;
    return TR_OK;
}

static tr_status answer(tr_cli_session *s, const tr_cli_saved *saved, const uint32_t *ids, uint32_t n,
                        uint32_t n_predict, tr_error *err) {
    const char *stop[TR_OPTIONS_STOPS_MAX];
    tr_client_params params = tr_cli_ask_params(s->options, stop);
    tr_cli_answer a;
    params.tokens = ids;
    params.n_tokens = n;
    params.max_tokens = n_predict;
    tr_cli_saved_params(saved, n, &params);
    tr_status status = tr_cli_ask(s->client, &params, alive, s, &a, err);
    bool figures = status == TR_OK || status == TR_CANCELLED;
    if (figures && !tr_options_flag(s->options, TR_OPTION_QUIET))
        tr_cli_ask_table(s->client, &a, status == TR_OK ? 2000 : 200);
    tr_cli_answer_fini(&a);
    return status;
}

/* Tokens of the saved sequence, if any, then those of the prompt. */
static tr_status tokens_of(tr_cli_session *s, tr_options *o, const char *word, const tr_cli_saved *saved,
                           uint32_t **ids_out, uint32_t *n_out, tr_error *err) {
    unsigned flags = tr_options_flag(o, TR_OPTION_NO_BOS) || saved->n_tokens ? 0 : TR_TOKENIZE_BOS;
    tr_cli_text prompt = {0};
    uint32_t *more = NULL, n = 0;
    if (tr_options_flag(o, TR_OPTION_SPECIAL)) flags |= TR_TOKENIZE_PARSE_SPECIAL;
    if (word || !saved->n_tokens) {
        TR_TRY(tr_cli_read_prompt(word, &prompt, err));
        tr_status status = tr_cli_session_tokenize(s, prompt.data, prompt.len, flags, &more, &n, err);
        tr_cli_text_free(&prompt);
        TR_TRY(status);
    }
    *n_out = saved->n_tokens + n;
    *ids_out = malloc((*n_out + 1) * sizeof **ids_out);
    if (*ids_out && saved->n_tokens) memcpy(*ids_out, saved->tokens, saved->n_tokens * sizeof **ids_out);
    if (*ids_out && n) memcpy(*ids_out + saved->n_tokens, more, n * sizeof **ids_out);
    free(more);
    return *ids_out ? TR_OK : tr_error_set(err, TR_UNAVAILABLE, "no memory for %u tokens", *n_out);
}

static tr_status run(tr_cli_session *s, tr_options *o, tr_cli_saved *saved, tr_error *err) {
    uint32_t *ids = NULL, n = 0, n_predict = tr_options_u32(o, TR_OPTION_PREDICT);
    char name[64];
    TR_TRY(tr_cli_session_load(s, o, err));
    if (o->n_positional > s->words_used + 1)
        return tr_error_set(err, TR_USAGE, "'%.60s' is one argument too many: put a prompt of several words in quotes",
                            o->positional[s->words_used + 1]);
    const char *word = o->n_positional > s->words_used ? o->positional[s->words_used] : NULL;
    TR_TRY(tr_cli_saved_open(o, saved, err));
    if (saved->folder[0]) {
        snprintf(s->topology.save_dir, sizeof s->topology.save_dir, "%s", saved->folder);
        s->topology.want.files = true;
    }
    tr_status status = tokens_of(s, o, word, saved, &ids, &n, err);
    if (status == TR_OK) status = fit(s, n, &n_predict, err);
    if (status == TR_OK) status = tr_cli_session_plan(s, err);
    if (status == TR_OK && s->company.instruct && !tr_options_flag(o, TR_OPTION_QUIET) &&
        !tr_options_flag(o, TR_OPTION_SPECIAL))
        tr_cli_say("hint: %s is an instruct model; the prompt goes in as it is, without its chat template",
                   s->company.model_name);
    tr_cli_session_name(o, name);
    if (status == TR_OK) status = tr_cli_session_start(s, name, err);
    if (status == TR_OK) status = answer(s, saved, ids, n, n_predict, err);
    free(ids);
    return status;
}

int tr_cli_run(tr_options *o) {
    static tr_cli_session session;
    static tr_cli_saved saved;
    tr_error err = {0};
    if (tr_options_flag(o, TR_OPTION_CHAT)) return tr_cli_chat(o);
    tr_status status = run(&session, o, &saved, &err);
    tr_cli_saved_fini(&saved);
    tr_cli_session_fini(&session);
    return tr_cli_session_exit(&session, status, &err);
}
