"""From a symbol to its file without grep: what a library exports starts with tr_ and the stem of the header that
declares it or of the file that defines it."""
import glob
import os
import re
import subprocess
import unittest

import tree

BUILD = os.environ.get("LINT_BUILD", os.path.join(tree.ROOT, "build"))
# Words that every file uses, and rows of the options table.
SHORT = ("tr_error_set", "tr_check_failed", "tr_option_rows", "tr_command_rows")
NOT_OURS = re.compile(r"__|_GLOBAL_|DW\.ref")  # sanitizers and the compiler


def exported():
    """(library, object stem, symbol) of every global definition."""
    for archive in sorted(glob.glob(os.path.join(BUILD, "libtroupe_*.a"))):
        out = subprocess.run(["nm", "-A", "-g", "--defined-only", archive], check=True, capture_output=True, text=True)
        for line in out.stdout.split("\n"):
            m = re.match(r"[^:]*:([^:]+)\.c(?:pp|u)?\.o:\S* \w (\S+)$", line)
            if m and not NOT_OURS.match(m.group(2)):
                yield os.path.basename(archive), m.group(1), m.group(2)


def declared():
    """Symbol -> stems of the headers that declare it."""
    found = {}
    for name in tree.library_files(".h"):
        stem = os.path.splitext(os.path.basename(name))[0]
        for symbol in set(re.findall(r"\b(tr_\w+)\b", tree.read(name))):
            found.setdefault(symbol, set()).add(stem)
    return found


def prefixes(stem, parts):
    """The words after tr_ that a file may use: its stem, or the leading part of it that names its header
    (tokenizer_merge -> tokenizer) or its instruction set (avx2_attn -> avx2). A public header is named troupe_stem."""
    words = re.sub("^troupe_", "", stem).split("_")
    whole = "_".join(words)
    return {whole} | ({"_".join(words[:n]) for n in range(1, len(words))} & parts)


def carries(symbol, stem, parts=frozenset()):
    return any(symbol == "tr_" + p or symbol.startswith("tr_" + p + "_") for p in prefixes(stem, parts))


def parts_of_the_tree():
    found = {re.sub("^troupe_", "", os.path.splitext(os.path.basename(n))[0]) for n in tree.library_files(".h")}
    return found | {n.split("/")[1] for n in tree.library_files(".c") if n.startswith("kernels/") and n.count("/") > 1}


class Symbols(tree.Rule):
    def test_prefixes(self):
        headers, parts, bad, n = declared(), parts_of_the_tree(), [], 0
        for library, stem, symbol in exported():
            n += 1
            stems = headers.get(symbol, set()) | {stem}
            if symbol not in SHORT and not any(carries(symbol, s, parts) for s in stems):
                bad.append("%s(%s.c): %s is declared in %s" % (library, stem, symbol, ", ".join(sorted(stems))))
        self.assertGreater(n, 150, "no libraries in %s: build first" % BUILD)
        self.holds(bad)

    def test_the_rule_can_fail(self):
        self.assertTrue(carries("tr_kv_pool_alloc", "kv_pool"))
        self.assertTrue(carries("tr_client_add", "troupe_client"))
        self.assertTrue(carries("tr_tokenizer_queue_pop", "tokenizer_merge", {"tokenizer"}))
        self.assertFalse(carries("tr_tokenizer_queue_pop", "tokenizer_merge"))
        self.assertFalse(carries("tr_ring_push", "kv_pool", {"kv"}))
        self.assertFalse(carries("tr_ringer", "ring"))


if __name__ == "__main__":
    unittest.main()
