/* model/model_cache.h - packed images and vocabularies on disk: made once, found again by content.
 * Folder: $XDG_CACHE_HOME/troupe/images (else ~/.cache/troupe/images), 0700. Name: <xxh3 of the model
 * file>-<precision>-v<N>.img or <xxh3>-vocabulary-v<N>.tok; the hash of a model file is remembered by (device, inode,
 * size, mtime) in hashes/, so a warm start reads neither. Two processes at once: one packs, the other waits (flock),
 * both get the same file. A folder that cannot be written, or is full, is no failure: the image goes to anonymous
 * memory of this process and the result says so. */
#ifndef TR_MODEL_CACHE_H
#define TR_MODEL_CACHE_H
#include "base/status.h"
#include "model/image.h"
#include "model/model_file.h"
#include "model/pack.h"
#include "model/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TR_MODEL_CACHE_PATH_MAX = 1024 };

typedef struct tr_model_cache_image {
    char path[TR_MODEL_CACHE_PATH_MAX]; /* of the image file; empty when it is only in memory */
    int fd;                             /* the image in memory (owned by the caller), else -1 */
    bool packed;                        /* it was made now */
    uint64_t model_hash;
    char warning[256]; /* why the cache was not used, else empty */
} tr_model_cache_image;

/* A ready image of the model in that precision. progress may be NULL. */
tr_status tr_model_cache_get(const char *model_path, tr_precision precision, uint32_t n_threads,
                             tr_pack_progress progress, void *progress_arg, tr_model_cache_image *image_out,
                             tr_error *err);
/* The tokenizer of a model, mapped from its packed vocabulary where there is a sound one, else made from the file
 * and packed for the next time. path_out: the packed vocabulary; empty where the cache does not take one.
 * Errors: those of tr_tokenizer_source_open. */
tr_status tr_model_cache_tokenizer(const tr_model_file *mf, tr_tokenizer **tokenizer_out,
                                   char path_out[TR_MODEL_CACHE_PATH_MAX], tr_error *err);
/* Hash of the model's content; reads all of a file that was never met. */
tr_status tr_model_cache_hash(const tr_model_file *mf, uint64_t *hash_out, tr_error *err);
/* Where the KV calibration of a model lies in the cache; its folder is made. TR_CANNOT_CREATE, TR_UNAVAILABLE. */
tr_status tr_model_cache_calibration(uint64_t model_hash, char path_out[TR_MODEL_CACHE_PATH_MAX], tr_error *err);
/* Would get find the image? False also when the model was never hashed: nothing large is read to find out. */
bool tr_model_cache_has(const tr_model_file *mf, tr_precision precision);
/* Make the folder and write in it. TR_CANNOT_CREATE, TR_UNAVAILABLE: why images are packed anew at every start. */
tr_status tr_model_cache_probe(tr_error *err);
/* Folder of the cache (the parent of images/, hashes/ and models/). */
tr_status tr_model_cache_folder(char *path_out, size_t cap, tr_error *err);
/* Bytes of all images. */
uint64_t tr_model_cache_bytes(void);
/* Remove all images and remembered hashes; *freed_out bytes. */
tr_status tr_model_cache_clear(uint64_t *freed_out, tr_error *err);
#endif
