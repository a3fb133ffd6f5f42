"""Sandboxes of each level, and another user to run things as."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qwen2eval.sandbox import STRONG_LEVELS, Sandbox
from qwen2eval.sandbox.inside.landlock import landlock_abi
from qwen2eval.sandbox.levels import BWRAP, IMAGE_VARIABLE
from qwen2eval.sandbox.probe import probe

NOBODY = 65_534
REPOSITORY = Path(__file__).resolve().parents[2]


def skip_without(level):
    """Skip if this machine lacks what the level needs; if it lacks nothing, a level that does not work is a failure."""
    found = probe(level)
    if not found.works:
        has_namespaces = (
            level != BWRAP
            or subprocess.run(
                ["sh", "-c", "bwrap --unshare-pid --unshare-net --ro-bind / / true"], check=False, capture_output=True
            ).returncode
            == 0
        )
        assert not (has_namespaces and landlock_abi()), found.reason
        pytest.skip(f"{level} does not work here: {found.reason}")


@pytest.fixture(scope="session", params=STRONG_LEVELS)
def sandbox(request):
    """Return an open sandbox, of each strong level in turn."""
    skip_without(request.param)
    with Sandbox(request.param) as opened:
        yield opened


@pytest.fixture(scope="session")
def any_sandbox():
    """Return an open sandbox of the strongest level."""
    with Sandbox() as opened:
        yield opened


def run_as(user, script, *arguments, **variables):
    """Run one of the scripts beside this file as `user`: "caller" or "ordinary"."""
    command = [sys.executable]
    if user == "ordinary":
        if os.geteuid() != 0:
            pytest.skip("the caller is an ordinary user already; another one needs root")
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", readable_python()]
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(REPOSITORY), **variables}
    env |= {name: os.environ[name] for name in (IMAGE_VARIABLE,) if name in os.environ}
    command += [str(Path(__file__).parent / script), *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/")


def readable_python():
    """Return an interpreter that any user may start; ours may lie in a private folder."""
    # setpriv itself still may go anywhere: the started interpreter must find its library, and start another
    test = (
        "import json, subprocess, sys\n"
        "sys.exit(sys.version_info < (3, 11) or subprocess.call([sys.executable, '-c', '']))"
    )
    for python in (os.path.realpath(sys.executable), shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python or "", "-c", test]
        if python and subprocess.run(command, check=False, capture_output=True, cwd="/").returncode == 0:
            return python
    pytest.skip("no Python 3.11 or newer here may be started by another user than root")
    return ""
