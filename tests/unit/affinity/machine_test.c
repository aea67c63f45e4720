/* Described machines: those that hwloc understands, and those that it would silently pass over. */
#include "affinity/machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static tr_machine machine;
static tr_error err;

static int fresh(void **state) {
    (void)state;
    unsetenv("HWLOC_SYNTHETIC");
    unsetenv("HWLOC_XMLFILE");
    memset(&err, 0, sizeof err);
    return 0;
}

static void test_synthetic(void **state) {
    (void)state;
    assert_int_equal(tr_machine_synthetic("node:2 core:4 pu:2", &machine, &err), TR_OK);
    assert_int_equal(machine.n_nodes, 2);
    assert_int_equal(machine.n_cores, 8);
    assert_int_equal(machine.n_cpus, 16);
    assert_false(machine.is_this_system);
    assert_int_equal(tr_machine_synthetic("garbage", &machine, &err), TR_CONFIG);
}

static void test_variables(void **state) {
    (void)state;
    setenv("HWLOC_SYNTHETIC", "node:2 core:4 pu:1", 1);
    assert_int_equal(tr_machine_discover(&machine, &err), TR_OK);
    assert_int_equal(machine.n_cores, 8);
    assert_false(machine.is_this_system);
    setenv("HWLOC_SYNTHETIC", "garbage", 1);
    assert_int_equal(tr_machine_discover(&machine, &err), TR_CONFIG);
    assert_non_null(strstr(err.text, "'garbage'"));
    setenv("HWLOC_SYNTHETIC", "", 1);
    assert_int_equal(tr_machine_discover(&machine, &err), TR_OK);
    assert_true(machine.is_this_system);
    setenv("HWLOC_XMLFILE", "tests/golden/tiny/README.md", 1);
    assert_int_equal(tr_machine_discover(&machine, &err), TR_CONFIG);
    assert_non_null(strstr(err.text, "README.md"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_synthetic, fresh, fresh),
        cmocka_unit_test_setup_teardown(test_variables, fresh, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
