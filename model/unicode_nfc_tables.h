/* model/unicode_nfc_tables.h - what model/unicode_nfc.c looks up; every table ascends by its first column. */
#ifndef TR_UNICODE_NFC_TABLES_H
#define TR_UNICODE_NFC_TABLES_H
#include <stddef.h>
#include <stdint.h>

extern const uint32_t tr_unicode_one[][2];    /* code point, the one that it decomposes into */
extern const uint32_t tr_unicode_two[][3];    /* code point, the two that it decomposes into */
extern const uint16_t tr_unicode_composing[]; /* rows of tr_unicode_two that compose again, by their two */
extern const uint32_t tr_unicode_marks[][3];  /* first and last code point of a run, its combining class */
extern const size_t tr_unicode_ones, tr_unicode_twos, tr_unicode_n_composing, tr_unicode_n_marks;
#endif
