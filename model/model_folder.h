/* model/model_folder.h - the small files around the weights of a Hugging Face folder.
 * The folder is named by the path of its weights: model.safetensors, or model.safetensors.index.json where they come in
 * shards. Links are followed (the files of a Hugging Face cache are links).
 * Threads: any. */
#ifndef TR_MODEL_FOLDER_H
#define TR_MODEL_FOLDER_H
#include "base/file_map.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define TR_MODEL_FOLDER_INDEX "model.safetensors.index.json"

enum {
    TR_MODEL_FOLDER_SIDE_MAX = 16 << 20, /* bytes of config.json and its like */
    TR_MODEL_FOLDER_TOKENIZER_MAX = 64 << 20,
};

/* By its name: weights of such a folder, not a GGUF. */
bool tr_model_folder_is(const char *weights);
bool tr_model_folder_is_index(const char *weights);
bool tr_model_folder_is_shard(const char *weights); /* NAME-00001-of-00002.safetensors; there may be just one */
/* Path of the weights in a folder; of anything else the path itself. The caller frees it. TR_NO_INPUT: none in it. */
tr_status tr_model_folder_weights(const char *path, char **weights_out, tr_error *err);
/* Path of the file beside the weights; the caller frees it. */
tr_status tr_model_folder_beside(const char *weights, const char *name, char **path_out, tr_error *err);
/* Map it. *map_out is empty (data NULL) where there is none and it is not required. TR_NO_INPUT, TR_DATA: more than max
 * bytes, TR_SYSTEM. */
tr_status tr_model_folder_map(const char *weights, const char *name, size_t max, bool required, tr_file_map *map_out,
                              tr_error *err);
#endif
