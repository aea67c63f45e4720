#!/bin/sh
# no_spill.sh LIBRARY: the hot micro-kernels keep their sums in registers. A compiler that spills a vector register to
# the stack there costs half of the speed and breaks no other test.
lib=$1
command -v objdump >/dev/null || {
    echo "skipped: objdump is not installed (Debian package binutils)"
    exit 77
}
status=0
all=$(objdump -d --no-show-raw-insn "$lib") || exit 1
for name in panel_6x4 direct_5x4 scores_bf16_4 scores_bf16_6 fetch_bf16_4 wide_bf16_4 wide_bf16_6 scores_int8_3 wide_int8_3 hot_6x4 hot_8x2 cold_1x8 cold_2x8 cold_14x2 hot256_6x1 cold256_1x4 cold256_2x2 cold_1x4 cold_6x4 cold_12x2 row_1x1 row_1x4 groups_8_6x2 groups_4_6x2 packed4_1 packed4_6 packed6_4 packed8_6 planes_3x4 bound_long bound_4x4 bound_12x2 bound_pass_12; do
    code=$(printf '%s\n' "$all" | awk -v f="<$name>:" '$2 == f {p = 1} /^$/ {p = 0} p')
    if [ -z "$code" ]; then
        echo "FAIL $name: no such function in $lib"
        status=1
    elif printf '%s\n' "$code" | grep -E '[yz]mm.*\(%r[sb]p|\(%r[sb]p.*[yz]mm'; then
        echo "FAIL $name: vector registers on the stack (above)"
        status=1
    fi
done
exit $status
