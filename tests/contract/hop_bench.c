/* hop_bench [ROUNDS]: half of a round trip between two threads, in microseconds, over the links of a stage.
 * ring spin: both spin on their bell. ring sleep: futex at once. zmq ipc: poll on the descriptor. spin raw, futex raw:
 * one word each way, no payload and no ring, the least that either way of waiting can cost on this machine. All take
 * turns, so that a slow moment, or cores that lie far apart for a while, hit all of them. Pinned to the first two CPUs
 * this process may use; with one CPU, spinning is left out (it would measure the scheduler). */
#include "base/clock.h"
#include "transport/ring.h"
#include "transport/zmq_channel.h"
#include "transport/zmq_socket.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zmq.h>

enum { RECORD_MAX = 4096, RECORDS = 4, TURNS = 5 };

typedef struct side {
    tr_channel *in, *out;
    tr_bell bell;
    uint64_t spin_ns;
    size_t bytes;
    long rounds;
    int cpu;
} side;

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (cpu >= 0) sched_setaffinity(0, sizeof set, &set);
}

static void need(tr_status status, const tr_error *err) {
    if (status == TR_OK) return;
    fprintf(stderr, "hop_bench: %s\n", err->text);
    exit(70);
}

static uint64_t receive(side *s) {
    const void *data;
    size_t bytes;
    for (;;) {
        uint32_t seen = tr_bell_read(&s->bell);
        if (tr_channel_peek(s->in, &data, &bytes) == TR_OK) break;
        struct pollfd p = {.fd = s->in->ops->wait_fd(s->in), .events = POLLIN};
        if (p.fd >= 0)
            poll(&p, 1, 1000);
        else
            tr_bell_wait(&s->bell, seen, s->spin_ns, TR_NS_PER_S);
    }
    uint64_t sum = 0, word;
    for (size_t i = 0; i + 8 <= bytes; i += 8) memcpy(&word, (const uint8_t *)data + i, 8), sum += word;
    tr_channel_release(s->in);
    return sum;
}

static void send(side *s, uint64_t word) {
    void *data;
    while (tr_channel_reserve(s->out, s->bytes, &data) != TR_OK) {
    }
    for (size_t i = 0; i + 8 <= s->bytes; i += 8) memcpy((uint8_t *)data + i, &word, 8);
    while (tr_channel_commit(s->out, s->bytes) == TR_AGAIN) {
    }
}

static void *echo(void *arg) {
    side *s = arg;
    pin(s->cpu);
    for (long i = 0; i < s->rounds; i++) send(s, receive(s));
    return NULL;
}

static int order(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* ---- the bare words ---- */

typedef struct words {
    _Alignas(64) _Atomic uint32_t there;
    _Alignas(64) _Atomic uint32_t back;
    bool sleep;
    long rounds;
    int cpu;
} words;

static void put_word(const words *w, _Atomic uint32_t *word, uint32_t value) {
    atomic_store_explicit(word, value, memory_order_release);
    if (w->sleep) syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void await_word(const words *w, _Atomic uint32_t *word, uint32_t value) {
    uint32_t seen;
    while ((seen = atomic_load_explicit(word, memory_order_acquire)) != value)
        if (w->sleep) syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void *echo_words(void *arg) {
    words *w = arg;
    pin(w->cpu);
    for (long i = 1; i <= w->rounds; i++) {
        await_word(w, &w->there, (uint32_t)i);
        put_word(w, &w->back, (uint32_t)i);
    }
    return NULL;
}

/* ---- series of round trips ---- */

typedef struct series {
    const char *name;
    size_t bytes;
    side *a, *b; /* NULL: bare words */
    uint64_t spin_ns;
    uint64_t *t; /* [n] ns of a round trip */
    long n;
} series;

static void begin(pthread_t *thread, void *(*run)(void *), void *arg, int cpu) {
    if (pthread_create(thread, NULL, run, arg) != 0) exit(70);
    pin(cpu);
}

static void measure_link(series *s, long rounds) {
    long warm = rounds / 10;
    pthread_t thread;
    s->a->spin_ns = s->b->spin_ns = s->spin_ns;
    s->a->bytes = s->b->bytes = s->bytes;
    s->b->rounds = rounds + warm;
    begin(&thread, echo, s->b, s->a->cpu);
    for (long i = -warm; i < rounds; i++) {
        uint64_t start = tr_clock_now_ns();
        send(s->a, (uint64_t)i);
        receive(s->a);
        if (i >= 0) s->t[s->n++] = tr_clock_now_ns() - start;
    }
    pthread_join(thread, NULL);
}

static void measure_words(series *s, const int cpus[2], long rounds) {
    long warm = rounds / 10;
    words w = {.sleep = s->spin_ns == 0, .rounds = rounds + warm, .cpu = cpus[1]};
    pthread_t thread;
    begin(&thread, echo_words, &w, cpus[0]);
    for (long i = 1; i <= rounds + warm; i++) {
        uint64_t start = tr_clock_now_ns();
        put_word(&w, &w.there, (uint32_t)i);
        await_word(&w, &w.back, (uint32_t)i);
        if (i > warm) s->t[s->n++] = tr_clock_now_ns() - start;
    }
    pthread_join(thread, NULL);
}

static void print(series *s) {
    qsort(s->t, (size_t)s->n, sizeof *s->t, order);
    printf("%-10s %5zu B  p50 %7.3f us  p99 %7.3f us\n", s->name, s->bytes, (double)s->t[s->n / 2] / 2000,
           (double)s->t[s->n * 99 / 100] / 2000);
}

static void open_rings(side *a, side *b, void *memory[2], tr_error *err) {
    side *from[2] = {a, b}, *to[2] = {b, a};
    for (int i = 0; i < 2; i++) {
        size_t capacity = tr_ring_capacity(RECORDS, RECORD_MAX);
        void *mem = memory[i] = aligned_alloc(64, tr_ring_bytes(capacity));
        if (!mem) exit(70);
        memset(mem, 0, tr_ring_bytes(capacity));
        tr_ring_init(mem, capacity);
        need(tr_ring_attach_producer(mem, capacity, &to[i]->bell, &from[i]->out, err), err);
        need(tr_ring_attach_consumer(mem, capacity, &from[i]->bell, &to[i]->in, err), err);
    }
}

static void close_channels(side *a, side *b) {
    tr_channel *ends[] = {a->in, a->out, b->in, b->out};
    for (int i = 0; i < 4; i++) tr_channel_close(ends[i]);
}

static void open_sockets(side *a, side *b, void *context[2], const char *dir, tr_error *err) {
    char endpoint[64];
    side *from[2] = {a, b}, *to[2] = {b, a};
    for (int i = 0; i < 2; i++) {
        snprintf(endpoint, sizeof endpoint, "ipc://%s/%d", dir, i);
        size_t capacity = RECORDS * RECORD_MAX;
        need(tr_zmq_channel_open_consumer(context[1 - i], endpoint, RECORD_MAX, capacity, &to[i]->in, err), err);
        need(tr_zmq_channel_open_producer(context[i], endpoint, RECORD_MAX, capacity, &from[i]->out, err), err);
    }
}

static void close_sockets(side *a, side *b, void *context[2], const char *dir) {
    char path[64];
    close_channels(a, b);
    for (int i = 0; i < 2; i++) {
        zmq_ctx_term(context[i]);
        snprintf(path, sizeof path, "%s/%d", dir, i);
        unlink(path);
    }
    rmdir(dir);
}

int main(int argc, char **argv) {
    static side ring[2], socket[2];
    static series all[] = {
        {"ring spin", 48, ring, ring + 1, TR_NS_PER_S, NULL, 0},
        {"ring spin", 1344, ring, ring + 1, TR_NS_PER_S, NULL, 0},
        {"ring spin", 2624, ring, ring + 1, TR_NS_PER_S, NULL, 0},
        {"spin raw", 0, NULL, NULL, TR_NS_PER_S, NULL, 0},
        {"ring sleep", 48, ring, ring + 1, 0, NULL, 0},
        {"ring sleep", 1344, ring, ring + 1, 0, NULL, 0},
        {"ring sleep", 2624, ring, ring + 1, 0, NULL, 0},
        {"futex raw", 0, NULL, NULL, 0, NULL, 0},
        {"zmq ipc", 48, socket, socket + 1, 0, NULL, 0},
        {"zmq ipc", 1344, socket, socket + 1, 0, NULL, 0},
        {"zmq ipc", 2624, socket, socket + 1, 0, NULL, 0},
    };
    enum { SERIES = sizeof all / sizeof *all };
    tr_error err = {0};
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 20000;
    if (rounds < 10 * TURNS) return fprintf(stderr, "usage: hop_bench [ROUNDS, at least %d]\n", 10 * TURNS), 64;
    cpu_set_t set;
    int cpus[2] = {-1, -1}, n = 0;
    sched_getaffinity(0, sizeof set, &set);
    for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
        if (CPU_ISSET(i, &set)) cpus[n++] = i;
    for (int i = 0; i < 2; i++) {
        ring[i].cpu = socket[i].cpu = cpus[i];
        tr_bell_init(&ring[i].bell, -1);
        tr_bell_init(&socket[i].bell, -1);
    }
    void *memory[2], *context[2];
    char dir[] = "/tmp/tr-hop-XXXXXX";
    if (!mkdtemp(dir)) return 73;
    open_rings(&ring[0], &ring[1], memory, &err);
    for (int i = 0; i < 2; i++) need(tr_zmq_socket_context(&context[i], &err), &err);
    open_sockets(&socket[0], &socket[1], context, dir, &err);
    for (int i = 0; i < SERIES; i++)
        if (!(all[i].t = malloc((size_t)rounds * sizeof *all[i].t))) return 70;
    for (int turn = 0; turn < TURNS; turn++)
        for (int i = 0; i < SERIES; i++) {
            if (n < 2 && all[i].spin_ns) continue;
            if (all[i].a)
                measure_link(&all[i], rounds / TURNS);
            else
                measure_words(&all[i], cpus, rounds / TURNS);
        }
    for (int i = 0; i < SERIES; i++) {
        if (all[i].n) print(&all[i]);
        free(all[i].t);
    }
    close_channels(&ring[0], &ring[1]);
    for (int i = 0; i < 2; i++) free(memory[i]);
    close_sockets(&socket[0], &socket[1], context, dir);
    return 0;
}
