#include "stages/page_copy.h"

#include <string.h>

tr_status tr_page_copy_run(const tr_kv_memory *kv, uint32_t lo, uint32_t hi, const uint32_t *copies, uint32_t n) {
    const tr_kv_layout *l = kv->layout;
    if (n % 3 != 0) return TR_INVALID;
    for (uint32_t i = 0; i < n; i += 3) {
        if (copies[i] >= l->n_groups) return TR_INVALID;
        const uint32_t n_pages = l->group[copies[i]].n_pages;
        if (copies[i + 1] >= n_pages || copies[i + 2] >= n_pages || copies[i + 1] == copies[i + 2]) return TR_INVALID;
    }
    for (uint32_t i = 0; i < n; i += 3)
        for (uint32_t layer = lo; layer < hi; layer++) {
            if (l->layer_group[layer] != copies[i]) continue;
            for (uint32_t head = 0; head < l->n_kv_heads; head++) {
                uint8_t *pages = kv->pool + tr_kv_layout_head_offset(l, layer, head);
                memcpy(pages + (size_t)copies[i + 2] * l->page_bytes, pages + (size_t)copies[i + 1] * l->page_bytes,
                       l->page_bytes);
            }
        }
    return TR_OK;
}
