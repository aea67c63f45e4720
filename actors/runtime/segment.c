#include "actors/runtime/segment.h"

#include "actors/runtime/control.h"
#include "affinity/bind.h"
#include "base/log.h"
#include "scheduler/journal.h"
#include "transport/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Put a descriptor under its fixed number, inheritable. */
static tr_status place_fd(int fd, int number, tr_error *err) {
    if (fd == number) return TR_OK;
    if (dup2(fd, number) < 0)
        return tr_error_set(err, TR_SYSTEM, "cannot place descriptor %d at %d: %s", fd, number, strerror(errno));
    close(fd);
    return TR_OK;
}

static tr_status new_memfd(const char *name, uint64_t bytes, int *fd_out, tr_error *err) {
    int fd = memfd_create(name, MFD_ALLOW_SEALING);
    if (fd < 0) return tr_error_set(err, TR_SYSTEM, "cannot create shared memory %s: %s", name, strerror(errno));
    if (ftruncate(fd, (off_t)bytes) != 0) {
        tr_error_set(err, TR_UNAVAILABLE, "cannot size shared memory %s to %" PRIu64 " bytes: %s", name, bytes,
                     strerror(errno));
        close(fd);
        return TR_UNAVAILABLE;
    }
    *fd_out = fd;
    return TR_OK;
}

static tr_status allocate(int fd, const char *name, uint64_t offset, uint64_t bytes, tr_error *err) {
    int e = bytes ? posix_fallocate(fd, (off_t)offset, (off_t)bytes) : 0;
    if (e == 0) return TR_OK;
    return tr_error_set(err, TR_UNAVAILABLE,
                        "not enough memory for %s: %" PRIu64 " MiB wanted (%s); lower --kv-memory or -c", name,
                        bytes >> 20, strerror(e));
}

static void seal(int fd) { fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW); }

tr_status tr_segment_create(const char *name, uint64_t bytes, int fd, tr_error *err) {
    int made = -1;
    TR_TRY(new_memfd(name, bytes, &made, err));
    tr_status status = allocate(made, name, 0, bytes, err);
    if (status != TR_OK) {
        close(made);
        return status;
    }
    seal(made);
    return place_fd(made, fd, err);
}

tr_status tr_segment_map(int fd, uint64_t bytes, bool writable, void **data_out, tr_error *err) {
    *data_out = NULL;
    if (bytes == 0) return TR_OK;
    struct stat st;
    if (fstat(fd, &st) != 0 || (uint64_t)st.st_size != bytes)
        return tr_error_set(err, TR_INTERNAL, "descriptor %d is not the shared memory that the plan names", fd);
    void *data = mmap(NULL, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return tr_error_set(err, TR_UNAVAILABLE, "cannot map %" PRIu64 " MiB of shared memory: %s", bytes >> 20,
                            strerror(errno));
    *data_out = data;
    return TR_OK;
}

/* Bind each layer of a pool to the node of the stage that reads it, before its pages exist. */
static void bind_pool(const tr_company *c, uint32_t pool, uint8_t *base) {
    const tr_kv_layout *l = &c->layout[pool];
    for (uint32_t a = 0; a < c->n_actors; a++) {
        const tr_company_actor *actor = &c->actor[a];
        if (actor->role != TR_ROLE_STAGE || actor->rank > 0 || actor->node != c->self || actor->numa_node < 0) continue;
        for (uint32_t p = 0; p < 2; p++) {
            if (!actor->phase[p].active || actor->phase[p].pool != pool) continue;
            for (uint32_t layer = actor->lo; layer < actor->hi; layer++)
                tr_bind_memory(base + tr_kv_layout_head_offset(l, layer, 0),
                               l->group[l->layer_group[layer]].layer_bytes, actor->numa_node);
        }
    }
}

static tr_status fill_pool(const tr_company *c, uint32_t id, int fd, uint8_t *base, tr_error *err) {
    bind_pool(c, id == TR_SEGMENT_POOL_DECODE, base);
    return allocate(fd, c->segment[id].name, 0, c->segment[id].bytes, err);
}

/* The memory of a stage's ranks lies on the node of the first; what is logits alone stays a hole. */
static tr_status fill_teams(const tr_company *c, int fd, uint8_t *base, tr_error *err) {
    for (uint32_t a = 0; a < c->n_actors; a++) {
        const tr_company_actor *actor = &c->actor[a];
        if (actor->role != TR_ROLE_STAGE || actor->tp == 1 || actor->rank > 0 || actor->node != c->self) continue;
        tr_bind_memory(base + actor->team_offset, actor->team_bytes, actor->numa_node);
        TR_TRY(allocate(fd, c->segment[TR_SEGMENT_TEAMS].name, actor->team_offset, actor->team_filled, err));
        tr_team_meeting_init(tr_segment_meeting(base, actor));
    }
    return TR_OK;
}

/* Memory whose place matters: it is bound before its pages exist. */
static tr_status create_placed(const tr_company *c, uint32_t id, tr_error *err) {
    uint64_t bytes = tr_company_segment_bytes(c, id);
    int fd = -1;
    TR_TRY(new_memfd(c->segment[id].name, bytes, &fd, err));
    if (bytes) {
        void *base = NULL;
        tr_status status = tr_segment_map(fd, bytes, true, &base, err);
        if (status == TR_OK) {
            status = id == TR_SEGMENT_TEAMS ? fill_teams(c, fd, base, err) : fill_pool(c, id, fd, base, err);
            munmap(base, bytes);
        }
        if (status != TR_OK) {
            close(fd);
            return status;
        }
        seal(fd);
    }
    return place_fd(fd, TR_COMPANY_FD_SEGMENT + (int)id, err);
}

static void init_tables(const tr_company *c, uint8_t *tables) {
    for (uint32_t p = 0; p < (c->one_pool ? 1u : 2u); p++)
        memset(tables + c->table_offset[p], 0xff, c->layout[p].table_bytes); /* TR_KV_NO_PAGE */
}

static tr_status init_bells(const tr_company *c, tr_control *control, tr_error *err) {
    for (uint32_t a = 0; a < c->n_actors; a++) {
        int fd = eventfd(0, EFD_NONBLOCK);
        if (fd < 0) return tr_error_set(err, TR_SYSTEM, "cannot create an eventfd: %s", strerror(errno));
        TR_TRY(place_fd(fd, tr_segment_bell_fd(a), err));
        tr_bell_init(&control->actor[a].bell, tr_segment_bell_fd(a));
    }
    return TR_OK;
}

tr_status tr_segment_create_all(const tr_company *c, void *segment_out[TR_SEGMENT_COUNT], tr_error *err) {
    for (uint32_t id = 0; id < TR_SEGMENT_COUNT; id++) {
        if (id == TR_SEGMENT_POOL_PREFILL || id == TR_SEGMENT_POOL_DECODE || id == TR_SEGMENT_TEAMS)
            TR_TRY(create_placed(c, id, err));
        else
            TR_TRY(tr_segment_create(c->segment[id].name, tr_company_segment_bytes(c, id),
                                     TR_COMPANY_FD_SEGMENT + (int)id, err));
    }
    TR_TRY(tr_segment_map_all(c, segment_out, err));
    init_tables(c, segment_out[TR_SEGMENT_TABLES]);
    if (segment_out[TR_SEGMENT_JOURNAL]) tr_journal_init(segment_out[TR_SEGMENT_JOURNAL], c->n_slots, c->context);
    for (uint32_t i = 0; i < c->n_links; i++)
        tr_ring_init((uint8_t *)segment_out[TR_SEGMENT_LINKS] + c->link[i].offset, c->link[i].capacity);
    return init_bells(c, segment_out[TR_SEGMENT_CONTROL], err);
}

tr_status tr_segment_map_plan(const tr_company **company_out, tr_error *err) {
    struct stat st;
    if (fstat(TR_COMPANY_FD_PLAN, &st) != 0 || st.st_size != (off_t)sizeof(tr_company))
        return tr_error_set(err, TR_USAGE,
                            "this is an internal role of troupe; start it with `troupe run` or `troupe serve`");
    void *data = NULL;
    TR_TRY(tr_segment_map(TR_COMPANY_FD_PLAN, sizeof(tr_company), false, &data, err));
    const tr_company *c = data;
    if (c->magic != TR_COMPANY_MAGIC || c->version != TR_COMPANY_VERSION)
        return tr_error_set(err, TR_INTERNAL, "the plan was made by another version of troupe");
    *company_out = c;
    return TR_OK;
}

tr_status tr_segment_map_all(const tr_company *c, void *segment_out[TR_SEGMENT_COUNT], tr_error *err) {
    for (uint32_t id = 0; id < TR_SEGMENT_COUNT; id++)
        TR_TRY(tr_segment_map(TR_COMPANY_FD_SEGMENT + (int)id, tr_company_segment_bytes(c, id), true, &segment_out[id],
                              err));
    return TR_OK;
}
