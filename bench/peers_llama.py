"""llama.cpp: source, native build, requantized files, and what its benchmarks print.

Built once into the cache folder from the source that the Python package llama-cpp-python carries.
"""
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

from peers_base import Fail, cache_dir, derived, load, positive, run, say, test_name

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
NEEDED = ["llama-bench", "llama-quantize"]
PARTS = ["llama-batched-bench", "llama-simple", "llama-completion", "llama-server"]  # each of one part, which is left out without it


def has(folder, tools):
    return all(os.access(os.path.join(folder, t), os.X_OK) for t in tools)


def tools_in(folder, tools=NEEDED):
    """The folder with these tools, or None: a build folder, its bin, or an install prefix."""
    for d in (folder, os.path.join(folder, "bin"), os.path.join(folder, "build", "bin")):
        if has(d, tools):
            return d
    return None


def get_source(where):
    """Unpack the vendored llama.cpp; returns its folder."""
    source = os.path.join(where, "llama_cpp_python-" + VERSION, "vendor", "llama.cpp")
    if os.path.exists(os.path.join(source, "CMakeLists.txt")):
        return source
    say("fetching the source of llama.cpp")
    with tempfile.TemporaryDirectory(dir=where) as tmp:
        run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", PACKAGE, "-d", tmp,
             "%s==%s" % (PACKAGE, VERSION)], "pip download " + PACKAGE)
        archives = [f for f in os.listdir(tmp) if f.endswith(".tar.gz")]
        if len(archives) != 1:
            raise Fail(69, "pip gave %d source archives of %s" % (len(archives), PACKAGE))
        with tarfile.open(os.path.join(tmp, archives[0])) as t:
            t.extractall(where, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return source


def configure_and_build(source, build, extra):
    log = build + ".log"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    run(["cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
         *generator, *extra], "configuring llama.cpp", log)
    run(["cmake", "--build", build, "-j", str(os.cpu_count() or 1), "--target", *NEEDED, *PARTS], "building llama.cpp", log)


def works(bench, model):
    """A tiny run: compiled by gcc 12, llama.cpp's AMX code traps even where AMX itself works."""
    cmd = [bench, "-m", model, "-p", "32", "-n", "1", "-r", "1", "-t", "1", "-o", "json"]
    return subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def build_llama(model):
    """Folder of the tools of the first native build that runs here."""
    where = cache_dir()
    for name, flags in (("native", []), ("native-noamx", ["-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16"])):
        build = os.path.join(where, "llama.cpp-%s-%s" % (VERSION, name))
        if not tools_in(build, NEEDED + PARTS):
            say("building llama.cpp (%s) in %s, some minutes" % (name, build))
            extra = ["-DGGML_NATIVE=ON"]
            if flags:  # its own -march=native comes last on the line and would bring AMX back
                line = " ".join(["-march=native"] + flags)
                extra = ["-DGGML_NATIVE=OFF", "-DCMAKE_C_FLAGS=" + line, "-DCMAKE_CXX_FLAGS=" + line]
            configure_and_build(get_source(where), build, extra)
        tools = tools_in(build)
        if not tools:
            raise Fail(69, "%s holds no %s after building; its log lies beside it" % (build, " and ".join(NEEDED)))
        if works(os.path.join(tools, "llama-bench"), requantize(tools, model, "Q8_0")):
            return tools
        say("llama.cpp (%s) does not run here" % name)
    raise Fail(69, "llama.cpp does not run on this machine; see %s" % where)


def requantize(tools, model, kind):
    """The model in another type, in the cache; as-is: itself."""
    if kind == "as-is":
        return model
    target = derived(model, kind + ".gguf")
    if not os.path.exists(target):
        say("requantizing to " + kind)
        run([os.path.join(tools, "llama-quantize"), "--allow-requantize", model, target + ".tmp", kind], "llama-quantize")
        os.replace(target + ".tmp", target)
    return target


def parse_bench(text):
    """llama-bench -o json -> {"pp512": tok/s, "tg64": tok/s, "tg64 d4096": tok/s}."""
    out = {}
    for row in load(text, "llama-bench"):
        try:
            p, n, depth, speed = int(row["n_prompt"]), int(row["n_gen"]), int(row.get("n_depth", 0)), float(row["avg_ts"])
        except (KeyError, TypeError, ValueError):
            raise Fail(69, "llama-bench: a result lacks n_prompt, n_gen or avg_ts")
        if (p > 0) == (n > 0):
            raise Fail(69, "llama-bench: a result is neither prompt nor generation (%d, %d)" % (p, n))
        out[test_name("pp" if p else "tg", p or n, 1, depth)] = positive(speed, "llama-bench")
    return out


def parse_batched(text):
    """llama-batched-bench --output-format jsonl -> {"tg64 b16": tok/s over all sequences}."""
    out = {}
    for row in load("\n".join(x for x in text.splitlines() if x.startswith("{")), "llama-batched-bench"):
        try:
            n, batch, speed = int(row["tg"]), int(row["pl"]), float(row["speed_tg"])
        except (KeyError, TypeError, ValueError):
            raise Fail(69, "llama-batched-bench: a result lacks tg, pl or speed_tg")
        out[test_name("tg", n, batch)] = positive(speed, "llama-batched-bench")
    return out
