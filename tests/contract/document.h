/* tests/contract/document.h - the program of a document that is made from a table. */
#ifndef DOCUMENT_H
#define DOCUMENT_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline int document_check(const char *path, const char *name, const char *want, size_t n) {
    FILE *f = fopen(path, "rb");
    char *have = malloc(n + 1);
    size_t got = f && have ? fread(have, 1, n + 1, f) : 0;
    int same = f && got == n && memcmp(have, want, n) == 0;
    if (f) fclose(f);
    free(have);
    if (!same) fprintf(stderr, "%s is out of date: run `ninja docs_%s` in the build folder\n", path, name);
    return same ? 0 : 1;
}

/* --write FILE, or --check FILE that it is of now. Exit codes: 0, 1 out of date, 64 usage, 70, 73 cannot write. */
static inline int document_main(int argc, char **argv, const char *name, void (*put)(FILE *out)) {
    char *text = NULL;
    size_t n = 0;
    if (argc != 3) return fprintf(stderr, "usage: %s_doc --write FILE | --check FILE\n", name), 64;
    FILE *memory = open_memstream(&text, &n);
    if (!memory) return 70;
    put(memory);
    fclose(memory);
    int rc = 64;
    if (strcmp(argv[1], "--check") == 0) rc = document_check(argv[2], name, text, n);
    if (strcmp(argv[1], "--write") == 0) {
        FILE *f = fopen(argv[2], "wb");
        rc = f && fwrite(text, 1, n, f) == n ? 0 : 73;
        if (f && fclose(f) != 0) rc = 73;
    }
    free(text);
    return rc;
}
#endif
