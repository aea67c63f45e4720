#include "actors/cli/store_url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PORT = 6379, SOCKET_PATH_MAX = 107 };

static bool number(const char *text, uint32_t most, uint32_t *out) {
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || v > most) return false;
    *out = (uint32_t)v;
    return true;
}

static tr_status parse_unix(const char *text, const char *path, tr_company_store *out, tr_error *err) {
    const char *query = strchr(path, '?');
    const size_t n = query ? (size_t)(query - path) : strlen(path);
    if (path[0] != '/' || n > SOCKET_PATH_MAX)
        return tr_error_set(err, TR_CONFIG, "kv.store: '%.100s': unix:// wants an absolute path of at most %d bytes",
                            text, SOCKET_PATH_MAX);
    memcpy(out->host, path, n);
    if (query && (strncmp(query, "?db=", 4) != 0 || !number(query + 4, 65535, &out->db)))
        return tr_error_set(err, TR_CONFIG, "kv.store: '%.100s': only ?db=NUMBER may follow the path", text);
    return TR_OK;
}

/* [ADDRESS] of version 6, ADDRESS of version 4, or localhost. */
static bool host_of(const char *text, size_t n, tr_company_store *out) {
    uint8_t bytes[16];
    if (n > 2 && text[0] == '[' && text[n - 1] == ']') text++, n -= 2;
    if (n == 0 || n >= sizeof out->host) return false;
    memcpy(out->host, text, n);
    if (strcmp(out->host, "localhost") == 0) memcpy(out->host, "127.0.0.1", 10);
    return inet_pton(AF_INET, out->host, bytes) == 1 || inet_pton(AF_INET6, out->host, bytes) == 1;
}

tr_status tr_store_url_parse(const char *text, tr_company_store *out, tr_error *err) {
    memset(out->host, 0, sizeof out->host);
    out->port = PORT;
    out->db = 0;
    if (strncmp(text, "unix://", 7) == 0) return parse_unix(text, text + 7, out, err);
    if (strncmp(text, "redis://", 8) != 0)
        return tr_error_set(err, TR_CONFIG, "kv.store: '%.100s': write redis://ADDRESS:PORT/DB or unix:///PATH", text);
    const char *host = text + 8, *slash = strchr(host, '/');
    if (strchr(host, '@'))
        return tr_error_set(err, TR_CONFIG,
                            "kv.store: a password does not belong there, others can see it: name a "
                            "file by kv.store_password_file");
    const size_t n = slash ? (size_t)(slash - host) : strlen(host);
    const char *colon = memrchr(host, ':', n), *bracket = memchr(host, ']', n);
    if (bracket && colon && colon < bracket) colon = NULL;
    char port[8] = "";
    if (colon && (size_t)(host + n - colon) <= sizeof port) memcpy(port, colon + 1, (size_t)(host + n - colon) - 1);
    if (!host_of(host, colon ? (size_t)(colon - host) : n, out))
        return tr_error_set(err, TR_CONFIG, "kv.store: '%.100s': an address of numbers is wanted, or localhost", text);
    if (colon && (!number(port, 65535, &out->port) || out->port == 0))
        return tr_error_set(err, TR_CONFIG, "kv.store: '%.100s': the port is no number from 1 to 65535", text);
    if (slash && slash[1] && !number(slash + 1, 65535, &out->db))
        return tr_error_set(err, TR_CONFIG, "kv.store: '%.100s': behind the / stands the number of a database", text);
    return TR_OK;
}

bool tr_store_url_is_local(const tr_company_store *s) {
    return s->host[0] == '/' || strncmp(s->host, "127.", 4) == 0 || strcmp(s->host, "::1") == 0;
}
