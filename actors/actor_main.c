#include "actors/runtime/actor_main.h"

#include "actors/actors.h"
#include "base/log.h"

#include <stdio.h>
#include <unistd.h>

static tr_status run_role(tr_runtime *rt, tr_error *err) {
    switch ((tr_role)rt->me->role) {
    case TR_ROLE_FRONTEND: return tr_frontend_run(rt, err);
    case TR_ROLE_SCHEDULER: return tr_scheduler_actor_run(rt, err);
    case TR_ROLE_RESHARDER: return tr_resharder_run(rt, err);
    case TR_ROLE_GATEWAY: return tr_gateway_run(rt, err);
    case TR_ROLE_STAGE: return rt->me->rank ? tr_follower_run(rt, err) : tr_stage_run(rt, err);
    case TR_ROLE_STORE: return tr_store_run(rt, err);
    case TR_ROLE_NODE: return tr_node_agent_run(rt, err);
    case TR_ROLE_SUPERVISOR: break;
    }
    return tr_error_set(err, TR_INTERNAL, "%s is not an actor that can be started by itself", rt->me->name);
}

int tr_actor_main(const char *name) {
    static tr_runtime rt;
    tr_error err = {0};
    tr_status status = tr_runtime_open(name, &rt, &err);
    if (status == TR_OK) status = run_role(&rt, &err);
    /* TR_PEER: the supervisor is gone. The command tells that; its line must be the last. */
    if (status != TR_OK && status != TR_PEER)
        fprintf(stderr, "troupe: %s: %s\n", name, err.text[0] ? err.text : tr_status_text(status));
    tr_runtime_close(&rt);
    return tr_status_exit_code(status);
}
