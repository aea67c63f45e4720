#include "tests/kernels/checkk.h"
int checkk_bench(const tr_ops *ops, unsigned threads, const char *only) {
    (void)ops, (void)threads, (void)only;
    return 0;
}
