#include "base/crc32c.h"

#include <stdatomic.h>
#include <string.h>

enum { SLICES = 8, LANE_BYTES = 1024 };

/* table[s][b]: the effect of byte b that lies s bytes before the end. */
typedef struct tables {
    uint32_t slice[SLICES][256];
    uint32_t shift[4][256]; /* [byte of a crc][its value]: that crc moved on by LANE_BYTES zero bytes */
} tables;

static uint32_t step(uint32_t crc, uint8_t byte) {
    crc ^= byte;
    for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    return crc;
}

static void fill(tables *t) {
    for (uint32_t b = 0; b < 256; b++) t->slice[0][b] = step(0, (uint8_t)b);
    for (uint32_t s = 1; s < SLICES; s++)
        for (uint32_t b = 0; b < 256; b++)
            t->slice[s][b] = t->slice[s - 1][b] >> 8 ^ t->slice[0][t->slice[s - 1][b] & 255];
    for (uint32_t byte = 0; byte < 4; byte++)
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t crc = b << 8 * byte;
            for (int i = 0; i < LANE_BYTES; i++) crc = crc >> 8 ^ t->slice[0][crc & 255];
            t->shift[byte][b] = crc;
        }
}

/* Filled by whoever comes first; a second thread waits for the few microseconds that it takes. */
static const tables *get(void) {
    static tables t;
    static _Atomic int state; /* 0 empty, 1 being filled, 2 ready */
    int seen = atomic_load_explicit(&state, memory_order_acquire);
    if (seen == 2) return &t;
    int empty = 0;
    if (atomic_compare_exchange_strong(&state, &empty, 1)) {
        fill(&t);
        atomic_store_explicit(&state, 2, memory_order_release);
    }
    while (atomic_load_explicit(&state, memory_order_acquire) != 2) {
    }
    return &t;
}

uint32_t tr_crc32c_tables(uint32_t crc, const void *data, size_t bytes) {
    const tables *t = get();
    const uint8_t *p = data;
    crc = ~crc;
    for (; bytes >= SLICES; bytes -= SLICES, p += SLICES) {
        uint32_t lo = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
        crc = t->slice[7][lo & 255] ^ t->slice[6][lo >> 8 & 255] ^ t->slice[5][lo >> 16 & 255] ^ t->slice[4][lo >> 24];
        for (int i = 4; i < SLICES; i++) crc ^= t->slice[7 - i][p[i]];
    }
    for (; bytes > 0; bytes--) crc = crc >> 8 ^ t->slice[0][(crc ^ *p++) & 255];
    return ~crc;
}

#if defined(__x86_64__)
static uint32_t moved(const tables *t, uint32_t crc) {
    return t->shift[0][crc & 255] ^ t->shift[1][crc >> 8 & 255] ^ t->shift[2][crc >> 16 & 255] ^ t->shift[3][crc >> 24];
}

/* The instruction takes three cycles but starts every cycle: three lanes side by side, joined by tables. */
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t bytes) {
    const tables *t = get();
    uint64_t a = ~crc & 0xffffffffu;
    for (; bytes >= 3 * LANE_BYTES; bytes -= 3 * LANE_BYTES, p += 3 * LANE_BYTES) {
        uint64_t b = 0, c = 0;
        for (size_t i = 0; i < LANE_BYTES; i += 8) {
            uint64_t w[3];
            for (int k = 0; k < 3; k++) memcpy(&w[k], p + k * LANE_BYTES + i, 8);
            a = __builtin_ia32_crc32di(a, w[0]);
            b = __builtin_ia32_crc32di(b, w[1]);
            c = __builtin_ia32_crc32di(c, w[2]);
        }
        a = moved(t, moved(t, (uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
    }
    for (; bytes >= 8; bytes -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        a = __builtin_ia32_crc32di(a, w);
    }
    uint32_t r = (uint32_t)a;
    for (; bytes > 0; bytes--) r = __builtin_ia32_crc32qi(r, *p++);
    return ~r;
}
#endif

uint32_t tr_crc32c(uint32_t crc, const void *data, size_t bytes) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return by_instruction(crc, data, bytes);
#endif
    return tr_crc32c_tables(crc, data, bytes);
}
