/* Runtime folder: ROOT/NAME/{lock,api,link.N}, all 0700 and ours. The lock (flock) says that a company of the name
 * runs; its text is "pid\nendpoint\n". It vanishes with the process that holds it, however that ends. */
#include "actors/cli/cli.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A socket address holds 107 bytes; the longest name in the folder is link.NNN. */
enum { SOCKET_PATH_MAX = 107, LONGEST_NAME = 9, NAME_MAX_BYTES = 63 };

static tr_status check_name(const char *name, tr_error *err) {
    size_t n = strlen(name);
    bool ok = n > 0 && n <= NAME_MAX_BYTES && name[0] != '.' && name[0] != '-';
    for (size_t i = 0; i < n; i++) ok &= isalnum((unsigned char)name[i]) || strchr("._-", name[i]);
    if (ok) return TR_OK;
    return tr_error_set(err, TR_USAGE, "--name '%.80s': use up to %d letters, digits, '.', '_' and '-'", name,
                        NAME_MAX_BYTES);
}

/* A folder that is ours alone; made when it is not there. */
static tr_status own_folder(const char *path, tr_error *err) {
    struct stat st;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return tr_error_set(err, TR_CANNOT_CREATE, "cannot create the runtime folder %.200s: %s", path,
                            strerror(errno));
    if (lstat(path, &st) != 0)
        return tr_error_set(err, TR_CANNOT_CREATE, "runtime folder %.200s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return tr_error_set(err, TR_CANNOT_CREATE, "runtime folder %.200s belongs to someone else: set XDG_RUNTIME_DIR",
                            path);
    if ((st.st_mode & 077) != 0 && chmod(path, 0700) != 0)
        return tr_error_set(err, TR_CANNOT_CREATE, "runtime folder %.200s is open to others: %s", path,
                            strerror(errno));
    return TR_OK;
}

static void root_path(char *out, size_t cap) {
    const char *xdg = getenv("XDG_RUNTIME_DIR"), *tmp = getenv("TMPDIR");
    struct stat st;
    if (xdg && xdg[0] == '/' && stat(xdg, &st) == 0 && S_ISDIR(st.st_mode))
        snprintf(out, cap, "%s/troupe", xdg);
    else
        snprintf(out, cap, "%s/troupe-%u", tmp && tmp[0] == '/' ? tmp : "/tmp", (unsigned)geteuid());
}

static tr_status folder_path(const char *name, char *out, size_t cap, tr_error *err) {
    char root[400];
    TR_TRY(check_name(name, err));
    root_path(root, sizeof root);
    int n = snprintf(out, cap, "%s/%s", root, name);
    if (n < 0 || (size_t)n >= cap || n + LONGEST_NAME > SOCKET_PATH_MAX)
        return tr_error_set(err, TR_CONFIG,
                            "the runtime folder %.150s... is too long for sockets: shorten --name or "
                            "XDG_RUNTIME_DIR",
                            root);
    return TR_OK;
}

static void read_lock(int fd, tr_cli_company *out) {
    char text[1200];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n <= 0) return;
    text[n] = 0;
    char *line = strchr(text, '\n');
    if (!line) return;
    *line++ = 0;
    out->pid = atoi(text);
    line[strcspn(line, "\n")] = 0;
    snprintf(out->endpoint, sizeof out->endpoint, "%.1023s", line);
}

/* The file may have been removed between open and lock: then it is nobody's lock. */
static bool still_there(int fd, const char *path) {
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static tr_status lock_folder(const char *name, tr_cli_home *home, tr_error *err) {
    char path[600];
    snprintf(path, sizeof path, "%s/lock", home->path);
    for (int tries = 0; tries < 100; tries++) {
        TR_TRY(own_folder(home->path, err));
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0 && errno == ENOENT) continue; /* the last holder has just removed the folder */
        if (fd < 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot create %.200s: %s", path, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            tr_cli_company other = {0};
            read_lock(fd, &other);
            close(fd);
            if (tries < 10) { /* someone may only be looking whether a company runs */
                usleep(5000);
                continue;
            }
            return tr_error_set(err, TR_UNAVAILABLE,
                                "a company named '%s' is already running (process %d): choose another --name, or "
                                "troupe stop --name %s",
                                name, other.pid, name);
        }
        if (still_there(fd, path)) {
            home->lock_fd = fd;
            home->held = true;
            return TR_OK;
        }
        close(fd);
    }
    return tr_error_set(err, TR_UNAVAILABLE, "cannot lock %.200s: it keeps being removed", path);
}

/* Sockets that a company left behind which was killed. */
static void sweep(const char *folder) {
    DIR *d = opendir(folder);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, "lock") != 0 && e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

tr_status tr_cli_home_take(const char *name, tr_cli_home *home, tr_error *err) {
    char root[400];
    *home = (tr_cli_home){.lock_fd = -1};
    TR_TRY(folder_path(name, home->path, sizeof home->path, err));
    root_path(root, sizeof root);
    TR_TRY(own_folder(root, err));
    TR_TRY(lock_folder(name, home, err));
    sweep(home->path);
    return tr_cli_home_publish(home, "", err);
}

tr_status tr_cli_home_publish(const tr_cli_home *home, const char *endpoint, tr_error *err) {
    char text[1200];
    int n = snprintf(text, sizeof text, "%d\n%s\n", (int)getpid(), endpoint);
    if (n < 0 || (size_t)n >= sizeof text || pwrite(home->lock_fd, text, (size_t)n, 0) != n ||
        ftruncate(home->lock_fd, n) != 0)
        return tr_error_set(err, TR_CANNOT_CREATE, "cannot write %.200s/lock: %s", home->path, strerror(errno));
    return TR_OK;
}

void tr_cli_home_release(tr_cli_home *home) {
    if (!home->held) return;
    char path[600];
    sweep(home->path);
    snprintf(path, sizeof path, "%s/lock", home->path);
    unlink(path);
    rmdir(home->path);
    close(home->lock_fd);
    *home = (tr_cli_home){.lock_fd = -1};
}

bool tr_cli_home_running(const tr_cli_company *company) {
    int fd = open(company->lock_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    bool running = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return running;
}

tr_status tr_cli_home_find(const char *name, tr_cli_company *out, tr_error *err) {
    char folder[512];
    memset(out, 0, sizeof *out);
    TR_TRY(folder_path(name, folder, sizeof folder, err));
    snprintf(out->lock_path, sizeof out->lock_path, "%s/lock", folder);
    if (!tr_cli_home_running(out))
        return tr_error_set(err, TR_UNAVAILABLE, "no company named '%s' is running: start one with troupe serve", name);
    int fd = open(out->lock_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        read_lock(fd, out);
        close(fd);
    }
    return TR_OK;
}
