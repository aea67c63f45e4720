"""Packages from the Python index for one test: a virtual environment in the cache folder, made once."""
import os
import shutil
import subprocess
import sys
import tempfile

import company


def folder(name):
    base = os.environ.get("XDG_CACHE_HOME", "")
    cache = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    return os.path.join(cache, "troupe", "%s-%d.%d" % (name, *sys.version_info[:2]))


def make(home, packages):
    """The folder is complete once it has its name."""
    os.makedirs(os.path.dirname(home), exist_ok=True)
    new = tempfile.mkdtemp(prefix="venv", dir=os.path.dirname(home))
    pip = [os.path.join(new, "bin", "python"), "-m", "pip", "install", "-q", "--retries", "0", "--timeout", "10", *packages]
    try:
        for command in ([sys.executable, "-m", "venv", new], pip):
            subprocess.run(command, check=True, capture_output=True, timeout=240)
        os.rename(new, home)
    except (OSError, subprocess.SubprocessError) as e:
        shutil.rmtree(new, ignore_errors=True)
        if not os.path.exists(home):  # else another run was faster
            company.skip("%s cannot be had: %s" % (" ".join(packages), e))


def enter(script, name, packages):
    """Run the script again by an interpreter that has the packages; skips the test where they cannot be had."""
    home = folder(name)
    if sys.prefix == home:
        company.skip("the packages in %s cannot be used: remove the folder" % home)
    if not os.path.exists(home):
        make(home, packages)
    python = os.path.join(home, "bin", "python")
    os.execv(python, [python, "-B", os.path.abspath(script)])
