/* transport/schema_base.h - what the tables of schema.h stand on: bounds, values that fields take, and the kinds of
 * fields as C types. Include schema.h. */
#ifndef TR_SCHEMA_BASE_H
#define TR_SCHEMA_BASE_H
#include <stddef.h>
#include <stdint.h>

enum {
    TR_PROTOCOL_MAJOR = 1,
    TR_PROTOCOL_MINOR = 0,
    TR_MAX_TOKENS = 131072, /* tokens of one request, prompt and output together */
    TR_MAX_TEXT_BYTES = 4 << 20,
    TR_MAX_STOPS = 16,
    TR_MAX_STOP_BYTES = 256,
    TR_MAX_SPANS = 256,
    TR_MAX_STEP_ROWS = 4096,
    TR_MAX_SAMPLES = 16, /* n of one prompt */
    TR_MAX_BIAS = 300,   /* tokens with a logit bias */
    TR_MAX_STOP_TOKENS = 16,
    TR_MAX_LOGPROBS = 20,        /* alternatives to a token */
    TR_MAX_LOGPROB_TOKENS = 256, /* whose log-probabilities one message carries, or a journal entry keeps */
    TR_MAX_LOGPROB_ENTRIES = TR_MAX_LOGPROB_TOKENS * (TR_MAX_LOGPROBS + 1),
    TR_MAX_COPIES = 6 * TR_MAX_SPANS, /* numbers: three a page, a page of two groups a span */
    TR_MAX_ERROR_BYTES = 512,
    TR_MAX_FILE_NAME_BYTES = 64, /* of a saved sequence */
    TR_MAX_NOTE_BYTES = 255,
    TR_MAX_SALT_BYTES = 256,
    TR_MAX_TIMEOUT_MS = 86400000,
    TR_MAX_CLIENT_ID_BYTES = 255 /* ZeroMQ routing id */
};

typedef enum tr_finish {
    TR_FINISH_NONE = 0,
    TR_FINISH_STOP = 1,   /* end token or stop text */
    TR_FINISH_LENGTH = 2, /* max_tokens or context reached */
    TR_FINISH_ABORT = 3,
    TR_FINISH_ERROR = 4
} tr_finish;

/* What ADD.logits asks for. */
enum { TR_LOGITS_ALL = 1, TR_LOGITS_COMPUTED = 2, TR_LOGITS_HIDDEN = 3 };
enum { TR_PHASE_PREFILL = 1, TR_PHASE_DECODE = 2 };
#define TR_TOKEN_OF_STEP UINT32_MAX

/* ---- kinds ---- */
typedef struct tr_str {
    const char *data;
    uint32_t len;
} tr_str;
typedef struct tr_bin {
    const uint8_t *data;
    uint32_t len;
} tr_bin;
typedef struct tr_u32v {
    const uint32_t *data;
    uint32_t len;
} tr_u32v;
typedef struct tr_realv {
    const float *data;
    uint32_t len;
} tr_realv;
typedef struct tr_strv {
    const tr_str *data;
    uint32_t len;
} tr_strv;
typedef uint32_t tr_kind_u32;
typedef uint64_t tr_kind_u64;
typedef float tr_kind_f32;
typedef float tr_kind_real;
typedef tr_str tr_kind_str;
typedef tr_bin tr_kind_bin;
typedef tr_u32v tr_kind_u32v;
typedef tr_realv tr_kind_realv;
typedef tr_strv tr_kind_strv;
#endif
