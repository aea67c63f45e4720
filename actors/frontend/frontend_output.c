/* actors/frontend/frontend_output.c - OUTPUT of the scheduler becomes text; logits records go through as they are. */
#include "actors/frontend/frontend.h"
#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Logits travel on a link of their own: how long an end waits for rows that a dead process may have taken with it. */
#define LOGITS_WAIT_NS (5 * TR_NS_PER_S)

static void release(tr_frontend *f, tr_request *r) {
    tr_msg m = {.type = TR_MSG_RELEASE, .as.release = {.rid = r->rid}};
    tr_runtime_send(f->rt, f->rt->company->scheduler, &m);
    tr_request_remove(&f->requests, r);
}

static void send_cancel(tr_frontend *f, tr_request *r) {
    tr_msg m = {.type = TR_MSG_CANCEL, .as.cancel = {.rid = r->rid, .finish = r->cancel, .keep = r->cancel_keep}};
    r->cancel_sent = tr_runtime_send(f->rt, f->rt->company->scheduler, &m) == TR_OK;
}

void tr_frontend_cancel(tr_frontend *f, tr_request *r, uint32_t finish, uint32_t keep) {
    if (r->cancel) return; /* the first reason counts */
    r->cancel = finish;
    r->cancel_keep = keep;
    send_cancel(f, r);
}

void tr_frontend_send_cancels(tr_frontend *f) {
    for (uint32_t i = 0; i < f->requests.cap; i++) {
        tr_request *r = &f->requests.at[i];
        if (r->used && r->cancel && !r->cancel_sent && !r->finish) send_cancel(f, r);
    }
}

void tr_frontend_client_gone(tr_frontend *f, const uint8_t *client, uint32_t len) {
    for (uint32_t i = 0; i < f->requests.cap; i++) {
        tr_request *r = &f->requests.at[i];
        if (!r->used || r->gone || r->client_len != len || memcmp(r->client, client, len) != 0) continue;
        r->gone = true;
        if (!r->finish) tr_frontend_cancel(f, r, TR_FINISH_ABORT, 0);
    }
}

/* A client that can't be reached, or does not read, is gone: nobody else waits for it. */
static tr_status send_to(tr_frontend *f, tr_request *r, const tr_msg *m) {
    if (r->gone) return TR_PEER;
    tr_status status = tr_frontend_send(f, r->client, r->client_len, m);
    if (status == TR_OK) return TR_OK;
    tr_log(TR_LOG_INFO, "client_gone", "rid=%" PRIx64 " %s", r->rid, tr_status_text(status));
    uint8_t client[TR_MAX_CLIENT_ID_BYTES];
    uint32_t len = r->client_len;
    memcpy(client, r->client, len);
    tr_frontend_client_gone(f, client, len);
    return status;
}

/* A request that an earlier life of this actor accepted, from the journal; its text is made again from the first token.
 */
static tr_request *adopt(tr_frontend *f, tr_journal_entry *e) {
    tr_request *r = tr_request_add(&f->requests, e->rid, e->client, e->client_len, e->id);
    if (!r) return NULL;
    r->accepted = true;
    r->sample = e->sample;
    r->prompt_len = e->prompt_len;
    r->logits = e->logits != 0;
    if (r->logits) r->logit_seen = calloc(f->rt->company->context / 64 + 1, sizeof(uint64_t));
    tr_str stops[TR_MAX_STOPS];
    for (uint32_t i = 0; i < e->n_stops; i++) stops[i] = (tr_str){e->stop[i], e->stop_len[i]};
    tr_stop_match_init(&r->stop, stops, e->n_stops);
    r->stop.included = e->include_stop;
    r->min_tokens = e->min_tokens;
    r->logprobs = e->logprobs;
    if (f->tokenizer) tr_detokenizer_init(&r->detokenizer, f->tokenizer, tr_request_text_flags(e->show_special));
    return r;
}

/* Known request, or one of a client that has said hello to this life. Those of other clients wait in the journal. */
tr_request *tr_frontend_find_request(tr_frontend *f, uint64_t rid) {
    tr_request *r = tr_request_find(&f->requests, rid);
    if (r) return r;
    tr_journal_entry *e = tr_request_journal(f->rt->segment[TR_SEGMENT_JOURNAL], rid);
    return e && tr_frontend_find_client(f, e->client, e->client_len) ? adopt(f, e) : NULL;
}

/* Text of new tokens into f->text; stops inside the token that completes a stop text. Returns the bytes. */
static size_t make_text(tr_frontend *f, tr_request *r, const uint32_t *tokens, uint32_t n, bool last) {
    char *piece = f->piece;
    size_t out = 0, got = 0;
    for (uint32_t i = 0; i < n && f->tokenizer && !r->stop.found; i++) {
        if (out + f->piece_cap + TR_MAX_STOP_BYTES > f->text_cap) {
            size_t cap = 2 * f->text_cap + f->piece_cap + TR_MAX_STOP_BYTES;
            char *bigger = realloc(f->text, cap);
            if (!bigger) break;
            f->text = bigger;
            f->text_cap = cap;
        }
        if (tr_detokenizer_push(&r->detokenizer, f->tokenizer, tokens[i], piece, f->piece_cap, &got) != TR_OK) got = 0;
        if (r->shown < r->min_tokens) {
            memcpy(f->text + out, piece, got);
            out += got;
        } else
            out += tr_stop_match_push(&r->stop, piece, got, f->text + out);
        r->shown++;
    }
    if (last && f->tokenizer && !r->stop.found) {
        got = tr_detokenizer_flush(&r->detokenizer, piece);
        out += tr_stop_match_push(&r->stop, piece, got, f->text + out);
        out += tr_stop_match_flush(&r->stop, f->text + out);
    }
    return out;
}

/* Log-probabilities of the last tokens of an OUTPUT that are among its last n. */
static void put_logprobs(const tr_request *r, const tr_msg_output *m, uint32_t n, tr_msg_text *text) {
    if (r->logprobs == 0 || m->logprobs.len != m->logprob_ids.len || m->logprobs.len % r->logprobs != 0) return;
    const uint32_t have = m->logprobs.len / r->logprobs, skip = (have > n ? have - n : 0) * r->logprobs;
    text->logprob_ids = (tr_u32v){m->logprob_ids.data + skip, m->logprob_ids.len - skip};
    text->logprobs = (tr_realv){m->logprobs.data + skip, m->logprobs.len - skip};
}

/* The last n tokens of m, or what is left to be said at the end. */
static void send_text(tr_frontend *f, tr_request *r, const tr_msg_output *m_new, uint32_t n, bool last) {
    const uint32_t index = r->n_tokens - n, *tokens = n ? m_new->tokens.data + m_new->tokens.len - n : NULL;
    bool had_stop = r->stop.found;
    size_t bytes = had_stop ? 0 : make_text(f, r, tokens, n, last);
    tr_msg m = {.type = TR_MSG_TEXT,
                .as.text = {.id = r->id,
                            .index = index,
                            .tokens = {tokens, n},
                            .offset = r->offset,
                            .text = {(const uint8_t *)f->text, (uint32_t)bytes},
                            .sample = r->sample}};
    if (n > 0) put_logprobs(r, m_new, n, &m.as.text);
    if (last) {
        const tr_msg_output *e = &r->end;
        /* The company may have gone on to the last token while the stop text was found here. */
        m.as.text.finish = r->stop.found && r->finish == TR_FINISH_LENGTH ? TR_FINISH_STOP : r->finish;
        m.as.text.prompt_tokens = r->prompt_len;
        m.as.text.queue_ns = e->queue_ns;
        m.as.text.ttft_ns = e->ttft_ns;
        m.as.text.handoff_ns = e->handoff_ns;
        m.as.text.handoff_bytes = e->handoff_bytes;
        m.as.text.visible_ns = e->visible_ns;
        m.as.text.total_ns = e->total_ns;
        m.as.text.saved_bytes = e->saved_bytes;
        m.as.text.note = (tr_str){r->note, (uint32_t)strlen(r->note)};
        m.as.text.cached_tokens = e->cached_tokens;
    }
    r->offset += bytes;
    if (n > 0 || bytes > 0 || last) send_to(f, r, &m);
    if (r->stop.found && !had_stop && !last) tr_frontend_cancel(f, r, TR_FINISH_STOP, r->shown);
}

static void finish_now(tr_frontend *f, tr_request *r) {
    if (r->finish == TR_FINISH_ERROR) {
        tr_msg m = {.type = TR_MSG_ERROR,
                    .as.error = {.id = r->id,
                                 .code = r->end.code ? r->end.code : 70,
                                 .text = {r->error, (uint32_t)strlen(r->error)},
                                 .sample = r->sample}};
        send_to(f, r, &m);
    } else
        send_text(f, r, NULL, 0, true);
    release(f, r);
}

/* Rows that a logits request computes in all: every known position, and every generated token but the last. */
static bool logits_complete(const tr_request *r) {
    uint32_t expect = r->prompt_len - r->end.cached_tokens + (r->n_tokens ? r->n_tokens - 1 : 0);
    return !r->logits || r->gone || r->finish == TR_FINISH_ERROR || r->finish == TR_FINISH_ABORT ||
           r->logit_rows >= expect;
}

static void on_output(tr_frontend *f, const tr_msg_output *m) {
    tr_request *r = tr_frontend_find_request(f, m->rid);
    if (!r && !tr_request_journal(f->rt->segment[TR_SEGMENT_JOURNAL], m->rid)) {
        /* Nobody waits for it and nothing is journaled: a refusal to an earlier life. */
        tr_msg done = {.type = TR_MSG_RELEASE, .as.release = {.rid = m->rid}};
        if (m->finish) tr_runtime_send(f->rt, f->rt->company->scheduler, &done);
    }
    if (!r || r->finish) return;
    r->accepted = true;
    if (m->index > r->n_tokens) {
        tr_log(TR_LOG_ERROR, "output_gap", "rid=%" PRIx64 " index=%u have=%u", m->rid, m->index, r->n_tokens);
        return;
    }
    uint32_t known = r->n_tokens - m->index; /* repeated tokens */
    if (m->tokens.len > known) {
        const uint32_t n = m->tokens.len - known;
        r->n_tokens += n;
        send_text(f, r, m, n, false);
    }
    if (!m->finish) return;
    r->finish = m->finish;
    r->end = *m;
    snprintf(r->error, sizeof r->error, "%.*s", (int)m->error.len, m->error.len ? m->error.data : "");
    snprintf(r->note, sizeof r->note, "%.*s", (int)m->note.len, m->note.len ? m->note.data : "");
    r->finish_deadline_ns = tr_clock_now_ns() + LOGITS_WAIT_NS;
    const uint64_t rid = r->rid;
    const uint32_t first = r->sample;
    if (logits_complete(r)) finish_now(f, r);
    for (uint32_t k = first + 1; k < TR_MAX_SAMPLES && m->refused; k++) {
        tr_msg_output other = *m; /* the others that were submitted with it */
        other.refused = 0;
        other.rid = rid - first + k;
        if (tr_request_find(&f->requests, other.rid)) on_output(f, &other);
    }
}

/* OUTPUT of an entry as the journal has it now. */
static void replay(tr_frontend *f, tr_journal_entry *e) {
    uint32_t state = atomic_load_explicit(&e->state, memory_order_acquire);
    uint32_t n = atomic_load_explicit(&e->n_tokens, memory_order_acquire);
    const uint32_t end = n > e->prompt_len ? n - e->prompt_len : 0;
    tr_msg_output m = {.rid = e->rid};
    for (uint32_t at = 0; (at = tr_journal_view(f->rt->segment[TR_SEGMENT_JOURNAL], e, at, end, &m)) < end;) {
        on_output(f, &m);
        m = (tr_msg_output){.rid = e->rid};
    }
    bool saving = e->save[0] && atomic_load_explicit(&e->saved, memory_order_acquire) == TR_JOURNAL_FILE_OPEN;
    if (state == TR_JOURNAL_DONE && !(saving && f->rt->company->resharder != TR_NOBODY)) {
        m.finish = e->finish;
        m.code = e->code;
        m.error = (tr_str){e->error, (uint32_t)strnlen(e->error, sizeof e->error)};
        m.queue_ns = e->first_step_ns ? e->first_step_ns - e->accepted_ns : 0;
        m.ttft_ns = e->first_token_ns ? e->first_token_ns - e->accepted_ns : 0;
        m.total_ns = e->last_token_ns ? e->last_token_ns - e->accepted_ns : 0;
        m.handoff_ns = e->handoff_ns;
        m.handoff_bytes = e->handoff_bytes;
        m.cached_tokens = e->cached;
        m.visible_ns = e->visible_ns;
        m.saved_bytes = e->saved_bytes;
        m.note = (tr_str){e->note, (uint32_t)strnlen(e->note, sizeof e->note)};
    }
    on_output(f, &m);
}

void tr_frontend_adopt_client(tr_frontend *f, const uint8_t *client, uint32_t len) {
    tr_journal *journal = f->rt->segment[TR_SEGMENT_JOURNAL];
    for (uint32_t slot = 0; slot < journal->n_slots; slot++) {
        tr_journal_entry *e = tr_journal_at(journal, slot);
        if (!tr_journal_counts(e) || e->client_len != len || memcmp(e->client, client, len) != 0 ||
            tr_request_find(&f->requests, e->rid))
            continue;
        replay(f, e);
    }
}

void tr_frontend_sweep_orphans(tr_frontend *f) {
    tr_journal *journal = f->rt->segment[TR_SEGMENT_JOURNAL];
    for (uint32_t slot = 0; slot < journal->n_slots; slot++) {
        tr_journal_entry *e = tr_journal_at(journal, slot);
        uint32_t state = atomic_load_explicit(&e->state, memory_order_acquire);
        if (!tr_journal_counts(e) || tr_request_find(&f->requests, e->rid)) continue;
        tr_msg m = {.type = TR_MSG_RELEASE, .as.release = {.rid = e->rid}};
        if (state == TR_JOURNAL_OPEN)
            m = (tr_msg){.type = TR_MSG_CANCEL, .as.cancel = {.rid = e->rid, .finish = TR_FINISH_ABORT}};
        tr_runtime_send(f->rt, f->rt->company->scheduler, &m);
    }
}

static void on_accepted(tr_frontend *f, uint64_t rid) {
    for (uint32_t k = 0; k < TR_MAX_SAMPLES; k++) {
        tr_request *r = tr_request_find(&f->requests, rid - rid % TR_MAX_SAMPLES + k);
        if (!r) continue;
        r->accepted = true;
        free(r->submit);
        r->submit = NULL;
        /* A CANCEL may have come before the scheduler knew the request. */
        r->cancel_sent = false;
    }
}

/* What the old scheduler may not have taken is sent again; it knows repeats by their rid. */
static void send_again(tr_frontend *f) {
    for (uint32_t i = 0; i < f->requests.cap; i++) {
        tr_request *r = &f->requests.at[i];
        r->cancel_sent = false;
        if (!r->used || r->accepted || !r->submit) continue;
        tr_msg m;
        tr_codec_arena_reset(&f->arena);
        if (tr_codec_decode(r->submit, r->submit_bytes, &f->arena, &m, NULL) == TR_OK)
            tr_runtime_send(f->rt, f->rt->company->scheduler, &m);
    }
}

void tr_frontend_on_scheduler(void *self, const tr_event *event) {
    tr_frontend *f = self;
    if (event->kind == TR_EVENT_PEER_UP && event->from == f->rt->company->scheduler) send_again(f);
    if (event->kind != TR_EVENT_MSG) return;
    if (event->msg->type == TR_MSG_ACCEPTED) on_accepted(f, event->msg->as.accepted.rid);
    if (event->msg->type != TR_MSG_OUTPUT) return;
    on_output(f, &event->msg->as.output);
    /* Only work that was done: news of peers must not say that the next life after a crash is worth a try. */
    atomic_fetch_add_explicit(&f->rt->block->progress, 1, memory_order_relaxed);
}

bool tr_frontend_finish_ready(tr_frontend *f, uint64_t now_ns) {
    bool waiting = false;
    for (uint32_t i = 0; i < f->requests.cap; i++) {
        tr_request *r = &f->requests.at[i];
        if (!r->used || !r->finish) continue;
        if (logits_complete(r) || now_ns >= r->finish_deadline_ns)
            finish_now(f, r);
        else
            waiting = true;
    }
    return waiting;
}
