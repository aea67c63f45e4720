#include "actors/store/store_link.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_AT_ONCE = 256 << 10, SLACK = 64 << 10 /* of what is read beyond a value */, TEXT = 96 };
#define RETRY_LEAST_NS (100 * TR_NS_PER_MS)
#define RETRY_MOST_NS  (10 * TR_NS_PER_S)
#if HIREDIS_MAJOR >= 1
typedef size_t array_size;
#else
typedef int array_size;
#endif

struct tr_store_link {
    tr_store_link_config config;
    char *host, *password;
    redisContext *redis; /* NULL: down */
    redisReplyObjectFunctions fn;
    bool up, told_down;
    uint32_t waiting, unwanted; /* answers to come; of these the next ones that nobody wants */
    uint32_t handshake;         /* answers to come before it is up */
    uint64_t deadline_ns, retry_ns, backoff_ns, failures;
    tr_store_reply reply;
    uint8_t *value; /* [value_max] */
    uint8_t *input; /* [READ_AT_ONCE] */
};

/* ---- answers as hiredis reads them: no object is made of any ---- */
static void *on_string(const redisReadTask *task, char *text, size_t bytes) {
    tr_store_link *l = task->privdata;
    l->reply.kind = task->type == REDIS_REPLY_STRING   ? TR_STORE_REPLY_VALUE
                    : task->type == REDIS_REPLY_STATUS ? TR_STORE_REPLY_STATUS
                    : task->type == REDIS_REPLY_ERROR  ? TR_STORE_REPLY_ERROR
                                                       : TR_STORE_REPLY_NONE;
    l->reply.data = l->value;
    l->reply.bytes = bytes; /* one that is too large is cut, and known by this */
    memcpy(l->value, text, bytes < l->config.value_max ? bytes : l->config.value_max);
    return l;
}

static void *on_integer(const redisReadTask *task, long long integer) {
    tr_store_link *l = task->privdata;
    l->reply.kind = TR_STORE_REPLY_INTEGER;
    l->reply.integer = integer;
    return l;
}

static void *on_nil(const redisReadTask *task) {
    tr_store_link *l = task->privdata;
    l->reply.kind = TR_STORE_REPLY_NIL;
    return l;
}

static void *on_array(const redisReadTask *task, array_size n) {
    (void)task;
    (void)n;
    return NULL; /* nothing that is asked is answered by one */
}

static void on_free(void *object) { (void)object; }

/* ---- life ---- */
tr_status tr_store_link_create(const tr_store_link_config *config, tr_store_link **out, tr_error *err) {
    tr_store_link *l = calloc(1, sizeof *l);
    if (!l) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the store");
    l->config = *config;
    if (l->config.value_max < TEXT) l->config.value_max = TEXT;
    l->host = strdup(config->host);
    l->password = strdup(config->password);
    l->value = aligned_alloc(64, tr_align_up(l->config.value_max, 64));
    l->input = malloc(READ_AT_ONCE);
    l->fn.createString = on_string;
    l->fn.createArray = on_array;
    l->fn.createInteger = on_integer;
    l->fn.createNil = on_nil;
    l->fn.freeObject = on_free;
    l->deadline_ns = UINT64_MAX;
    l->backoff_ns = RETRY_LEAST_NS;
    if (!l->host || !l->password || !l->value || !l->input) {
        tr_store_link_destroy(l);
        return tr_error_set(err, TR_UNAVAILABLE, "no memory for the store");
    }
    *out = l;
    return TR_OK;
}

void tr_store_link_destroy(tr_store_link *l) {
    if (!l) return;
    if (l->redis) redisFree(l->redis);
    free(l->host);
    free(l->password);
    free(l->value);
    free(l->input);
    free(l);
}

bool tr_store_link_up(const tr_store_link *l) { return l->up; }
uint64_t tr_store_link_failures(const tr_store_link *l) { return l->failures; }
uint32_t tr_store_link_waiting(const tr_store_link *l) { return l->waiting; }
void tr_store_link_deadline(tr_store_link *l, uint64_t ns) { l->deadline_ns = ns; }
void tr_store_link_forget(tr_store_link *l) { l->unwanted = l->waiting; }

/* Texts of a server go into a log of lines. */
static void printable(const char *from, size_t n, char out[TEXT]) {
    if (n > TEXT - 1) n = TEXT - 1;
    for (size_t i = 0; i < n; i++) out[i] = (char)(from[i] >= ' ' && from[i] < 127 && from[i] != '"' ? from[i] : '?');
    out[n] = 0;
}

static void fail(tr_store_link *l, uint64_t now_ns, const char *why) {
    char text[TEXT];
    printable(why, strlen(why), text);
    if (!l->told_down) tr_log(TR_LOG_WARN, "store_down", "because=\"%s\"", text);
    l->told_down = true;
    if (l->redis) redisFree(l->redis);
    l->redis = NULL;
    l->up = false;
    l->failures++;
    l->waiting = l->unwanted = l->handshake = 0;
    l->deadline_ns = UINT64_MAX;
    l->retry_ns = now_ns + l->backoff_ns;
    l->backoff_ns = l->backoff_ns * 2 < RETRY_MOST_NS ? l->backoff_ns * 2 : RETRY_MOST_NS;
}

static void append(tr_store_link *l, int n, const char *const *word, const size_t *bytes) {
    if (redisAppendCommandArgv(l->redis, n, (const char **)word, bytes) == REDIS_OK) l->waiting++;
}

void tr_store_link_ask(tr_store_link *l, int n, const char *const *word, const size_t *bytes) {
    tr_check(l->up);
    append(l, n, word, bytes);
}

static void ask_handshake(tr_store_link *l) {
    char db[16];
    const char *auth[] = {"AUTH", l->password}, *select[] = {"SELECT", db}, *ping[] = {"PING"};
    snprintf(db, sizeof db, "%u", l->config.db);
    if (l->password[0]) append(l, 2, auth, (size_t[]){4, strlen(l->password)});
    if (l->config.db > 0) append(l, 2, select, (size_t[]){6, strlen(db)});
    append(l, 1, ping, (size_t[]){4});
    l->handshake = l->waiting;
}

static bool begin(tr_store_link *l, uint64_t now_ns) {
    if (now_ns < l->retry_ns) return false;
    l->redis =
        l->host[0] == '/' ? redisConnectUnixNonBlock(l->host) : redisConnectNonBlock(l->host, (int)l->config.port);
    if (!l->redis || l->redis->err) {
        fail(l, now_ns, l->redis ? l->redis->errstr : "no memory");
        return true;
    }
    l->redis->reader->fn = &l->fn;
    l->redis->reader->privdata = l;
    l->redis->reader->maxbuf = 0; /* it is kept */
    l->deadline_ns = now_ns + l->config.timeout_ns;
    ask_handshake(l);
    return true;
}

static void on_handshake(tr_store_link *l, uint64_t now_ns) {
    char text[TEXT];
    if (l->reply.kind != TR_STORE_REPLY_STATUS) {
        const bool says = l->reply.kind == TR_STORE_REPLY_ERROR;
        printable(says ? (const char *)l->reply.data : "it is no server of this kind", says ? l->reply.bytes : 28,
                  text);
        fail(l, now_ns, text);
        return;
    }
    if (--l->handshake > 0) return;
    l->up = true;
    l->told_down = false;
    l->backoff_ns = RETRY_LEAST_NS;
    l->deadline_ns = UINT64_MAX;
    tr_log(TR_LOG_INFO, "store_up", "at=\"%.100s\"", l->host);
}

/* Answers that are whole. */
static void answers(tr_store_link *l, uint64_t now_ns, tr_store_link_handler handler, void *self) {
    while (l->redis) {
        void *object = NULL;
        l->reply = (tr_store_reply){.kind = TR_STORE_REPLY_NONE};
        if (redisReaderGetReply(l->redis->reader, &object) != REDIS_OK) {
            fail(l, now_ns, l->redis->reader->errstr);
            return;
        }
        if (!object) return;
        if (l->reply.kind == TR_STORE_REPLY_NONE || l->waiting == 0) {
            fail(l, now_ns, "an answer of a kind that was not asked for");
            return;
        }
        l->waiting--;
        if (l->waiting == 0) l->deadline_ns = UINT64_MAX;
        if (!l->up) {
            on_handshake(l, now_ns);
        } else if (l->unwanted > 0) {
            l->unwanted--;
        } else {
            handler(self, &l->reply);
        }
    }
}

static bool receive(tr_store_link *l, uint64_t now_ns, tr_store_link_handler handler, void *self) {
    const ssize_t n = read(l->redis->fd, l->input, READ_AT_ONCE);
    if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOTCONN)) return false;
    if (n <= 0) {
        fail(l, now_ns, n == 0 ? "the server closed the connection" : strerror(errno));
        return true;
    }
    const redisReader *r = l->redis->reader;
    if (r->len - r->pos + (size_t)n > l->config.value_max + SLACK + READ_AT_ONCE) {
        fail(l, now_ns, "a value is larger than any that was stored");
        return true;
    }
    if (redisReaderFeed(l->redis->reader, (const char *)l->input, (size_t)n) != REDIS_OK)
        fail(l, now_ns, "no memory for an answer");
    else
        answers(l, now_ns, handler, self);
    return true;
}

static bool wants_to_write(const tr_store_link *l) { return l->redis && sdslen(l->redis->obuf) > 0; }

static bool deliver(tr_store_link *l, uint64_t now_ns) {
    const size_t before = sdslen(l->redis->obuf);
    int done = 0;
    if (redisBufferWrite(l->redis, &done) != REDIS_OK) {
        fail(l, now_ns, l->redis->errstr);
        return true;
    }
    return sdslen(l->redis->obuf) != before;
}

bool tr_store_link_step(tr_store_link *l, uint64_t now_ns, tr_store_link_handler handler, void *self) {
    bool any = false;
    if (!l->redis) return begin(l, now_ns);
    if (wants_to_write(l)) any = deliver(l, now_ns);
    if (l->redis)
        any |= receive(l, now_ns, handler, self); /* also of a server that says something unasked, or leaves */
    if (l->redis && l->waiting > 0 && now_ns > l->deadline_ns) {
        fail(l, now_ns, "no answer in time");
        any = true;
    }
    return any;
}

int tr_store_link_wait(const tr_store_link *l, bool *writes_out, uint64_t *until_ns_out) {
    *writes_out = wants_to_write(l);
    *until_ns_out = l->redis ? l->deadline_ns : l->retry_ns;
    return l->redis ? l->redis->fd : -1;
}
