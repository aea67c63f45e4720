/* actors/cli/cli_verify.h - `troupe plan --verify`: proves the hand-off of a planned company by enumeration
 * (kv/reshard_verify.h) and says on stderr what was proved. */
#ifndef TR_CLI_VERIFY_H
#define TR_CLI_VERIFY_H
#include "actors/runtime/company.h"

/* TR_INTERNAL: the plan is wrong; the error names the first cell at fault. */
tr_status tr_cli_verify(const tr_company *c, tr_error *err);
#endif
