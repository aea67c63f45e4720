#include "actors/frontend/frontend.h"

#include "actors/actors.h"
#include "base/clock.h"
#include "base/log.h"
#include "model/tokenizer_file.h"
#include "model/tokenizer_source.h"
#include "transport/zmq_socket.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SWEEP_NS  TR_NS_PER_S
#define LISTEN_NS (150 * TR_NS_PER_MS)

static tr_status open_tokenizer(tr_frontend *f, tr_error *err) {
    const tr_company *c = f->rt->company;
    if (c->vocabulary_path[0]) {
        tr_error why = {0};
        if (tr_tokenizer_file_open(c->vocabulary_path, c->model_hash, &f->tokenizer, &why) == TR_OK) return TR_OK;
        tr_log(TR_LOG_WARN, "vocabulary_unusable", "%s", why.text);
    }
    const tr_status status = tr_tokenizer_source_open(c->model_path, &f->tokenizer, err);
    return status == TR_UNAVAILABLE ? TR_OK : status; /* token ids only */
}

static tr_status open_frontend(tr_frontend *f, tr_error *err) {
    const tr_company *c = f->rt->company;
    TR_TRY(open_tokenizer(f, err));
    size_t arena = tr_codec_arena_bytes(TR_MAX_TOKENS, 0);
    f->arena_memory = malloc(arena);
    f->text_cap = 65536;
    f->text = malloc(f->text_cap);
    f->piece_cap = f->tokenizer ? tr_detokenizer_bound(f->tokenizer) : TR_DETOKENIZER_TAIL;
    f->piece = malloc(f->piece_cap);
    if (!f->arena_memory || !f->text || !f->piece ||
        tr_request_table_create(2 * c->n_slots + c->max_waiting, &f->requests) != TR_OK)
        return tr_error_set(err, TR_UNAVAILABLE, "no memory for the frontend");
    tr_codec_arena_init(&f->arena, f->arena_memory, arena);
    return tr_frontend_bind(f, err);
}

static void close_frontend(tr_frontend *f) {
    tr_zmq_socket_close(&f->router);
    tr_request_table_destroy(&f->requests);
    tr_tokenizer_destroy(&f->tokenizer);
    free(f->arena_memory);
    free(f->ids);
    free(f->text);
    free(f->piece);
    free(f);
}

/* What the journal still holds may belong to a client that has not come back to this life yet; those that never do are
 * swept. True while the end waits for that. */
static bool stop_when_drained(tr_frontend *f) {
    const tr_journal *journal = f->rt->segment[TR_SEGMENT_JOURNAL];
    if (!f->stop_after_drain || f->requests.n > 0) return false;
    for (uint32_t slot = 0; slot < journal->n_slots; slot++)
        if (atomic_load(&tr_journal_at(f->rt->segment[TR_SEGMENT_JOURNAL], slot)->state) != TR_JOURNAL_FREE)
            return true;
    atomic_store(&f->rt->control->stop_requested, 1);
    tr_runtime_ring_supervisor(f->rt);
    return false;
}

static void loop(tr_frontend *f) {
    tr_runtime *rt = f->rt;
    uint64_t swept = tr_clock_now_ns();
    while (!tr_runtime_stopping(rt)) {
        uint32_t seen = tr_bell_read(&rt->block->bell);
        bool any = tr_frontend_pump_logits(f);
        if (tr_runtime_pump(rt, tr_frontend_on_scheduler, f)) {
            atomic_fetch_add_explicit(&rt->block->beat, 1, memory_order_relaxed);
            any = true;
        }
        any |= tr_frontend_pump_clients(f);
        tr_frontend_send_cancels(f);
        uint64_t now = tr_clock_now_ns();
        bool waiting = tr_frontend_finish_ready(f, now);
        if (now - swept >= SWEEP_NS) {
            tr_frontend_sweep_clients(f, now);
            swept = now;
        }
        waiting |= stop_when_drained(f) || f->logits_wait;
        if (!any) tr_runtime_wait(rt, seen, waiting ? TR_NS_PER_MS : SWEEP_NS, f->router);
    }
}

/* Last words: who waits is told now, and need not find out by silence. What the scheduler has sent goes out first; a
 * request that is on its way here is refused. */
static void tell_stopped(tr_frontend *f) {
    static const char text[] = "the company was stopped";
    tr_runtime_pump(f->rt, tr_frontend_on_scheduler, f);
    f->draining = true;
    tr_frontend_pump_clients(f);
    for (uint32_t i = 0; i < f->requests.cap; i++) {
        const tr_request *r = &f->requests.at[i];
        tr_msg m = {.type = TR_MSG_ERROR,
                    .as.error = {.id = r->id, .code = 69, .text = {text, sizeof text - 1}, .sample = r->sample}};
        if (r->used && !r->gone) tr_frontend_send(f, r->client, r->client_len, &m);
    }
    /* A client's socket drops what it has not read when the connection breaks: leave after those who listen. */
    uint64_t end = tr_clock_now_ns() + LISTEN_NS;
    while (tr_frontend_anyone_there(f) && tr_clock_now_ns() < end) usleep(2000);
}

tr_status tr_frontend_run(tr_runtime *rt, tr_error *err) {
    tr_frontend *f = calloc(1, sizeof *f);
    if (!f) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the frontend");
    f->rt = rt;
    f->born_ns = tr_clock_now_ns();
    uint32_t drain = atomic_load(&rt->control->drain);
    f->draining = drain >= 1;
    f->stop_after_drain = drain >= 2;
    tr_status status = open_frontend(f, err);
    if (status == TR_OK) {
        tr_runtime_ready(rt);
        loop(f);
        tell_stopped(f);
    }
    close_frontend(f);
    return status;
}
