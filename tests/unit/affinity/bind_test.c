/* Pinning is checked against the system itself; a machine that refuses is told apart from one that lies. */
#include "affinity/bind.h"
#include "affinity/machine.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

static tr_machine machine;

static void test_this_machine(void **state) {
    (void)state;
    tr_error err = {0};
    assert_int_equal(tr_machine_discover(&machine, &err), TR_OK);
    assert_true(machine.n_cores >= 1);
    assert_true(machine.n_cpus >= machine.n_cores);
    assert_true(machine.memory_bytes > 1 << 20);
    assert_true(tr_machine_usable_cores(&machine) >= 1);
}

static void test_thread(void **state) {
    (void)state;
    cpu_set_t before, now;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    uint32_t cpu = machine.core[machine.n_cores - 1].cpu;
    assert_int_equal(tr_bind_thread(&cpu, 1), TR_OK);
    assert_true(tr_bind_thread_verify(&cpu, 1));
    assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
    assert_int_equal(CPU_COUNT(&now), 1);
    assert_true(CPU_ISSET(cpu, &now));
    uint32_t other = cpu + 1;
    assert_false(tr_bind_thread_verify(&other, 1));
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void test_refusals(void **state) {
    (void)state;
    uint32_t none = 8191, beyond = 1u << 20;
    assert_int_equal(tr_bind_thread(&none, 1), TR_UNAVAILABLE);
    assert_int_equal(tr_bind_thread(&beyond, 1), TR_UNAVAILABLE);
    assert_int_equal(tr_bind_thread(NULL, 0), TR_OK);
}

/* A mask that the system would silently cut is a refusal, not a success. */
static void test_partly_refused(void **state) {
    (void)state;
    uint32_t cpus[2] = {machine.core[0].cpu, 8191};
    cpu_set_t before;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(tr_bind_thread(cpus, 2), TR_UNAVAILABLE);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void test_memory(void **state) {
    (void)state;
    size_t bytes = 1 << 20;
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    int32_t node = (int32_t)machine.node[0].os_index;
    tr_status status = tr_bind_memory(p, bytes, node);
    assert_true(status == TR_OK || status == TR_UNAVAILABLE);
    for (size_t i = 0; i < bytes; i += 4096) p[i] = 1;
    tr_bind_pages pages;
    if (status == TR_OK && tr_bind_memory_verify(p, bytes, node, &pages) == TR_OK) assert_int_equal(pages.remote, 0);
    assert_int_equal(tr_bind_memory(p, bytes, -1), TR_OK);
    assert_int_equal(tr_bind_memory(p, 0, node), TR_OK);
    munmap(p, bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_this_machine),   cmocka_unit_test(test_thread), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_partly_refused), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
