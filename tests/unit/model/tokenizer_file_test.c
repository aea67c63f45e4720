/* Packed vocabularies: the tables come back as they were, nothing that is damaged is taken, and what a sealed file may
 * say cannot lead outside its tables. */
#include "model/tokenizer_file.h"
#include "model/tokenizer_impl.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/model/vocab.h"

enum { HASH = 77 };

/* One byte-level vocabulary, one of SentencePiece. */
static const char *const vocabularies[] = {GOLDEN "qwen2-small.gguf", GOLDEN "phi-3-small.gguf",
                                           GOLDEN "gemma3-270m-small.gguf", GOLDEN "llama-bpe-small.gguf"};
enum { N_VOCABULARIES = sizeof vocabularies / sizeof *vocabularies };

typedef struct bytes {
    uint8_t *data; /* 64-byte aligned */
    size_t size;
} bytes;

/* The file of a tokenizer, in memory of our own. */
static bytes packed(const tr_tokenizer *t) {
    tr_error err = {0};
    struct stat st;
    int fd = memfd_create("tok", MFD_CLOEXEC);
    if (tr_tokenizer_file_write(t, HASH, fd, &err) != TR_OK) fail_msg("%s", err.text);
    assert_int_equal(fstat(fd, &st), 0);
    bytes b = {.size = (size_t)st.st_size};
    b.data = aligned_alloc(64, (b.size + 63) / 64 * 64);
    assert_non_null(b.data);
    assert_int_equal(pread(fd, b.data, b.size, 0), b.size);
    close(fd);
    return b;
}

static tr_status view(const bytes *b, tr_tokenizer **t_out) {
    tr_error err = {0};
    tr_status status = tr_tokenizer_file_view(b->data, b->size, "file", HASH, t_out, &err);
    if (status != TR_OK) assert_true(err.text[0] != 0);
    return status;
}

static void assert_same_text(const tr_tokenizer *a, const tr_tokenizer *b, const char *text, size_t len) {
    for (unsigned flags = 0; flags < 4; flags++) {
        uint32_t x[512], y[512];
        size_t n = 0, m = 0;
        tr_error err = {0};
        assert_true(tr_tokenizer_bound(len) <= 512);
        assert_int_equal(tr_tokenizer_encode(a, text, len, flags, x, 512, &n, &err), TR_OK);
        assert_int_equal(tr_tokenizer_encode(b, text, len, flags, y, 512, &m, &err), TR_OK);
        assert_int_equal(n, m);
        assert_memory_equal(x, y, n * sizeof *x);
    }
}

static void comes_back(void **state) {
    (void)state;
    static const char text[] = "Hello  world\n\n12 don't \xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80\xff<s></s> <|im_end|>";
    for (int i = 0; i < N_VOCABULARIES; i++) {
        tr_tokenizer *t = open_vocab(vocabularies[i]), *u = NULL;
        bytes b = packed(t);
        assert_int_equal(view(&b, &u), TR_OK);
        assert_int_equal(tr_tokenizer_vocab(t), tr_tokenizer_vocab(u));
        assert_int_equal(tr_tokenizer_bos(t), tr_tokenizer_bos(u));
        assert_int_equal(tr_tokenizer_eos(t), tr_tokenizer_eos(u));
        assert_int_equal(tr_tokenizer_adds_bos(t), tr_tokenizer_adds_bos(u));
        assert_int_equal(tr_tokenizer_strips_space(t), tr_tokenizer_strips_space(u));
        assert_int_equal(tr_tokenizer_max_piece(t), tr_tokenizer_max_piece(u));
        for (uint32_t id = 0; id < tr_tokenizer_vocab(t); id++) {
            char p[1024], q[1024];
            size_t n = 0, m = 0;
            assert_int_equal(tr_tokenizer_piece(t, id, true, p, sizeof p, &n), TR_OK);
            assert_int_equal(tr_tokenizer_piece(u, id, true, q, sizeof q, &m), TR_OK);
            assert_int_equal(n, m);
            assert_memory_equal(p, q, n);
            assert_int_equal(tr_tokenizer_is_eog(t, id), tr_tokenizer_is_eog(u, id));
            assert_int_equal(tr_tokenizer_is_control(t, id), tr_tokenizer_is_control(u, id));
        }
        assert_same_text(t, u, text, sizeof text - 1);
        tr_tokenizer_destroy(&t);
        tr_tokenizer_destroy(&u);
        free(b.data);
    }
}

/* From a real file, which may go away while it is open; of another model it is refused. */
static void opens_a_file(void **state) {
    (void)state;
    char path[] = "/tmp/troupe-vocabulary-XXXXXX";
    tr_error err = {0};
    tr_tokenizer *t = open_vocab(vocabularies[0]), *u = NULL;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(tr_tokenizer_file_write(t, HASH, fd, &err), TR_OK);
    close(fd);
    assert_int_equal(tr_tokenizer_file_open(path, HASH + 1, &u, &err), TR_DATA);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(tr_tokenizer_file_open(path, HASH, &u, &err), TR_OK);
    unlink(path);
    assert_same_text(t, u, "in the end", 10);
    tr_tokenizer_destroy(&t);
    tr_tokenizer_destroy(&u);
    assert_null(u);
    assert_int_equal(tr_tokenizer_file_open(path, HASH, &u, &err), TR_NO_INPUT);
}

static void a_full_disk_is_an_error(void **state) {
    (void)state;
    tr_error err = {0};
    tr_tokenizer *t = open_vocab(vocabularies[0]);
    int fd = open("/dev/full", O_WRONLY);
    assert_int_equal(tr_tokenizer_file_write(t, HASH, fd, &err), TR_CANNOT_CREATE);
    close(fd);
    tr_tokenizer_destroy(&t);
}

/* Any byte that changes, and any other length. */
static void damage_is_refused(void **state) {
    (void)state;
    for (int i = 0; i < N_VOCABULARIES; i++) {
        tr_tokenizer *t = open_vocab(vocabularies[i]), *u = NULL;
        bytes b = packed(t);
        for (size_t at = 0; at < b.size; at += at < 2048 ? 1 : 997) {
            b.data[at] ^= 0x10;
            assert_int_equal(view(&b, &u), TR_DATA);
            b.data[at] ^= 0x10;
        }
        for (size_t size = 0; size < b.size; size += size < 2048 ? 7 : b.size / 50 + 1) {
            bytes cut = {b.data, size};
            assert_int_equal(view(&cut, &u), TR_DATA);
        }
        assert_null(u);
        assert_int_equal(view(&b, &u), TR_OK);
        tr_tokenizer_destroy(&t);
        tr_tokenizer_destroy(&u);
        free(b.data);
    }
}

static void use(const tr_tokenizer *t) {
    static const char text[] = "ab  <s> aaa\n12\xc3\xa9 <unk>";
    uint32_t ids[256];
    size_t n = 0;
    for (unsigned flags = 0; flags < 4; flags++) {
        tr_error err = {0};
        assert_int_equal(tr_tokenizer_encode(t, text, sizeof text - 1, flags, ids, 256, &n, &err), TR_OK);
        for (size_t i = 0; i < n; i++) {
            char piece[4096];
            size_t m;
            assert_int_equal(tr_tokenizer_piece(t, ids[i], true, piece, sizeof piece, &m), TR_OK);
        }
    }
}

/* With a check sum that fits, every word set to something else: refused, or harmless (the address sanitizer looks). */
static void a_sealed_lie_is_harmless(void **state) {
    (void)state;
    static const uint32_t lies[] = {0, 1, 0x7fffffff, 0xffffffff, 0x00010000};
    for (int i = 0; i < N_VOCABULARIES; i++) {
        tr_tokenizer *t = open_vocab(vocabularies[i]);
        bytes b = packed(t);
        int refused = 0;
        for (size_t at = 0; at + 4 <= b.size; at += at < 256 ? 4 : 1652) {
            uint32_t was;
            memcpy(&was, b.data + at, 4);
            for (size_t k = 0; k < sizeof lies / sizeof *lies; k++) {
                tr_tokenizer *u = NULL;
                memcpy(b.data + at, &lies[k], 4);
                tr_tokenizer_file_seal(b.data, b.size);
                if (view(&b, &u) == TR_OK)
                    use(u);
                else
                    refused++;
                tr_tokenizer_destroy(&u);
            }
            memcpy(b.data + at, &was, 4);
        }
        assert_true(refused > 50);
        tr_tokenizer_destroy(&t);
        free(b.data);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),
        cmocka_unit_test(opens_a_file),
        cmocka_unit_test(a_full_disk_is_an_error),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(a_sealed_lie_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
