/* Tokens from the upper plane of the head against tokens from all logits: the same ones, greedy and drawn.
 * Always: a small model, every split over workers. With real models only where these name files that are not in the
 * repository (then every position of every text is compared, and what had to be computed is counted):
 *   TROUPE_SCREEN_MODEL  the GGUF file
 *   TROUPE_SCREEN_IDS    folder of lists of token ids (`troupe tokenize MODEL --text FILE --json`)
 *   TROUPE_SCREEN_MOST   positions to stop at, 100000 when unset */
#include "tests/unit/stages/rig.h"

#include "stages/forward_state.h"

#include <dirent.h>

enum { CHUNK = 128, CONTEXT = 1024, WORKERS = 2 };

typedef struct job {
    tr_team *team;
    const tr_image_tensor *head;
    tr_screen screen[WORKERS];
    tr_screen_rows at; /* rows of this group */
    _Atomic double floor[TR_SCREEN_ROWS];
    const uint8_t *x;
    const float *x_scale;
    uint32_t rows, vocab, ld;
    tr_sampler_params p[TR_SCREEN_ROWS];
    tr_sampler_best best[WORKERS][TR_SCREEN_ROWS];
    uint32_t computed[WORKERS][TR_SCREEN_ROWS];
} job;

static void screened(void *arg, uint32_t id, uint32_t n) {
    job *j = arg;
    tr_screen *s = &j->screen[id];
    uint32_t begin, end;
    for (uint32_t i = id; i < j->rows; i += n)
        tr_screen_rows_make(&j->at, i, j->rows, j->x + (size_t)i * j->head->k, j->x_scale[i]);
    for (uint32_t i = 0; id == 0 && i < j->rows; i++) tr_screen_rows_draw(&j->at, i, j->rows, i, &j->p[i]);
    tr_team_barrier(j->team);
    tr_team_share(j->ld / 16, id, n, &begin, &end);
    const uint32_t half = begin + (end - begin) / 2; /* in any order */
    tr_screen_begin(s, &j->at);
    tr_screen_bounds(s, &j->at, half, end - half, j->vocab);
    if (half > begin) tr_screen_bounds(s, &j->at, begin, half - begin, j->vocab);
    tr_team_barrier(j->team);
    for (uint32_t i = 0; i < j->rows; i++) {
        for (uint32_t k = 0; k < n; k++) /* the own list, then the others' */
            j->best[id][i] = tr_screen_scan(s, &j->screen[(id + k) % n], &j->at, i);
        j->computed[id][i] = s->list[i].computed;
    }
}

typedef struct tally {
    uint64_t rows, different, computed[2]; /* greedy, drawn */
    uint32_t most[2];
} tally;

static void compare(job *j, const float *logits, bool drawn, uint64_t seed, void *scratch, tally *t) {
    static const float temperature[] = {0.7f, 1.0f, 1.5f};
    for (uint32_t i = 0; i < j->rows; i++)
        j->p[i] =
            (tr_sampler_params){.temperature = drawn ? temperature[(seed + i) % 3] : 0, .top_p = 1, .seed = seed + i};
    for (uint32_t i = 0; i < j->rows; i++) atomic_store(&j->floor[i], TR_SAMPLER_NONE.score);
    for (uint32_t w = 0; w < WORKERS; w++) /* on a crowded machine not all take part */
        for (uint32_t i = 0; i < j->rows; i++) j->best[w][i] = TR_SAMPLER_NONE, j->computed[w][i] = 0;
    tr_team_run(j->team, screened, j, 0);
    for (uint32_t i = 0; i < j->rows; i++) {
        const uint32_t want = tr_sampler_draw(&j->p[i], logits + (size_t)i * j->ld, j->vocab, scratch);
        const uint32_t computed = j->computed[0][i] + j->computed[1][i];
        t->different += want != tr_sampler_id(tr_sampler_merge(j->best[0][i], j->best[1][i]));
        t->computed[drawn] += computed;
        t->most[drawn] = computed > t->most[drawn] ? computed : t->most[drawn];
    }
}

/* All rows of one text in chunks; stops at `most` rows in all. */
static void run_text(const tr_image *image, const uint32_t *ids, uint32_t n, uint64_t most, tally *t) {
    rig r;
    rig_init(&r, &(rig_config){.image = image,
                               .kv = TR_KV_INT8,
                               .page_tok = 16,
                               .workers = WORKERS,
                               .max_rows = CHUNK,
                               .n_slots = 1,
                               .context = (n + 15) / 16 * 16,
                               .seed = 1});
    job j = {
        .team = r.team, .head = tr_image_get(image, TR_IMAGE_HEAD, 0), .vocab = r.model->vocab, .ld = rig_stride(&r)};
    const tr_ops *ops = NULL;
    RIG_OK(tr_ops_select(&ops, &err));
    for (int i = 0; i < WORKERS; i++) assert_int_equal(tr_screen_init(&j.screen[i], ops), TR_OK);
    assert_int_equal(tr_screen_rows_init(&j.at, &j.head->planes, j.floor), TR_OK);
    void *scratch = malloc(tr_sampler_scratch_bytes(j.vocab));
    for (uint32_t pos = 0; pos < n && t->rows < most; pos += CHUNK) {
        const uint32_t rows = n - pos < CHUNK ? n - pos : CHUNK;
        if (rows <= TR_FORWARD_NARROW_ROWS) break; /* their prepared rows lie elsewhere */
        rig_rows(&r, 0, ids, pos, rows, TR_SPAN_LOGITS);
        const tr_linear_rows *ready = &r.stage[0]->ready; /* the head's input, of the step that just ran */
        for (uint32_t at = 0; at < rows; at += j.rows) {
            const uint32_t group = 1 + (at + pos) % TR_SCREEN_ROWS;
            j.rows = rows - at < group ? rows - at : group;
            j.x = ready->x + (size_t)at * j.head->k, j.x_scale = ready->scale + at;
            for (int drawn = 0; drawn < 2; drawn++)
                compare(&j, r.logits + (size_t)at * j.ld, drawn != 0, t->rows, scratch, t);
            t->rows += j.rows;
        }
    }
    for (int i = 0; i < WORKERS; i++) tr_screen_fini(&j.screen[i]);
    tr_screen_rows_fini(&j.at);
    free(scratch);
    rig_fini(&r);
}

static void report(const tr_image *image, const tally *t) {
    const double cells = (double)t->rows * tr_image_config(image)->vocab / 100;
    print_message("%d positions, %d tokens differ; computed from both planes: greedy %.3f %% (at most %u ids), drawn "
                  "%.3f %% (at most %u ids)\n",
                  (int)t->rows, (int)t->different, (double)t->computed[0] / cells, t->most[0],
                  (double)t->computed[1] / cells, t->most[1]);
    assert_int_equal(t->different, 0);
}

static void small_model(void **state) {
    (void)state;
    static const char *const models[] = {"tests/golden/tiny/gemma3.gguf", "tests/golden/tiny/llama.gguf"};
    for (int i = 0; i < 2; i++) {
        tr_image *image = rig_image(models[i], TR_PRECISION_INT8);
        const uint32_t vocab = tr_image_config(image)->vocab;
        uint32_t ids[500];
        tr_rng rng = {11};
        tally t = {0};
        for (int k = 0; k < 500; k++) ids[k] = (uint32_t)tr_rng_below(&rng, vocab);
        run_text(image, ids, 500, 500, &t);
        report(image, &t);
        assert_true(t.rows == 500 && t.computed[0] >= t.rows); /* the records at least */
        tr_image_close(&image);
    }
}

static uint32_t read_ids(const char *path, uint32_t *ids, uint32_t most) {
    FILE *f = fopen(path, "r");
    uint32_t n = 0;
    if (!f) fail_msg("%s cannot be read", path);
    for (int c; n < most && (c = fgetc(f)) != EOF;)
        if (c >= '0' && c <= '9') {
            ungetc(c, f);
            if (fscanf(f, "%u", &ids[n++]) != 1) fail_msg("%s is not a list of ids", path);
        }
    fclose(f);
    return n;
}

static void real_model(void **state) {
    (void)state;
    const char *model = getenv("TROUPE_SCREEN_MODEL"), *folder = getenv("TROUPE_SCREEN_IDS");
    const char *most = getenv("TROUPE_SCREEN_MOST");
    if (!model || !folder) {
        print_message("skipped: TROUPE_SCREEN_MODEL and TROUPE_SCREEN_IDS are not set\n");
        skip();
    }
    const uint64_t rows = most ? strtoull(most, NULL, 10) : 100000;
    tr_image *image = rig_image(model, TR_PRECISION_INT8);
    DIR *dir = opendir(folder);
    tally t = {0};
    uint32_t ids[CONTEXT];
    assert_non_null(dir);
    for (struct dirent *e; t.rows < rows && (e = readdir(dir)) != NULL;) {
        char path[600];
        if (!strstr(e->d_name, ".json")) continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        run_text(image, ids, read_ids(path, ids, CONTEXT), rows, &t);
        if (t.rows / 10000 != (t.rows - CONTEXT) / 10000) report(image, &t);
    }
    closedir(dir);
    report(image, &t);
    tr_image_close(&image);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_model), cmocka_unit_test(real_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
