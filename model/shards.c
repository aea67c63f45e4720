#include "model/shards.h"

#include "model/model_folder.h"
#include "model/shard_index.h"

#include <stdlib.h>
#include <string.h>

struct tr_shards {
    tr_shard_index *index; /* NULL: one file, without one */
    uint32_t n_files;
    tr_safetensors **file; /* [n_files] in the order of the index */
};

/* Names are unique in a shard and in the index: equal counts and every tensor in its place mean that both are equal. */
static tr_status compare(const tr_shards *s, uint32_t i, tr_error *err) {
    const tr_safetensors *st = s->file[i];
    const char *file = tr_shard_index_file(s->index, i);
    for (uint32_t t = 0; t < tr_safetensors_count(st); t++) {
        const char *name = tr_safetensors_at(st, t)->name, *where = tr_shard_index_where(s->index, name);
        if (where && strcmp(where, file) == 0) continue;
        return tr_error_set(err, TR_DATA, "%s: tensor %s is in this shard, the index %s%.100s", tr_safetensors_name(st),
                            tr_safetensors_show(name).text, where ? "has it in " : "does not name it",
                            where ? where : "");
    }
    if (tr_safetensors_count(st) != tr_shard_index_tensors(s->index, i))
        return tr_error_set(err, TR_DATA, "%s: %u tensors, the index has %u in this shard: some are missing",
                            tr_safetensors_name(st), tr_safetensors_count(st), tr_shard_index_tensors(s->index, i));
    return TR_OK;
}

static tr_status open_file(tr_shards *s, const char *path, tr_error *err) {
    TR_TRY(tr_safetensors_open(path, &s->file[s->n_files], err));
    s->n_files++;
    return TR_OK;
}

static tr_status open_named(tr_shards *s, const char *path, uint32_t i, tr_error *err) {
    char *file;
    TR_TRY(tr_model_folder_beside(path, tr_shard_index_file(s->index, i), &file, err));
    tr_status status = open_file(s, file, err);
    if (status == TR_NO_INPUT)
        status =
            tr_error_set(err, status, "%.200s: no such file, and the index names it: the folder is not complete", file);
    free(file);
    return status == TR_OK ? compare(s, i, err) : status;
}

static tr_status read_index(tr_shards *s, const char *path, tr_error *err) {
    tr_file_map map;
    TR_TRY(tr_file_map_open(path, &map, err));
    tr_status status = map.size <= TR_MODEL_FOLDER_SIDE_MAX
                           ? tr_shard_index_read((const char *)map.data, map.size, path, &s->index, err)
                           : tr_error_set(err, TR_DATA, "%s: offset 0: %zu bytes, more than %d are not supported", path,
                                          map.size, TR_MODEL_FOLDER_SIDE_MAX);
    tr_file_map_close(&map);
    return status;
}

static tr_status open_all(tr_shards *s, const char *path, tr_error *err) {
    const bool indexed = tr_model_folder_is_index(path);
    if (indexed) TR_TRY(read_index(s, path, err));
    const uint32_t n = indexed ? tr_shard_index_files(s->index) : 1;
    s->file = calloc(n, sizeof *s->file);
    if (!s->file) return tr_error_set(err, TR_SYSTEM, "%s: out of memory", path);
    if (!indexed) return open_file(s, path, err);
    for (uint32_t i = 0; i < n; i++) TR_TRY(open_named(s, path, i, err));
    return TR_OK;
}

tr_status tr_shards_open(const char *path, tr_shards **shards_out, tr_error *err) {
    tr_shards *s = calloc(1, sizeof *s);
    if (!s) return tr_error_set(err, TR_SYSTEM, "%s: out of memory", path);
    tr_status status = open_all(s, path, err);
    if (status == TR_OK)
        *shards_out = s;
    else
        tr_shards_close(&s);
    return status;
}

void tr_shards_close(tr_shards **shards) {
    tr_shards *s = *shards;
    *shards = NULL;
    if (!s) return;
    for (uint32_t i = 0; i < s->n_files; i++) tr_safetensors_close(&s->file[i]);
    tr_shard_index_close(&s->index);
    free(s->file);
    free(s);
}

uint32_t tr_shards_files(const tr_shards *s) { return s->n_files; }

const char *tr_shards_file(const tr_shards *s, uint32_t i) {
    tr_check(i < s->n_files);
    return tr_safetensors_name(s->file[i]);
}

uint32_t tr_shards_count(const tr_shards *s) {
    uint32_t n = 0; /* at most 65,536 by index, or by the reader of the one file */
    for (uint32_t i = 0; i < s->n_files; i++) n += tr_safetensors_count(s->file[i]);
    return n;
}

const tr_safetensors_tensor *tr_shards_at(const tr_shards *s, uint32_t i) {
    uint32_t f = 0;
    for (; f + 1 < s->n_files && i >= tr_safetensors_count(s->file[f]); f++) i -= tr_safetensors_count(s->file[f]);
    return tr_safetensors_at(s->file[f], i);
}

const tr_safetensors_tensor *tr_shards_find(const tr_shards *s, const char *name) {
    for (uint32_t f = 0; f < s->n_files; f++) {
        const tr_safetensors_tensor *t = tr_safetensors_find(s->file[f], name);
        if (t) return t;
    }
    return NULL;
}
