"""Cores are pure: the archives that hold them need nothing from outside but a short list of functions.

usage: pure_test.py NM ARCHIVE...   (of archives with other members only *_core.c.o is looked at)
"""
import re
import subprocess
import sys

ALLOWED = {"memcpy", "memmove", "memset", "memcmp", "strlen", "strnlen", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_", "__popcountdi2",
           "tr_check_failed", "tr_error_set", "tr_siphash", "tr_crc32c", "tr_blake2b_init",
           "tr_blake2b_add", "tr_blake2b_end"}
SANITIZER = re.compile(r"^__(asan|ubsan|tsan|sanitizer|lsan)_")
CORE_ONLY = re.compile(r"_core\.c\.o$")


def members(nm, archive):
    """{member: (defined, undefined)}"""
    out = subprocess.run([nm, "-A", archive], capture_output=True, text=True, check=True).stdout
    table = {}
    for line in out.splitlines():
        place, _, rest = line.partition(": ")
        name = place.rsplit(":", 1)[-1]
        place_fields = line.split()
        kind, symbol = place_fields[-2], place_fields[-1]
        defined, undefined = table.setdefault(name if ".o" in name else rest, (set(), set()))
        (undefined if kind in "Uw" else defined).add(symbol)
    return table


def main():
    nm, archives = sys.argv[1], sys.argv[2:]
    defined, wanted = set(), []
    for archive in archives:
        only_cores = "actors" in archive.rsplit("/", 1)[-1]
        for member, (own, needs) in members(nm, archive).items():
            name = member.split(":")[0]
            if only_cores and not CORE_ONLY.search(name):
                continue
            defined |= own
            wanted += [(name, symbol) for symbol in needs]
    if len(wanted) < 10:
        sys.exit("pure_test: found next to nothing to look at")
    bad = [(n, s) for n, s in wanted if s not in ALLOWED and s not in defined and not SANITIZER.match(s)]
    for name, symbol in sorted(set(bad)):
        print(f"{name} needs {symbol}: a pure core may not (no heap, clock, system call, or output)")
    sys.exit(1 if bad else 0)


main()
