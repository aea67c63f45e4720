/* config.json and the files beside it. */
#include "base/status.h"
#include "fuzz_target.h"
#include "model/model_config.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tr_error err = {0};
    tr_model_config config;
    const char *text = (const char *)data;
    tr_status s = tr_model_config_from_json(text, size, "input", &config, &err);
    if (s != TR_OK) {
        tr_check(s == TR_DATA && err.status == s && err.text[0] != 0 && strchr(err.text, '\n') == NULL);
        return 0;
    }
    (void)tr_model_config_add_generation(&config, text, size, "input", &err);
    (void)tr_model_config_add_tokenizer(&config, text, size, "input", &err);
    tr_check(tr_model_config_check(&config, "input", &err) == TR_OK);
    return 0;
}
