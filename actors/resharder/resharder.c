/* actors/resharder/resharder.c - real driver of resharder_core.h: executes the pure copy plan of kv/reshard_plan.h on
 * the pools. Jobs are idempotent overwrites of pages that only this job's sequence holds. Where the pools lie on two
 * nodes there is one on each: this one is then the half that reads (send) or the half that writes (receive). */
#include "actors/actors.h"
#include "actors/resharder/kv_receive.h"
#include "actors/resharder/kv_send.h"
#include "actors/resharder/resharder_core.h"
#include "actors/resharder/resharder_file.h"
#include "actors/resharder/resharder_swap.h"
#include "actors/runtime/company_side.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "kernels/kv_convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef struct driver {
    tr_runtime *rt;
    const tr_ops *ops;
    uint8_t *pool[2];
    uint64_t mapped[2]; /* bytes of the pools whose page table entries exist */
    tr_company_side side[2];
    float *tmp;                     /* one head */
    tr_kv_calibration *calibration; /* NULL: no pool needs one */
    tr_kv_send send;
    tr_kv_receive receive;
    tr_resharder_swap swap;
    char link_name[80];
    bool sends, receives; /* neither: both pools are here */
    uint64_t began_ns;
    bool pending; /* job is to be run */
    tr_msg_reshard job;
    tr_resharder_core core;
    tr_effects effects;
} driver;

static uint8_t *tile(const driver *d, uint32_t pool, const tr_reshard_op *op, uint32_t page, uint32_t tok) {
    const tr_kv_layout *l = d->side[pool].side.layout;
    return d->pool[pool] + tr_kv_layout_head_offset(l, op->layer, op->kv_head) + (uint64_t)page * l->page_bytes +
           tok / TR_KV_TILE_TOK * tr_kv_tile_bytes(l->format, l->head_dim);
}

static const uint8_t *source(const driver *d, const tr_reshard_op *op) {
    return tile(d, 0, op, op->src_page, op->src_tok);
}

/* next: the operation after it, or NULL. */
static uint64_t copy(driver *d, const tr_reshard_op *op, const tr_reshard_op *next) {
    const tr_kv_layout *src = d->side[0].side.layout, *dst = d->side[1].side.layout;
    const tr_kv_head *heads = d->calibration ? tr_kv_calibration_heads(d->calibration) : NULL;
    if (!op->copy) return 0;
    tr_kv_convert_run(d->ops, dst->format, tile(d, 1, op, op->dst_page, op->dst_tok), src->format, source(d, op),
                      op->pos % TR_KV_TILE_TOK, op->n_tok, src->head_dim,
                      heads ? &heads[op->layer * src->n_kv_heads + op->kv_head] : NULL, next ? source(d, next) : NULL,
                      d->tmp);
    return tr_kv_convert_bytes(dst->format, op->n_tok, dst->head_dim);
}

static uint64_t copy_all(driver *d, tr_reshard_plan *plan) {
    uint64_t bytes = 0;
    tr_reshard_op op[2];
    bool more = tr_reshard_plan_next(plan, &op[0]);
    for (uint32_t i = 0; more; i ^= 1) {
        more = tr_reshard_plan_next(plan, &op[i ^ 1]);
        bytes += copy(d, &op[i], more ? &op[i ^ 1] : NULL);
    }
    tr_kv_convert_fence();
    return bytes;
}

/* One line for a row of failures: a full disk fails often. */
static void log_refused(driver *d, const tr_msg_reshard *job, tr_status status, const tr_error *err) {
    const bool swap = job->file > 2, told = swap && d->swap.told;
    if (swap) d->swap.told = status != TR_OK;
    if (status != TR_OK && !told)
        tr_log(TR_LOG_WARN, swap ? "swap_refused" : "file_refused", "rid=%llu %s", (unsigned long long)job->rid,
               err->text);
}

/* A save or a restore, or a way to the swap space or back; fills the answer. */
static void run_file(driver *d, const tr_msg_reshard *job, tr_event *done, tr_error *err) {
    const tr_kv_layout *l = d->side[job->pool].side.layout;
    tr_journal *journal = d->rt->segment[TR_SEGMENT_JOURNAL];
    tr_resharder_file f = {.company = d->rt->company,
                           .ops = d->ops,
                           .pool = d->pool[job->pool],
                           .layout = l,
                           .table = d->side[job->pool].side.table,
                           .tmp = d->tmp,
                           .entry = tr_journal_at(journal, job->dst_slot),
                           .job = job};
    uint64_t begin = tr_clock_now_ns();
    tr_status status = TR_INVALID;
    if (job->dst_slot >= journal->n_slots || job->tok_min.len != l->n_groups || f.entry->rid != job->rid)
        tr_error_set(err, status, "the job is of another request");
    else if (job->file > 2)
        status = tr_resharder_swap_run(&d->swap, &f, &done->as.computed.bytes, err);
    else
        status = job->file == 1 ? tr_resharder_file_save(&f, &done->as.computed.bytes, err)
                                : tr_resharder_file_restore(&f, &done->as.computed.bytes, err);
    done->as.computed.status = status == TR_OK ? 0 : 1;
    done->as.computed.error = err->text[0] ? err->text : NULL;
    log_refused(d, job, status, err);
    done->now_ns = tr_clock_now_ns();
    done->as.computed.total_ns = done->now_ns - begin;
}

/* One hand-off job; fills the answer. */
static void run_job(driver *d, const tr_msg_reshard *job, tr_event *done, tr_error *err) {
    uint64_t begin = tr_clock_now_ns();
    tr_reshard_side src = d->side[0].side, dst = d->side[1].side;
    src.slot = job->src_slot;
    dst.slot = job->dst_slot;
    tr_reshard_plan plan;
    const tr_reshard_range range = {job->tok0,   job->tok1,         job->layer0,
                                    job->layer1, job->tok_min.data, job->tok_min.len};
    if (tr_reshard_plan_init(&plan, &src, &dst, &range, err) == TR_OK) {
        done->as.computed.bytes = copy_all(d, &plan);
    } else {
        done->as.computed.status = 1;
        done->as.computed.error = err->text;
        tr_log(TR_LOG_ERROR, "handoff_refused", "rid=%llu %s", (unsigned long long)job->rid, err->text);
    }
    done->now_ns = tr_clock_now_ns();
    done->as.computed.total_ns = done->now_ns - begin;
}

static void on_event(void *self, const tr_event *event) {
    driver *d = self;
    if (d->sends && event->kind == TR_EVENT_MSG && event->msg->type == TR_MSG_KV_REPLY) {
        if (event->from == d->rt->company->resharder_to) tr_kv_send_reply(&d->send, &event->msg->as.kv_reply);
        return;
    }
    tr_resharder_core_step(&d->core, event, &d->effects);
    for (uint32_t i = 0; i < d->effects.n; i++) {
        const tr_effect *e = &d->effects.item[i];
        if (e->kind == TR_EFFECT_COMPUTE) {
            d->job = e->msg.as.reshard; /* its list stays valid until COMPUTED */
            d->pending = true;
        } else if (e->kind == TR_EFFECT_SEND && tr_runtime_send(d->rt, e->to, &e->msg) == TR_AGAIN)
            tr_log(TR_LOG_ERROR, "link_full", "to=%s", d->rt->company->actor[e->to].name);
    }
}

static void compute(driver *d) {
    tr_error err = {0};
    tr_event done = {.kind = TR_EVENT_COMPUTED, .from = TR_NOBODY};
    d->pending = false;
    atomic_store(&d->rt->block->busy, d->job.file ? 2 : 1);
    if (d->job.file)
        run_file(d, &d->job, &done, &err);
    else
        run_job(d, &d->job, &done, &err);
    atomic_fetch_add(&d->rt->block->progress, 1);
    atomic_store(&d->rt->block->busy, 0);
    on_event(d, &done);
}

/* ---- one half of a hand-off between nodes ---------------------------------------------------------------------------
 */

static void finish(driver *d, tr_status status, const tr_error *err, uint64_t bytes) {
    tr_event done = {.kind = TR_EVENT_COMPUTED, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()};
    done.as.computed.total_ns = done.now_ns - d->began_ns;
    done.as.computed.bytes = bytes;
    if (status != TR_OK) {
        done.as.computed.status = 1;
        done.as.computed.error = err->text;
        tr_log(TR_LOG_ERROR, "handoff_failed", "job=%llu %s", (unsigned long long)d->job.job, err->text);
    }
    atomic_fetch_add(&d->rt->block->progress, 1);
    on_event(d, &done);
}

static void send_replies(driver *d) {
    for (uint32_t i = 0; i < d->receive.n_replies; i++) {
        tr_msg m = {.type = TR_MSG_KV_REPLY, .as.kv_reply = d->receive.reply[i]};
        if (tr_runtime_send(d->rt, d->rt->company->resharder, &m) == TR_AGAIN)
            tr_log(TR_LOG_ERROR, "link_full", "to=%s", d->rt->company->actor[d->rt->company->resharder].name);
    }
    d->receive.n_replies = 0;
}

/* One turn of the running job, or the beginning of the next. True when something moved. */
static bool half_step(driver *d) {
    tr_error err = {0};
    bool any = false;
    tr_status status = TR_AGAIN;
    if (tr_resharder_core_stale(&d->core)) {
        tr_kv_send_abort(&d->send);
        tr_kv_receive_abort(&d->receive);
        d->pending = false;
        finish(d, TR_OK, &err, 0);
        return true;
    }
    if (d->pending) {
        d->pending = false;
        d->began_ns = tr_clock_now_ns();
        status = d->sends ? tr_kv_send_begin(&d->send, &d->job, &d->side[0].side, &d->side[1].side, &err)
                          : tr_kv_receive_begin(&d->receive, &d->job, &d->side[0].side, &d->side[1].side, &err);
        if (status != TR_OK) return finish(d, status, &err, 0), true;
    }
    if (d->sends) {
        if (!d->send.active) return false;
        status = tr_kv_send_pump(&d->send, &any, &err);
        if (status != TR_AGAIN) tr_kv_send_abort(&d->send);
        if (status != TR_AGAIN) return finish(d, status, &err, d->send.bytes), true;
        return any;
    }
    status = tr_kv_receive_pump(&d->receive, d->core.epoch, &any, &err);
    send_replies(d);
    if (status != TR_AGAIN) tr_kv_receive_abort(&d->receive);
    if (status != TR_AGAIN) return finish(d, status, &err, d->receive.bytes), true;
    return any;
}

static tr_status init_half(driver *d, tr_error *err) {
    const tr_company *c = d->rt->company;
    if (c->resharder == c->resharder_to) return TR_OK;
    d->sends = d->rt->index == c->resharder;
    d->receives = !d->sends;
    d->core.quiet = d->sends;
    tr_channel *link = d->sends ? tr_runtime_data_out(d->rt, TR_LINK_KV) : tr_runtime_data_in(d->rt, TR_LINK_KV);
    if (!link) return tr_error_set(err, TR_INTERNAL, "the plan has no link for the hand-off");
    snprintf(d->link_name, sizeof d->link_name, "%s -> %s", c->actor[c->resharder].name,
             c->actor[c->resharder_to].name);
    d->send = (tr_kv_send){
        .ops = d->ops, .pool = d->pool[0], .from = &c->layout[0], .to = &c->layout[1], .link = link, .tmp = d->tmp};
    d->receive = (tr_kv_receive){.ops = d->ops,
                                 .pool = d->pool[1],
                                 .layout = &c->layout[1],
                                 .link = link,
                                 .link_name = d->link_name,
                                 .tmp = d->tmp};
    return TR_OK;
}

static void init_side(driver *d, uint32_t pool) {
    const tr_company *c = d->rt->company;
    const uint8_t *tables = d->rt->segment[TR_SEGMENT_TABLES];
    tr_company_side_init(&d->side[pool], c, pool, (const uint32_t *)(const void *)(tables + c->table_offset[pool]));
}

/* Entries of the page tables are made while there is nothing else to do: a hand-off that meets fresh memory spends most
 * of its time in page faults. A kernel without that advice leaves it so. False: all is there. */
static bool map_ahead(driver *d) {
    enum { AT_ONCE = 4 << 20 };
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t size = d->side[i].side.layout->pool_bytes, left = size - d->mapped[i];
        uint64_t bytes = left < AT_ONCE ? left : AT_ONCE;
        if (bytes == 0) continue;
        int advice = i == 0 ? MADV_POPULATE_READ : MADV_POPULATE_WRITE;
        bool done = !d->pool[i] || madvise(d->pool[i] + d->mapped[i], bytes, advice) == 0;
        d->mapped[i] = done ? d->mapped[i] + bytes : size;
        return true;
    }
    return false;
}

tr_status tr_resharder_run(tr_runtime *rt, tr_error *err) {
    driver *d = calloc(1, sizeof *d);
    if (!d) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the resharder");
    d->rt = rt;
    d->ops = tr_ops_find(rt->company->ops);
    d->tmp = aligned_alloc(64, tr_align_up(rt->company->layout[0].head_dim * sizeof(float), 64));
    d->pool[0] = rt->segment[TR_SEGMENT_POOL_PREFILL];
    d->pool[1] = rt->segment[rt->company->one_pool ? TR_SEGMENT_POOL_PREFILL : TR_SEGMENT_POOL_DECODE];
    tr_status status = TR_OK;
    if (!d->ops || !d->tmp)
        status = tr_error_set(err, TR_UNAVAILABLE, "this machine cannot run the kernel set %s of the plan",
                              rt->company->ops);
    if (status == TR_OK) status = tr_company_calibration(rt->company, &d->calibration, err);
    if (status == TR_OK) {
        tr_ops_thread_init();
        init_side(d, 0);
        init_side(d, 1);
        tr_resharder_core_init(&d->core, rt->company->scheduler);
        tr_resharder_swap_init(&d->swap, rt->company, rt->segment[TR_SEGMENT_SWAP]);
        status = init_half(d, err);
    }
    if (status == TR_OK) {
        tr_event start = {.kind = TR_EVENT_START, .from = TR_NOBODY, .now_ns = tr_clock_now_ns()};
        on_event(d, &start);
        tr_runtime_ready(rt);
        while (!tr_runtime_stopping(rt)) {
            uint32_t seen = tr_bell_read(&rt->block->bell);
            bool any = tr_runtime_pump(rt, on_event, d);
            if (d->sends || d->receives) any |= half_step(d);
            if (d->pending && !d->sends && !d->receives)
                compute(d);
            else if (!any && !map_ahead(d))
                tr_runtime_wait(rt, seen, UINT64_MAX, NULL);
        }
    }
    tr_resharder_swap_end(&d->swap);
    tr_kv_calibration_destroy(&d->calibration);
    free(d->tmp);
    free(d);
    return status;
}
