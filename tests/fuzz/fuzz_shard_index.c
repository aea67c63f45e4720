/* The index of a model in shards: refused with a one-line reason, or its names are plain and its counts add up. */
#include "base/status.h"
#include "fuzz_target.h"
#include "model/shard_index.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tr_shard_index *x = NULL;
    tr_error err = {0};
    tr_status s = tr_shard_index_read((const char *)data, size, "input", &x, &err);
    if (s != TR_OK) {
        tr_check(s == TR_DATA && err.text[0] != 0 && strchr(err.text, '\n') == NULL && x == NULL);
        return 0;
    }
    tr_check(tr_shard_index_files(x) > 0);
    for (uint32_t i = 0; i < tr_shard_index_files(x); i++) {
        const char *name = tr_shard_index_file(x, i);
        tr_check(strchr(name, '/') == NULL && name[0] != '.' && strlen(name) < 256);
        tr_check(tr_shard_index_tensors(x, i) > 0);
        tr_check(i == 0 || strcmp(tr_shard_index_file(x, i - 1), name) < 0);
    }
    (void)tr_shard_index_where(x, "model.norm.weight");
    tr_shard_index_close(&x);
    return 0;
}
