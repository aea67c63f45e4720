#include "transport/zmq_socket.h"

#include "transport/zmq_zap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

/* The headers of stable releases leave its name out; the library takes it. */
enum { ZAP_ENFORCE_DOMAIN = 93 };
enum { ENDPOINT_MAX = 256, HOST_MAX = 64, HWM_DEFAULT = 1000, HANDSHAKE_MS = 2000, RECONNECT_MS = 10 };
#define IPC_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

tr_status tr_zmq_socket_context(void **context_out, tr_error *err) {
    void *context = zmq_ctx_new();
    if (!context) return tr_error_set(err, TR_SYSTEM, "cannot start ZeroMQ: %s", zmq_strerror(errno));
    zmq_ctx_set(context, ZMQ_BLOCKY, 0);
    *context_out = context;
    return TR_OK;
}

/* ---- endpoints ----------------------------------------------------------------------------------------------------
 */

static bool is_loopback(const char *host) {
    struct in_addr v4;
    struct in6_addr v6;
    if (strcmp(host, "localhost") == 0) return true;
    if (inet_pton(AF_INET, host, &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool port_valid(const char *port, bool bind) {
    if (bind && (strcmp(port, "*") == 0 || strcmp(port, "0") == 0)) return true;
    size_t n = strlen(port);
    if (n == 0 || n > 5 || strspn(port, "0123456789") != n) return false;
    long v = strtol(port, NULL, 10);
    return v >= 1 && v <= 65535;
}

/* A name or an address; what the resolver makes of it is its business. */
static bool host_valid(const char *host, bool bind) {
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1 || inet_pton(AF_INET6, host, &v6) == 1) return true;
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
    return !bind && host[0] != '-' && strspn(host, letters) == strlen(host);
}

/* host:port, [host]:port into its parts. */
static bool split_tcp(const char *endpoint, bool bind, char host[HOST_MAX], const char **port_out) {
    const char *at = endpoint + strlen("tcp://"), *colon = strrchr(at, ':');
    size_t n = colon ? (size_t)(colon - at) : 0;
    if (n >= 2 && at[0] == '[' && at[n - 1] == ']') at++, n -= 2;
    if (!colon || n == 0 || n >= HOST_MAX || !port_valid(colon + 1, bind)) return false;
    memcpy(host, at, n);
    host[n] = 0;
    *port_out = colon + 1;
    return true;
}

/* Rewrites localhost, which libzmq would look up as a network interface. */
static tr_status check_tcp(const char *endpoint, bool bind, bool keys, char *resolved, tr_error *err) {
    char host[HOST_MAX];
    const char *port;
    if (!split_tcp(endpoint, bind, host, &port) || (!is_loopback(host) && keys && !host_valid(host, bind)))
        return tr_error_set(err, TR_USAGE, "endpoint %.200s: expected tcp://HOST:PORT with a port of 1 to 65535",
                            endpoint);
    if (!is_loopback(host) && !keys)
        return tr_error_set(err, TR_USAGE,
                            "endpoint %.200s: reachable from other machines, which needs keys: use ipc:///path or "
                            "tcp://127.0.0.1:PORT",
                            endpoint);
    const char *address = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    bool v6 = strchr(address, ':') != NULL;
    snprintf(resolved, ENDPOINT_MAX, "tcp://%s%s%s:%s", v6 ? "[" : "", address, v6 ? "]" : "", port);
    return TR_OK;
}

bool tr_zmq_socket_is_loopback(const char *endpoint) {
    char host[HOST_MAX];
    const char *port;
    return strncmp(endpoint, "tcp://", 6) == 0 && split_tcp(endpoint, true, host, &port) && is_loopback(host);
}

static tr_status check_ipc(const char *endpoint, tr_error *err) {
    const char *path = endpoint + strlen("ipc://");
    if (path[0] != '/') return tr_error_set(err, TR_USAGE, "endpoint %.200s: expected ipc:///PATH, absolute", endpoint);
    if (strlen(path) > IPC_PATH_MAX)
        return tr_error_set(err, TR_USAGE, "endpoint ipc://%.60s...: the path has %zu bytes, at most %zu are possible",
                            path, strlen(path), (size_t)IPC_PATH_MAX);
    return TR_OK;
}

/* resolved: ENDPOINT_MAX bytes. */
static tr_status check(const char *endpoint, bool bind, bool keys, char *resolved, tr_error *err) {
    size_t n = strlen(endpoint);
    if (strncmp(endpoint, "ipc://", 6) == 0) TR_TRY(check_ipc(endpoint, err));
    if (n >= ENDPOINT_MAX) return tr_error_set(err, TR_USAGE, "endpoint %.60s...: too long", endpoint);
    memcpy(resolved, endpoint, n + 1);
    if (strncmp(endpoint, "ipc://", 6) == 0) return TR_OK;
    if (strncmp(endpoint, "inproc://", 9) == 0 && n > 9) return TR_OK;
    if (strncmp(endpoint, "tcp://", 6) == 0) return check_tcp(endpoint, bind, keys, resolved, err);
    return tr_error_set(err, TR_USAGE, "endpoint %.200s: expected ipc:///PATH or tcp://127.0.0.1:PORT", endpoint);
}

tr_status tr_zmq_socket_check(const char *endpoint, bool bind, bool keys, tr_error *err) {
    char resolved[ENDPOINT_MAX];
    return check(endpoint, bind, keys, resolved, err);
}

/* ---- ipc paths ----------------------------------------------------------------------------------------------------
 */

static bool somebody_listens(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    /* EAGAIN: its backlog is full, so it is alive. */
    bool alive = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN;
    close(fd);
    return alive;
}

static tr_status check_private_dir(const char *path, tr_error *err) {
    char dir[IPC_PATH_MAX + 1];
    size_t n = (size_t)(strrchr(path, '/') - path);
    memcpy(dir, n ? path : "/", n ? n : 1);
    dir[n ? n : 1] = 0;
    struct stat st;
    if (stat(dir, &st) != 0) return tr_error_set(err, TR_CANNOT_CREATE, "folder %s: %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return tr_error_set(err, TR_CANNOT_CREATE, "folder %s must be yours and closed to others (chmod 700)", dir);
    return TR_OK;
}

static tr_status check_free(const char *path, tr_error *err) {
    struct stat st;
    if (lstat(path, &st) != 0) return TR_OK;
    if (!S_ISSOCK(st.st_mode))
        return tr_error_set(err, TR_CANNOT_CREATE, "%s exists and is not a socket: choose another endpoint", path);
    if (somebody_listens(path))
        return tr_error_set(err, TR_UNAVAILABLE, "%s is in use by another process: choose another endpoint", path);
    return TR_OK; /* left by a dead process */
}

/* ---- sockets ------------------------------------------------------------------------------------------------------
 */

static bool set_int(void *socket, int option, int value) {
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

static bool set_text(void *socket, int option, const char *text) {
    return zmq_setsockopt(socket, option, text, strlen(text)) == 0;
}

/* A server whose context has no handler for its domain lets nobody in. */
static bool set_curve(void *socket, const tr_zmq_socket_curve *k) {
    bool server = k->server_text == NULL;
    return set_int(socket, ZMQ_CURVE_SERVER, server) && set_text(socket, ZMQ_CURVE_PUBLICKEY, k->public_text) &&
           set_text(socket, ZMQ_CURVE_SECRETKEY, k->secret_text) &&
           (server ? set_text(socket, ZMQ_ZAP_DOMAIN, TR_ZMQ_ZAP_DOMAIN) && set_int(socket, ZAP_ENFORCE_DOMAIN, 1)
                   : set_text(socket, ZMQ_CURVE_SERVERKEY, k->server_text));
}

/* v6 only where the address is: else libzmq reports 127.0.0.1 as a mapped IPv6 address. */
static bool set_options(void *socket, const tr_zmq_socket_options *o, bool v6) {
    int hwm = o->hwm > 0 ? o->hwm : HWM_DEFAULT;
    bool ok = set_int(socket, ZMQ_LINGER, o->linger_ms) && set_int(socket, ZMQ_SNDHWM, hwm) &&
              set_int(socket, ZMQ_RCVHWM, hwm) && set_int(socket, ZMQ_IMMEDIATE, o->immediate) &&
              zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &o->max_message_bytes, sizeof o->max_message_bytes) == 0 &&
              set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) && set_int(socket, ZMQ_IPV6, v6) &&
              set_int(socket, ZMQ_RECONNECT_IVL, o->reconnect_ms > 0 ? o->reconnect_ms : RECONNECT_MS) &&
              set_int(socket, ZMQ_RECONNECT_IVL_MAX, o->reconnect_max_ms);
    if (ok && o->heartbeat_ms > 0)
        ok = set_int(socket, ZMQ_HEARTBEAT_IVL, o->heartbeat_ms) &&
             set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, 4 * o->heartbeat_ms) &&
             set_int(socket, ZMQ_HEARTBEAT_TTL, 4 * o->heartbeat_ms);
    /* An unknown peer is an error, not silence; a peer that comes back keeps its id. */
    if (ok && o->type == ZMQ_ROUTER)
        ok = set_int(socket, ZMQ_ROUTER_MANDATORY, 1) && set_int(socket, ZMQ_ROUTER_HANDOVER, 1);
    if (ok && o->curve) ok = set_curve(socket, o->curve);
    if (ok && o->routing_id) ok = zmq_setsockopt(socket, ZMQ_ROUTING_ID, o->routing_id, o->routing_id_len) == 0;
    return ok;
}

static tr_status bind_socket(void *socket, const tr_zmq_socket_options *o, const char *resolved, tr_error *err) {
    bool ipc = strncmp(resolved, "ipc://", 6) == 0;
    if (ipc && o->private_dir) TR_TRY(check_private_dir(resolved + 6, err));
    if (ipc) TR_TRY(check_free(resolved + 6, err));
    mode_t mask = umask(077);
    int rc = zmq_bind(socket, resolved);
    int error = errno;
    umask(mask);
    if (rc == 0) return TR_OK;
    if (error == EADDRINUSE)
        return tr_error_set(err, TR_UNAVAILABLE, "%s is in use by another process: choose another endpoint", resolved);
    return tr_error_set(err, TR_CANNOT_CREATE, "cannot listen at %s: %s", resolved, zmq_strerror(error));
}

tr_status tr_zmq_socket_open(void *context, const char *endpoint, const tr_zmq_socket_options *o, void **socket_out,
                             tr_error *err) {
    char resolved[ENDPOINT_MAX];
    if (o->max_message_bytes <= 0) return tr_error_set(err, TR_INVALID, "a socket needs a message size limit");
    TR_TRY(check(endpoint, o->bind, o->curve != NULL, resolved, err));
    void *socket = zmq_socket(context, o->type);
    if (!socket) return tr_error_set(err, TR_SYSTEM, "cannot open a socket: %s", zmq_strerror(errno));
    tr_status status = TR_OK;
    if (!set_options(socket, o, strchr(resolved, '[') != NULL))
        status = tr_error_set(err, TR_SYSTEM, "cannot set up a socket: %s", zmq_strerror(errno));
    else if (o->bind)
        status = bind_socket(socket, o, resolved, err);
    else if (zmq_connect(socket, resolved) != 0)
        status = tr_error_set(err, TR_SYSTEM, "cannot connect to %s: %s", resolved, zmq_strerror(errno));
    if (status != TR_OK)
        zmq_close(socket);
    else
        *socket_out = socket;
    return status;
}

void tr_zmq_socket_close(void **socket) {
    if (*socket) zmq_close(*socket);
    *socket = NULL;
}

tr_status tr_zmq_socket_endpoint(void *socket, char *out, size_t cap) {
    return zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, out, &cap) == 0 ? TR_OK : TR_SYSTEM;
}
