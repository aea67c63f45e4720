/* actors/cli/hosts.h - hosts of a topology: "a@10.0.0.1:5570,b;ssh=user@b". The first one is the head.
 * Errors: TR_CONFIG. */
#ifndef TR_HOSTS_H
#define TR_HOSTS_H
#include "actors/runtime/company.h"
#include "base/status.h"

typedef struct tr_hosts_entry {
    char name[TR_COMPANY_NODE_NAME_BYTES];
    char address[128]; /* HOST:PORT, of the head: where it listens */
    char ssh[128];     /* for scripts/launch: destination; empty: this machine */
    char netns[64];    /* for scripts/launch: network namespace of this machine */
} tr_hosts_entry;

typedef struct tr_hosts {
    uint32_t n; /* 0: all here */
    tr_hosts_entry host[TR_COMPANY_NODES_MAX];
} tr_hosts;

tr_status tr_hosts_parse(const char *text, tr_hosts *out, tr_error *err);
/* Index of a name; an empty one is 0. TR_CONFIG: no such host. key: for the message. */
tr_status tr_hosts_find(const tr_hosts *h, const char *name, const char *key, uint32_t *index_out, tr_error *err);
#endif
