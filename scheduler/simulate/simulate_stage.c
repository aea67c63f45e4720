#include "scheduler/simulate/simulate_state.h"

#include "base/checked.h"

/* As the stages of the real company tell them (actors/stage/stage.c). */
enum { PARTS = 4, PART_ROWS_MIN = 32 };
enum { FLAG_SAMPLE = 1, PREFILL = 0, DECODE = 1 };

/* Positions that the rows of a step see, over all layers: as the scheduler counts them. */
static uint64_t reads_of(const tr_kv_layout *l, const tr_msg_step *m) {
    uint64_t reads = 0;
    for (uint32_t i = 0; i < m->spans.len; i++) {
        const tr_msg_span *span = &m->spans.data[i];
        const uint64_t seen = span->pos0 + (uint64_t)span->rows / 2 + 1;
        for (uint32_t g = 0; g < l->n_groups; g++) {
            const uint32_t window = l->group[g].window;
            reads += span->rows * l->group[g].n_layers * (window > 0 && window < seen ? window : seen);
        }
    }
    return reads;
}

double tr_simulate_step_ns(const tr_simulate_cost *c, uint32_t rows, uint64_t reads, bool draws) {
    const double bytes = c->least + c->least_row * rows, arithmetic = c->step + c->row * rows;
    return (bytes > arithmetic ? bytes : arithmetic) + c->read * (double)reads + (draws ? c->draw : 0);
}

/* A slice takes its part of what all layers of the stage take; drawing belongs to the last one. */
double tr_simulate_stage_ns(const tr_simulate *s, uint32_t pipeline, uint32_t stage, const tr_simulate_step *step) {
    const tr_simulate_stage *at = &s->config->stage[pipeline][stage];
    const tr_simulate_cost *c = &at->phase[step->phase];
    const uint32_t begin = step->begin > at->lo ? step->begin : at->lo, end = step->end < at->hi ? step->end : at->hi;
    return tr_simulate_step_ns(c, step->n_rows, step->reads, false) * (end - begin) / (at->hi - at->lo) +
           (step->n_draws > 0 ? c->draw : 0);
}

static double cost_of(const tr_simulate *s, uint32_t pipeline, uint32_t stage, const tr_simulate_step *step) {
    const bool last = stage + 1 == s->config->scheduler.pipeline[pipeline].n_stages;
    return tr_simulate_stage_ns(s, pipeline, stage, step) + (last ? s->config->reply_ns * step->n_draws : 0);
}

/* Layers of a prefill step that the resharder may have before the step is done. */
static void tell_layers(tr_simulate *s, const tr_simulate_event *at, const tr_simulate_step *step, double ns) {
    const tr_simulate_stage *stage = &s->config->stage[at->pipeline][at->index];
    const uint32_t lo = step->begin > stage->lo ? step->begin : stage->lo;
    const uint32_t n = (step->end < stage->hi ? step->end : stage->hi) - lo;
    if (s->config->scheduler.one_pool || step->phase != PREFILL || step->n_rows < PART_ROWS_MIN) return;
    for (uint32_t part = 1; part <= PARTS; part++) {
        const uint32_t layers = n * part / PARTS;
        if (layers == n * (part - 1) / PARTS) continue;
        tr_simulate_push(s, ns * layers / n + s->config->message_ns,
                         (tr_simulate_event){.kind = SIM_LAYERS,
                                             .replica = at->replica,
                                             .pipeline = at->pipeline,
                                             .index = at->index,
                                             .a = step->id,
                                             .b = (uint64_t)step->epoch << 32 | (lo + layers)});
    }
}

static void start(tr_simulate *s, uint32_t replica, uint32_t pipeline, uint32_t index) {
    tr_simulate_pipeline *p = &s->replica[replica].pipeline[pipeline];
    tr_simulate_server *server = &p->stage[index];
    if (server->current != SIM_NONE || server->n == 0) return;
    const uint32_t at = server->queue[server->head];
    const tr_simulate_step *step = &p->step[at];
    if (index == 0 && step->source != 0 && p->fed != step->source) return;
    const tr_simulate_event done = {.kind = SIM_COMPUTED, .replica = replica, .pipeline = pipeline, .index = index};
    const double ns = cost_of(s, pipeline, index, step);
    server->current = at;
    server->head = (server->head + 1) % s->steps_max;
    server->n--;
    server->began_ns = s->now;
    tell_layers(s, &done, step, ns);
    tr_simulate_push(s, ns, done);
}

static void fly(tr_simulate *s, uint32_t replica, uint32_t pipeline, bool begins) {
    tr_simulate_replica *r = &s->replica[replica];
    tr_simulate_pipeline *p = &r->pipeline[pipeline];
    if (begins) {
        if (p->flying++ == 0) p->since_ns = s->now;
        if (r->flying++ == 0) r->any_since_ns = s->now;
        return;
    }
    if (--p->flying == 0) s->result->flying_ns[pipeline] += s->now - p->since_ns;
    if (--r->flying == 0) s->result->any_ns += s->now - r->any_since_ns;
}

void tr_simulate_stage_take(tr_simulate *s, uint32_t replica, uint32_t pipeline, const tr_msg_step *m) {
    tr_simulate_pipeline *p = &s->replica[replica].pipeline[pipeline];
    uint32_t i = 0;
    while (p->step[i].used) tr_check(++i < s->steps_max);
    uint32_t draws = 0;
    for (uint32_t k = 0; k < m->spans.len && m->layer1 == 0; k++) draws += m->spans.data[k].flags & FLAG_SAMPLE;
    p->step[i] = (tr_simulate_step){.used = true,
                                    .epoch = m->epoch,
                                    .phase = m->phase == TR_PHASE_PREFILL ? PREFILL : DECODE,
                                    .n_spans = m->spans.len,
                                    .n_rows = m->tokens.len,
                                    .n_draws = draws,
                                    .id = m->step,
                                    .source = m->source_step,
                                    .cut = m->layer1 > 0,
                                    .begin = m->layer0,
                                    .end = m->layer1 > 0 ? m->layer1 : s->config->scheduler.layout[0].n_layers,
                                    .reads = reads_of(&s->config->scheduler.layout[0], m)};
    if (m->layer0 == 0) s->result->rows[p->step[i].phase] += m->tokens.len;
    tr_simulate_push(s, s->config->message_ns,
                     (tr_simulate_event){.kind = SIM_INPUT, .replica = replica, .pipeline = pipeline, .a = i});
}

void tr_simulate_stage_input(tr_simulate *s, const tr_simulate_event *e) {
    tr_simulate_server *server = &s->replica[e->replica].pipeline[e->pipeline].stage[e->index];
    if (e->index == 0) fly(s, e->replica, e->pipeline, true);
    tr_check(server->n < s->steps_max);
    server->queue[(server->head + server->n++) % s->steps_max] = (uint32_t)e->a;
    start(s, e->replica, e->pipeline, e->index);
}

/* The answer goes to the scheduler, the tokens of a decode step to the first stage. */
static void leave(tr_simulate *s, const tr_simulate_event *e, uint32_t at) {
    tr_simulate_pipeline *p = &s->replica[e->replica].pipeline[e->pipeline];
    const tr_simulate_step *step = &p->step[at];
    tr_simulate_event next = {.kind = SIM_STEP_DONE, .replica = e->replica, .pipeline = e->pipeline, .a = at};
    fly(s, e->replica, e->pipeline, false);
    tr_simulate_push(s, s->config->message_ns, next);
    next.kind = SIM_FED;
    next.a = step->id;
    if (step->phase == DECODE) tr_simulate_push(s, p->n_stages > 1 ? s->config->hop_ns : 0, next);
}

/* To the next stage. */
static void send(tr_simulate *s, const tr_simulate_event *e, uint32_t at, uint32_t rows) {
    tr_simulate_server *to = &s->replica[e->replica].pipeline[e->pipeline].stage[e->index + 1];
    tr_simulate_event next = *e;
    const uint64_t arrives = s->now + (uint64_t)(s->config->hop_ns + s->config->hop_row_ns * rows);
    to->input_ns = arrives > to->input_ns ? arrives : to->input_ns;
    next.kind = SIM_INPUT;
    next.index++;
    next.a = at;
    tr_simulate_push(s, (double)(to->input_ns - s->now), next);
}

void tr_simulate_stage_computed(tr_simulate *s, const tr_simulate_event *e) {
    tr_simulate_pipeline *p = &s->replica[e->replica].pipeline[e->pipeline];
    tr_simulate_server *server = &p->stage[e->index];
    tr_simulate_stage_result *sum = &s->result->stage[e->pipeline][e->index];
    const uint32_t at = server->current;
    const tr_simulate_step *step = &p->step[at];
    sum->busy_ns += s->now - server->began_ns;
    sum->steps[step->phase] += step->begin == 0 || e->index > 0;
    server->current = SIM_NONE;
    if (e->index + 1 == p->n_stages) {
        leave(s, e, at);
    } else {
        send(s, e, at, step->n_rows);
    }
    start(s, e->replica, e->pipeline, e->index);
}

void tr_simulate_stage_fed(tr_simulate *s, const tr_simulate_event *e) {
    s->replica[e->replica].pipeline[e->pipeline].fed = e->a;
    start(s, e->replica, e->pipeline, 0);
}

/* One job after the other. */
void tr_simulate_stage_move(tr_simulate *s, uint32_t replica, const tr_msg_reshard *m) {
    tr_simulate_replica *r = &s->replica[replica];
    const uint64_t cells = (uint64_t)(m->tok1 - m->tok0) * (m->layer1 - m->layer0);
    const double ns = s->config->move_ns + s->config->move_cell_ns * (double)cells;
    const uint64_t arrives = s->now + (uint64_t)s->config->message_ns;
    const uint64_t begins = r->move_free_ns > arrives ? r->move_free_ns : arrives;
    r->epoch_of_resharder = m->epoch;
    r->move_free_ns = begins + (uint64_t)ns;
    tr_simulate_push(s, (double)(r->move_free_ns - s->now) + s->config->message_ns,
                     (tr_simulate_event){.kind = SIM_RESHARDED, .replica = replica, .a = m->job, .b = cells});
}
