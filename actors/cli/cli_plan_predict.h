/* actors/cli/cli_plan_predict.h - what a plan will do, by simulation with costs from a file or measured now. */
#ifndef TR_CLI_PLAN_PREDICT_H
#define TR_CLI_PLAN_PREDICT_H
#include "actors/cli/cli_session.h"
#include "actors/cli/costs.h"

struct json_t;

enum { TR_CLI_PLAN_PREDICT_MAX = 8 };

typedef struct tr_cli_plan_predict_row {
    char name[48]; /* "unified pp=2" */
    bool unified;
    double ttft_lone, itl_lone; /* ms; one request at a time, means */
    double ttft, itl, itl_p99;  /* ms; under the load */
    double tok_s, bubble;
} tr_cli_plan_predict_row;

typedef struct tr_cli_plan_predict {
    uint32_t n;                                           /* 0: nothing was asked for */
    tr_cli_plan_predict_row row[TR_CLI_PLAN_PREDICT_MAX]; /* the plan, then candidates */
    bool alternates;                                      /* two precisions take turns on one pipeline: */
    tr_cli_plan_predict_row together;                     /* with that of the prefill for both, in the same steps */
    char load[96];                                        /* in words */
} tr_cli_plan_predict;

/* Is a prediction asked for? */
bool tr_cli_plan_predict_wanted(const tr_options *o);
/* --measure: starts the company for it, so it comes before the session's plan, which it changes. */
tr_status tr_cli_plan_predict_costs(tr_cli_session *s, const tr_options *o, tr_costs *out, tr_error *err);
/* Of the session's plan and, with --compare, of others for the same model and machine. */
tr_status tr_cli_plan_predict_make(const tr_cli_session *s, const tr_options *o, const tr_costs *costs,
                                   tr_cli_plan_predict *out, tr_error *err);
void tr_cli_plan_predict_print(const tr_cli_plan_predict *p);
struct json_t *tr_cli_plan_predict_json(const tr_cli_plan_predict *p); /* the caller's */
#endif
