/* troupe keygen: keys for the hosts of a company, one folder. */
#include "actors/cli/cli.h"
#include "actors/runtime/plan_exchange.h"
#include "transport/curve_key.h"

#include <stdio.h>

static tr_status keygen(const tr_options *o, tr_error *err) {
    if (o->n_positional < 2)
        return tr_error_set(err, TR_USAGE, "give a folder and the names of the hosts: troupe keygen keys a b");
    for (uint32_t i = 1; i < o->n_positional; i++)
        if (!tr_plan_exchange_name_valid(o->positional[i], 64))
            return tr_error_set(err, TR_USAGE, "'%.60s' is no name of a host: at most 15 small letters, digits and '-'",
                                o->positional[i]);
    for (uint32_t i = 1; i < o->n_positional; i++) {
        tr_curve_key key;
        TR_TRY(tr_curve_key_create(o->positional[0], o->positional[i], &key, err));
        printf("%s %s\n", o->positional[i], key.public_text);
        tr_curve_key_wipe(&key);
    }
    return TR_OK;
}

int tr_cli_keygen(tr_options *o) {
    tr_error err = {0};
    tr_status status = keygen(o, &err);
    return status == TR_OK ? 0 : tr_cli_fail(&err, status);
}
