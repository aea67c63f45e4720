/* model/unicode_nfc.h - Unicode normalization form C: decomposed canonically, marks in order, composed again.
 * Source: Unicode Standard Annex 15; tables of Unicode 14.0 (model/unicode_nfc_tables.c). Threads: any; no state. */
#ifndef TR_UNICODE_NFC_H
#define TR_UNICODE_NFC_H
#include "base/status.h"

#include <stddef.h>

/* NFC of valid UTF-8 text[0..len); out holds 3 * len bytes, *n_out gets what is written. O(len log len). TR_SYSTEM when
 * memory is short. */
tr_status tr_unicode_nfc(const char *text, size_t len, char *out, size_t *n_out);
#endif
