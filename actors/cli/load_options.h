/* actors/cli/load_options.h - a load as the options of bench serve and simulate describe it. */
#ifndef TR_LOAD_OPTIONS_H
#define TR_LOAD_OPTIONS_H
#include "actors/cli/load.h"
#include "base/options.h"

/* TR_USAGE, and those of tr_load_trace. The load is the caller's. */
tr_status tr_load_options(const tr_options *o, tr_load *out, tr_error *err);
#endif
