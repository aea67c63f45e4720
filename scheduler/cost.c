#include "scheduler/cost.h"

#include <string.h>

enum { TERMS = TR_COST_TERMS };

/* The shape that is believed until measurements say otherwise, in units of one row: a step costs as much as so many
 * rows, a read position so little. */
static const double shape[TERMS] = {16, 1, 1.0 / 16384};
static const double belief = 0.02; /* weight of the shape against that of one measured step */
static const double least = 0.02;  /* of the shape: no coefficient is smaller */
static const double fade = 0.998;  /* of every bucket with every step */
static const double full = 16;     /* steps that a bucket holds at most */
static const double outlier = 3;

static void features(tr_cost_work w, double f[TERMS]) {
    f[0] = 1;
    f[1] = w.rows;
    f[2] = (double)w.reads;
}

static double dot(const double *a, const double *b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

static double at(const tr_cost_sums *s, int i, int k) {
    static const int index[TERMS][TERMS] = {{0, 1, 2}, {1, 3, 4}, {2, 4, 5}};
    return s->ff[index[i][k]];
}

static uint32_t bucket_of(uint32_t rows) {
    uint32_t b = 0;
    while (rows > 1 && b + 1 < TR_COST_BUCKETS) rows /= 2, b++;
    return b;
}

static void add(tr_cost_sums *sum, const tr_cost_sums *s, double weight) {
    sum->n += weight * s->n;
    for (int i = 0; i < TERMS * (TERMS + 1) / 2; i++) sum->ff[i] += weight * s->ff[i];
    for (int i = 0; i < TERMS; i++) sum->ft[i] += weight * s->ft[i];
}

/* Solve m x = y in place, m symmetric and positive: Gauss without pivots. fixed: x is given there. */
static void solve(double m[TERMS][TERMS], double y[TERMS], const int fixed[TERMS]) {
    for (int i = 0; i < TERMS; i++) {
        if (!fixed[i]) continue;
        for (int k = 0; k < TERMS; k++) {
            if (k != i) y[k] -= m[k][i] * y[i];
            m[i][k] = m[k][i] = k == i;
        }
    }
    for (int i = 0; i < TERMS; i++)
        for (int k = i + 1; k < TERMS; k++) {
            const double q = m[k][i] / m[i][i];
            for (int j = i; j < TERMS; j++) m[k][j] -= q * m[i][j];
            y[k] -= q * y[i];
        }
    for (int i = TERMS - 1; i >= 0; i--) {
        for (int k = i + 1; k < TERMS; k++) y[i] -= m[i][k] * y[k];
        y[i] /= m[i][i];
    }
}

/* In units of the scaled shape: what is fitted is a factor for each term, drawn to 1. */
static void fit(tr_cost *c) {
    tr_cost_sums s = {0};
    double hh = 0, unit[TERMS], factor[TERMS] = {0};
    int fixed[TERMS] = {0};
    for (int b = 0; b < TR_COST_BUCKETS; b++) add(&s, &c->bucket[b], 1);
    for (int i = 0; i < TERMS; i++)
        for (int k = 0; k < TERMS; k++) hh += shape[i] * shape[k] * at(&s, i, k);
    const double scale = dot(shape, s.ft) / hh;
    for (int i = 0; i < TERMS; i++) unit[i] = scale * shape[i];
    for (int round = 0, again = 1; again && round < TERMS; round++) {
        double m[TERMS][TERMS];
        again = 0;
        for (int i = 0; i < TERMS; i++) {
            factor[i] = fixed[i] ? least : unit[i] * s.ft[i] + belief;
            for (int k = 0; k < TERMS; k++) m[i][k] = unit[i] * unit[k] * at(&s, i, k) + (i == k ? belief : 0);
        }
        solve(m, factor, fixed);
        for (int i = 0; i < TERMS; i++)
            if (!fixed[i] && factor[i] < least) fixed[i] = again = 1;
    }
    for (int i = 0; i < TERMS; i++) c->ns[i] = unit[i] * (factor[i] > least ? factor[i] : least);
}

void tr_cost_learn(tr_cost *c, tr_cost_work work, uint64_t ns) {
    double f[TERMS], t = (double)ns, expected;
    if (ns == 0 || work.rows == 0) return;
    features(work, f);
    expected = dot(f, c->ns);
    if (c->measured > 0 && t > outlier * expected) t = outlier * expected;
    if (c->measured > 0 && t < expected / outlier) t = expected / outlier;
    for (int b = 0; b < TR_COST_BUCKETS; b++) {
        const tr_cost_sums old = c->bucket[b];
        c->bucket[b] = (tr_cost_sums){0};
        add(&c->bucket[b], &old, fade);
    }
    tr_cost_sums *s = &c->bucket[bucket_of(work.rows)], one = {.n = 1}, old = *s;
    for (int i = 0, n = 0; i < TERMS; i++) {
        one.ft[i] = f[i] / t;
        for (int k = i; k < TERMS; k++) one.ff[n++] = f[i] / t * (f[k] / t);
    }
    *s = (tr_cost_sums){0};
    add(s, &old, old.n > full - 1 ? (full - 1) / old.n : 1);
    add(s, &one, 1);
    c->measured++;
    fit(c);
}

uint64_t tr_cost_ns(const tr_cost *c, tr_cost_work work) {
    double f[TERMS];
    if (c->measured == 0) return 0;
    features(work, f);
    const double ns = dot(f, c->ns);
    return ns < 1e15 ? (uint64_t)ns + 1 : (uint64_t)1e15;
}
