/* checkk: operations on one vector. */
#include "tests/kernels/checkk.h"

#include <math.h>
#include <string.h>

static checkk_kind any_kind(checkk *c) { return (checkk_kind)checkk_below(c, CHECKK_KINDS); }
static size_t any_length(checkk *c) {
    return checkk_below(c, 3) == 0 ? 16 * checkk_between(c, 1, 128) : checkk_between(c, 1, 700);
}
static float *copy(checkk *c, const float *x, size_t n) {
    float *y = checkk_buffer(c, n * sizeof *y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

static void rmsnorm(checkk *c) {
    size_t n = any_length(c);
    checkk_kind kind = any_kind(c);
    checkk_begin(c, "rmsnorm", "n=%zu kind=%d", n, (int)kind);
    float *x = checkk_floats(c, n, kind), *w = checkk_floats(c, n, CHECKK_PLAIN);
    float *want = checkk_buffer(c, n * 4), *got = checkk_buffer(c, n * 4);
    c->ref->rmsnorm(want, x, w, n, 1e-6f);
    c->ops->rmsnorm(got, x, w, n, 1e-6f);
    checkk_same_floats(c, "y", got, want, n);
    if (kind == CHECKK_PLAIN) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
        double r = 1.0 / sqrt(sum / (double)n + 1e-6);
        for (size_t i = 0; i < n; i++)
            checkk_near(c, "y against double", (double)got[i], (double)x[i] * r * (double)w[i], 3e-6);
    }
    checkk_end_case(c);
}

/* Sum of x[j] * (-1)^popcount(i & j) / sqrt(block) in double. */
static double hadamard_exact(const float *x, size_t block, size_t i) {
    double sum = 0;
    for (size_t j = 0; j < block; j++) sum += __builtin_parityll(i & j) ? -(double)x[j] : (double)x[j];
    return sum / sqrt((double)block);
}

static void hadamard(checkk *c) {
    size_t block = (size_t)1 << checkk_below(c, 8), n = block * checkk_between(c, 1, 9);
    checkk_kind kind = any_kind(c);
    checkk_begin(c, "hadamard", "n=%zu block=%zu kind=%d", n, block, (int)kind);
    float *x = checkk_floats(c, n, kind), *want = copy(c, x, n), *got = copy(c, x, n);
    c->ref->hadamard(want, n, block);
    c->ops->hadamard(got, n, block);
    checkk_same_floats(c, "x", got, want, n);
    for (size_t i = 0; i < n && kind == CHECKK_PLAIN; i++)
        checkk_near(c, "x against double", (double)got[i], hadamard_exact(x + i / block * block, block, i % block),
                    1e-5);
    checkk_end_case(c);
}

static void quant_u8(checkk *c) {
    size_t block = (size_t)1 << checkk_below(c, 8), n = block * checkk_between(c, 1, 2048 / (uint32_t)block);
    if (n > 2048) n = 2048;
    checkk_kind kind = any_kind(c);
    checkk_begin(c, "quant_u8", "n=%zu block=%zu kind=%d", n, block, (int)kind);
    float *x = checkk_floats(c, n, kind), *before = copy(c, x, n);
    float *tmp_want = checkk_buffer(c, n * 4), *tmp_got = checkk_buffer(c, n * 4), s_want, s_got;
    uint8_t *want = checkk_buffer(c, n), *got = checkk_buffer(c, n);
    c->ref->quant_u8(want, &s_want, x, tmp_want, n, block);
    c->ops->quant_u8(got, &s_got, x, tmp_got, n, block);
    checkk_same_bytes(c, "q", got, want, (n + 63) & ~(size_t)63); /* the bytes after n stay as they were */
    checkk_same_floats(c, "scale", &s_got, &s_want, 1);
    checkk_same_bytes(c, "x", x, before, n * 4);
    for (size_t i = 0; i < n && kind == CHECKK_PLAIN; i++)
        checkk_near(c, "value against double", ((double)got[i] - 128) * (double)s_got,
                    hadamard_exact(x + i / block * block, block, i % block), 0.501 * (double)s_got + 1e-6);
    checkk_end_case(c);
}

static void quant_u16(checkk *c) {
    size_t block = (size_t)1 << checkk_below(c, 8), n = block * checkk_between(c, 1, 1024 / (uint32_t)block);
    size_t ld = n + checkk_below(c, 40);
    checkk_kind kind = any_kind(c);
    checkk_begin(c, "quant_u16", "n=%zu ld=%zu block=%zu kind=%d", n, ld, block, (int)kind);
    float *x = checkk_floats(c, n, kind), *before = copy(c, x, n);
    float *tmp_want = checkk_buffer(c, n * 4), *tmp_got = checkk_buffer(c, n * 4), s_want, s_got;
    uint8_t *want = checkk_buffer(c, ld + n), *got = checkk_buffer(c, ld + n);
    c->ref->quant_u16(want, ld, &s_want, x, tmp_want, n, block);
    c->ops->quant_u16(got, ld, &s_got, x, tmp_got, n, block);
    checkk_same_bytes(c, "q", got, want, (ld + n + 63) & ~(size_t)63); /* between the planes and after: as it was */
    checkk_same_floats(c, "scale", &s_got, &s_want, 1);
    checkk_same_bytes(c, "x", x, before, n * 4);
    for (size_t i = 0; i < n && kind == CHECKK_PLAIN; i++)
        checkk_near(c, "value against double", (256.0 * got[i] + got[ld + i] - 32768) * (double)s_got,
                    hadamard_exact(x + i / block * block, block, i % block), 0.501 * (double)s_got + 1e-6);
    checkk_end_case(c);
}

static void quant_groups(checkk *c) {
    size_t block = (size_t)1 << checkk_below(c, 8), n = 128 * checkk_between(c, 1, 12);
    if (block <= 32) n -= 32 * checkk_below(c, 4);
    checkk_kind kind = any_kind(c);
    checkk_begin(c, "quant_groups", "n=%zu block=%zu kind=%d", n, block, (int)kind);
    float *x = checkk_floats(c, n, kind), *before = copy(c, x, n);
    float *tmp_want = checkk_buffer(c, n * 4), *tmp_got = checkk_buffer(c, n * 4);
    uint8_t *want = checkk_buffer(c, tr_groups_x_bytes(n)), *got = checkk_buffer(c, tr_groups_x_bytes(n));
    c->ref->quant_groups(want, x, tmp_want, n, block);
    c->ops->quant_groups(got, x, tmp_got, n, block);
    checkk_same_bytes(c, "q", got, want, n);
    checkk_same_floats(c, "scales", tr_groups_x_scale(got, n), tr_groups_x_scale(want, n), n / 32 * 2);
    checkk_same_bytes(c, "sums and the end", tr_groups_x_minus32(got, n), tr_groups_x_minus32(want, n),
                      tr_groups_x_bytes(n) - n - n / 4);
    checkk_same_bytes(c, "x", x, before, n * 4);
    for (size_t g = 0; g < n / 32; g++) {
        int32_t sum = 0, first = 0;
        double scale = (double)tr_groups_x_scale(got, n)[g];
        for (size_t i = 32 * g; i < 32 * g + 32; i++) {
            sum += (int8_t)got[i];
            if (i % 32 == 15) first = sum;
            if (kind == CHECKK_PLAIN)
                checkk_near(c, "value against double", (double)(int8_t)got[i] * scale,
                            hadamard_exact(x + i / block * block, block, i % block), 0.501 * scale + 1e-6);
        }
        if (tr_groups_x_minus32(got, n)[g] != -sum || tr_groups_x_minus16(got, n)[2 * g] != -first ||
            tr_groups_x_minus16(got, n)[2 * g + 1] != first - sum)
            checkk_fail(c, "sums of group %zu", g);
    }
    checkk_end_case(c);
}

static void rope(checkk *c) {
    size_t d = 16 * checkk_between(c, 1, 16);
    checkk_kind kind = any_kind(c);
    checkk_begin(c, "rope", "d=%zu kind=%d", d, (int)kind);
    float *x = checkk_floats(c, d, kind), *want = copy(c, x, d), *got = copy(c, x, d),
          *cs = checkk_floats(c, d, CHECKK_PLAIN);
    c->ref->rope(want, cs, d);
    c->ops->rope(got, cs, d);
    checkk_same_floats(c, "x", got, want, d);
    for (size_t i = 0; i < d / 2 && kind == CHECKK_PLAIN; i++) {
        double a = (double)x[i], b = (double)x[i + d / 2], co = (double)cs[i], si = (double)cs[i + d / 2];
        checkk_near(c, "first half", (double)got[i], a * co - b * si, 1e-6);
        checkk_near(c, "second half", (double)got[i + d / 2], b * co + a * si, 1e-6);
    }
    checkk_end_case(c);
}

static void add(checkk *c) {
    size_t n = any_length(c);
    checkk_kind kind = any_kind(c);
    checkk_begin(c, "add", "n=%zu kind=%d", n, (int)kind);
    float *x = checkk_floats(c, n, kind), *y = checkk_floats(c, n, kind), *want = copy(c, y, n), *got = copy(c, y, n);
    c->ref->add(want, x, n);
    c->ops->add(got, x, n);
    checkk_same_floats(c, "y", got, want, n);
    for (size_t i = 0; i < n && kind == CHECKK_PLAIN; i++)
        checkk_near(c, "sum", (double)got[i], (double)x[i] + (double)y[i], 1e-6);
    checkk_end_case(c);
}

static void activation(checkk *c, bool gelu) {
    size_t n = any_length(c);
    checkk_kind kind = any_kind(c);
    checkk_begin(c, gelu ? "gelu_mul" : "silu_mul", "n=%zu kind=%d", n, (int)kind);
    float *gate = checkk_floats(c, n, kind),
          *up = checkk_floats(c, n, kind == CHECKK_PLAIN ? CHECKK_PLAIN : any_kind(c));
    for (size_t i = 0; i < n && kind == CHECKK_PLAIN; i++) gate[i] *= 12.0f;
    float *want = checkk_buffer(c, n * 4), *got = checkk_buffer(c, n * 4);
    (gelu ? c->ref->gelu_mul : c->ref->silu_mul)(want, gate, up, n);
    (gelu ? c->ops->gelu_mul : c->ops->silu_mul)(got, gate, up, n);
    checkk_same_floats(c, "y", got, want, n);
    for (size_t i = 0; i < n && kind == CHECKK_PLAIN; i++) {
        double x = (double)gate[i];
        double f = gelu ? 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x))) : x / (1 + exp(-x));
        checkk_near(c, "y against double", (double)got[i], f * (double)up[i], 4e-6 * fabs(f * (double)up[i]) + 1e-9);
    }
    checkk_end_case(c);
}

static void embed(checkk *c) {
    size_t k = 32 * checkk_between(c, 1, 21), rows = 16 * checkk_between(c, 1, 4),
           row = checkk_below(c, (uint32_t)rows);
    checkk_begin(c, "embed", "k=%zu row=%zu", k, row);
    uint16_t *w = checkk_buffer(c, rows * k * 2);
    checkk_fill_bf16(c, w, rows * k, any_kind(c));
    float *want = checkk_buffer(c, k * 4), *got = checkk_buffer(c, k * 4);
    c->ref->embed_packed(want, w, k, row, 25.25f);
    c->ops->embed_packed(got, w, k, row, 25.25f);
    checkk_same_floats(c, "packed", got, want, k);
    c->ref->embed_rows(want, w, k, row, 0.3f);
    c->ops->embed_rows(got, w, k, row, 0.3f);
    checkk_same_floats(c, "rows", got, want, k);
    checkk_end_case(c);
}

static void argmax(checkk *c) {
    size_t n = any_length(c);
    checkk_kind kind = any_kind(c);
    checkk_begin(c, "argmax", "n=%zu kind=%d", n, (int)kind);
    float *x = checkk_floats(c, n, kind), want, got;
    uint32_t how = checkk_below(c, 4);
    if (how == 0) /* ties */
        for (size_t i = 0; i < n; i++) x[i] = (float)checkk_below(c, 3);
    if (how == 1) /* nothing above -inf */
        for (size_t i = 0; i < n; i++) x[i] = checkk_below(c, 2) ? NAN : -INFINITY;
    size_t at_want = c->ref->argmax(x, n, &want), at_got = c->ops->argmax(x, n, &got);
    if (at_want != at_got) checkk_fail(c, "index %zu, expected %zu", at_got, at_want);
    checkk_same_floats(c, "max", &got, &want, 1);
    for (size_t i = 0; i < n; i++)
        if (x[i] > got || (x[i] == got && i < at_got && got > -INFINITY)) checkk_fail(c, "x[%zu] is better", i);
    checkk_end_case(c);
}

static void at_least(checkk *c) {
    size_t n = any_length(c);
    checkk_kind kind = any_kind(c);
    checkk_begin(c, "at_least", "n=%zu kind=%d", n, (int)kind);
    float *x = checkk_floats(c, n, kind), least = x[checkk_below(c, (uint32_t)n)];
    if (checkk_below(c, 4) == 0) /* ties */
        for (size_t i = 0; i < n; i++) x[i] = (float)checkk_below(c, 3);
    if (checkk_below(c, 4) == 0) least = checkk_below(c, 2) ? -INFINITY : NAN;
    uint32_t *want = checkk_buffer(c, (n + 16) * sizeof *want), *got = checkk_buffer(c, (n + 16) * sizeof *got);
    size_t n_want = c->ref->at_least(x, n, least, want), n_got = c->ops->at_least(x, n, least, got);
    if (n_want != n_got) checkk_fail(c, "%zu found, expected %zu", n_got, n_want);
    checkk_same_bytes(c, "indices", got, want, n_want * sizeof *want);
    checkk_end_case(c);
}

void checkk_elementwise(checkk *c) {
    for (unsigned i = 0; i < 4 * c->effort; i++) {
        rmsnorm(c);
        hadamard(c);
        quant_u8(c);
        quant_u16(c);
        quant_groups(c);
        rope(c);
        add(c);
        activation(c, true);
        activation(c, false);
        embed(c);
        argmax(c);
        at_least(c);
    }
}
