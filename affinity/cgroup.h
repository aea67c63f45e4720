/* affinity/cgroup.h - limits that the control groups of this process set: memory and processor time (version 2, and
 * the memory and cpu controllers of version 1). A limit of any ancestor counts; what cannot be read is no limit.
 * proc, root: "/proc" and "/sys/fs/cgroup"; tests give folders of their own. */
#ifndef TR_CGROUP_H
#define TR_CGROUP_H
#include <stdint.h>

typedef struct tr_cgroup {
    uint64_t memory_bytes; /* 0: no limit */
    uint32_t cpu_quota;    /* cores' worth of time, rounded up; 0: no limit */
} tr_cgroup;

void tr_cgroup_read(const char *proc, const char *root, tr_cgroup *cgroup_out);
#endif
