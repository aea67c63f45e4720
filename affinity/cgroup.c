#include "affinity/cgroup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096 };

static bool read_line(const char *path, char *line, int bytes) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(line, bytes, f) != NULL;
    fclose(f);
    return ok;
}

static bool read_number(const char *folder, const char *file, uint64_t *out) {
    char path[PATH_BYTES + 64], line[64], *end;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (!read_line(path, line, sizeof line) || line[0] < '0' || line[0] > '9') return false; /* "max", "-1" */
    errno = 0;
    unsigned long long v = strtoull(line, &end, 10);
    if (errno != 0 || (*end != '\n' && *end != 0)) return false;
    *out = v;
    return true;
}

static void keep_memory(tr_cgroup *c, uint64_t bytes) {
    /* Version 1 says "no limit" by a number close to 2^63. */
    if (bytes == 0 || bytes >= UINT64_C(1) << 60) return;
    if (!c->memory_bytes || bytes < c->memory_bytes) c->memory_bytes = bytes;
}

static void keep_quota(tr_cgroup *c, uint64_t quota_us, uint64_t period_us) {
    if (quota_us == 0 || period_us == 0 || quota_us / period_us >= UINT32_MAX) return;
    uint32_t cores = (uint32_t)(quota_us / period_us + (quota_us % period_us != 0));
    if (!c->cpu_quota || cores < c->cpu_quota) c->cpu_quota = cores;
}

static void read_folder(const char *folder, tr_cgroup *c) {
    uint64_t v, period;
    char path[PATH_BYTES + 64], line[128];
    if (read_number(folder, "memory.max", &v)) keep_memory(c, v);
    if (read_number(folder, "memory.limit_in_bytes", &v)) keep_memory(c, v);
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (read_line(path, line, sizeof line) && sscanf(line, "%" SCNu64 " %" SCNu64, &v, &period) == 2)
        keep_quota(c, v, period);
    if (read_number(folder, "cpu.cfs_quota_us", &v) && read_number(folder, "cpu.cfs_period_us", &period))
        keep_quota(c, v, period);
}

/* The folder and all its parents up to root: in a container the path of the host may not exist here. */
static void read_chain(const char *root, const char *path, tr_cgroup *c) {
    char folder[PATH_BYTES];
    int n = snprintf(folder, sizeof folder, "%s%s", root, path);
    if (n <= 0 || (size_t)n >= sizeof folder) return;
    size_t root_len = strlen(root);
    for (;;) {
        read_folder(folder, c);
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < root_len) break;
        *slash = 0;
    }
}

void tr_cgroup_read(const char *proc, const char *root, tr_cgroup *c) {
    char path[PATH_BYTES], line[PATH_BYTES];
    memset(c, 0, sizeof *c);
    read_chain(root, "", c);
    snprintf(path, sizeof path, "%s/self/cgroup", proc);
    FILE *f = fopen(path, "re");
    if (!f) return;
    while (fgets(line, sizeof line, f)) { /* "0::/path" or "4:memory:/path" */
        line[strcspn(line, "\n")] = 0;
        char *names = strchr(line, ':'), *where = names ? strchr(names + 1, ':') : NULL;
        if (!where) continue;
        *where++ = 0;
        names++;
        char base[PATH_BYTES];
        int n = *names ? snprintf(base, sizeof base, "%s/%s", root, names) : snprintf(base, sizeof base, "%s", root);
        if (n > 0 && (size_t)n < sizeof base) read_chain(base, strcmp(where, "/") == 0 ? "" : where, c);
    }
    fclose(f);
}
