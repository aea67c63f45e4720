/* troupe calibrate: how large K and V of a text grow, channel by channel, for the calibrated KV formats. One pass of
 * the bf16 weights over the text in this process, with bf16 pages that are read back at the end; no company. */
#include "actors/cli/cli_session.h"
#include "base/checked.h"
#include "kernels/kv_codec.h"
#include "stages/forward.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 256, PAGE = TR_KV_TILE_TOK };

typedef struct calibrate {
    tr_cli_session session;
    const tr_ops *ops;
    const tr_model_config *model;
    uint32_t *ids, n;
    tr_image *image;
    tr_kv_layout layout;
    uint8_t *pool;
    uint32_t *table;
    float *x;
    tr_team *team;
    tr_forward *forward;
    tr_kv_calibration *result;
} calibrate;

static tr_status read_text(calibrate *c, tr_options *o, tr_error *err) {
    tr_cli_text text = {0};
    unsigned flags = tr_options_flag(o, TR_OPTION_NO_BOS) ? 0 : TR_TOKENIZE_BOS;
    if (tr_options_flag(o, TR_OPTION_SPECIAL)) flags |= TR_TOKENIZE_PARSE_SPECIAL;
    if (!tr_options_given(o, TR_OPTION_TEXT_FILE))
        return tr_error_set(err, TR_USAGE, "no text: give --text FILE, or --text - for stdin");
    TR_TRY(tr_cli_read_file(tr_options_text(o, TR_OPTION_TEXT_FILE), TR_TOKENIZER_MAX_TEXT, &text, err));
    tr_status status = tr_cli_session_tokenize(&c->session, text.data, text.len, flags, &c->ids, &c->n, err);
    tr_cli_text_free(&text);
    TR_TRY(status);
    if (c->n == 0) return tr_error_set(err, TR_DATA, "the text is empty: there is nothing to measure");
    if (c->n > c->model->context_max)
        return tr_error_set(err, TR_DATA, "the text has %u tokens, the context %u: shorten it", c->n,
                            c->model->context_max);
    return TR_OK;
}

static tr_status open_image(calibrate *c, tr_error *err) {
    tr_cli_session *s = &c->session;
    tr_model_cache_image *image = &s->image[TR_PRECISION_BF16];
    char path[TR_MODEL_CACHE_PATH_MAX];
    tr_cli_interrupt_now(true, &s->home);
    tr_status status = tr_model_cache_get(tr_model_file_path(s->model), TR_PRECISION_BF16,
                                          tr_machine_usable_cores(&s->machine), NULL, NULL, image, err);
    tr_cli_interrupt_now(false, NULL);
    TR_TRY(status);
    if (image->fd >= 0)
        snprintf(path, sizeof path, "/proc/self/fd/%d", image->fd);
    else
        snprintf(path, sizeof path, "%s", image->path);
    return tr_image_open(path, &c->image, err);
}

/* Pages for the whole text, also of sliding layers: every token is measured. */
static tr_status make_pool(calibrate *c, tr_error *err) {
    const tr_model_config *m = c->model;
    tr_kv_model kv = {
        .n_layers = m->n_layers, .n_kv_heads = m->n_kv_heads, .head_dim = m->head_dim, .window = m->sliding_window};
    for (uint32_t i = 0; i < m->n_layers; i++)
        kv.layer_is_global[i] = m->layer_is_global[i] != 0 || m->sliding_window == 0;
    uint32_t pages[TR_KV_GROUPS_MAX];
    for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++) pages[g] = (c->n + PAGE - 1) / PAGE;
    TR_TRY(tr_kv_layout_init(&c->layout, &kv, TR_KV_BF16, PAGE, 1, c->n, pages, err));
    c->pool = aligned_alloc(4096, tr_align_up(c->layout.pool_bytes, 4096));
    c->table = aligned_alloc(64, tr_align_up(c->layout.table_bytes, 64));
    c->x = aligned_alloc(64, tr_align_up((size_t)CHUNK * m->hidden * sizeof(float), 64));
    if (!c->pool || !c->table || !c->x) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %u tokens", c->n);
    for (uint32_t g = 0; g < c->layout.n_groups; g++)
        for (uint32_t i = 0; i < c->layout.pages_per_seq; i++) c->table[tr_kv_layout_entry(&c->layout, 0, g, i)] = i;
    return TR_OK;
}

static tr_status run_text(calibrate *c, uint32_t threads, tr_error *err) {
    const uint32_t cores = tr_machine_usable_cores(&c->session.machine);
    TR_TRY(tr_team_create(threads && threads < cores ? threads : cores, NULL, &c->team, err));
    tr_ops_thread_init();
    const tr_forward_config config = {.image = c->image,
                                      .ops = c->ops,
                                      .team = c->team,
                                      .kv = {.layout = &c->layout, .pool = c->pool, .table = c->table},
                                      .hi = c->model->n_layers,
                                      .max_rows = CHUNK,
                                      .max_spans = 1,
                                      .context = c->n};
    TR_TRY(tr_forward_create(&config, &c->forward, err));
    for (uint32_t pos = 0, rows; pos < c->n; pos += rows) {
        rows = c->n - pos < CHUNK ? c->n - pos : CHUNK;
        if (tr_cli_signalled()) return TR_CANCELLED;
        const tr_span span = {.pos0 = pos, .rows = rows, .sampling = {.top_p = 1}};
        tr_forward_output out = {0};
        const tr_micro_batch batch = {.n_rows = rows, .n_spans = 1, .spans = &span, .tokens = c->ids + pos};
        if (tr_forward_run(c->forward, &batch, c->x, &out) != TR_OK)
            return tr_error_set(err, TR_INTERNAL, "the forward pass refused tokens %u..", pos);
    }
    return TR_OK;
}

static void measure(calibrate *c) {
    const tr_kv_layout *l = &c->layout;
    const uint32_t d = l->head_dim;
    float k[TR_KV_HEAD_DIM_MAX], v[TR_KV_HEAD_DIM_MAX];
    for (uint32_t layer = 0; layer < l->n_layers; layer++)
        for (uint32_t head = 0; head < l->n_kv_heads; head++)
            for (uint32_t t = 0; t < c->n; t++) {
                const uint8_t *page =
                    c->pool + tr_kv_layout_head_offset(l, layer, head) + (size_t)(t / PAGE) * l->page_bytes;
                tr_kv_codec_load(c->ops, TR_KV_BF16, page, t % PAGE, k, v, d, NULL);
                c->ops->hadamard(k, d, tr_kv_rotation(d));
                tr_kv_calibration_add(c->result, layer, head, k, v);
            }
}

static tr_status calibrate_model(calibrate *c, tr_options *o, tr_error *err) {
    char path[TR_COMPANY_PATH_MAX];
    TR_TRY(tr_cli_session_load(&c->session, o, err));
    c->model = tr_model_file_config(c->session.model);
    TR_TRY(read_text(c, o, err));
    TR_TRY(tr_ops_select(&c->ops, err));
    TR_TRY(open_image(c, err));
    TR_TRY(make_pool(c, err));
    const tr_kv_calibration_model model = {.hash = tr_image_model_hash(c->image),
                                           .n_layers = c->model->n_layers,
                                           .n_kv_heads = c->model->n_kv_heads,
                                           .head_dim = c->model->head_dim};
    TR_TRY(tr_kv_calibration_create(&model, &c->result, err));
    TR_TRY(tr_cli_session_calibration_path(&c->session, model.hash, path, err));
    TR_TRY(run_text(c, tr_options_u32(o, TR_OPTION_THREADS), err));
    measure(c);
    TR_TRY(tr_kv_calibration_write(c->result, path, err));
    printf("%s: %u tokens, crc %08x\n", path, c->n, tr_kv_calibration_crc(c->result));
    return TR_OK;
}

int tr_cli_calibrate(tr_options *o) {
    static calibrate c;
    tr_error err = {0};
    tr_status status = calibrate_model(&c, o, &err);
    tr_forward_destroy(&c.forward);
    tr_team_destroy(&c.team);
    tr_image_close(&c.image);
    tr_kv_calibration_destroy(&c.result);
    free(c.ids);
    free(c.pool);
    free(c.table);
    free(c.x);
    tr_cli_session_fini(&c.session);
    return tr_cli_session_exit(&c.session, status, &err);
}
