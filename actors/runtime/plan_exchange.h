/* actors/runtime/plan_exchange.h - what a company of several nodes is planned from, on its way between them: the wish
 * (struct tr_company_build_want) and the machines (struct tr_machine), as the bytes of one version of troupe.
 * Why not the plan: it is a pure function of these, so every node computes it from values that are checked here, as it
 * would from a command line, and no offset or size of another process is ever believed. plan_hash says whether both
 * came to the same.
 * Errors: TR_PROTO (another version, values out of their bounds; the text says which). Threads: any. */
#ifndef TR_PLAN_EXCHANGE_H
#define TR_PLAN_EXCHANGE_H
#include "actors/runtime/company_build.h"

#include <stddef.h>

/* bytes: exactly one struct. */
tr_status tr_plan_exchange_want(const void *bytes, size_t n, tr_company_build_want *out, tr_error *err);
/* bytes: exactly n_machines structs. */
tr_status tr_plan_exchange_machines(const void *bytes, size_t n, tr_machine *out, uint32_t n_machines, tr_error *err);
/* Names of hosts: 1 to 15 of a-z, 0-9 and '-', beginning with a letter. */
bool tr_plan_exchange_name_valid(const char *name, size_t cap);
#endif
