/* tests/tools/tokenizer_batch.c - tokenizes many texts for the comparisons in make_tokenizer_golden.py, which builds
 * it, and compare_tokenizer_json.py. MODEL: a GGUF, or a folder with a tokenizer.json. Usage: tokenizer_batch MODEL.
 * stdin: records {u32 flags, u32 bytes, text}; stdout: records {u32 n, u32 ids[n]}. tokenizer_batch MODEL pieces: for
 * every token {u32 eog, u32 bytes, piece, u32 bytes, piece with special}. tokenizer_batch MODEL time: CPU time of the
 * table build and of 1 MiB texts of one character. */
#include "model/detokenizer.h"
#include "model/tokenizer_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* CPU time: other work on the machine does not count. */
static uint64_t cpu_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void put_u32(uint32_t v) { fwrite(&v, 4, 1, stdout); }

static void pieces(const tr_tokenizer *t) {
    size_t cap = tr_tokenizer_max_piece(t) + 1, n;
    char *buf = malloc(cap);
    for (uint32_t id = 0; id < tr_tokenizer_vocab(t); id++) {
        put_u32(tr_tokenizer_is_eog(t, id));
        for (int special = 0; special < 2; special++) {
            if (tr_tokenizer_piece(t, id, special != 0, buf, cap, &n) != TR_OK) abort();
            put_u32((uint32_t)n);
            fwrite(buf, 1, n, stdout);
        }
    }
    free(buf);
}

static void batch(const tr_tokenizer *t) {
    uint32_t head[2];
    while (fread(head, 4, 2, stdin) == 2) {
        char *text = malloc(head[1] + 1u);
        size_t cap = tr_tokenizer_bound(head[1]), n;
        uint32_t *ids = malloc(cap * sizeof *ids);
        if (fread(text, 1, head[1], stdin) != head[1]) abort();
        tr_error err;
        if (tr_tokenizer_encode(t, text, head[1], head[0], ids, cap, &n, &err) != TR_OK) {
            fprintf(stderr, "%s\n", err.text);
            abort();
        }
        put_u32((uint32_t)n);
        fwrite(ids, 4, n, stdout);
        free(ids);
        free(text);
    }
}

static void time_texts(const tr_tokenizer *t) {
    static const char *const units[] = {" ", "a", "\n", "\xcc\x81", "\xe4\xb8\xad", "\xf0\x9f\x98\x80",
                                        "1", "-", "ab "};
    size_t len = 1 << 20, cap = tr_tokenizer_bound(len), n;
    char *text = malloc(len);
    uint32_t *ids = malloc(cap * sizeof *ids);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t size = strlen(units[u]), used = 0;
        for (; used + size <= len; used += size) memcpy(text + used, units[u], size);
        uint64_t t0 = cpu_ns();
        if (tr_tokenizer_encode(t, text, used, 0, ids, cap, &n, NULL) != TR_OK) abort();
        printf("  '%s' x %zu: %.3f s, %zu tokens\n", units[u][0] == '\n' ? "\\n" : units[u], used / size,
               (double)(cpu_ns() - t0) * 1e-9, n);
    }
    free(ids);
    free(text);
}

int main(int argc, char **argv) {
    tr_error err;
    tr_tokenizer *t;
    if (argc < 2) return 64;
    uint64_t t0 = cpu_ns();
    if (tr_tokenizer_source_open(argv[1], &t, &err) != TR_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 65;
    }
    if (argc > 2 && strcmp(argv[2], "time") == 0) {
        printf("%s: tables in %.1f ms\n", argv[1], (double)(cpu_ns() - t0) * 1e-6);
        time_texts(t);
    } else if (argc > 2) {
        pieces(t);
    } else {
        batch(t);
    }
    tr_tokenizer_destroy(&t);
    return 0;
}
