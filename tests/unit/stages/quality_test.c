/* Quality of the real models against transformers in fp32: mean KL over the full vocabulary and same top-1, at every
 * position of every text. Needs files that are not in the repository, so it runs only where these name them:
 *   TROUPE_QUALITY_MODEL  the GGUF file
 *   TROUPE_QUALITY_REF    folder of <text>.ids.json and <text>.npy (tests/tools/reference_logits.py)
 * prefill: bf16 weights and KV, chunks of 128. decode: W8A8 and int8 KV, all tokens as decode rows (a row's numbers do
 * not depend on how many go together: forward_test.c). */
#include "tests/unit/stages/reference.h"
#include "tests/unit/stages/rig.h"

#include "base/clock.h"

#include <dirent.h>

static void measure(const tr_image *image, tr_kv_format kv, const char *folder, const char *path, double kl_max,
                    double top_min) {
    DIR *dir = opendir(folder);
    distance all = {0};
    uint64_t ns = 0;
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char *tail = strstr(e->d_name, ".npy"), base[600];
        reference ref;
        if (!tail) continue;
        snprintf(base, sizeof base, "%s/%.*s", folder, (int)(tail - e->d_name), e->d_name);
        if (!reference_open(&ref, base, ".npy")) fail_msg("%s: no reference", base);
        rig r;
        rig_init(&r, &(rig_config){.image = image,
                                   .kv = kv,
                                   .page_tok = 16,
                                   .workers = 2,
                                   .max_rows = 128,
                                   .n_slots = 1,
                                   .context = (ref.n + 15) / 16 * 16,
                                   .seed = 1});
        distance d = {0};
        uint64_t begin_kernels = ns;
        for (uint32_t pos = 0; pos < ref.n; pos += 128) {
            uint32_t rows = ref.n - pos < 128 ? ref.n - pos : 128;
            rig_rows(&r, 0, ref.ids, pos, rows, TR_SPAN_LOGITS);
            ns += r.kernel_ns;
            for (uint32_t i = 0; i < rows; i++)
                distance_add(&d, ref.logits + (size_t)(pos + i) * ref.vocab, r.logits + (size_t)i * rig_stride(&r),
                             ref.vocab);
        }
        print_message("  %s %s: %d positions, mean KL %.5f, worst %.3f, same top %.2f %%, %.0f tok/s\n", path,
                      e->d_name, (int)d.n, d.kl / (double)d.n, d.kl_max, 100.0 * (double)d.same_top / (double)d.n,
                      (double)d.n * 1e9 / (double)(ns - begin_kernels));
        all.n += d.n, all.same_top += d.same_top, all.kl += d.kl;
        rig_fini(&r);
        reference_close(&ref);
    }
    closedir(dir);
    double kl = all.kl / (double)all.n, top = (double)all.same_top / (double)all.n;
    print_message("%s: %d positions, mean KL %.5f, same top %.2f %%\n", path, (int)all.n, kl, 100 * top);
    assert_true(all.n >= 2000 && kl <= kl_max && top >= top_min);
}

static void quality(void **state) {
    (void)state;
    const char *model = getenv("TROUPE_QUALITY_MODEL"), *folder = getenv("TROUPE_QUALITY_REF");
    if (!model || !folder) {
        print_message("skipped: TROUPE_QUALITY_MODEL and TROUPE_QUALITY_REF are not set\n");
        skip();
    }
    static const struct {
        const char *name;
        tr_precision precision;
        tr_kv_format kv;
        double kl, top;
    } paths[] = {{"prefill", TR_PRECISION_BF16, TR_KV_BF16, 0.001, 0.985},
                 {"decode", TR_PRECISION_INT8, TR_KV_INT8, 0.01, 0.94}};
    for (int i = 0; i < 2; i++) {
        uint64_t begin = tr_clock_now_ns();
        tr_image *image = rig_image(model, paths[i].precision);
        print_message("%s image packed in %.2f s\n", paths[i].name, (double)(tr_clock_now_ns() - begin) * 1e-9);
        measure(image, paths[i].kv, folder, paths[i].name, paths[i].kl, paths[i].top);
        tr_image_close(&image);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(quality)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
