/* Requests of the OpenAI API: the first byte picks completions, chat or embeddings, the rest is the body. What is taken
 * keeps the bounds of the client library; what is refused can be told as JSON. */
#include "actors/gateway/openai.h"
#include "fuzz_target.h"
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    tr_openai_request q;
    tr_openai_refusal why = {0};
    const tr_openai_kind kind = data[0] & 1 ? TR_OPENAI_CHAT : data[0] & 2 ? TR_OPENAI_EMBEDDING : TR_OPENAI_COMPLETION;
    if (tr_openai_parse(kind, (const char *)data + 1, size - 1, &q, &why)) {
        const tr_client_params *p = &q.params;
        tr_check(p->n >= 1 && p->n <= TR_MAX_SAMPLES && p->max_tokens <= TR_MAX_TOKENS);
        tr_check(p->temperature >= 0 && p->temperature <= 100 && p->top_p >= 0 && p->top_p <= 1);
        tr_check(p->n_stop <= TR_MAX_STOPS && p->n_stop_tokens <= TR_MAX_STOP_TOKENS && p->n_bias <= TR_MAX_BIAS);
        tr_check(p->min_p >= 0 && p->min_p <= 1 && p->top_logprobs <= TR_MAX_LOGPROBS && q.best_of <= TR_MAX_SAMPLES);
        tr_check(p->presence_penalty >= -2 && p->presence_penalty <= 2 && p->frequency_penalty >= -2 &&
                 p->frequency_penalty <= 2 && p->repetition_penalty >= 0 && p->repetition_penalty <= 100);
        for (size_t i = 0; i < p->n_bias; i++) tr_check(p->bias[i] >= -100 && p->bias[i] <= 100);
        for (size_t i = 0; i < p->n_stop; i++) tr_check(p->stop[i][0] != 0 && strlen(p->stop[i]) <= TR_MAX_STOP_BYTES);
        tr_check(!p->cache_salt || strlen(p->cache_salt) <= TR_MAX_SALT_BYTES);
        tr_check(kind == TR_OPENAI_CHAT ? json_is_array(q.messages)
                                        : json_is_array(q.prompt) || json_is_string(q.prompt));
    } else {
        char *text = tr_openai_error_json(&why);
        tr_check(why.status == 400 && why.message[0] != 0 && text != NULL);
        free(text);
    }
    tr_openai_free(&q);
    return 0;
}
