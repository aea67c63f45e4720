/* Limits are read from folders that look like a container's: version 2, version 1, none, and rubbish. */
#include "affinity/cgroup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char base[64];

static void put(const char *path, const char *text) {
    char full[512];
    snprintf(full, sizeof full, "%s/%s", base, path);
    for (char *p = full + strlen(base) + 1; *p; p++)
        if (*p == '/') {
            *p = 0;
            mkdir(full, 0700);
            *p = '/';
        }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static tr_cgroup look(void) {
    char proc[128], root[128];
    tr_cgroup c;
    snprintf(proc, sizeof proc, "%s/proc", base);
    snprintf(root, sizeof root, "%s/cg", base);
    tr_cgroup_read(proc, root, &c);
    return c;
}

static int fresh(void **state) {
    (void)state;
    strcpy(base, "/tmp/troupe-cgroup-XXXXXX");
    return mkdtemp(base) ? 0 : -1;
}

static int clean(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    return system(command);
}

static void test_version_2_smallest_ancestor_counts(void **state) {
    (void)state;
    put("proc/self/cgroup", "0::/a/b\n");
    put("cg/a/memory.max", "1073741824\n");
    put("cg/a/b/memory.max", "max\n");
    put("cg/a/b/cpu.max", "150000 100000\n");
    put("cg/a/cpu.max", "max 100000\n");
    tr_cgroup c = look();
    assert_int_equal(c.memory_bytes, 1073741824);
    assert_int_equal(c.cpu_quota, 2);
}

static void test_version_1(void **state) {
    (void)state;
    put("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n");
    put("cg/memory/x/memory.limit_in_bytes", "536870912\n");
    put("cg/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("cg/cpu,cpuacct/x/cpu.cfs_quota_us", "400000\n");
    put("cg/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
    put("cg/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    tr_cgroup c = look();
    assert_int_equal(c.memory_bytes, 536870912);
    assert_int_equal(c.cpu_quota, 4);
}

static void test_none_and_rubbish(void **state) {
    (void)state;
    tr_cgroup c = look();
    assert_int_equal(c.memory_bytes, 0);
    assert_int_equal(c.cpu_quota, 0);
    put("proc/self/cgroup", "rubbish\n::\n0::/a\n");
    put("cg/a/memory.max", "12x\n");
    put("cg/a/cpu.max", "100000 0\n");
    put("cg/memory.max", "99999999999999999999999\n");
    c = look();
    assert_int_equal(c.memory_bytes, 0);
    assert_int_equal(c.cpu_quota, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_version_2_smallest_ancestor_counts, fresh, clean),
        cmocka_unit_test_setup_teardown(test_version_1, fresh, clean),
        cmocka_unit_test_setup_teardown(test_none_and_rubbish, fresh, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
