/* actors/actors.h - the entry of each role, for the dispatcher alone (actors never include each other's folders).
 * Each runs until the company stops and returns TR_OK, or fails before READY with a reason. */
#ifndef TR_ACTORS_H
#define TR_ACTORS_H
#include "actors/runtime/runtime.h"
tr_status tr_frontend_run(tr_runtime *rt, tr_error *err);
tr_status tr_scheduler_actor_run(tr_runtime *rt, tr_error *err);
tr_status tr_resharder_run(tr_runtime *rt, tr_error *err);
tr_status tr_gateway_run(tr_runtime *rt, tr_error *err);
tr_status tr_stage_run(tr_runtime *rt, tr_error *err);    /* rank 0 of a stage */
tr_status tr_follower_run(tr_runtime *rt, tr_error *err); /* its other ranks */
tr_status tr_store_run(tr_runtime *rt, tr_error *err);
tr_status tr_node_agent_run(tr_runtime *rt, tr_error *err);
#endif
