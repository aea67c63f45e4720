/* The table of metrics as a document: --write, or --check that docs/metrics.md is of now. */
#include "actors/gateway/metrics.h"

#include <stdlib.h>
#include <string.h>

static int check(const char *path, const char *want, size_t n) {
    FILE *f = fopen(path, "rb");
    char *have = malloc(n + 1);
    size_t got = f && have ? fread(have, 1, n + 1, f) : 0;
    int same = f && got == n && memcmp(have, want, n) == 0;
    if (f) fclose(f);
    free(have);
    if (!same) fprintf(stderr, "%s is out of date: run `ninja docs_metrics` in the build folder\n", path);
    return same ? 0 : 1;
}

int main(int argc, char **argv) {
    char *text = NULL;
    size_t n = 0;
    if (argc != 3) return fprintf(stderr, "usage: metrics_doc --write FILE | --check FILE\n"), 64;
    FILE *memory = open_memstream(&text, &n);
    if (!memory) return 70;
    tr_metrics_document(memory);
    fclose(memory);
    int rc = 64;
    if (strcmp(argv[1], "--check") == 0) rc = check(argv[2], text, n);
    if (strcmp(argv[1], "--write") == 0) {
        FILE *f = fopen(argv[2], "wb");
        rc = f && fwrite(text, 1, n, f) == n ? 0 : 73;
        if (f && fclose(f) != 0) rc = 73;
    }
    free(text);
    return rc;
}
