/* model/shard_index.h - model.safetensors.index.json: which file of the folder holds which tensor.
 * Why: hostile input that names files. A name is one plain component that ends in .safetensors; nothing else is opened.
 * Owns: the parsed text; names are valid until close.
 * Threads: immutable after read; any thread may ask.
 * Errors: TR_DATA "FILE: offset N: reason", TR_SYSTEM.
 * Bounds: 65,536 tensors, 1,024 files. */
#ifndef TR_SHARD_INDEX_H
#define TR_SHARD_INDEX_H
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { TR_SHARD_INDEX_MAX_FILES = 1024 };

typedef struct tr_shard_index tr_shard_index;

tr_status tr_shard_index_read(const char *text, size_t len, const char *name, tr_shard_index **index_out,
                              tr_error *err);
void tr_shard_index_close(tr_shard_index **index); /* idempotent, sets NULL */

uint32_t tr_shard_index_files(const tr_shard_index *index);                      /* at least 1 */
const char *tr_shard_index_file(const tr_shard_index *index, uint32_t i);        /* in order of the names */
uint32_t tr_shard_index_tensors(const tr_shard_index *index, uint32_t i);        /* that file i holds */
const char *tr_shard_index_where(const tr_shard_index *index, const char *name); /* file of a tensor, or NULL */
#endif
