#include "base/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

tr_status tr_file_map_open(const char *path, tr_file_map *map_out, tr_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        tr_status s = errno == ENOENT || errno == ENOTDIR ? TR_NO_INPUT : errno == EACCES ? TR_NO_INPUT : TR_SYSTEM;
        return tr_error_set(err, s, "cannot open %s: %s", path, strerror(errno));
    }
    struct stat st;
    tr_status status = TR_OK;
    void *data = MAP_FAILED;
    if (fstat(fd, &st) != 0)
        status = tr_error_set(err, TR_SYSTEM, "cannot stat %s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        status = tr_error_set(err, TR_DATA, "%s is not a regular file", path);
    else if (st.st_size == 0)
        status = tr_error_set(err, TR_DATA, "%s is empty", path);
    else if ((data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        status = tr_error_set(err, TR_SYSTEM, "cannot map %s: %s", path, strerror(errno));
    close(fd);
    if (status != TR_OK) return status;
    map_out->data = data;
    map_out->size = (size_t)st.st_size;
    return TR_OK;
}

void tr_file_map_large_pages(const tr_file_map *map, const void *data, size_t bytes, bool large) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data & ~(page - 1);
    if (map->data) madvise((void *)begin, (uintptr_t)data + bytes - begin, large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void tr_file_map_close(tr_file_map *map) {
    if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
    map->data = NULL;
    map->size = 0;
}
