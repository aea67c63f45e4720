/* base/file_map.h - a whole file mapped read-only.
 * Owns: the mapping (the descriptor is closed at once). Views into it are valid until close.
 * Errors: TR_NO_INPUT (no such file), TR_DATA (not a regular file, empty), TR_SYSTEM. */
#ifndef TR_FILE_MAP_H
#define TR_FILE_MAP_H
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tr_file_map {
    const uint8_t *data; /* [size] */
    size_t size;
} tr_file_map;

tr_status tr_file_map_open(const char *path, tr_file_map *map_out, tr_error *err);
void tr_file_map_close(tr_file_map *map); /* idempotent */
#endif
