/* Sleep and wake are Dekker's pattern: the owner announces sleep, then looks at the count; a ringer raises the count,
 * then looks for a sleeper. Both are sequentially consistent, so one of them sees the other. A ringer that is killed
 * between the two loses its wake: the supervisor rings everybody when an actor dies. */
#include "transport/bell.h"
#include "base/clock.h"
#include "base/status.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { AWAKE = 0, SLEEPS = 1, POLLS = 2 };

void tr_bell_init(tr_bell *b, int event_fd) {
    atomic_init(&b->count, 0);
    atomic_init(&b->sleeper, AWAKE);
    atomic_init(&b->slept_at, 0);
    b->event_fd = event_fd;
}

/* Not FUTEX_PRIVATE: the word is shared between processes. */
static void futex_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }

static void futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns) {
    struct timespec t = {(time_t)(timeout_ns / TR_NS_PER_S), (long)(timeout_ns % TR_NS_PER_S)};
    syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout_ns == UINT64_MAX ? NULL : &t, NULL, 0);
}

void tr_bell_ring(tr_bell *b) {
    atomic_fetch_add(&b->count, 1);
    uint32_t sleeper = atomic_load(&b->sleeper);
    if (sleeper == SLEEPS) futex_wake(&b->count);
    if (sleeper == POLLS && b->event_fd >= 0) {
        uint64_t one = 1;
        ssize_t n = write(b->event_fd, &one, sizeof one); /* full counter: it is readable already */
        (void)n;
    }
}

uint32_t tr_bell_read(const tr_bell *b) { return atomic_load_explicit(&b->count, memory_order_acquire); }

/* True when the count moved. The clock is read now and then only: a read costs as much as several looks. */
static bool spin(const tr_bell *b, uint32_t seen, uint64_t spin_ns) {
    uint64_t end = tr_clock_now_ns() + spin_ns;
    do {
        for (int i = 0; i < 32; i++) {
            if (tr_bell_read(b) != seen) return true;
            __builtin_ia32_pause();
        }
    } while (tr_clock_now_ns() < end);
    return false;
}

void tr_bell_wait(tr_bell *b, uint32_t seen, uint64_t spin_ns, uint64_t timeout_ns) {
    if (tr_bell_read(b) != seen) return;
    if (spin_ns > timeout_ns) spin_ns = timeout_ns;
    if (spin_ns != 0 && spin(b, seen, spin_ns)) return;
    if (timeout_ns != UINT64_MAX) timeout_ns -= spin_ns;
    if (timeout_ns == 0) return;
    atomic_store_explicit(&b->slept_at, seen, memory_order_relaxed);
    atomic_store(&b->sleeper, SLEEPS);
    if (atomic_load(&b->count) == seen) futex_wait(&b->count, seen, timeout_ns);
    atomic_store(&b->sleeper, AWAKE);
}

bool tr_bell_prepare(tr_bell *b, uint32_t seen) {
    tr_check(b->event_fd >= 0);
    atomic_store_explicit(&b->slept_at, seen, memory_order_relaxed);
    atomic_store(&b->sleeper, POLLS);
    if (atomic_load(&b->count) == seen) return true;
    atomic_store(&b->sleeper, AWAKE);
    return false;
}

void tr_bell_done(tr_bell *b) {
    atomic_store(&b->sleeper, AWAKE);
    uint64_t rings;
    ssize_t n = read(b->event_fd, &rings, sizeof rings); /* EFD_NONBLOCK: nothing there is fine */
    (void)n;
}

bool tr_bell_asleep(const tr_bell *b) {
    return atomic_load(&b->sleeper) != AWAKE && atomic_load(&b->slept_at) == atomic_load(&b->count);
}
