#include "actors/supervisor/supervisor.h"

#include "actors/runtime/control.h"
#include "actors/runtime/segment.h"
#include "actors/supervisor/supervisor_core.h"
#include "base/clock.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* An actor that is awake must make progress, compute a layer or go to sleep within HANG_LEASES leases; scalar kernels
 * get a hundredfold; within one it must at least run. Bells are rung twice a lease, so that a stopped sleeper is
 * noticed too. */
enum { HANG_LEASES = 10, PROBES_A_LEASE = 2, TICKS_A_LEASE = 4, LOOKS_A_LEASE = 10, TICK_MAX_MS = 250 };
#define START_NS   (60 * TR_NS_PER_S)
#define TERM_NS    (400 * TR_NS_PER_MS)
#define BACKOFF_NS (20 * TR_NS_PER_MS)

typedef struct child {
    pid_t pid; /* 0: none */
    int pid_fd;
    bool signalled; /* we sent SIGKILL in this life */
    uint32_t state_seen, busy_seen;
    uint64_t looked_ns; /* when its threads were last looked at */
    uint64_t progress_seen, beat_seen;
} child;

typedef struct supervisor {
    const tr_company *company;
    void *segment[TR_SEGMENT_COUNT];
    tr_control *control;
    uint32_t index;
    int notify_fd, signal_fd;
    uint64_t timer_ns; /* 0: none */
    uint64_t probed_ns;
    bool ended, stop_seen;
    int exit_code;
    child child[TR_COMPANY_ACTORS_MAX];
    tr_supervisor_core core;
    tr_effects effects;
} supervisor;

static supervisor self;

static void notify(char byte) {
    if (self.notify_fd < 0) return;
    ssize_t ignored = write(self.notify_fd, &byte, 1);
    (void)ignored;
}

static void ring_all(void) {
    for (uint32_t a = 0; a < self.company->n_actors; a++) tr_bell_ring(&self.control->actor[a].bell);
}

static void do_spawn(const tr_effect *e) {
    const tr_company_actor *actor = &self.company->actor[e->to];
    tr_control_block *block = &self.control->actor[e->to];
    child *c = &self.child[e->to];
    atomic_store(&block->state, TR_ACTOR_INIT);
    atomic_store(&block->busy, 0);
    atomic_store(&block->incarnation, e->incarnation);
    char *argv[] = {(char *)(uintptr_t) "troupe", (char *)(uintptr_t) "--actor", (char *)(uintptr_t)actor->name, NULL};
    posix_spawnattr_t attr;
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    pid_t pid = 0;
    int error = posix_spawn(&pid, "/proc/self/exe", NULL, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    if (error != 0) {
        /* As if it had died at once: the core decides whether to try again. */
        tr_log(TR_LOG_ERROR, "spawn_failed", "actor=%s error=%s", actor->name, strerror(error));
        *c = (child){.pid = -1, .pid_fd = -1};
        return;
    }
    *c = (child){
        .pid = pid, .pid_fd = (int)syscall(SYS_pidfd_open, pid, 0), .progress_seen = atomic_load(&block->progress)};
    fcntl(c->pid_fd, F_SETFD, FD_CLOEXEC);
    atomic_store(&block->pid, pid);
    tr_log(TR_LOG_INFO, "spawned", "child=%s pid=%d incarnation=%u", actor->name, (int)pid, e->incarnation);
}

static void do_peers(const tr_effect *e) {
    tr_control_block *block = &self.control->actor[e->to];
    if (!e->up && e->counted) atomic_fetch_add(&block->counted_deaths, 1);
    if (!e->up && atomic_load(&block->ledger.since_ns)) tr_ledger_turn(&block->ledger, TR_LEDGER_FILL_DRAIN);
    atomic_store(&block->up, e->up ? 1u : 0u);
    atomic_fetch_add(&self.control->changes, 1);
    ring_all();
}

static void do_exit(const tr_effect *e) {
    self.ended = true;
    self.exit_code = e->exit_code;
    if (e->exit_code != 0 && e->to != TR_NOBODY)
        tr_log(atomic_load(&self.control->ready) ? TR_LOG_ERROR : TR_LOG_INFO, "company_ends", "because=%s exit=%d",
               self.company->actor[e->to].name, e->exit_code);
}

static void tell_lapsed(uint32_t a) {
    tr_log(TR_LOG_WARN, "lease_lapsed", "child=%s pid=%d lease_ms=%u busy=%u", self.company->actor[a].name,
           (int)self.child[a].pid, self.company->lease.actor_ms, self.child[a].busy_seen);
}

static void apply(const tr_effect *e) {
    switch (e->kind) {
    case TR_EFFECT_SPAWN: do_spawn(e); break;
    case TR_EFFECT_PEERS: do_peers(e); break;
    case TR_EFFECT_TIMER: self.timer_ns = tr_clock_now_ns() + e->delay_ns; break;
    case TR_EFFECT_EXIT: do_exit(e); break;
    case TR_EFFECT_KILL:
        if (self.child[e->to].pid > 0) {
            if (e->signal == SIGKILL && self.core.state == TR_ACTOR_READY) tell_lapsed(e->to);
            self.child[e->to].signalled |= e->signal == SIGKILL;
            kill(self.child[e->to].pid, e->signal);
        }
        break;
    default: break;
    }
}

static void step(tr_event *event) {
    event->now_ns = tr_clock_now_ns();
    tr_supervisor_core_step(&self.core, event, &self.effects);
    /* Before the SIGTERM among the effects: who sees it leaves in order. */
    if (self.core.state == TR_ACTOR_DRAINING && !atomic_load(&self.control->stopping)) {
        atomic_store(&self.control->stopping, 1);
        ring_all();
    }
    for (uint32_t i = 0; i < self.effects.n; i++) apply(&self.effects.item[i]);
    if (self.core.state == TR_ACTOR_READY && !atomic_load(&self.control->ready)) {
        atomic_store(&self.control->ready, 1);
        ring_all();
        notify('R');
    }
}

static void see_exit(uint32_t a, int status) {
    child *c = &self.child[a];
    tr_event e = {
        .kind = TR_EVENT_CHILD_EXIT, .from = a, .incarnation = atomic_load(&self.control->actor[a].incarnation)};
    e.as.child_exit.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    e.as.child_exit.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    e.as.child_exit.ours = c->signalled;
    /* A child that ends by itself before the company was ready has said why. */
    bool expected = self.core.state == TR_ACTOR_DRAINING || (self.core.state == TR_ACTOR_INIT && WIFEXITED(status));
    const tr_company_actor *actor = &self.company->actor[a];
    if (actor->role == TR_ROLE_STAGE && actor->tp > 1) /* before it can live again */
        tr_team_meeting_leave(tr_segment_meeting(self.segment[TR_SEGMENT_TEAMS], actor), actor->rank);
    tr_log(expected ? TR_LOG_DEBUG : TR_LOG_WARN, "child_exit", "child=%s pid=%d exit=%d signal=%d ours=%d",
           actor->name, (int)c->pid, e.as.child_exit.exit_code, e.as.child_exit.signal, (int)c->signalled);
    if (c->pid_fd >= 0) close(c->pid_fd);
    *c = (child){.pid_fd = -1};
    atomic_store(&self.control->actor[a].pid, 0);
    step(&e);
}

static void reap_all(void) {
    for (uint32_t a = 0; a < self.company->n_actors; a++) {
        child *c = &self.child[a];
        int status = 0;
        if (c->pid == -1)
            see_exit(a, 70 << 8);
        else if (c->pid > 0 && waitpid(c->pid, &status, WNOHANG) == c->pid)
            see_exit(a, status);
    }
}

/* A thread of the process runs or waits for a core (R), or for a disk or memory (D). */
static bool runs(pid_t pid) {
    char path[96], text[256];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    bool found = false;
    for (struct dirent *e; dir && !found && (e = readdir(dir)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.16s/stat", (int)pid, e->d_name);
        FILE *f = fopen(path, "re");
        if (!f) continue;
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
        const char *name_end = strrchr(text, ')'); /* the name may hold anything */
        found = name_end && (strncmp(name_end, ") R", 3) == 0 || strncmp(name_end, ") D", 3) == 0);
    }
    if (dir) closedir(dir);
    return found;
}

/* One that is awake and tells nothing: does it at least run? */
static void look_at(uint32_t a, const tr_event *unchanged) {
    child *c = &self.child[a];
    uint64_t now = tr_clock_now_ns();
    if (!unchanged->as.child_state.busy ||
        now - c->looked_ns < self.company->lease.actor_ms * TR_NS_PER_MS / LOOKS_A_LEASE)
        return;
    c->looked_ns = now;
    tr_event e = *unchanged;
    e.as.child_state.runs = runs(c->pid);
    if (e.as.child_state.runs) step(&e);
}

static void read_blocks(void) {
    for (uint32_t a = 0; a < self.company->n_actors; a++) {
        child *c = &self.child[a];
        tr_control_block *b = &self.control->actor[a];
        if (c->pid <= 0) continue;
        tr_event e = {.kind = TR_EVENT_CHILD_STATE, .from = a, .incarnation = atomic_load(&b->incarnation)};
        uint64_t beat = atomic_load(&b->beat);
        e.as.child_state.state = atomic_load(&b->state);
        e.as.child_state.busy = atomic_load(&b->busy);
        if (!e.as.child_state.busy) e.as.child_state.busy = !tr_bell_asleep(&b->bell);
        e.as.child_state.progress = atomic_load(&b->progress);
        if (e.as.child_state.state == c->state_seen && e.as.child_state.busy == c->busy_seen &&
            e.as.child_state.progress == c->progress_seen && beat == c->beat_seen) {
            look_at(a, &e);
            continue;
        }
        if (beat != c->beat_seen && e.as.child_state.busy && c->busy_seen) {
            /* Work moves inside the step: for the core it begins now. */
            tr_event pause = e;
            pause.as.child_state.busy = 0;
            step(&pause);
        }
        c->beat_seen = beat;
        c->state_seen = e.as.child_state.state;
        c->busy_seen = e.as.child_state.busy;
        c->progress_seen = e.as.child_state.progress;
        step(&e);
    }
}

static void probe(void) {
    uint64_t now = tr_clock_now_ns();
    if (now - self.probed_ns < self.company->lease.actor_ms * TR_NS_PER_MS / PROBES_A_LEASE) return;
    self.probed_ns = now;
    ring_all();
}

static void read_signals(void) {
    struct signalfd_siginfo info;
    uint32_t asked = atomic_load(&self.control->stop_requested);
    bool stop = asked != 0;
    while (read(self.signal_fd, &info, sizeof info) == (ssize_t)sizeof info) stop |= info.ssi_signo == SIGTERM;
    if (stop && !self.stop_seen) {
        self.stop_seen = true;
        tr_event e = {.kind = TR_EVENT_STOP, .from = TR_NOBODY};
        e.as.child_exit.exit_code = asked > 1 ? (int)asked - 1 : 0;
        step(&e);
    }
}

static void wait_for_something(uint32_t bell_seen) {
    struct pollfd p[TR_COMPANY_ACTORS_MAX + 2];
    nfds_t n = 0;
    p[n++] = (struct pollfd){.fd = self.signal_fd, .events = POLLIN};
    p[n++] = (struct pollfd){.fd = self.control->actor[self.index].bell.event_fd, .events = POLLIN};
    for (uint32_t a = 0; a < self.company->n_actors; a++) {
        if (self.child[a].pid == -1) return;
        if (self.child[a].pid > 0) p[n++] = (struct pollfd){.fd = self.child[a].pid_fd, .events = POLLIN};
    }
    int ms = (int)self.company->lease.actor_ms / TICKS_A_LEASE;
    if (ms > TICK_MAX_MS) ms = TICK_MAX_MS;
    if (self.timer_ns) {
        uint64_t now = tr_clock_now_ns();
        uint64_t left = self.timer_ns > now ? (self.timer_ns - now + 999999) / 1000000 : 0;
        if (left < (uint64_t)ms) ms = (int)left;
    }
    tr_bell *bell = &self.control->actor[self.index].bell;
    if (!tr_bell_prepare(bell, bell_seen)) return;
    poll(p, n, ms);
    tr_bell_done(bell);
}

static void run(void) {
    step(&(tr_event){.kind = TR_EVENT_START, .from = TR_NOBODY});
    while (!self.ended) {
        uint32_t seen = tr_bell_read(&self.control->actor[self.index].bell);
        reap_all();
        read_blocks();
        probe();
        read_signals();
        if (self.timer_ns && tr_clock_now_ns() >= self.timer_ns) {
            self.timer_ns = 0;
            step(&(tr_event){.kind = TR_EVENT_TIMER, .from = TR_NOBODY});
        }
        if (!self.ended) wait_for_something(seen);
    }
}

/* Signals wait until the loop reads them; the descriptor comes after the segments, which take fixed numbers. */
static void block_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

/* Whoever started us holds the other end of the pipe for as long as it lives. One that died before the death signal was
 * asked for (block_signals) sends none. */
static bool nobody_listens(void) {
    struct pollfd p = {.fd = self.notify_fd};
    return self.notify_fd >= 0 && poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLNVAL)) != 0;
}

static tr_status init(int notify_fd, tr_error *err) {
    self.notify_fd = notify_fd;
    if (notify_fd >= 0) fcntl(notify_fd, F_SETFD, FD_CLOEXEC);
    if (nobody_listens()) return tr_error_set(err, TR_PEER, "the command that started this company is gone");
    TR_TRY(tr_segment_map_plan(&self.company, err));
    const tr_company *c = self.company;
    self.index = c->node[c->self].supervisor;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max < 65536 ? files.rlim_max : 65536;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    TR_TRY(tr_segment_create_all(c, self.segment, err));
    self.control = self.segment[TR_SEGMENT_CONTROL];
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    self.signal_fd = signalfd(-1, &term, SFD_NONBLOCK | SFD_CLOEXEC);
    if (self.signal_fd < 0) return tr_error_set(err, TR_SYSTEM, "cannot watch signals: %s", strerror(errno));
    tr_control_block *mine = &self.control->actor[self.index];
    atomic_store(&mine->pid, getpid());
    atomic_store(&mine->incarnation, 1);
    atomic_store(&mine->state, TR_ACTOR_READY);
    const uint64_t lease_ns = c->lease.actor_ms * TR_NS_PER_MS;
    tr_supervisor_core_config config = {.lease_ns = lease_ns,
                                        .hang_ns = HANG_LEASES * lease_ns,
                                        .start_ns = START_NS,
                                        .term_ns = TERM_NS,
                                        .backoff_ns = BACKOFF_NS};
    if (strcmp(c->ops, "ref") == 0) config.hang_ns *= 100;
    for (uint32_t a = 0; a < c->n_actors; a++)
        if (a != self.index && tr_company_is_local(c, a)) config.child[config.n_children++] = a;
    return tr_supervisor_core_init(&self.core, &config);
}

int tr_supervisor_main(int notify_fd) {
    tr_log_init("supervisor");
    tr_error err = {0};
    block_signals();
    tr_status status = init(notify_fd, &err);
    if (status != TR_OK) {
        fprintf(stderr, "troupe: %s\n", err.text[0] ? err.text : tr_status_text(status));
        return tr_status_exit_code(status);
    }
    notify('S');
    run();
    return self.exit_code;
}
