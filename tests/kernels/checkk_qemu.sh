#!/bin/sh
# Run checkk on an emulated CPU without AVX: dispatch must choose the reference, whatever TROUPE_CPU allows.
qemu=$(command -v qemu-x86_64 || command -v qemu-x86_64-static) || {
    echo "skipped: qemu-x86_64 is not installed (Debian package qemu-user)"
    exit 77
}
exec "$qemu" -cpu Nehalem "$1" --small --expect ref
