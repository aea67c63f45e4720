#include "model/shard_index.h"

#include "model/json_form.h"
#include "model/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 255, MAX_METADATA = 65536 };

struct tr_shard_index {
    json_t *root;
    const json_t *map; /* tensor -> file */
    uint32_t n_files;
    struct {
        const char *name;
        uint32_t tensors;
    } file[TR_SHARD_INDEX_MAX_FILES]; /* ascending */
};

static tr_status fail(const char *name, size_t offset, const char *reason, tr_error *err) {
    return tr_error_set(err, TR_DATA, "%.300s: offset %zu: %s", name, offset, reason);
}

/* One component of a path, of letters that show in a message. */
static bool plain(const char *file) {
    static const char tail[] = ".safetensors";
    const size_t n = strlen(file), k = sizeof tail - 1;
    if (n <= k || n > NAME_MAX_BYTES || file[0] == '.' || strcmp(file + n - k, tail) != 0) return false;
    for (size_t i = 0; i < n; i++)
        if (file[i] == '/' || file[i] == '\\' || file[i] < 0x20 || file[i] > 0x7e) return false;
    return true;
}

/* Count a tensor for its file. */
static tr_status note(tr_shard_index *x, const char *file, const char *name, tr_error *err) {
    uint32_t lo = 0, hi = x->n_files;
    while (lo < hi) {
        const uint32_t mid = (lo + hi) / 2;
        if (strcmp(x->file[mid].name, file) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == x->n_files || strcmp(x->file[lo].name, file) != 0) {
        if (x->n_files == TR_SHARD_INDEX_MAX_FILES) return fail(name, 0, "weight_map names more than 1024 files", err);
        memmove(&x->file[lo + 1], &x->file[lo], (x->n_files - lo) * sizeof x->file[0]);
        x->file[lo].name = file;
        x->file[lo].tensors = 0;
        x->n_files++;
    }
    x->file[lo].tensors++;
    return TR_OK;
}

static tr_status read_map(tr_shard_index *x, const char *name, tr_error *err) {
    json_t *map = json_object_get(x->root, "weight_map"), *value;
    const char *tensor;
    if (!json_is_object(map) || json_object_size(map) == 0)
        return fail(name, 0, "weight_map is missing, empty or not an object", err);
    if (json_object_size(map) > TR_SAFETENSORS_MAX_TENSORS)
        return fail(name, 0, "weight_map has more than 65536 tensors", err);
    x->map = map;
    json_object_foreach(map, tensor, value) {
        const char *file = json_string_value(value);
        if (!file || !plain(file))
            return tr_error_set(err, TR_DATA,
                                "%.300s: offset 0: weight_map: the file of tensor %s is not the plain name of a "
                                ".safetensors file in this folder",
                                name, tr_safetensors_show(tensor).text);
        TR_TRY(note(x, file, name, err));
    }
    return TR_OK;
}

static tr_status parse(tr_shard_index *x, const char *text, size_t len, const char *name, tr_error *err) {
    static const tr_json_form limits = {
        .depth = 4, .containers = 1024, .values = 2 * TR_SAFETENSORS_MAX_TENSORS + MAX_METADATA};
    size_t offset = 0;
    json_error_t why;
    if (!tr_json_form_within(text, len, &limits, &offset))
        return fail(name, offset, "the JSON is too deep or too long for an index", err);
    x->root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!x->root)
        return fail(name, why.position > 0 ? (size_t)why.position : 0,
                    json_error_code(&why) == json_error_duplicate_key ? "a key is there twice" : "bad JSON", err);
    return read_map(x, name, err);
}

tr_status tr_shard_index_read(const char *text, size_t len, const char *name, tr_shard_index **index_out,
                              tr_error *err) {
    tr_shard_index *x = calloc(1, sizeof *x);
    if (!x) return tr_error_set(err, TR_SYSTEM, "%.300s: out of memory", name);
    tr_status status = parse(x, text, len, name, err);
    if (status == TR_OK)
        *index_out = x;
    else
        tr_shard_index_close(&x);
    return status;
}

void tr_shard_index_close(tr_shard_index **index) {
    tr_shard_index *x = *index;
    *index = NULL;
    if (!x) return;
    json_decref(x->root);
    free(x);
}

uint32_t tr_shard_index_files(const tr_shard_index *x) { return x->n_files; }

const char *tr_shard_index_file(const tr_shard_index *x, uint32_t i) {
    tr_check(i < x->n_files);
    return x->file[i].name;
}

uint32_t tr_shard_index_tensors(const tr_shard_index *x, uint32_t i) {
    tr_check(i < x->n_files);
    return x->file[i].tensors;
}

const char *tr_shard_index_where(const tr_shard_index *x, const char *name) {
    return json_string_value(json_object_get(x->map, name));
}
