#include "model/model_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool ends(const char *path, const char *tail) {
    size_t n = strlen(path), k = strlen(tail);
    return n >= k && memcmp(path + n - k, tail, k) == 0;
}

bool tr_model_folder_is_index(const char *weights) { return ends(weights, ".safetensors.index.json"); }
bool tr_model_folder_is_shard(const char *weights) {
    const char *slash = strrchr(weights, '/'), *of = strstr(slash ? slash : weights, "-of-");
    return of && strspn(of + 4, "0123456789") == 5 && strcmp(of + 9, ".safetensors") == 0;
}
bool tr_model_folder_is(const char *weights) {
    return ends(weights, ".safetensors") || tr_model_folder_is_index(weights);
}

static tr_status no_memory(const char *path, tr_error *err) {
    return tr_error_set(err, TR_SYSTEM, "%s: out of memory", path);
}

tr_status tr_model_folder_weights(const char *path, char **weights_out, tr_error *err) {
    static const char *const names[] = {"model.safetensors", TR_MODEL_FOLDER_INDEX};
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        *weights_out = strdup(path);
        return *weights_out ? TR_OK : no_memory(path, err);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *file;
        if (asprintf(&file, "%s/%s", path, names[i]) < 0) return no_memory(path, err);
        if (access(file, F_OK) == 0) {
            *weights_out = file;
            return TR_OK;
        }
        free(file);
    }
    return tr_error_set(err, TR_NO_INPUT,
                        "no model.safetensors in %s, and no " TR_MODEL_FOLDER_INDEX "; name a .gguf or .safetensors "
                        "file, or a folder with one of these two",
                        path);
}

tr_status tr_model_folder_beside(const char *weights, const char *name, char **path_out, tr_error *err) {
    const char *slash = strrchr(weights, '/');
    const int folder = slash ? (int)(slash - weights) + 1 : 0;
    return asprintf(path_out, "%.*s%s", folder, weights, name) < 0 ? no_memory(weights, err) : TR_OK;
}

tr_status tr_model_folder_map(const char *weights, const char *name, size_t max, bool required, tr_file_map *map_out,
                              tr_error *err) {
    char *path;
    *map_out = (tr_file_map){NULL, 0};
    TR_TRY(tr_model_folder_beside(weights, name, &path, err));
    tr_status s = required || access(path, F_OK) == 0 ? tr_file_map_open(path, map_out, err) : TR_OK;
    if (s == TR_OK && map_out->size > max) {
        s = tr_error_set(err, TR_DATA, "%s: %zu bytes, more than %zu are not supported", path, map_out->size, max);
        tr_file_map_close(map_out);
    }
    free(path);
    return s;
}
