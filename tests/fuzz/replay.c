/* Runs a fuzz target over the files of the folders named on the command line, each in a buffer of its exact size, so
 * that the address sanitizer sees the first byte read beyond it. Fails when a folder holds no file. */
#include "fuzz_target.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) {
        perror(path);
        if (f) fclose(f);
        return 1;
    }
    long size = ftell(f);
    rewind(f);
    uint8_t *data = malloc(size > 0 ? (size_t)size : 1);
    int bad = size < 0 || !data || fread(data, 1, (size_t)size, f) != (size_t)size;
    fclose(f);
    if (bad)
        fprintf(stderr, "%s: cannot read\n", path);
    else
        LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    return bad;
}

static int run_folder(const char *folder) {
    DIR *d = opendir(folder);
    if (!d) {
        perror(folder);
        return 1;
    }
    int bad = 0, n = 0;
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        char path[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        bad |= run_file(path);
        n++;
    }
    closedir(d);
    printf("%s: %d files\n", folder, n);
    return bad || n == 0;
}

int main(int argc, char **argv) {
    int bad = argc < 2;
    for (int i = 1; i < argc; i++) bad |= run_folder(argv[i]);
    return bad;
}
