#include "model/tokenizer_source.h"

#include "model/model_config.h"
#include "model/model_folder.h"
#include "model/tokenizer_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* The three files; maps are empty where there is none. */
typedef struct files {
    tr_file_map tokenizer, beside, config;
    char *name[3]; /* paths for messages */
} files;

static tr_status map_files(const char *weights, files *f, tr_error *err) {
    const struct {
        const char *name;
        size_t max;
        tr_file_map *map;
    } all[] = {{"tokenizer.json", TR_MODEL_FOLDER_TOKENIZER_MAX, &f->tokenizer},
               {"tokenizer_config.json", TR_MODEL_FOLDER_SIDE_MAX, &f->beside},
               {"config.json", TR_MODEL_FOLDER_SIDE_MAX, &f->config}};
    for (size_t i = 0; i < 3; i++) {
        TR_TRY(tr_model_folder_beside(weights, all[i].name, &f->name[i], err));
        TR_TRY(tr_model_folder_map(weights, all[i].name, all[i].max, false, all[i].map, err));
    }
    return TR_OK;
}

static tr_tokenizer_json_text text_of(const tr_file_map *map, const char *name) {
    return (tr_tokenizer_json_text){(const char *)map->data, map->size, name};
}

static tr_status read_files(const files *f, tr_tokenizer **out, tr_error *err) {
    const tr_tokenizer_json_text text = text_of(&f->tokenizer, f->name[0]), beside = text_of(&f->beside, f->name[1]);
    tr_model_config config = {0};
    if (!text.data)
        return tr_error_set(err, TR_UNAVAILABLE, "%.300s: no such file; without it the model takes token ids only",
                            f->name[0]);
    if (f->config.data)
        TR_TRY(tr_model_config_from_json((const char *)f->config.data, f->config.size, f->name[2], &config, err));
    return tr_tokenizer_json_read(&text, &beside, config.vocab, out, err);
}

static tr_status from_folder(const char *weights, tr_tokenizer **out, tr_error *err) {
    files f = {0};
    tr_status status = map_files(weights, &f, err);
    if (status == TR_OK) status = read_files(&f, out, err);
    tr_file_map_close(&f.tokenizer);
    tr_file_map_close(&f.beside);
    tr_file_map_close(&f.config);
    for (size_t i = 0; i < 3; i++) free(f.name[i]);
    return status;
}

static tr_status from_gguf(const char *path, tr_tokenizer **out, tr_error *err) {
    tr_gguf *gguf = NULL;
    TR_TRY(tr_gguf_open(path, &gguf, err));
    tr_status status = tr_tokenizer_create(gguf, out, err);
    tr_gguf_close(&gguf);
    return status;
}

tr_status tr_tokenizer_source_open(const char *model_path, tr_tokenizer **tokenizer_out, tr_error *err) {
    struct stat st;
    char *inside;
    if (tr_model_folder_is(model_path)) return from_folder(model_path, tokenizer_out, err);
    if (stat(model_path, &st) != 0 || !S_ISDIR(st.st_mode)) return from_gguf(model_path, tokenizer_out, err);
    if (asprintf(&inside, "%s/", model_path) < 0) return tr_error_set(err, TR_SYSTEM, "%s: out of memory", model_path);
    tr_status status = from_folder(inside, tokenizer_out, err);
    free(inside);
    return status;
}
