/* actors/cli/cli_remote.h - how commands on a running company find it. */
#ifndef TR_CLI_REMOTE_H
#define TR_CLI_REMOTE_H
#include "base/options.h"
#include "client/troupe_client.h"
/* By --name or --connect; it must be there now. */
tr_status tr_cli_remote_open(tr_options *o, tr_client **client, tr_error *err);
#endif
