/* troupe serve: start a company and stay until a signal, troupe stop, or its own end. */
#include "actors/cli/cli_session.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static tr_status serve(tr_cli_session *s, tr_options *o, tr_error *err) {
    char name[64];
    TR_TRY(tr_cli_session_load(s, o, err));
    if (o->n_positional > s->words_used)
        return tr_error_set(err, TR_USAGE, "'%.60s' is one argument too many: serve takes no prompt",
                            o->positional[s->words_used]);
    TR_TRY(tr_cli_session_plan(s, err));
    tr_cli_session_name(o, name);
    TR_TRY(tr_cli_session_start(s, name, err));
    tr_client_close(&s->client); /* it answers: that was the question */
    tr_cli_say("%s serves %s at %s (context %u)", s->company.name, s->company.model_name, s->company.endpoint,
               s->company.context);
    const tr_company_actor *gateway = tr_company_find_actor(&s->company, "gateway");
    if (gateway)
        tr_cli_say("HTTP at http://%s:%u/v1", s->company.http_host,
                   atomic_load(&s->launch.control->actor[gateway - s->company.actor].port));
    while (!tr_cli_signalled() && !tr_launch_wait_end(&s->launch, 500)) continue;
    return TR_OK;
}

int tr_cli_serve(tr_options *o) {
    static tr_cli_session session;
    tr_error err = {0};
    tr_status status = serve(&session, o, &err);
    tr_cli_session_fini(&session);
    if (status == TR_OK && tr_cli_signalled() == SIGINT) return tr_status_exit_code(TR_CANCELLED);
    return tr_cli_session_exit(&session, status, &err);
}
