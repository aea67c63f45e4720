#!/bin/sh
# checkk_qemu.sh CHECKK: run checkk on an emulated CPU without AVX; dispatch must choose the reference there.
# (No AVX2 run: the qemu of Debian 12 faults on lanes that a masked load leaves out.)
qemu=$(command -v qemu-x86_64 || command -v qemu-x86_64-static) || {
    echo "skipped: qemu-x86_64 is not installed (Debian package qemu-user)"
    exit 77
}
if grep -qE '__asan_init|__tsan_init' "$1"; then
    echo "skipped: built with sanitizers, which do not run under emulation"
    exit 77
fi
exec env -u TROUPE_CPU "$qemu" -cpu Nehalem "$1" --small --expect ref
