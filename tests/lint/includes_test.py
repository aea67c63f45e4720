"""Who may include whom, and one door for each outside library."""
import os
import re
import unittest

import tree

# Folder -> what its files may include besides themselves: a folder or one header.
MAY = {
    "base": (),
    "affinity": ("base/",),
    "transport": ("base/",),
    "kernels": ("base/",),
    "kv": ("kernels/kv_page.h", "base/"),
    "model": ("kernels/", "base/"),
    "stages": ("model/", "kernels/", "kv/", "affinity/", "base/"),
    "scheduler": ("kv/", "transport/schema.h", "transport/event.h", "transport/wire.h", "base/"),
    "client": ("transport/", "base/"),
    "actors": ("client/", "scheduler/", "stages/", "model/", "kv/", "kernels/", "affinity/", "transport/", "base/"),
}
# Actors meet in messages: another actor's folder is closed. These two are the common ground.
ACTORS_COMMON = ("actors/runtime/", "actors/actors.h")
# The command line starts the roles, so its main may name the entry of each; nothing else may.
DISPATCH = {"actors/cli/main.c": ("actors/supervisor/supervisor.h",)}

# Outside library -> its doors (a folder, or the beginning of file names).
DOORS = {
    r"zmq.*\.h": ("transport/zmq_", "transport/carrier.c", "transport/curve_key.c", "client/", "actors/runtime/runtime.c",
                  "actors/frontend/frontend_client.c", "actors/node/node_agent.c", "actors/cli/cli_node"),
    r"msgpack.*": ("transport/codec",),
    r"hwloc.*|numa\.h|numaif\.h": ("affinity/",),
    r"yaml\.h": ("actors/cli/topology",),
    r"jansson\.h": ("model/model_config_json.c", "model/safetensors", "model/jinja", "model/chat_template",
                    "model/chat_source.c", "model/shard_index.c", "model/tokenizer_json",
                    "actors/frontend/status_json.c", "actors/gateway/", "actors/cli/"),
    r"libwebsockets\.h": ("actors/gateway/http.c",),
    r"xxhash\.h": ("model/",),
    r"hiredis/.*": ("actors/store/store_link.c",),
    r"cuda.*|cublas.*|nvrtc\.h": ("kernels/cuda/",),
    r"nccl\.h": ("transport/nccl",),
    r"[a-z]*mmintrin\.h|cpuid\.h": ("kernels/",),
}
C11 = "assert ctype errno fenv float inttypes limits locale math setjmp signal stdalign stdarg stdatomic stdbool " \
      "stddef stdint stdio stdlib string time"
POSIX = "dirent dlfcn fcntl glob grp libgen netdb poll pthread pwd sched semaphore spawn strings termios unistd wchar"
LIBC = re.compile(r"(%s)\.h$|(sys|linux|netinet|arpa|net)/\w+\.h$" % "|".join((C11 + " " + POSIX).split()))
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.M)


def includes():
    for name in tree.library_files(".c", ".h", ".inc", ".cu", ".cuh"):
        for kind, what in INCLUDE.findall(tree.read(name)):
            yield name, kind, what


def allowed(name, what):
    folder = name.split("/")[0]
    if folder == "actors" and what.startswith("actors/"):
        own = os.path.dirname(name) + "/"
        if name.count("/") == 1:  # actors/*.c: the dispatcher, which knows only the common ground
            own = "actors/runtime/"
        return what.startswith((own,) + ACTORS_COMMON) or what in DISPATCH.get(name, ())
    return what.startswith((folder + "/",) + MAY[folder])


class Includes(tree.Rule):
    def test_there_is_something_to_check(self):
        self.assertGreater(len(list(includes())), 300)

    def test_directions(self):
        self.holds(["%s includes %s" % (n, w) for n, k, w in includes() if k == '"' and not allowed(n, w)])

    def test_quoted_names_are_files_from_the_root(self):
        self.holds(["%s includes %s, which is no file of the tree" % (n, w) for n, k, w in includes()
                    if k == '"' and not os.path.isfile(os.path.join(tree.ROOT, w))])

    def test_outside_libraries_have_one_door(self):
        bad = []
        for name, kind, what in includes():
            if kind != "<":
                continue
            doors = [d for pattern, d in DOORS.items() if re.fullmatch(pattern, what)]
            if doors and not name.startswith(doors[0]):
                bad.append("%s includes <%s>: only %s may" % (name, what, ", ".join(doors[0])))
            if not doors and not LIBC.match(what):
                bad.append("%s includes <%s>, a library without a door in this list" % (name, what))
        self.holds(bad)

    def test_the_rules_can_fail(self):
        self.assertFalse(allowed("kv/kv_pool.c", "kernels/ops.h"))
        self.assertFalse(allowed("scheduler/batcher.c", "transport/ring.h"))
        self.assertFalse(allowed("actors/stage/stage.c", "actors/scheduler/x.h"))
        self.assertFalse(allowed("actors/cli/serve.c", "actors/supervisor/supervisor.h"))
        self.assertTrue(allowed("actors/stage/stage.c", "actors/runtime/runtime.h"))
        self.assertFalse(LIBC.match("curl/curl.h"))


if __name__ == "__main__":
    unittest.main()
