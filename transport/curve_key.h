/* transport/curve_key.h - keys of the connections between nodes (CURVE, libzmq's Z85 text of 40 characters).
 * A folder holds for each node NAME a file NAME.key (secret, mode 0600; only the node itself needs it) and NAME.pub.
 * Errors: TR_CONFIG (missing, malformed, open to others), TR_CANNOT_CREATE. Threads: any. */
#ifndef TR_CURVE_KEY_H
#define TR_CURVE_KEY_H
#include "base/status.h"

#include <stddef.h>

enum { TR_CURVE_KEY_TEXT = 41 };

typedef struct tr_curve_key {
    char public_text[TR_CURVE_KEY_TEXT], secret_text[TR_CURVE_KEY_TEXT];
} tr_curve_key;

/* New pair of that name; an existing one is left alone (TR_CANNOT_CREATE). The folder is made, 0700, when missing. */
tr_status tr_curve_key_create(const char *dir, const char *name, tr_curve_key *out, tr_error *err);
/* Pair of a node; refuses a secret that others may read. */
tr_status tr_curve_key_read(const char *dir, const char *name, tr_curve_key *out, tr_error *err);
tr_status tr_curve_key_read_public(const char *dir, const char *name, char out[TR_CURVE_KEY_TEXT], tr_error *err);
/* Overwrite a secret that is not needed any more. */
void tr_curve_key_wipe(tr_curve_key *key);
#endif
