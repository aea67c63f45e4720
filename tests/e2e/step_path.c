/* Loaded into every actor by step_path_test.py (LD_PRELOAD). After SIGUSR1 an actor is armed: calls of the heap are
 * counted, and a stage may make no system call but the futex: the first other one is recorded and ends the process. The
 * record of the first life of an actor is the file $STEP_PATH_RECORDS/NAME. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default")))

typedef struct record {
    _Atomic uint32_t armed;
    _Atomic uint32_t filtered; /* 1: the system call filter holds for all threads; 2: the system has none */
    _Atomic uint32_t call;     /* 1 + number of the system call that was one too many */
    _Atomic uint32_t heap;     /* calls of malloc and its relatives */
} record;

static record nowhere, *r = &nowhere;
static int is_stage;

/* ---- heap -------------------------------------------------------------------------------------------------------- */

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);

static void count(void) {
    if (atomic_load_explicit(&r->armed, memory_order_relaxed)) atomic_fetch_add(&r->heap, 1);
}

VISIBLE void *malloc(size_t n) { return count(), __libc_malloc(n); }
VISIBLE void *calloc(size_t n, size_t size) { return count(), __libc_calloc(n, size); }
VISIBLE void *realloc(void *p, size_t n) { return count(), __libc_realloc(p, n); }
VISIBLE void *aligned_alloc(size_t align, size_t n) { return count(), __libc_memalign(align, n); }
VISIBLE void *memalign(size_t align, size_t n) { return count(), __libc_memalign(align, n); }
VISIBLE int posix_memalign(void **out, size_t align, size_t n) {
    count();
    void *p = __libc_memalign(align, n);
    if (p) *out = p;
    return p ? 0 : ENOMEM;
}
VISIBLE void free(void *p) {
    if (p) count();
    __libc_free(p);
}

/* ---- system calls ------------------------------------------------------------------------------------------------ */

static void on_call(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    atomic_store(&r->call, 1 + (uint32_t)info->si_syscall);
    syscall(SYS_exit_group, 99);
}

#define ALLOW(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static void forbid_calls(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_futex),
        ALLOW(SYS_clock_gettime),     /* only where the system cannot read the clock without */
        ALLOW(SYS_rt_sigreturn),      /* of the arming itself, and of our end */
        ALLOW(SYS_sched_setaffinity), /* after a step, when another process came or left: tr_team_settle */
        ALLOW(SYS_sched_getaffinity),
        ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
        atomic_store(&r->filtered, 2);
    else
        atomic_store(&r->filtered, 1);
}

static void on_arm(int signal) {
    (void)signal;
    int e = errno;
    if (is_stage && !atomic_load(&r->armed)) forbid_calls();
    atomic_store(&r->armed, 1);
    errno = e;
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

__attribute__((constructor)) static void begin(void) {
    char line[256] = "", path[512];
    const char *folder = getenv("STEP_PATH_RECORDS");
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, line, sizeof line - 1) : 0;
    if (fd >= 0) close(fd);
    const char *role = line + strlen(line) + 1, *name = role + strlen(role) + 1;
    if (!folder || n <= 0 || strcmp(role, "--actor") != 0) return;
    is_stage = strchr(name, '.') != NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *r) != 0) return;
    void *memory = mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) return;
    r = memory;
    struct sigaction arm = {.sa_handler = on_arm, .sa_flags = SA_RESTART};
    struct sigaction call = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &arm, NULL);
    sigaction(SIGSYS, &call, NULL);
}
