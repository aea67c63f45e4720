/* actors/cli/cli_top.c - `troupe top`: a running company once a second, from its status alone. On a terminal the screen
 * is drawn anew in place; into a pipe or a file one table follows the other, without control characters. */
#include "actors/cli/cli.h"
#include "actors/cli/cli_ask.h"
#include "actors/cli/cli_remote.h"
#include "base/clock.h"
#include "base/ledger.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PERIOD_MS = 1000, LOOK_MS = 50, STATUS_MS = 5000, LINE_BYTES = 512, WIDEST = 400 };

typedef struct screen {
    bool terminal;
    size_t width; /* columns; longer lines are cut */
} screen;

static void line(const screen *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line(const screen *s, const char *fmt, ...) {
    char text[LINE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == ' ') n--;
    printf("%.*s%s\n", (int)(n < s->width ? n : s->width), text, s->terminal ? "\033[K" : "");
}

static const char *text_of(const json_t *o, const char *key) {
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "?";
}
static json_int_t number_of(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }

static const json_t *find_actor(const json_t *status, const char *name) {
    const json_t *actors = json_object_get(status, "actors");
    for (size_t i = 0; i < json_array_size(actors); i++)
        if (strcmp(text_of(json_array_get(actors, i), "name"), name) == 0) return json_array_get(actors, i);
    return NULL;
}

/* "0-3,8"; "-": no cores of its own. */
static void cores_text(const json_t *cores, char *out, size_t room) {
    size_t n = 0;
    snprintf(out, room, "-");
    for (size_t i = 0, end; i < json_array_size(cores) && n + 24 < room; i = end) {
        const json_int_t first = json_integer_value(json_array_get(cores, i));
        for (end = i + 1; end < json_array_size(cores); end++)
            if (json_integer_value(json_array_get(cores, end)) != first + (json_int_t)(end - i)) break;
        n += (size_t)snprintf(out + n, room - n, "%s%d", n ? "," : "", (int)first);
        if (end - i > 1) n += (size_t)snprintf(out + n, room - n, "-%d", (int)first + (int)(end - i) - 1);
    }
}

/* Shares of the ledger since the last look, in the order of its kinds. */
static void shares_text(const json_t *now, const json_t *before, char *out, size_t room) {
    const json_t *a = json_object_get(now, "ledger_ns"), *b = json_object_get(before, "ledger_ns");
    double spent[TR_LEDGER_KINDS], all = 0;
    size_t n = 0;
    out[0] = 0;
    if (!a) return;
    for (uint32_t k = 0; k < TR_LEDGER_KINDS; k++) {
        const char *name = tr_ledger_name((tr_ledger_kind)k);
        spent[k] = (double)(number_of(a, name) - number_of(b, name));
        all += spent[k];
    }
    for (uint32_t k = 0; k < TR_LEDGER_KINDS && all > 0; k++)
        n += (size_t)snprintf(out + n, room - n, " %6.1f", 100 * spent[k] / all);
}

static void put_actors(const screen *s, const json_t *now, const json_t *before) {
    const json_t *actors = json_object_get(now, "actors");
    const double seconds = (double)(number_of(now, "clock_ns") - number_of(before, "clock_ns")) / 1e9;
    line(s, "%-14s %-5s %7s %-8s %7s %8s %6s %6s %6s %6s %6s %6s", "actor", "state", "pid", "cores", "MiB", "steps/s",
         "comp%", "comm%", "fill%", "imbal%", "starv%", "kv%");
    for (size_t i = 0; i < json_array_size(actors); i++) {
        const json_t *a = json_array_get(actors, i), *b = find_actor(before, text_of(a, "name"));
        char cores[32], shares[128];
        cores_text(json_object_get(a, "cores"), cores, sizeof cores);
        shares_text(a, b, shares, sizeof shares);
        const bool up = json_is_integer(json_object_get(a, "pid"));
        line(s, "%-14s %-5s %7d %-8s %7.1f %8.1f%s", text_of(a, "name"), up ? "up" : "down", (int)number_of(a, "pid"),
             cores, (double)number_of(a, "rss") / 1048576,
             seconds > 0 ? (double)(number_of(a, "steps") - number_of(b, "steps")) / seconds : 0, shares);
    }
}

static void put_table(const screen *s, const json_t *now, const json_t *before) {
    const json_t *requests = json_object_get(now, "requests"), *pools = json_object_get(now, "pools");
    if (s->terminal) fputs("\033[H", stdout);
    line(s, "%s: %s, %d running, %d waiting", text_of(now, "name"), text_of(now, "model"),
         (int)number_of(requests, "running"), (int)number_of(requests, "waiting"));
    for (size_t i = 0; i < json_array_size(pools); i++) {
        const json_t *p = json_array_get(pools, i);
        const json_int_t pages = number_of(p, "pages"), used = pages - number_of(p, "free");
        char bar[21] = "....................";
        memset(bar, '#', pages > 0 ? (size_t)(used * 20 / pages) : 0);
        line(s, "pool %-8s %-12s [%s] %d of %d pages, %d cached", text_of(p, "name"), text_of(p, "format"), bar,
             (int)used, (int)pages, (int)number_of(p, "cached"));
    }
    line(s, "%s", "");
    put_actors(s, now, before);
    if (s->terminal) fputs("\033[J", stdout);
    fflush(stdout);
}

static json_t *look(tr_client *client, tr_error *err) {
    char *text = tr_cli_ask_status(client, STATUS_MS, err);
    json_t *status = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    return status;
}

static screen screen_now(void) {
    struct winsize w = {0};
    screen s = {.terminal = isatty(STDOUT_FILENO) == 1, .width = WIDEST};
    if (s.terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0) s.width = w.ws_col;
    return s;
}

static tr_status watch(tr_client *client, bool once, tr_error *err) {
    json_t *before = look(client, err), *now = NULL;
    while (before && !tr_cli_signalled()) {
        for (int ms = 0; ms < PERIOD_MS && !tr_cli_signalled(); ms += LOOK_MS) usleep(LOOK_MS * 1000);
        if (tr_cli_signalled()) break;
        now = look(client, err);
        if (!now) break;
        const screen s = screen_now();
        put_table(&s, now, before);
        json_decref(before);
        before = now;
        if (once || ferror(stdout)) break;
        if (!s.terminal) putchar('\n');
    }
    const bool lost = !before || !now;
    if (before != now) json_decref(before);
    json_decref(now);
    if (tr_cli_signalled()) return TR_OK; /* how a watch ends */
    return lost && err->status ? err->status : lost ? TR_UNAVAILABLE : TR_OK;
}

int tr_cli_top(tr_options *o) {
    tr_client *client = NULL;
    tr_error err = {0};
    tr_status status = tr_cli_remote_open(o, &client, &err);
    const bool once = tr_options_flag(o, TR_OPTION_ONCE), draws = !once && isatty(STDOUT_FILENO) == 1;
    if (status == TR_OK) {
        if (draws) fputs("\033[?1049h\033[?25l", stdout); /* a screen of its own, no cursor */
        status = watch(client, once, &err);
        if (draws) fputs("\033[?25h\033[?1049l", stdout);
        fflush(stdout);
    }
    tr_client_close(&client);
    return status == TR_OK ? 0 : tr_cli_fail(&err, status);
}
