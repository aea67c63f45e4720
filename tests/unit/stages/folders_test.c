/* Hugging Face folders as transformers writes them (tests/golden/folders) against its fp32 logits: Qwen3 and Gemma 3 in
 * shards, a Mistral with a window in every layer, Llama with both kinds of scaled RoPE. */
#include "tests/unit/stages/reference.h"
#include "tests/unit/stages/rig.h"

static const char *const names[] = {"qwen3", "mistral", "llama3", "llama-linear", "gemma3"};

static float *logits_of(const tr_image *image, const reference *ref, tr_precision precision, uint32_t chunk) {
    rig r;
    const rig_config c = {.image = image,
                          .precision = precision,
                          .kv = precision == TR_PRECISION_BF16 ? TR_KV_BF16 : TR_KV_INT8,
                          .page_tok = 16,
                          .workers = 1,
                          .max_rows = ref->n,
                          .n_slots = 2,
                          .context = 64,
                          .seed = 1};
    float *out = malloc((size_t)ref->n * ref->vocab * sizeof *out);
    rig_init(&r, &c);
    rig_logits(&r, 0, ref->ids, ref->n, chunk, out);
    rig_fini(&r);
    return out;
}

/* What a missing trait costs is 0.05 and more (tests/tools/make_tiny_folders.py). */
static void equals_transformers(void **state) {
    (void)state;
    static const struct {
        tr_precision precision;
        double kl;
    } want[] = {{TR_PRECISION_BF16, 5e-4}, {TR_PRECISION_INT8, 2e-2}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t j = 0; j < sizeof want / sizeof *want; j++) {
            char folder[128], base[160];
            reference ref;
            distance d = {0};
            snprintf(folder, sizeof folder, "tests/golden/folders/%s", names[i]);
            snprintf(base, sizeof base, "%s/reference", folder);
            assert_true(reference_open(&ref, base, ".logits.npy"));
            tr_image *image = rig_image(folder, want[j].precision);
            float *got = logits_of(image, &ref, want[j].precision, ref.n),
                  *by7 = logits_of(image, &ref, want[j].precision, 7);
            for (uint32_t k = 0; k < ref.n; k++)
                distance_add(&d, ref.logits + (size_t)k * ref.vocab, got + (size_t)k * ref.vocab, ref.vocab);
            print_message("%s %s: mean KL %.2g, worst %.2g, same top %d of %u\n", names[i],
                          tr_precision_name(want[j].precision), d.kl / ref.n, d.kl_max, (int)d.same_top, ref.n);
            assert_true(d.kl / ref.n < want[j].kl);
            assert_memory_equal(got, by7, (size_t)ref.n * ref.vocab * sizeof *got);
            free(got), free(by7);
            tr_image_close(&image);
            reference_close(&ref);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
