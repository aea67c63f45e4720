#include "actors/stage/passes.h"

#include "actors/runtime/segment.h"
#include "affinity/bind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tr_status open_image(tr_passes *p, const tr_company *c, tr_precision precision, tr_error *err) {
    tr_image **image = &p->image[precision];
    if (*image) return TR_OK;
    char path[TR_COMPANY_PATH_MAX];
    if (c->image_fd[precision] >= 0)
        snprintf(path, sizeof path, "/proc/self/fd/%d", c->image_fd[precision]);
    else
        snprintf(path, sizeof path, "%s", c->image_path[precision]);
    TR_TRY(tr_image_open(path, image, err));
    if (tr_image_model_hash(*image) != c->model_hash || tr_image_precision(*image) != precision)
        return tr_error_set(err, TR_DATA, "%s is not the packed image that the plan names", path);
    return TR_OK;
}

static tr_status open_phase(tr_passes *pass, tr_runtime *rt, uint32_t phase, const tr_ops *ops, tr_error *err) {
    const tr_company *c = rt->company;
    const tr_company_phase *p = &rt->me->phase[phase - 1];
    if (!p->active) return TR_OK;
    const tr_precision precision = (tr_precision)p->precision;
    TR_TRY(open_image(pass, c, tr_precision_image(precision), err));
    const uint8_t *tables = rt->segment[TR_SEGMENT_TABLES];
    tr_forward_config config = {
        .image = pass->image[tr_precision_image(precision)],
        .precision = precision,
        .ops = ops,
        .team = pass->team,
        .kv = {.layout = &c->layout[p->pool],
               .pool = rt->segment[p->pool == 0 ? TR_SEGMENT_POOL_PREFILL : TR_SEGMENT_POOL_DECODE],
               .table = (const uint32_t *)(const void *)(tables + c->table_offset[p->pool]),
               .heads = pass->calibration ? tr_kv_calibration_heads(pass->calibration) : NULL},
        .lo = rt->me->lo,
        .hi = rt->me->hi,
        .max_rows = c->max_rows,
        .max_spans = TR_MAX_SPANS,
        .context = c->context,
        .common = rt->me->tp > 1 ? tr_segment_common(rt->segment[TR_SEGMENT_TEAMS], rt->me) : NULL,
        .what = phase,
        .beat = &rt->block->beat};
    return tr_forward_create(&config, &pass->forward[phase - 1], err);
}

/* CPUs of all workers of all ranks, in order; NULL where they are not pinned. */
static uint32_t *team_cpus(const tr_company_actor *me) {
    uint32_t *cpus = me->n_cpus ? malloc(me->team_workers * sizeof *cpus) : NULL;
    for (const tr_company_actor *r = me - me->rank; cpus && r < me - me->rank + me->tp; r++)
        memcpy(cpus + r->worker0, r->cpus, r->workers * sizeof *cpus);
    return cpus;
}

static tr_status open_team(tr_passes *p, tr_runtime *rt, tr_team_fn follow, void *arg, tr_error *err) {
    const tr_company_actor *me = rt->me;
    uint32_t *cpus = team_cpus(me);
    tr_team_config config = {.rank = me->rank,
                             .n_ranks = me->tp,
                             .n_workers = me->workers,
                             .first = me->worker0,
                             .total = me->team_workers,
                             .cpus = cpus,
                             .follow = follow,
                             .arg = arg};
    if (me->tp > 1) {
        config.meeting = tr_segment_meeting(rt->segment[TR_SEGMENT_TEAMS], me);
        config.beat = &rt->block->beat;
    } else if (tr_runtime_data_in(rt, TR_LINK_ACTIVATION) || tr_runtime_data_in(rt, TR_LINK_TOKENS))
        config.lobby = &rt->block->lobby; /* another stage goes before */
    tr_status status = tr_team_join(&config, &p->team, err);
    free(cpus);
    return status;
}

tr_status tr_passes_open(tr_runtime *rt, tr_team_fn follow, void *arg, tr_passes *p, tr_error *err) {
    const tr_ops *ops = tr_ops_find(rt->company->ops);
    if (!ops)
        return tr_error_set(err, TR_UNAVAILABLE, "this machine cannot run the kernel set %s of the plan",
                            rt->company->ops);
    TR_TRY(open_team(p, rt, follow, arg, err));
    TR_TRY(tr_company_calibration(rt->company, &p->calibration, err));
    TR_TRY(open_phase(p, rt, TR_PHASE_PREFILL, ops, err));
    TR_TRY(open_phase(p, rt, TR_PHASE_DECODE, ops, err));
    tr_team_enter(p->team);
    return TR_OK;
}

/* The team first: its workers may be in a run of the leader. */
void tr_passes_close(tr_passes *p) {
    tr_team_destroy(&p->team);
    for (int i = 0; i < 2; i++) tr_forward_destroy(&p->forward[i]);
    for (int i = 0; i < TR_PRECISION_END; i++) tr_image_close(&p->image[i]);
    tr_kv_calibration_destroy(&p->calibration);
}
