/* hop_bench [ROUNDS]: half of a round trip between two threads, in microseconds, over the links of a stage.
 * ring spin: both spin on their bell. ring sleep: futex at once. futex raw: one word and its futex each way, no payload
 * and no ring, the least that sleeping can cost. zmq ipc: poll on the descriptor. Pinned to the first two CPUs this
 * process may use; with one CPU, spinning is left out (it would measure the scheduler). */
#include "base/clock.h"
#include "transport/ring.h"
#include "transport/zmq_channel.h"
#include "transport/zmq_socket.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zmq.h>

enum { RECORD_MAX = 4096, RECORDS = 4 };

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

static void print(const char *name, size_t bytes, uint64_t *t, long rounds) {
    qsort(t, (size_t)rounds, sizeof *t, order);
    printf("%-10s %5zu B  p50 %7.3f us  p99 %7.3f us\n", name, bytes, (double)t[rounds / 2] / 2000,
           (double)t[rounds * 99 / 100] / 2000);
}

static void measure(const char *name, side *a, side *b, size_t bytes, uint64_t spin_ns, long rounds) {
    uint64_t *t = malloc((size_t)rounds * sizeof *t);
    long warm = rounds / 10;
    a->spin_ns = b->spin_ns = spin_ns;
    a->bytes = b->bytes = bytes;
    a->rounds = b->rounds = rounds + warm;
    pthread_t thread;
    if (!t || pthread_create(&thread, NULL, echo, b) != 0) exit(70);
    pin(a->cpu);
    for (long i = -warm; i < rounds; i++) {
        uint64_t start = tr_clock_now_ns();
        send(a, (uint64_t)i);
        receive(a);
        if (i >= 0) t[i] = tr_clock_now_ns() - start;
    }
    pthread_join(thread, NULL);
    print(name, bytes, t, rounds);
    free(t);
}

/* ---- the bare system call ---- */

typedef struct words {
    _Alignas(64) _Atomic uint32_t there;
    _Alignas(64) _Atomic uint32_t back;
    long rounds;
    int cpu;
} words;

static void ring_word(_Atomic uint32_t *word, uint32_t value) {
    atomic_store_explicit(word, value, memory_order_release);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void await_word(_Atomic uint32_t *word, uint32_t value) {
    uint32_t seen;
    while ((seen = atomic_load_explicit(word, memory_order_acquire)) != value)
        syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void *echo_words(void *arg) {
    words *w = arg;
    pin(w->cpu);
    for (long i = 1; i <= w->rounds; i++) {
        await_word(&w->there, (uint32_t)i);
        ring_word(&w->back, (uint32_t)i);
    }
    return NULL;
}

static void measure_words(int cpu, int peer_cpu, long rounds) {
    long warm = rounds / 10;
    words w = {.rounds = rounds + warm, .cpu = peer_cpu};
    uint64_t *t = malloc((size_t)rounds * sizeof *t);
    pthread_t thread;
    if (!t || pthread_create(&thread, NULL, echo_words, &w) != 0) exit(70);
    pin(cpu);
    for (long i = 1; i <= rounds + warm; i++) {
        uint64_t start = tr_clock_now_ns();
        ring_word(&w.there, (uint32_t)i);
        await_word(&w.back, (uint32_t)i);
        if (i > warm) t[i - warm - 1] = tr_clock_now_ns() - start;
    }
    pthread_join(thread, NULL);
    print("futex raw", 0, t, rounds);
    free(t);
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
    static const size_t sizes[] = {48, 1344, 2624};
    static side a, b;
    tr_error err = {0};
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 20000;
    if (rounds < 10) return fprintf(stderr, "usage: hop_bench [ROUNDS, at least 10]\n"), 64;
    cpu_set_t set;
    int cpus[2] = {-1, -1}, n = 0;
    sched_getaffinity(0, sizeof set, &set);
    for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
        if (CPU_ISSET(i, &set)) cpus[n++] = i;
    a.cpu = cpus[0], b.cpu = cpus[1];
    tr_bell_init(&a.bell, -1);
    tr_bell_init(&b.bell, -1);
    void *memory[2];
    open_rings(&a, &b, memory, &err);
    for (int i = 0; i < 3 && n == 2; i++) measure("ring spin", &a, &b, sizes[i], TR_NS_PER_S, rounds);
    for (int i = 0; i < 3; i++) measure("ring sleep", &a, &b, sizes[i], 0, rounds);
    measure_words(a.cpu, b.cpu, rounds);
    close_channels(&a, &b);
    for (int i = 0; i < 2; i++) free(memory[i]);
    void *context[2];
    for (int i = 0; i < 2; i++) need(tr_zmq_socket_context(&context[i], &err), &err);
    char dir[] = "/tmp/tr-hop-XXXXXX";
    if (!mkdtemp(dir)) return 73;
    open_sockets(&a, &b, context, dir, &err);
    for (int i = 0; i < 3; i++) measure("zmq ipc", &a, &b, sizes[i], 0, rounds);
    close_sockets(&a, &b, context, dir);
    return 0;
}
