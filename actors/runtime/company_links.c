#include "actors/runtime/company_links.h"

#include "base/checked.h"
#include "kv/kv_wire.h"
#include "transport/codec.h"
#include "transport/event.h"
#include "transport/ring.h"
#include "transport/wire.h"

enum { KV_RECORDS = 8 /* of a hand-off between nodes, under way at once */ };

static uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

static void add_link(tr_company *c, tr_link_kind kind, uint32_t from, uint32_t to, uint64_t records,
                     uint64_t record_max) {
    tr_check(c->n_links < TR_COMPANY_LINKS_MAX);
    tr_company_link *l = &c->link[c->n_links++];
    *l = (tr_company_link){
        .kind = (uint32_t)kind, .from = from, .to = to, .segment = TR_SEGMENT_LINKS, .record_max = record_max};
    l->capacity = tr_ring_capacity(records, record_max);
    l->bytes = tr_align_up(tr_ring_bytes(l->capacity), 64);
    l->offset = c->segment[TR_SEGMENT_LINKS].bytes;
    c->segment[TR_SEGMENT_LINKS].bytes += l->bytes;
}

/* Control links hold all that can be under way at once; what a full link to the frontend loses is in the journal. */
static void add_control_links(tr_company *c) {
    uint64_t submit = tr_codec_type_bound(TR_MSG_SUBMIT, c->context, 0);
    uint64_t output = tr_codec_type_bound(TR_MSG_OUTPUT, c->context, 0);
    uint64_t small = max_u64(tr_codec_type_bound(TR_MSG_CANCEL, 0, 0), tr_codec_type_bound(TR_MSG_ACCEPTED, 0, 0));
    uint64_t flights = (uint64_t)c->max_in_flight[0] + c->max_in_flight[1] + 1; /* one may be issued ahead */
    uint64_t step = tr_codec_type_bound(TR_MSG_STEP, c->max_rows, min_u32(c->max_batch + 1, TR_MAX_SPANS));
    uint64_t done = tr_codec_type_bound(TR_MSG_STEP_DONE, TR_MAX_SPANS, 0);
    uint64_t reset = tr_codec_type_bound(TR_MSG_RESET, 0, 0); /* and its answer: all that a follower gets */
    uint64_t reset_done = tr_codec_type_bound(TR_MSG_RESET_DONE, 0, 0);
    uint64_t job = tr_codec_type_bound(TR_MSG_RESHARD, 8, 0);
    uint64_t job_done = tr_codec_type_bound(TR_MSG_RESHARD_DONE, 0, 0);
    uint64_t extra = small * 4 * c->n_slots / submit + 2;
    add_link(c, TR_LINK_CONTROL, c->frontend, c->scheduler, 2 + extra, submit);
    add_link(c, TR_LINK_CONTROL, c->scheduler, c->frontend, 2 + extra, output);
    for (uint32_t a = 0; a < c->n_actors; a++) {
        if (c->actor[a].role != TR_ROLE_STAGE) continue;
        const bool follows = c->actor[a].rank > 0;
        add_link(c, TR_LINK_CONTROL, c->scheduler, a, 2 * flights + 8, follows ? reset : step);
        add_link(c, TR_LINK_CONTROL, a, c->scheduler, 2 * flights + 8, follows ? reset_done : done);
    }
    if (c->store_actor != TR_NOBODY) {
        const uint64_t get =
            max_u64(tr_codec_type_bound(TR_MSG_STORE_GET, 8, 0), tr_codec_type_bound(TR_MSG_STORE_PUT, 8, 0));
        const uint64_t told =
            max_u64(tr_codec_type_bound(TR_MSG_STORE_DONE, 0, 0), tr_codec_type_bound(TR_MSG_STORE_STATE, 0, 0));
        add_link(c, TR_LINK_CONTROL, c->scheduler, c->store_actor, 64, get);
        add_link(c, TR_LINK_CONTROL, c->store_actor, c->scheduler, 64, told);
    }
    if (c->resharder == TR_NOBODY) return;
    add_link(c, TR_LINK_CONTROL, c->scheduler, c->resharder, 2 * (uint64_t)c->n_slots + 64, job);
    add_link(c, TR_LINK_CONTROL, c->resharder, c->scheduler, 2 * (uint64_t)c->n_slots + 64, job_done);
    if (c->resharder_to == c->resharder) return;
    add_link(c, TR_LINK_CONTROL, c->scheduler, c->resharder_to, 2 * (uint64_t)c->n_slots + 64, job);
    add_link(c, TR_LINK_CONTROL, c->resharder_to, c->scheduler, 2 * (uint64_t)c->n_slots + 64, job_done);
    add_link(c, TR_LINK_CONTROL, c->resharder_to, c->resharder, 64, tr_codec_type_bound(TR_MSG_KV_REPLY, 0, 0));
}

static void add_data_links(tr_company *c, bool logits_wanted) {
    uint64_t activation = sizeof(tr_wire_header) + (uint64_t)c->max_rows * c->hidden * sizeof(float);
    uint64_t logits = sizeof(tr_wire_header) + tr_align_up(c->vocab, 16) * sizeof(float);
    uint64_t tokens = sizeof(tr_wire_header) + min_u32(c->max_batch, TR_MAX_SPANS) * sizeof(tr_wire_token);
    for (uint32_t a = 0; a < c->n_actors; a++) {
        const tr_company_actor *actor = &c->actor[a];
        if (actor->role != TR_ROLE_STAGE || actor->rank > 0) continue;
        if (actor->stage + 1 < actor->n_stages)
            add_link(c, TR_LINK_ACTIVATION, a, a + actor->tp, 2, activation);
        else
            add_link(c, TR_LINK_LOGITS, a, c->frontend, logits_wanted ? 8 : 2, logits);
        if (actor->stage > 0 && actor->stage + 1 == actor->n_stages && actor->phase[TR_PHASE_DECODE - 1].active)
            add_link(c, TR_LINK_TOKENS, a, a - actor->stage * actor->tp, 2 * actor->n_stages + 8, tokens);
    }
    if (c->resharder_to != c->resharder)
        add_link(c, TR_LINK_KV, c->resharder, c->resharder_to, KV_RECORDS, tr_kv_wire_record_max(&c->layout[1]));
}

void tr_company_links_add(tr_company *c, bool logits_wanted) {
    add_control_links(c);
    add_data_links(c, logits_wanted);
}
