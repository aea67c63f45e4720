#include "actors/cli/load_options.h"

#include <string.h>

enum { LENGTH_MAX = 131072, PROMPT_MEAN = 512, OUTPUT_MEAN = 64 };

static tr_load_lengths lengths_of(const char *name) {
    if (strcmp(name, "normal") == 0) return TR_LOAD_NORMAL;
    return strcmp(name, "lognormal") == 0 ? TR_LOAD_LOGNORMAL : TR_LOAD_UNIFORM;
}

tr_status tr_load_options(const tr_options *o, tr_load *out, tr_error *err) {
    const tr_option_value *p = &o->value[TR_OPTION_BENCH_P], *n = &o->value[TR_OPTION_BENCH_N];
    const char *trace = tr_options_text(o, TR_OPTION_TRACE);
    if (p->n_list > 1 || n->n_list > 1)
        return tr_error_set(err, TR_USAGE, "a load takes one length for -p and one for -n: they are means");
    tr_load_want want = {.n = tr_options_u32(o, TR_OPTION_REQUESTS),
                         .prompt = p->n_list ? p->list[0] : PROMPT_MEAN,
                         .output = n->n_list ? n->list[0] : OUTPUT_MEAN,
                         .spread = tr_options_f64(o, TR_OPTION_SPREAD),
                         .lengths = lengths_of(tr_options_text(o, TR_OPTION_LENGTHS)),
                         .rate = tr_options_f64(o, TR_OPTION_RATE),
                         .burstiness = tr_options_f64(o, TR_OPTION_BURSTINESS),
                         .length_scale = tr_options_f64(o, TR_OPTION_LENGTH_SCALE),
                         .prompt_max = tr_options_u32(o, TR_OPTION_PROMPT_MAX),
                         .output_max = LENGTH_MAX,
                         .seed = tr_options_u64(o, TR_OPTION_SEED)};
    if (trace[0]) {
        if (!tr_options_given(o, TR_OPTION_REQUESTS)) want.n = 0;
        return tr_load_trace(trace, &want, out, err);
    }
    return tr_load_random(&want, out, err);
}
