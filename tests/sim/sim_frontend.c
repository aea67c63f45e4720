/* A minimal frontend and its clients. The clients (struct request) outlive it; front[] dies with it. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

uint32_t sim_request(const world *w, uint64_t rid) {
    for (uint32_t i = 0; i < w->n_requests; i++)
        if (w->request[i].rid == rid) return i;
    return UINT32_MAX;
}

static void send_submit(world *w, uint32_t i) {
    const request *r = &w->request[i];
    uint8_t client = (uint8_t)i;
    tr_msg m = {.type = TR_MSG_SUBMIT};
    m.as.submit = (tr_msg_submit){.rid = r->rid,
                                  .client = {&client, 1},
                                  .id = i,
                                  .tokens = {r->prompt, r->n_prompt},
                                  .forced = r->forced,
                                  .max_tokens = r->max_tokens,
                                  .seed = r->seed,
                                  .priority = (uint32_t)r->priority,
                                  .ignore_eos = r->ignore_eos,
                                  .logits = r->logits,
                                  .n = r->n,
                                  .timeout_ms = r->timeout_ms,
                                  .cache_salt = {r->salt, (uint32_t)strlen(r->salt)}};
    char save[8], restore[8];
    tr_msg_submit *s = &m.as.submit;
    if (r->save) s->save = (tr_str){save, (uint32_t)snprintf(save, sizeof save, "f%u", i)};
    if (r->restore) {
        s->restore = (tr_str){restore, (uint32_t)snprintf(restore, sizeof restore, "f%u", r->restore - 1)};
        s->restore_end = r->restore_end;
    }
    sim_send(w, FRONTEND, SCHEDULER, &m);
}

static void send_cancel(world *w, uint64_t rid, uint32_t finish, uint32_t keep) {
    tr_msg m = {.type = TR_MSG_CANCEL};
    m.as.cancel = (tr_msg_cancel){.rid = rid, .finish = finish, .keep = keep};
    sim_send(w, FRONTEND, SCHEDULER, &m);
}

static void cancel(world *w, uint32_t i, uint32_t finish, uint32_t keep) {
    if (w->front[i].cancel_sent) return;
    w->front[i].cancel_sent = true;
    w->front[i].cancel_finish = finish;
    w->front[i].cancel_keep = keep;
    send_cancel(w, w->request[i].rid, finish, keep);
}

static void end_at_client(world *w, uint32_t i, uint32_t finish, uint32_t code, tr_str error) {
    request *r = &w->request[i];
    if (r->ended) {
        if (r->end_incarnation == w->process[FRONTEND].incarnation || r->finish != finish)
            sim_fail(w, "request %u ended twice (%u, then %u)", i, r->finish, finish);
        return;
    }
    r->ended = true;
    r->end_incarnation = w->process[FRONTEND].incarnation;
    r->finish = finish;
    r->code = code;
    uint32_t n = error.len < sizeof r->error - 1 ? error.len : (uint32_t)sizeof r->error - 1;
    if (n > 0) memcpy(r->error, error.data, n);
    sim_trace(w, "request %u ends: finish %u code %u tokens %u of %u", i, finish, code, r->n_got, r->n_oracle);
    sim_check_client_end(w, r);
}

void sim_frontend_submit(world *w, uint32_t i) {
    if (w->process[FRONTEND].state != ALIVE) {
        sim_push(w, 1 * MS, W_SUBMIT, i, 0, 0); /* the client tries again */
        return;
    }
    for (uint32_t k = 0; k < w->request[i].n; k++) {
        w->request[i + k].submitted = true;
        w->front[i + k].known = true;
    }
    send_submit(w, i);
}

void sim_frontend_cancel(world *w, uint32_t i) {
    request *r = &w->request[i];
    if (r->ended || !r->submitted) return;
    r->cancelled = true;
    sim_faults_client(w, i, false);
    if (w->process[FRONTEND].state == ALIVE && w->front[i].known) cancel(w, i, TR_FINISH_ABORT, r->n_got);
}

/* With all samples that it asked for. Nobody is told, and the frontend finds out by silence. */
void sim_frontend_client_dies(world *w, uint32_t i) {
    const uint32_t lead = w->request[i].lead;
    if (!w->request[lead].submitted || w->request[lead].gone) return;
    for (uint32_t k = lead; k < lead + w->request[lead].n; k++) {
        w->request[k].gone = true;
        if (w->request[k].ended) continue;
        w->request[k].cancelled = true;
        sim_faults_client(w, k, false);
    }
    sim_trace(w, "the client of request %u dies", lead);
    sim_push(w, sim_random(w, 30 * MS), W_SILENCE, lead, 0, 0);
}

void sim_frontend_silence(world *w, uint32_t i) {
    if (w->process[FRONTEND].state != ALIVE) return; /* the next one waits as long again */
    for (uint32_t k = i; k < i + w->request[i].n; k++)
        if (w->front[k].known) cancel(w, k, TR_FINISH_ABORT, w->request[k].n_got);
}

/* A new frontend knows what the journal says; a client whose request is not there has lost it. */
void sim_frontend_start(world *w) {
    tr_journal *j = w->journal_mem;
    memset(w->front, 0, sizeof w->front);
    for (uint32_t s = 0; s < j->n_slots; s++) {
        tr_journal_entry *e = tr_journal_at(j, s);
        if (!tr_journal_counts(e)) continue;
        uint32_t i = sim_request(w, e->rid);
        if (i == UINT32_MAX || e->client_len != 1 || e->client[0] + e->sample != i)
            sim_fail(w, "slot %u: entry of nobody", s);
        /* its client was told "refused" or "lost", then a repeated SUBMIT got in: a client ignores what comes after */
        if (w->request[i].ended && (w->request[i].code == 99 || w->request[i].code == 69)) continue;
        w->front[i].known = w->front[i].accepted = true;
        w->request[i].accepted = true;
        if (w->request[i].gone) sim_push(w, sim_random(w, 30 * MS), W_SILENCE, w->request[i].lead, 0, 0);
    }
    for (uint32_t i = 0; i < w->n_requests; i++) {
        request *r = &w->request[i];
        if (!r->submitted || r->ended || w->front[i].known) continue;
        if (r->accepted) sim_fail(w, "request %u was accepted and is not in the journal", i);
        end_at_client(w, i, TR_FINISH_ERROR, 99,
                      (tr_str){0}); /* its SUBMIT died with the frontend, or will be aborted */
    }
}

static void on_output(world *w, const tr_msg_output *m) {
    uint32_t i = sim_request(w, m->rid);
    if (i == UINT32_MAX) sim_fail(w, "output of an unknown request");
    tr_msg release = {.type = TR_MSG_RELEASE, .as.release.rid = m->rid};
    if (!w->front[i].known) { /* of an earlier frontend whose client is gone, or ended and released */
        if (m->finish != 0)
            sim_send(w, FRONTEND, SCHEDULER, &release);
        else
            send_cancel(w, m->rid, TR_FINISH_ABORT, 0);
        return;
    }
    request *r = &w->request[i];
    if (m->index > w->front[i].got) { /* meant for the frontend before this one; all is told again from 0 */
        if (w->process[FRONTEND].incarnation == 1)
            sim_fail(w, "request %u: gap, index %u after %u", i, m->index, w->front[i].got);
        return;
    }
    for (uint32_t k = 0; k < m->tokens.len; k++) {
        uint32_t at = m->index + k;
        if (at >= r->n_oracle || m->tokens.data[k] != r->oracle[at])
            sim_fail(w, "request %u: token %u is %u, not %u (of %u)", i, at, m->tokens.data[k],
                     at < r->n_oracle ? r->oracle[at] : UINT32_MAX, r->n_oracle);
        if (r->stop_at && at >= r->stop_at) continue; /* behind the stop text */
        if (at >= r->n_got && !r->ended) r->got[r->n_got++] = m->tokens.data[k];
    }
    if (m->index + m->tokens.len > w->front[i].got) w->front[i].got = m->index + m->tokens.len;
    if (m->finish == TR_FINISH_STOP && w->front[i].cancel_sent && w->front[i].cancel_finish == TR_FINISH_STOP &&
        m->index + m->tokens.len > w->front[i].cancel_keep && m->index + m->tokens.len != r->n_oracle)
        sim_fail(w, "request %u: %u tokens count, not %u", i, m->index + m->tokens.len, w->front[i].cancel_keep);
    if (m->finish != 0) {
        for (uint32_t k = 0; k < (m->refused ? r->n : 1); k++) {
            if (k > 0 && !w->front[i + k].known) continue;
            end_at_client(w, i + k, m->finish, m->code, m->error);
            w->front[i + k].known = false;
        }
        sim_send(w, FRONTEND, SCHEDULER, &release); /* also of a refusal: it may be an end whose ACCEPTED was lost */
    } else if (r->stop_at && w->front[i].got >= r->stop_at) {
        cancel(w, i, TR_FINISH_STOP, r->stop_at);
    } else if (r->cancelled && !r->gone) {
        cancel(w, i, TR_FINISH_ABORT, r->n_got);
    }
}

void sim_frontend_event(world *w, const tr_event *ev) {
    if (ev->kind == TR_EVENT_PEER_UP && ev->from == SCHEDULER) {
        for (uint32_t i = 0; i < w->n_requests; i++) {
            if (!w->front[i].known) continue;
            if (!w->front[i].accepted && w->request[i].sample == 0) send_submit(w, i);
            if (w->front[i].cancel_sent)
                send_cancel(w, w->request[i].rid, w->front[i].cancel_finish, w->front[i].cancel_keep);
        }
    }
    if (ev->kind != TR_EVENT_MSG) return;
    if (ev->msg->type == TR_MSG_OUTPUT) {
        on_output(w, &ev->msg->as.output);
    } else if (ev->msg->type == TR_MSG_ACCEPTED) {
        uint32_t i = sim_request(w, ev->msg->as.accepted.rid);
        if (i == UINT32_MAX) sim_fail(w, "unknown request accepted");
        for (uint32_t k = 0; k < w->request[i].n; k++)
            if (w->front[i + k].known) w->front[i + k].accepted = w->request[i + k].accepted = true;
    } else {
        sim_fail(w, "message %u to the frontend", ev->msg->type);
    }
}
