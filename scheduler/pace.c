/* How long a step with chunks may take, and what steps took. The time of a slot comes from the policy, the rows that
 * fit into it from the measured cost. The first rows of a chunk are issued in any case, so that prompts get on under
 * any objective. */
#include "scheduler/pace.h"

enum {
    GRAIN = 16,      /* rows that the kernels take at once */
    GRAIN_MIXED = 8, /* beside decode rows */
    FIRST_ROWS = 32  /* of a chunk while nobody knows what it costs */
};

static uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Positions that a row sees, over all layers; rows of a span count as its middle one. */
void tr_pace_add(const tr_scheduler *s, tr_cost_work *work, uint32_t pos0, uint32_t rows) {
    const tr_kv_layout *l = &s->config.layout[0];
    const uint64_t seen = pos0 + (uint64_t)rows / 2 + 1;
    work->rows += rows;
    for (uint32_t g = 0; g < l->n_groups; g++) {
        const uint32_t window = l->group[g].window;
        work->reads += rows * l->group[g].n_layers * (window > 0 && window < seen ? window : seen);
    }
}

bool tr_pace_mixes(const tr_scheduler *s) {
    return s->policy->mixes && s->config.one_path && s->config.one_pool && s->config.n_pipelines == 1 &&
           s->config.max_rows > 1;
}

tr_policy_look tr_pace_look(const tr_scheduler *s) {
    return (tr_policy_look){.last_phase = s->last_phase, .mixes = tr_pace_mixes(s), .slo_ns = s->config.slo_ns};
}

/* Steps that are under way at once and come before a stream's next one. */
static uint32_t decode_parts(const tr_scheduler *s) {
    return s->config.exclusive ? 1 : s->component[component_of(s, DECODE)].max_in_flight;
}

uint32_t tr_pace_share(const tr_scheduler *s, uint32_t streams) {
    const uint32_t parts = decode_parts(s);
    return min_u32((streams + parts - 1) / parts, s->config.max_batch);
}

static void look_at_streams(const tr_scheduler *s, tr_policy_look *look) {
    tr_cost_work all = {0};
    for (uint32_t i = 0; i < s->n_running; i++)
        if (decoding(s, s->running[i])) tr_pace_add(s, &all, load(&entry_of(s, s->running[i])->kv_decoded), 1);
    look->streams = all.rows;
    look->prompts = s->n_running - all.rows;
    if (all.rows == 0) return;
    const uint32_t share = tr_pace_share(s, all.rows);
    look->turns = (all.rows + share - 1) / share;
    const tr_cost_work step = {share, all.reads * share / all.rows};
    look->decode_ns = tr_cost_ns(&s->cost[DECODE], step);
    /* Where decode rows have always been in steps with chunks, those say what such a step takes. */
    if (look->decode_ns == 0 && look->mixes) look->decode_ns = tr_cost_ns(&s->cost[PREFILL], step);
}

/* Where a pipeline is filled, all its steps last as long as a chunk at the begin of a prompt. */
static uint64_t equal_ns(const tr_scheduler *s) {
    tr_cost_work work = {0};
    if (s->config.exclusive || s->component[PREFILL].max_in_flight < 2) return TR_POLICY_NO_LIMIT;
    tr_pace_add(s, &work, 0, s->config.chunk);
    const uint64_t ns = tr_cost_ns(&s->cost[PREFILL], work);
    return ns > 0 ? ns : TR_POLICY_NO_LIMIT;
}

uint64_t tr_pace_slot_ns(const tr_scheduler *s) {
    tr_policy_look look = tr_pace_look(s);
    const bool meet = s->config.n_pipelines == 1 || s->config.exclusive;
    if (s->policy->slot_ns(&look) == TR_POLICY_NO_LIMIT) return TR_POLICY_NO_LIMIT;
    if (meet) look_at_streams(s, &look);
    return look.streams > 0 ? s->policy->slot_ns(&look) : equal_ns(s);
}

bool tr_pace_slices(const tr_scheduler *s) {
    const bool meet = s->config.n_pipelines == 1 || s->config.exclusive;
    return meet && !tr_pace_mixes(s) && s->component[PREFILL].n_lead == 1 && s->config.layout[0].n_layers > 1;
}

uint64_t tr_pace_chunk_ns(const tr_scheduler *s) {
    const uint64_t slot = tr_pace_slot_ns(s), layers = s->config.layout[0].n_layers;
    return tr_pace_slices(s) && slot < TR_POLICY_NO_LIMIT / layers ? slot * (layers - 1) : slot;
}

/* The last layer comes with the one before it: of most rows it makes K and V only. */
uint32_t tr_pace_slice_end(const tr_scheduler *s, const tr_flight *f) {
    const uint32_t layers = s->config.layout[0].n_layers - 1, left = f->layer < layers ? layers - f->layer : 0;
    const uint64_t slot = tr_pace_slot_ns(s), all = tr_cost_ns(&s->cost[PREFILL], f->work);
    if (!tr_pace_slices(s) || f->suspect || all == 0 || slot >= all) return 0;
    const uint32_t most = (uint32_t)(slot * layers / all), fit = most > 0 ? most : 1;
    const uint32_t slices = (left + fit - 1) / fit;
    return slices > 1 ? f->layer + (left + slices - 1) / slices : 0;
}

static bool fits(const tr_scheduler *s, const tr_flight *f, uint32_t pos0, uint32_t rows) {
    tr_cost_work work = f->work;
    tr_pace_add(s, &work, pos0, rows);
    return tr_cost_ns(&s->cost[PREFILL], work) <= f->slot_ns;
}

uint32_t tr_pace_rows(const tr_scheduler *s, const tr_flight *f, uint32_t pos0, uint32_t most) {
    const uint32_t grain = f->n_rows > 0 ? GRAIN_MIXED : GRAIN, least = f->prefill_rows == 0 ? grain : 0;
    if (f->slot_ns == TR_POLICY_NO_LIMIT) return most;
    if (f->slot_ns == 0 || s->cost[PREFILL].measured == 0)
        return min_u32(most, f->prefill_rows < FIRST_ROWS ? FIRST_ROWS - f->prefill_rows : 0);
    if (fits(s, f, pos0, most)) return most;
    uint32_t low = least / grain, high = most / grain; /* low fits or must; in units of the grain */
    while (low < high) {
        const uint32_t mid = low + (high - low + 1) / 2;
        if (fits(s, f, pos0, mid * grain))
            low = mid;
        else
            high = mid - 1;
    }
    return min_u32(low * grain, most);
}

/* Of steps that follow each other without a gap each takes from the end of the one before. In a pipeline of several
 * that are under way at once it is what its last stage took. */
void tr_pace_learn(tr_scheduler *s, tr_flight *f, uint64_t told_ns) {
    tr_component *c = &s->component[f->component];
    uint64_t begin = f->issued_ns > c->done_ns ? f->issued_ns : c->done_ns;
    for (uint32_t p = PREFILL; p <= DECODE && s->config.exclusive; p++)
        if (s->component[p].done_ns > begin) begin = s->component[p].done_ns;
    c->done_ns = s->now_ns;
    const bool alone = s->config.exclusive || c->n_lead == 1;
    f->spent_ns += alone ? s->now_ns - begin : told_ns;
    if (f->layer_end == 0) tr_cost_learn(&s->cost[f->phase], f->work, f->spent_ns);
}
