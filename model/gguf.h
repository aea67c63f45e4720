/* model/gguf.h - reader of GGUF files, versions 2 and 3, little-endian.
 * Why: the file is hostile input. Everything is checked once, in open; afterwards every accessor is total.
 * Owns: the mapping and one small table entry a key and a tensor. Strings, arrays (token lists) and tensor data are
 *       views into the file, valid until close; they are never copied. Strings are not NUL-terminated.
 * Threads: immutable after open; any thread may read.
 * Errors: TR_DATA, text "FILE: offset N: reason" (N is the byte where the bad field starts); TR_NO_INPUT, TR_SYSTEM.
 * Bounds: 65,536 tensors of 1 to 4 dimensions, 100,000 keys, 1 MiB a string, 64 bytes a tensor name, alignment a
 *         power of two up to 1 MiB, unique names, tensors aligned, inside the file and apart from each other.
 *         Memory is proportional to the file, never to a number that the file claims.
 * Source: GGUF specification (ggml, docs/gguf.md). */
#ifndef TR_GGUF_H
#define TR_GGUF_H
#include "base/status.h"
#include "model/dequant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TR_GGUF_MAX_TENSORS = 65536,
    TR_GGUF_MAX_KVS = 100000,
    TR_GGUF_MAX_DIMS = 4,
    TR_GGUF_MAX_STRING = 1 << 20,    /* bytes */
    TR_GGUF_MAX_KEY = 65535,         /* bytes */
    TR_GGUF_MAX_NAME = 64,           /* bytes of a tensor name */
    TR_GGUF_MAX_ALIGNMENT = 1 << 20, /* bytes */
};

/* Numbers as in the file. */
typedef enum tr_gguf_type {
    TR_GGUF_U8 = 0,
    TR_GGUF_I8 = 1,
    TR_GGUF_U16 = 2,
    TR_GGUF_I16 = 3,
    TR_GGUF_U32 = 4,
    TR_GGUF_I32 = 5,
    TR_GGUF_F32 = 6,
    TR_GGUF_BOOL = 7,
    TR_GGUF_STR = 8,
    TR_GGUF_ARR = 9,
    TR_GGUF_U64 = 10,
    TR_GGUF_I64 = 11,
    TR_GGUF_F64 = 12,
} tr_gguf_type;

/* Bytes in the file, not NUL-terminated; may hold any byte. */
typedef struct tr_gguf_text {
    const char *data;
    size_t len;
} tr_gguf_text;

typedef struct tr_gguf_kv {
    tr_gguf_text key;
    tr_gguf_type type;      /* TR_GGUF_ARR for arrays */
    tr_gguf_type elem_type; /* of an array; equals type for a scalar */
    uint64_t count;         /* elements of an array; 1 for a scalar */
    const uint8_t *data;    /* first element, unaligned, little-endian */
    uint64_t offset;        /* of the entry in the file, for messages */
} tr_gguf_kv;

typedef struct tr_gguf_tensor {
    tr_gguf_text name;
    tr_dequant_type type;
    uint32_t n_dims;
    uint64_t dims[TR_GGUF_MAX_DIMS]; /* dims[0] is the contiguous one (columns); unused ones are 1 */
    uint64_t row_bytes;              /* of dims[0] elements */
    uint64_t bytes;                  /* whole tensor */
    const uint8_t *data;             /* [bytes] in the file */
    uint64_t offset;                 /* of the tensor's info in the file, for messages */
} tr_gguf_tensor;

typedef struct tr_gguf tr_gguf;

/* Map and check a file. */
tr_status tr_gguf_open(const char *path, tr_gguf **gguf_out, tr_error *err);
/* The same over caller memory that must outlive the reader; name stands for the file in messages. */
tr_status tr_gguf_open_buffer(const void *data, size_t size, const char *name, tr_gguf **gguf_out, tr_error *err);
void tr_gguf_close(tr_gguf **gguf); /* idempotent, sets NULL */

const char *tr_gguf_name(const tr_gguf *g); /* path or name given to open */
uint32_t tr_gguf_version(const tr_gguf *g);
uint32_t tr_gguf_kv_count(const tr_gguf *g);
uint32_t tr_gguf_tensor_count(const tr_gguf *g);
const tr_gguf_kv *tr_gguf_kv_at(const tr_gguf *g, uint32_t i);                 /* file order */
const tr_gguf_tensor *tr_gguf_tensor_at(const tr_gguf *g, uint32_t i);         /* file order */
const tr_gguf_kv *tr_gguf_find(const tr_gguf *g, const char *key);             /* NULL when absent; O(log n) */
const tr_gguf_tensor *tr_gguf_tensor_find(const tr_gguf *g, const char *name); /* NULL when absent; O(log n) */

/* Typed getters. An absent key: *out untouched, TR_OK, *found_out false (found_out may be NULL when absence does not
 * matter). A key of the wrong type or a value outside the target: TR_DATA with the key's name and offset.
 * u32 takes any integer type whose value fits; f32 takes F32 or F64; boolean takes BOOL. */
tr_status tr_gguf_u32(const tr_gguf *g, const char *key, uint32_t *out, bool *found_out, tr_error *err);
tr_status tr_gguf_f32(const tr_gguf *g, const char *key, float *out, bool *found_out, tr_error *err);
tr_status tr_gguf_bool(const tr_gguf *g, const char *key, bool *out, bool *found_out, tr_error *err);
tr_status tr_gguf_str(const tr_gguf *g, const char *key, tr_gguf_text *out, bool *found_out, tr_error *err);

/* One pass over an array. Not a snapshot: borrows the reader. */
typedef struct tr_gguf_arr {
    tr_gguf_type elem_type;
    uint64_t count; /* elements in all */
    uint64_t index; /* elements already taken */
    const uint8_t *next;
} tr_gguf_arr;

/* Start over an array whose elements are exactly of elem_type; another type or a scalar is TR_DATA. */
tr_status tr_gguf_arr_begin(const tr_gguf *g, const char *key, tr_gguf_type elem_type, tr_gguf_arr *out,
                            bool *found_out, tr_error *err);
/* Next element; false at the end. The getter must fit elem_type (checked). */
bool tr_gguf_arr_str(tr_gguf_arr *a, tr_gguf_text *out);
bool tr_gguf_arr_f32(tr_gguf_arr *a, float *out);   /* F32 arrays */
bool tr_gguf_arr_i64(tr_gguf_arr *a, int64_t *out); /* integer and BOOL arrays; U64 above INT64_MAX is clamped */

/* Bytes of one value in the file; 0 for strings and arrays, which have no fixed size. */
size_t tr_gguf_type_bytes(tr_gguf_type type);

/* True when the text equals a C string. */
bool tr_gguf_text_is(tr_gguf_text text, const char *s);

/* Build "FILE: offset N: reason" and return TR_DATA; for checks above this layer that concern one entry. */
tr_status tr_gguf_fail(const tr_gguf *g, tr_error *err, uint64_t offset, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#endif
