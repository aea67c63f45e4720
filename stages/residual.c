#include "stages/residual.h"

#include "kernels/kv_codec.h"

/* Rows [from, to) of a span, which share a tile. */
static void correct_tile(const tr_step *c, uint32_t layer, uint32_t head, const tr_span *s, uint32_t from,
                         uint32_t to) {
    const tr_forward *f = c->f;
    const tr_kv_layout *l = f->config.kv.layout;
    const uint32_t d = l->head_dim, pos = s->pos0 + from;
    const uint32_t page = f->config.kv.table[tr_kv_layout_entry(l, s->slot, l->layer_group[layer], pos / l->page_tok)];
    uint8_t *tile = f->config.kv.pool + tr_kv_layout_head_offset(l, layer, head) + (size_t)page * l->page_bytes +
                    pos % l->page_tok / TR_KV_TILE_TOK * tr_kv_tile_bytes(l->format, d);
    for (uint32_t r = from; r < to; r++) {
        const float *k = f->qkv + (size_t)(s->row0 + r) * f->n_qkv + f->n_q + (size_t)head * d;
        tr_kv_codec_correct(c->ops, l->format, tile, (s->pos0 + r) % TR_KV_TILE_TOK, k, k + f->n_kv, d,
                            tr_kv_memory_head(&f->config.kv, layer, head), c->w->tmp);
    }
}

void tr_residual_run(const tr_step *c, uint32_t layer) {
    uint32_t unit = 0;
    for (uint32_t i = 0; i < c->n_spans; i++) {
        const tr_span *s = &c->spans[i];
        for (uint32_t from = 0, to; from < s->rows; from = to) {
            const uint32_t left = TR_KV_TILE_TOK - (s->pos0 + from) % TR_KV_TILE_TOK;
            to = s->rows - from < left ? s->rows : from + left;
            for (uint32_t head = 0; head < c->f->model->n_kv_heads; head++)
                if (unit++ % c->n == c->id) correct_tile(c, layer, head, s, from, to);
        }
    }
}
