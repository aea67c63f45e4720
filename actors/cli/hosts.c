#include "actors/cli/hosts.h"

#include "actors/runtime/plan_exchange.h"

#include <stdio.h>
#include <string.h>

/* Copy n bytes that must fit. */
static bool put(char *out, size_t cap, const char *text, size_t n) {
    if (n == 0 || n >= cap) return false;
    memcpy(out, text, n);
    out[n] = 0;
    return true;
}

/* "ssh=user@b" */
static bool attribute(tr_hosts_entry *e, const char *text, size_t n) {
    static const char *const keys[] = {"address=", "ssh=", "netns="};
    char *const to[] = {e->address, e->ssh, e->netns};
    const size_t cap[] = {sizeof e->address, sizeof e->ssh, sizeof e->netns};
    for (size_t i = 0; i < 3; i++) {
        size_t k = strlen(keys[i]);
        if (n > k && strncmp(text, keys[i], k) == 0) return put(to[i], cap[i], text + k, n - k);
    }
    return false;
}

static bool entry(tr_hosts_entry *e, const char *text, size_t n) {
    size_t head = 0, name;
    while (head < n && text[head] != ';') head++;
    for (name = 0; name < head && text[name] != '@'; name++) continue;
    if (!put(e->name, sizeof e->name, text, name) || !tr_plan_exchange_name_valid(e->name, sizeof e->name))
        return false;
    if (name < head && !put(e->address, sizeof e->address, text + name + 1, head - name - 1)) return false;
    while (head < n) {
        size_t begin = ++head;
        while (head < n && text[head] != ';') head++;
        if (!attribute(e, text + begin, head - begin)) return false;
    }
    return true;
}

tr_status tr_hosts_parse(const char *text, tr_hosts *out, tr_error *err) {
    memset(out, 0, sizeof *out);
    if (!*text || strcmp(text, "local") == 0) return TR_OK;
    for (const char *p = text;; p++) {
        size_t n = strcspn(p, ",");
        if (out->n == TR_COMPANY_NODES_MAX)
            return tr_error_set(err, TR_CONFIG, "hosts: at most %d are possible", TR_COMPANY_NODES_MAX);
        tr_hosts_entry *e = &out->host[out->n];
        if (!entry(e, p, n))
            return tr_error_set(err, TR_CONFIG,
                                "hosts: '%.*s' is no host: a name of at most %d small letters, digits and '-', and "
                                "address: HOST:PORT for the first one",
                                (int)(n < 60 ? n : 60), p, TR_COMPANY_NODE_NAME_BYTES - 1);
        for (uint32_t i = 0; i < out->n; i++)
            if (strcmp(out->host[i].name, e->name) == 0)
                return tr_error_set(err, TR_CONFIG, "hosts: '%s' comes twice", e->name);
        out->n++;
        p += n;
        if (!*p) return TR_OK;
    }
}

tr_status tr_hosts_find(const tr_hosts *h, const char *name, const char *key, uint32_t *index_out, tr_error *err) {
    *index_out = 0;
    if (!*name || strcmp(name, "local") == 0) return TR_OK;
    for (uint32_t i = 0; i < h->n; i++)
        if (strcmp(h->host[i].name, name) == 0) return *index_out = i, TR_OK;
    return tr_error_set(err, TR_CONFIG, "%s: '%.60s' is not among the hosts: name one of them", key, name);
}
