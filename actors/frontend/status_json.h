/* actors/frontend/status_json.h - what `troupe status --json` prints, read from the control blocks, bitmaps and the
 * journal. */
#ifndef TR_STATUS_JSON_H
#define TR_STATUS_JSON_H
#include "actors/runtime/runtime.h"
/* Text of the caller (free), or NULL without memory. */
char *tr_status_json(tr_runtime *rt);
#endif
