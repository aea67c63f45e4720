/* actors/store/store_link.h - one connection to a server that speaks the protocol of Redis, never blocking. The only
 * door to hiredis.
 * Down, it tries again by itself, after 100 ms, then twice as long up to 10 s. Questions are answered in order; when an
 * answer does not come before the deadline, or the server breaks the protocol, the connection is closed. The server is
 * believed nothing: a text is cut, an array is refused, a value beyond the limit ends the connection before it is held.
 * Every change of state is one line of the log. Owns: socket, buffers. Threads: one. */
#ifndef TR_STORE_LINK_H
#define TR_STORE_LINK_H
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_store_link tr_store_link;

typedef struct tr_store_link_config {
    const char *host; /* address, or path of a socket when it begins with / */
    uint32_t port, db;
    const char *password; /* "": none */
    uint64_t timeout_ns;  /* to connect and to be let in */
    size_t value_max;     /* bytes of the largest value that is expected */
} tr_store_link_config;

typedef enum tr_store_reply_kind {
    TR_STORE_REPLY_NONE,
    TR_STORE_REPLY_NIL,
    TR_STORE_REPLY_INTEGER,
    TR_STORE_REPLY_VALUE,
    TR_STORE_REPLY_STATUS,
    TR_STORE_REPLY_ERROR
} tr_store_reply_kind;

typedef struct tr_store_reply {
    tr_store_reply_kind kind;
    int64_t integer;
    uint8_t *data; /* valid during the call; aligned to 64 bytes; the first value_max of */
    size_t bytes;
} tr_store_reply;

/* Copies the configuration. TR_UNAVAILABLE: no memory. */
tr_status tr_store_link_create(const tr_store_link_config *config, tr_store_link **out, tr_error *err);
void tr_store_link_destroy(tr_store_link *l);
bool tr_store_link_up(const tr_store_link *l);
/* Times that it went down, or could not come up. */
uint64_t tr_store_link_failures(const tr_store_link *l);
/* One more question; only while up. Its words are copied. */
void tr_store_link_ask(tr_store_link *l, int n, const char *const *word, const size_t *bytes);
/* Questions without an answer, given-up ones included. */
uint32_t tr_store_link_waiting(const tr_store_link *l);
/* When the next answer must be there; UINT64_MAX: no limit. Set it anew for every piece of work. */
void tr_store_link_deadline(tr_store_link *l, uint64_t ns);
/* What was asked so far is not wanted any more: its answers are thrown away. */
void tr_store_link_forget(tr_store_link *l);

typedef void (*tr_store_link_handler)(void *self, const tr_store_reply *reply);
/* Whatever can be done without waiting: connect, write, read; answers go to the handler, which may ask on. True when
 * something moved. */
bool tr_store_link_step(tr_store_link *l, uint64_t now_ns, tr_store_link_handler handler, void *self);
/* What to wait for until the next step: a descriptor (-1: none), whether it is to be written too, and until when. */
int tr_store_link_wait(const tr_store_link *l, bool *writes_out, uint64_t *until_ns_out);
#endif
