/* actors/store/store.c - real driver of store_core.h: prefixes of prompts between the prefill pool and a server. It
 * copies pages and speaks with the server, which nothing else in the company waits for: a job that reads pages ends
 * when they are copied, before anything is sent; one that writes pages ends by its deadline. */
#include "actors/actors.h"
#include "actors/store/store_core.h"
#include "actors/store/store_link.h"
#include "base/blake2b.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "kernels/ops.h"
#include "kv/kv_block.h"
#include "scheduler/journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    AHEAD = 8,              /* values that are asked for at once */
    QUEUE = 4096,           /* blocks that wait to be sent, at most */
    QUEUE_BYTES = 64 << 20, /* and their bytes */
    PIECE_BYTES = 4 << 20,  /* of a fetch, that must come within the time of a question */
    STORING = 20,           /* times that time has a value that is sent, as long as no question waits for it */
    TOLD_MS = 50            /* the scheduler is told how it goes at most so often */
};

typedef struct outgoing {
    char name[TR_KV_BLOCK_NAME];
    uint32_t name_bytes;
    size_t bytes;
    uint8_t *value;
} outgoing;

typedef enum op { OP_NONE, OP_LOOK, OP_FETCH } op;

typedef struct driver {
    tr_runtime *rt;
    const tr_kv_layout *layout;
    tr_kv_block_kind kind;
    uint8_t *pool;
    const uint32_t *table;
    tr_journal *journal;
    tr_store_link *link;
    uint64_t timeout_ns;
    /* the question or fetch that runs */
    op op;
    bool pending; /* job is to be begun */
    tr_msg job;   /* its list stays valid until COMPUTED */
    tr_journal_entry *entry;
    uint64_t began_ns, bytes;
    uint32_t asked, answered, n_parts; /* parts: blocks of groups, group after group */
    tr_kv_block_hash *chain;           /* [blocks of a context] hash up to block i */
    bool *there[TR_KV_GROUPS_MAX];     /* [blocks of a context] */
    /* blocks on their way out */
    outgoing *queue; /* [QUEUE] */
    uint32_t head, count;
    size_t queued_bytes;
    bool sending, full;       /* the first one is asked; the server has no room */
    bool hurried;             /* a question waits for what is sent */
    tr_msg_store_state state; /* not told yet */
    uint64_t told_ns;
    bool told_up, tell;
    tr_store_core core;
    tr_effects effects;
} driver;

/* ---- chains and pages ----------------------------------------------------------------------------------------------
 */

static void chain_to(driver *d, const tr_journal_entry *e, uint32_t blocks) {
    tr_kv_block_hash last;
    tr_kv_block_root(&d->kind, e->store_tenant, &last);
    for (uint32_t i = 0; i < blocks; i++) {
        tr_kv_block_next(&d->kind, &last, e->tokens + i * TR_KV_TILE_TOK, &last);
        d->chain[i] = last;
    }
}

static tr_kv_block_place place_of(const driver *d, const tr_journal_entry *e, uint32_t group, uint32_t block) {
    return (tr_kv_block_place){.group = group,
                               .pos = block * TR_KV_TILE_TOK,
                               .chain = &d->chain[block],
                               .tokens = e->tokens + block * TR_KV_TILE_TOK};
}

/* Between a value and the pages of a slot. False: the table names no page. */
static bool copy_block(driver *d, uint32_t slot, uint32_t group, uint32_t block, uint8_t *value, bool out) {
    const tr_kv_layout *l = d->layout;
    const uint32_t pos = block * TR_KV_TILE_TOK;
    const uint32_t page = d->table[tr_kv_layout_entry(l, slot, group, pos / l->page_tok)];
    const size_t bytes = tr_kv_tile_bytes(l->format, l->head_dim);
    if (page >= l->group[group].n_pages) return false;
    for (uint32_t layer = 0; layer < l->n_layers; layer++)
        for (uint32_t h = 0; h < l->n_kv_heads && l->layer_group[layer] == group; h++) {
            uint8_t *tile = d->pool + tr_kv_layout_head_offset(l, layer, h) + (uint64_t)page * l->page_bytes +
                            pos % l->page_tok / TR_KV_TILE_TOK * bytes;
            uint8_t *part = tr_kv_block_tile(&d->kind, value, layer, h);
            memcpy(out ? part : tile, out ? tile : part, bytes);
        }
    return true;
}

/* Of a job: NULL when its slot holds another request by now, or a number is out of bounds. */
static tr_journal_entry *entry_of(const driver *d, uint32_t slot, uint64_t rid, uint32_t tok1) {
    tr_journal_entry *e = slot < d->journal->n_slots ? tr_journal_at(d->journal, slot) : NULL;
    return e && e->rid == rid && tok1 <= d->journal->context ? e : NULL;
}

/* ---- the core ------------------------------------------------------------------------------------------------------
 */

static void on_event(void *self, const tr_event *event) {
    driver *d = self;
    if (event->kind == TR_EVENT_PEER_UP && event->from == d->rt->company->scheduler) d->tell = true;
    tr_store_core_step(&d->core, event, &d->effects);
    for (uint32_t i = 0; i < d->effects.n; i++) {
        const tr_effect *e = &d->effects.item[i];
        if (e->kind == TR_EFFECT_COMPUTE) {
            d->job = e->msg;
            d->pending = true;
        } else if (e->kind == TR_EFFECT_SEND && tr_runtime_send(d->rt, e->to, &e->msg) == TR_AGAIN)
            tr_log(TR_LOG_ERROR, "link_full", "to=%s", d->rt->company->actor[e->to].name);
    }
}

static void finish(driver *d, uint32_t status, uint32_t positions) {
    tr_event done = {.kind = TR_EVENT_COMPUTED, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()};
    done.as.computed.status = status;
    done.as.computed.positions = positions;
    done.as.computed.bytes = d->bytes;
    d->op = OP_NONE;
    atomic_fetch_add(&d->rt->block->progress, 1);
    on_event(d, &done);
}

/* ---- out -----------------------------------------------------------------------------------------------------------
 */

static bool enqueue(driver *d, const tr_journal_entry *e, uint32_t slot, uint32_t group, uint32_t block) {
    const size_t bytes = tr_kv_block_bytes(&d->kind, group);
    if (d->count == QUEUE || d->queued_bytes + bytes > QUEUE_BYTES) return false;
    outgoing *o = &d->queue[(d->head + d->count) % QUEUE];
    const tr_kv_block_place at = place_of(d, e, group, block);
    o->value = aligned_alloc(64, tr_align_up(bytes, 64));
    if (!o->value || !copy_block(d, slot, group, block, o->value, true)) {
        free(o->value);
        return false;
    }
    tr_kv_block_seal(&d->kind, &at, o->value);
    o->name_bytes = tr_kv_block_name(&d->kind, at.chain, group, o->name);
    o->bytes = bytes;
    d->queued_bytes += bytes;
    d->count++;
    d->bytes += bytes;
    return true;
}

static void put(driver *d) {
    const tr_msg_store_put *m = &d->job.as.store_put;
    const tr_journal_entry *e = entry_of(d, m->slot, m->rid, m->tok1);
    d->bytes = 0;
    if (e && m->tok_min.len == d->layout->n_groups) {
        chain_to(d, e, m->tok1 / TR_KV_TILE_TOK);
        for (uint32_t g = 0; g < d->layout->n_groups; g++)
            for (uint32_t i = m->tok_min.data[g] / TR_KV_TILE_TOK; (i + 1) * TR_KV_TILE_TOK <= m->tok1; i++)
                d->state.dropped += !tr_store_link_up(d->link) || !enqueue(d, e, m->slot, g, i);
    }
    finish(d, 0, m->tok1);
}

static void drop_first(driver *d) {
    outgoing *o = &d->queue[d->head];
    d->queued_bytes -= o->bytes;
    free(o->value);
    d->head = (d->head + 1) % QUEUE;
    d->count--;
}

/* One at a time, so that a question never waits behind more. */
static bool send_first(driver *d) {
    const outgoing *o = &d->queue[d->head];
    if (d->count == 0 || d->op != OP_NONE || tr_store_link_waiting(d->link) > 0) return false;
    const char *word[] = {"SET", o->name, (const char *)o->value};
    tr_store_link_ask(d->link, 3, word, (size_t[]){3, o->name_bytes, o->bytes});
    tr_store_link_deadline(d->link, tr_clock_now_ns() + STORING * d->timeout_ns);
    d->hurried = false;
    return d->sending = true;
}

static void on_sent(driver *d, const tr_store_reply *r) {
    const bool good = r->kind == TR_STORE_REPLY_STATUS;
    d->sending = false;
    d->state.stored += good;
    d->state.stored_bytes += good ? d->queue[d->head].bytes : 0;
    d->state.dropped += !good;
    if (good == d->full)
        tr_log(good ? TR_LOG_INFO : TR_LOG_WARN, good ? "store_takes" : "store_refuses", "at=\"%.100s\"",
               d->rt->company->store.host);
    d->full = !good;
    drop_first(d);
}

/* ---- in ------------------------------------------------------------------------------------------------------------
 */

/* Group and block of a part. */
static uint32_t first_block(const driver *d, uint32_t group) {
    return d->op == OP_FETCH ? d->job.as.store_get.tok_min.data[group] / TR_KV_TILE_TOK : 0;
}

static void part_of(const driver *d, uint32_t part, uint32_t *group_out, uint32_t *block_out) {
    const uint32_t end = d->job.as.store_get.tok1 / TR_KV_TILE_TOK;
    uint32_t g = 0;
    while (part >= end - first_block(d, g)) part -= end - first_block(d, g++);
    *group_out = g;
    *block_out = first_block(d, g) + part;
}

static void ask_on(driver *d) {
    const uint32_t ahead = d->op == OP_LOOK ? d->n_parts : AHEAD;
    for (; d->asked < d->n_parts && d->asked - d->answered < ahead; d->asked++) {
        char name[TR_KV_BLOCK_NAME];
        uint32_t g, i;
        part_of(d, d->asked, &g, &i);
        const size_t n = tr_kv_block_name(&d->kind, &d->chain[i], g, name);
        const char *word[] = {d->op == OP_LOOK ? "EXISTS" : "GET", name};
        tr_store_link_ask(d->link, 2, word, (size_t[]){strlen(word[0]), n});
    }
    tr_store_link_deadline(d->link, d->began_ns + d->timeout_ns * (1 + d->bytes / PIECE_BYTES));
}

static void give_up(driver *d, uint32_t status) {
    tr_store_link_forget(d->link);
    finish(d, status, 0);
}

static void begin_get(driver *d) {
    const tr_msg_store_get *m = &d->job.as.store_get;
    d->entry = entry_of(d, m->slot, m->rid, m->tok1);
    d->op = m->fetch ? OP_FETCH : OP_LOOK;
    d->asked = d->answered = d->n_parts = 0;
    d->bytes = 0;
    d->began_ns = tr_clock_now_ns();
    const bool sound = d->entry && m->tok_min.len == d->layout->n_groups && m->tok1 % TR_KV_TILE_TOK == 0;
    for (uint32_t g = 0; g < d->layout->n_groups && sound; g++)
        if (first_block(d, g) < m->tok1 / TR_KV_TILE_TOK) d->n_parts += m->tok1 / TR_KV_TILE_TOK - first_block(d, g);
    if (!sound || d->n_parts == 0 || !tr_store_link_up(d->link)) {
        finish(d, m->fetch, 0);
        return;
    }
    chain_to(d, d->entry, m->tok1 / TR_KV_TILE_TOK);
    ask_on(d);
}

static void on_look(driver *d, const tr_store_reply *r) {
    uint32_t g, i;
    part_of(d, d->answered++, &g, &i);
    d->there[g][i] = r->kind == TR_STORE_REPLY_INTEGER && r->integer > 0;
    if (d->answered < d->n_parts) return;
    const bool *const there[TR_KV_GROUPS_MAX] = {d->there[0], d->there[1]};
    finish(d, 0, tr_kv_block_usable(d->layout, there, d->job.as.store_get.tok1));
}

static void on_fetch(driver *d, const tr_store_reply *r) {
    const tr_msg_store_get *m = &d->job.as.store_get;
    tr_error err = {0};
    uint32_t g, i;
    part_of(d, d->answered++, &g, &i);
    const tr_kv_block_place at = place_of(d, d->entry, g, i);
    if (r->kind != TR_STORE_REPLY_VALUE) { /* it is gone by now */
        give_up(d, 1);
        return;
    }
    if (tr_kv_block_check(&d->kind, &at, r->data, r->bytes, &err) != TR_OK) {
        tr_log(TR_LOG_WARN, "store_value_refused", "group=%u position=%u because=\"%s\"", g, at.pos, err.text);
        d->state.refused++;
        give_up(d, 1);
        return;
    }
    if (!copy_block(d, m->slot, g, i, r->data, false)) {
        give_up(d, 1);
        return;
    }
    d->bytes += r->bytes;
    if (d->answered == d->n_parts)
        finish(d, 0, m->tok1);
    else
        ask_on(d);
}

static void on_reply(void *self, const tr_store_reply *r) {
    driver *d = self;
    atomic_fetch_add_explicit(&d->rt->block->progress, 1, memory_order_relaxed);
    if (d->sending)
        on_sent(d, r);
    else if (d->op == OP_LOOK)
        on_look(d, r);
    else if (d->op == OP_FETCH)
        on_fetch(d, r);
}

/* ---- the loop ------------------------------------------------------------------------------------------------------
 */

/* The connection went: what was under way did not happen, and what waits to be sent is old when it is back. */
static void lost(driver *d) {
    d->sending = false;
    d->state.dropped += d->count;
    while (d->count > 0) drop_first(d);
    if (d->op != OP_NONE) finish(d, d->op == OP_FETCH, 0);
}

static bool work(driver *d) {
    const uint64_t failures = tr_store_link_failures(d->link);
    bool any = tr_store_link_step(d->link, tr_clock_now_ns(), on_reply, d);
    const uint64_t failed = tr_store_link_failures(d->link) - failures;
    d->state.failed += failed;
    if (failed) lost(d);
    if (d->op != OP_NONE && tr_store_core_stale(&d->core)) {
        give_up(d, 1);
        any = true;
    }
    const bool puts = d->job.type == TR_MSG_STORE_PUT;
    if (d->pending && !puts && d->sending && !d->hurried) {
        d->hurried = true;
        tr_store_link_deadline(d->link, tr_clock_now_ns() + d->timeout_ns);
    }
    if (d->pending && (puts || !d->sending)) {
        d->pending = false;
        any = true;
        if (puts)
            put(d);
        else
            begin_get(d);
    }
    return (tr_store_link_up(d->link) && send_first(d)) || any;
}

/* When the scheduler is to be told next; now: it was. */
static uint64_t tell(driver *d) {
    const tr_msg_store_state *s = &d->state;
    const bool up = tr_store_link_up(d->link);
    const uint64_t now = tr_clock_now_ns(), at = d->told_ns + TOLD_MS * TR_NS_PER_MS;
    if (up == d->told_up && !d->tell && !(s->stored | s->refused | s->failed | s->dropped)) return UINT64_MAX;
    if (up == d->told_up && !d->tell && now < at) return at;
    tr_msg m = {.type = TR_MSG_STORE_STATE, .as.store_state = d->state};
    m.as.store_state.up = up;
    if (tr_runtime_send(d->rt, d->rt->company->scheduler, &m) != TR_OK) return now + TR_NS_PER_MS;
    memset(&d->state, 0, sizeof d->state);
    d->told_up = up;
    d->tell = false;
    d->told_ns = now;
    return UINT64_MAX;
}

static void run(driver *d) {
    tr_runtime *rt = d->rt;
    while (!tr_runtime_stopping(rt)) {
        uint32_t seen = tr_bell_read(&rt->block->bell);
        bool any = tr_runtime_pump(rt, on_event, d);
        any |= work(d);
        const uint64_t tell_ns = tell(d);
        if (any) continue;
        uint64_t until, now = tr_clock_now_ns();
        rt->poll_fd = tr_store_link_wait(d->link, &rt->poll_writes, &until);
        if (tell_ns < until) until = tell_ns;
        tr_runtime_wait(rt, seen, until == UINT64_MAX ? UINT64_MAX : until > now ? until - now : 0, NULL);
    }
}

/* First line of a file; "" without one. */
static tr_status read_line(const char *path, char *out, size_t room, tr_error *err) {
    out[0] = 0;
    if (!path[0]) return TR_OK;
    FILE *f = fopen(path, "re");
    if (!f) return tr_error_set(err, TR_NO_INPUT, "%.300s: %s", path, strerror(errno));
    const bool read = fgets(out, (int)room, f) != NULL;
    fclose(f);
    out[strcspn(out, "\r\n")] = 0;
    if (!read || !out[0]) return tr_error_set(err, TR_CONFIG, "%.300s: its first line is empty", path);
    return TR_OK;
}

static tr_status init_kind(driver *d, tr_error *err) {
    const tr_company *c = d->rt->company;
    char line[1024];
    uint8_t secret[TR_KV_BLOCK_HASH];
    tr_kv_block_maker maker = {
        .model_hash = c->model_hash, .image_version = TR_IMAGE_VERSION, .ops_version = TR_OPS_VERSION};
    for (uint32_t a = 0; a < c->n_actors; a++)
        if (c->actor[a].phase[0].active) maker.precision = c->actor[a].phase[0].precision;
    if (tr_kv_describe(d->layout->format)->calibrated) maker.calibration_crc = c->kv_calibration_crc;
    TR_TRY(read_line(c->store.secret_file, line, sizeof line, err));
    if (line[0] && strlen(line) < TR_KV_BLOCK_SECRET_LEAST)
        return tr_error_set(err, TR_CONFIG, "%.300s: a secret has %d characters or more", c->store.secret_file,
                            TR_KV_BLOCK_SECRET_LEAST);
    tr_blake2b b;
    tr_blake2b_init(&b, sizeof secret, NULL, 0);
    tr_blake2b_add(&b, line, strlen(line));
    tr_blake2b_end(&b, secret);
    return tr_kv_block_init(&d->kind, d->layout, &maker, secret, line[0] ? sizeof secret : 0, err);
}

static tr_status init_link(driver *d, tr_error *err) {
    const tr_company_store *s = &d->rt->company->store;
    char password[1024];
    tr_store_link_config config = {.host = s->host, .port = s->port, .db = s->db, .password = password};
    TR_TRY(read_line(s->password_file, password, sizeof password, err));
    config.timeout_ns = d->timeout_ns = s->timeout_ms * TR_NS_PER_MS;
    for (uint32_t g = 0; g < d->layout->n_groups; g++)
        if (tr_kv_block_bytes(&d->kind, g) > config.value_max) config.value_max = tr_kv_block_bytes(&d->kind, g);
    return tr_store_link_create(&config, &d->link, err);
}

static tr_status init(driver *d, tr_error *err) {
    const tr_company *c = d->rt->company;
    const size_t blocks = c->context / TR_KV_TILE_TOK + 1;
    const uint8_t *tables = d->rt->segment[TR_SEGMENT_TABLES];
    d->layout = &c->layout[0];
    d->pool = d->rt->segment[TR_SEGMENT_POOL_PREFILL];
    d->table = (const uint32_t *)(const void *)(tables + c->table_offset[0]);
    d->journal = d->rt->segment[TR_SEGMENT_JOURNAL];
    d->chain = calloc(blocks, sizeof *d->chain);
    d->there[0] = calloc(blocks, sizeof(bool));
    d->there[1] = calloc(blocks, sizeof(bool));
    d->queue = calloc(QUEUE, sizeof *d->queue);
    if (!d->chain || !d->there[0] || !d->there[1] || !d->queue)
        return tr_error_set(err, TR_UNAVAILABLE, "no memory for the store");
    TR_TRY(init_kind(d, err));
    TR_TRY(init_link(d, err));
    tr_store_core_init(&d->core, c->scheduler);
    return TR_OK;
}

tr_status tr_store_run(tr_runtime *rt, tr_error *err) {
    driver *d = calloc(1, sizeof *d);
    if (!d) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the store");
    d->rt = rt;
    tr_status status = init(d, err);
    if (status == TR_OK) {
        tr_event start = {.kind = TR_EVENT_START, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()};
        on_event(d, &start);
        tr_runtime_ready(rt);
        run(d);
    }
    while (d->queue && d->count > 0) drop_first(d);
    tr_store_link_destroy(d->link);
    free(d->chain);
    free(d->there[0]);
    free(d->there[1]);
    free(d->queue);
    free(d);
    return status;
}
