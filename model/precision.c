#include "model/precision.h"

#include <string.h>

static const struct {
    const char *name;
    tr_precision image;
} precisions[TR_PRECISION_END] = {
#define X(name, text, image) [TR_PRECISION_##name] = {text, TR_PRECISION_##image},
    TR_PRECISIONS(X)
#undef X
};

const char *tr_precision_name(tr_precision p) { return precisions[p].name; }
tr_precision tr_precision_image(tr_precision p) { return precisions[p].image; }
tr_precision tr_precision_of(const char *name) {
    for (unsigned p = 1; p < TR_PRECISION_END; p++)
        if (strcmp(precisions[p].name, name) == 0) return (tr_precision)p;
    return TR_PRECISION_NONE;
}
