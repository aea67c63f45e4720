/* base/checked.h - the only way to compute a size from input.
 * Every function returns false on overflow and leaves *out untouched. */
#ifndef TR_CHECKED_H
#define TR_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool tr_checked_add(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline bool tr_checked_mul(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

/* Round a up to a multiple of align (a power of two). */
static inline bool tr_checked_align(uint64_t a, uint64_t align, uint64_t *out) {
    uint64_t r;
    if (align == 0 || (align & (align - 1)) != 0) return false;
    if (!tr_checked_add(a, align - 1, &r)) return false;
    *out = r & ~(align - 1);
    return true;
}

/* True when [offset, offset + length) lies inside [0, size). */
static inline bool tr_checked_range(uint64_t offset, uint64_t length, uint64_t size) {
    return offset <= size && length <= size - offset;
}

/* Plain rounding for numbers that are already bounded (sizes of our own making). */
static inline size_t tr_align_up(size_t a, size_t align) { return (a + align - 1) & ~(align - 1); }
static inline size_t tr_div_up(size_t a, size_t b) { return (a + b - 1) / b; }

#endif
