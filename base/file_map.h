/* base/file_map.h - a whole file mapped read-only.
 * Owns: the mapping (the descriptor is closed at once). Views into it are valid until close.
 * Errors: TR_NO_INPUT (no such file), TR_DATA (not a regular file, empty), TR_SYSTEM. */
#ifndef TR_FILE_MAP_H
#define TR_FILE_MAP_H
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_file_map {
    const uint8_t *data; /* [size] */
    size_t size;
} tr_file_map;

tr_status tr_file_map_open(const char *path, tr_file_map *map_out, tr_error *err);
/* Hint: this part is read whole and often, so map it by large pages where the file system keeps any (or: do not). */
void tr_file_map_large_pages(const tr_file_map *map, const void *data, size_t bytes, bool large);
void tr_file_map_close(tr_file_map *map); /* idempotent */
#endif
