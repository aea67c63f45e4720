/* tests/tools/gguf_build.h - writes small GGUF v3 images (keys only, no tensors) in memory, for tests and fuzz targets.
 * Fixed room; a test that needs more asks for more. Strings are C strings; put_text takes any bytes. */
#ifndef TR_TEST_GGUF_BUILD_H
#define TR_TEST_GGUF_BUILD_H
#include "base/status.h"
#include "model/gguf.h"

#include <string.h>

enum { TR_GGUF_BUILD_ROOM = 1 << 16 };

typedef struct tr_gguf_build {
    uint8_t data[TR_GGUF_BUILD_ROOM];
    size_t n;
    uint64_t n_keys;
} tr_gguf_build;

static inline void tr_gguf_build_raw(tr_gguf_build *b, const void *data, size_t n) {
    tr_check(n <= sizeof b->data - b->n);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}
static inline void tr_gguf_build_u32(tr_gguf_build *b, uint32_t v) { tr_gguf_build_raw(b, &v, 4); }
static inline void tr_gguf_build_u64(tr_gguf_build *b, uint64_t v) { tr_gguf_build_raw(b, &v, 8); }
static inline void tr_gguf_build_text(tr_gguf_build *b, const char *s, size_t n) {
    tr_gguf_build_u64(b, n);
    tr_gguf_build_raw(b, s, n);
}

static inline void tr_gguf_build_begin(tr_gguf_build *b) {
    b->n = 0;
    b->n_keys = 0;
    tr_gguf_build_raw(b, "GGUF\3\0\0", 8);
    tr_gguf_build_u64(b, 0); /* tensors */
    tr_gguf_build_u64(b, 0); /* keys, set by end */
}
static inline void tr_gguf_build_key(tr_gguf_build *b, const char *key, tr_gguf_type type) {
    b->n_keys++;
    tr_gguf_build_text(b, key, strlen(key));
    tr_gguf_build_u32(b, (uint32_t)type);
}
static inline void tr_gguf_build_str(tr_gguf_build *b, const char *key, const char *value) {
    tr_gguf_build_key(b, key, TR_GGUF_STR);
    tr_gguf_build_text(b, value, strlen(value));
}
static inline void tr_gguf_build_num(tr_gguf_build *b, const char *key, uint32_t value) {
    tr_gguf_build_key(b, key, TR_GGUF_U32);
    tr_gguf_build_u32(b, value);
}
static inline void tr_gguf_build_bool(tr_gguf_build *b, const char *key, bool value) {
    tr_gguf_build_key(b, key, TR_GGUF_BOOL);
    tr_gguf_build_raw(b, &(uint8_t){value}, 1);
}
/* Head of an array; the caller appends the elements (texts with tr_gguf_build_text). */
static inline void tr_gguf_build_arr(tr_gguf_build *b, const char *key, tr_gguf_type elem, uint64_t count) {
    tr_gguf_build_key(b, key, TR_GGUF_ARR);
    tr_gguf_build_u32(b, (uint32_t)elem);
    tr_gguf_build_u64(b, count);
}
static inline void tr_gguf_build_end(tr_gguf_build *b) { memcpy(b->data + 16, &b->n_keys, 8); }
#endif
