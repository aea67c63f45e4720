/* model/shards.h - the tensors of a Hugging Face folder as one list: of its one .safetensors file, or of the shards
 * that its index names. With an index both must say the same: every tensor lies in the shard that the index names for
 * it, and a shard holds no other. Owns: the readers of all files. Views are valid until close. Threads: immutable after
 * open; any thread may read. Errors: those of model/safetensors.h and model/shard_index.h; TR_DATA where index and
 * shards differ (tensor and file). */
#ifndef TR_SHARDS_H
#define TR_SHARDS_H
#include "model/safetensors.h"

typedef struct tr_shards tr_shards;

/* path: a .safetensors file, or the index. */
tr_status tr_shards_open(const char *path, tr_shards **shards_out, tr_error *err);
void tr_shards_close(tr_shards **shards); /* idempotent, sets NULL */

uint32_t tr_shards_count(const tr_shards *s);                                      /* tensors */
const tr_safetensors_tensor *tr_shards_at(const tr_shards *s, uint32_t i);         /* file by file, then by name */
const tr_safetensors_tensor *tr_shards_find(const tr_shards *s, const char *name); /* NULL when absent */
uint32_t tr_shards_files(const tr_shards *s);
const char *tr_shards_file(const tr_shards *s, uint32_t i); /* path */
#endif
