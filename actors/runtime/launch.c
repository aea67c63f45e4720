#include "actors/runtime/launch.h"

#include "actors/runtime/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static tr_status plan_memfd(const tr_company *company, int *fd_out, tr_error *err) {
    int fd = memfd_create("troupe-plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return tr_error_set(err, TR_SYSTEM, "cannot create the plan: %s", strerror(errno));
    const char *p = (const char *)company;
    for (size_t left = sizeof *company; left > 0;) {
        ssize_t n = write(fd, p, left);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            close(fd);
            return tr_error_set(err, TR_UNAVAILABLE, "cannot write the plan: %s", strerror(errno));
        }
        p += n;
        left -= (size_t)n;
    }
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
    *fd_out = fd;
    return TR_OK;
}

/* The plan goes to descriptor 3; images without a file and the notify pipe keep their numbers, above all fixed ones
 * (above_fixed). */
static tr_status spawn_supervisor(const tr_company *company, int plan_fd, int notify_fd, pid_t *pid_out,
                                  tr_error *err) {
    char notify[16];
    snprintf(notify, sizeof notify, "%d", notify_fd);
    char *argv[] = {(char *)(uintptr_t) "troupe", (char *)(uintptr_t) "--supervisor", notify, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&files, plan_fd, TR_COMPANY_FD_PLAN);
    posix_spawn_file_actions_adddup2(&files, notify_fd, notify_fd); /* same number: clears close-on-exec */
    for (int i = 0; i < TR_PRECISION_END; i++)
        if (company->image_fd[i] >= 0)
            posix_spawn_file_actions_adddup2(&files, company->image_fd[i], company->image_fd[i]);
    sigset_t none, ignored;
    sigemptyset(&none);
    sigemptyset(&ignored);
    sigaddset(&ignored, SIGINT);
    sigaddset(&ignored, SIGPIPE);
    sigaddset(&ignored, SIGTERM);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &ignored);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int e = posix_spawn(pid_out, "/proc/self/exe", &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (e != 0) return tr_error_set(err, TR_UNAVAILABLE, "cannot start the supervisor: %s", strerror(e));
    return TR_OK;
}

/* Copy of a descriptor above the numbers that the company uses for itself, or -1. */
static int above_fixed(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, tr_segment_bell_fd(TR_COMPANY_ACTORS_MAX)); }

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* The fixed numbers need more descriptors than some shells allow; actors inherit the limit. */
static tr_status allow_descriptors(tr_error *err) {
    const rlim_t need = (rlim_t)tr_segment_bell_fd(TR_COMPANY_ACTORS_MAX) + 32;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= need) return TR_OK;
    if (files.rlim_max < need)
        return tr_error_set(err, TR_UNAVAILABLE, "a company needs %llu open files, the limit is %llu: raise ulimit -n",
                            (unsigned long long)need, (unsigned long long)files.rlim_max);
    files.rlim_cur = need;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0)
        return tr_error_set(err, TR_SYSTEM, "cannot raise the limit of open files: %s", strerror(errno));
    return TR_OK;
}

typedef struct start_fds {
    int plan, notify[2], image[TR_PRECISION_END];
} start_fds;

static void close_start(start_fds *f) {
    close_fd(&f->plan);
    close_fd(&f->notify[0]);
    close_fd(&f->notify[1]);
    for (int i = 0; i < TR_PRECISION_END; i++) close_fd(&f->image[i]);
}

/* All descriptors of the start, and their numbers in the plan. */
static tr_status open_start(tr_company *company, start_fds *f, tr_error *err) {
    int low[2] = {-1, -1};
    for (int i = 0; i < TR_PRECISION_END; i++)
        if (company->image_fd[i] >= 0) {
            f->image[i] = company->image_fd[i] = above_fixed(company->image_fd[i]);
            if (f->image[i] < 0)
                return tr_error_set(err, TR_SYSTEM, "cannot hand down the packed weights: %s", strerror(errno));
        }
    TR_TRY(plan_memfd(company, &low[0], err));
    f->plan = above_fixed(low[0]);
    close_fd(&low[0]);
    if (f->plan < 0 || pipe2(low, O_CLOEXEC) != 0)
        return tr_error_set(err, TR_SYSTEM, "cannot create a pipe to the supervisor: %s", strerror(errno));
    f->notify[0] = low[0];
    f->notify[1] = above_fixed(low[1]);
    close_fd(&low[1]);
    if (f->notify[1] < 0)
        return tr_error_set(err, TR_SYSTEM, "cannot create a pipe to the supervisor: %s", strerror(errno));
    return TR_OK;
}

tr_status tr_launch_start(const tr_company *company, tr_launch *launch_out, tr_error *err) {
    *launch_out = (tr_launch){.pid_fd = -1, .notify_fd = -1, .exit_code = -1};
    TR_TRY(allow_descriptors(err));
    tr_company *plan = malloc(sizeof *plan);
    if (!plan) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the plan");
    *plan = *company;
    start_fds f = {.plan = -1, .notify = {-1, -1}};
    for (int i = 0; i < TR_PRECISION_END; i++) f.image[i] = -1;
    pid_t pid = 0;
    tr_status status = open_start(plan, &f, err);
    if (status == TR_OK) status = spawn_supervisor(plan, f.plan, f.notify[1], &pid, err);
    if (status == TR_OK) {
        launch_out->pid = pid;
        launch_out->notify_fd = f.notify[0];
        launch_out->pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
        f.notify[0] = -1;
    }
    close_start(&f);
    free(plan);
    return status;
}

static void reap(tr_launch *l) {
    int status;
    if (l->pid > 0 && l->exit_code < 0 && waitpid(l->pid, &status, WNOHANG) == l->pid) {
        l->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 70;
        if (WIFSIGNALED(status) && !l->forced) l->killed_by = WTERMSIG(status);
    }
}

static tr_status map_control(tr_launch *l, tr_error *err) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)l->pid, TR_COMPANY_FD_SEGMENT + TR_SEGMENT_CONTROL);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return tr_error_set(err, TR_SYSTEM, "cannot open the control memory of the company: %s", strerror(errno));
    void *data = mmap(NULL, sizeof(tr_control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (data == MAP_FAILED) return tr_error_set(err, TR_SYSTEM, "cannot map the control memory: %s", strerror(errno));
    l->control = data;
    return TR_OK;
}

tr_status tr_launch_wait_ready(tr_launch *l, int timeout_ms, tr_error *err) {
    for (;;) {
        struct pollfd p = {.fd = l->notify_fd, .events = POLLIN};
        int n = poll(&p, 1, timeout_ms);
        if (n <= 0)
            return n == 0 || errno == EINTR ? TR_AGAIN : tr_error_set(err, TR_SYSTEM, "poll: %s", strerror(errno));
        char byte = 0;
        ssize_t got = read(l->notify_fd, &byte, 1);
        if (got == 1 && byte == 'R') return map_control(l, err);
        if (got == 1) continue;
        tr_launch_wait_end(l, 5000);
        tr_error_set(err, TR_UNAVAILABLE, "%s", "");
        return TR_UNAVAILABLE;
    }
}

bool tr_launch_wait_end(tr_launch *l, int timeout_ms) {
    reap(l);
    if (l->pid <= 0 || l->exit_code >= 0) return true;
    struct pollfd p = {.fd = l->pid_fd, .events = POLLIN};
    if (poll(&p, 1, timeout_ms) > 0) reap(l);
    return l->exit_code >= 0;
}

int tr_launch_stop(tr_launch *l) {
    if (l->pid > 0 && !tr_launch_wait_end(l, 0)) {
        kill(l->pid, SIGTERM);
        if (!tr_launch_wait_end(l, 2000)) {
            l->forced = true;
            kill(l->pid, SIGKILL);
            tr_launch_wait_end(l, 2000);
        }
    }
    if (l->control) munmap(l->control, sizeof(tr_control));
    l->control = NULL;
    if (l->pid_fd >= 0) close(l->pid_fd);
    if (l->notify_fd >= 0) close(l->notify_fd);
    l->pid_fd = l->notify_fd = -1;
    return l->exit_code;
}

tr_control *tr_launch_control(tr_launch *l) { return l->control; }
