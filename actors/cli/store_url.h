/* actors/cli/store_url.h - the address of a store as people write it: redis://HOST[:PORT][/DB], or
 * unix:///PATH[?db=DB]. Pure. HOST is an address, not a name, but for localhost: nothing is ever resolved, so nothing
 * waits for that. */
#ifndef TR_STORE_URL_H
#define TR_STORE_URL_H
#include "actors/runtime/company.h"
#include "base/status.h"

#include <stdbool.h>

/* Fills host, port and db. TR_CONFIG: what is wrong with it. A password in it is refused: others can see it. */
tr_status tr_store_url_parse(const char *text, tr_company_store *out, tr_error *err);
/* No other machine is on the way. */
bool tr_store_url_is_local(const tr_company_store *s);
#endif
