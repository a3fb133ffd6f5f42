"""Which level works on this machine: each is tried by running programs in it, never by version numbers."""

import functools
from dataclasses import dataclass

from qwen2eval.sandbox.execution import Check
from qwen2eval.sandbox.levels import NONE, STRONG_LEVELS, SandboxError, level_name
from qwen2eval.sandbox.supervise import run_check
from qwen2eval.sandbox.worker import Worker, WorkerLostError

_HARMLESS = Check("def f(x):\n    return [x, 2.5]", entry_point="f", tests="assert f('a') == ['a', 2.5]")
_HARMFUL = """
import os, socket
def f(what):
    try:
        if what == "read":
            open("/etc/passwd").close()
        elif what == "write":
            open("/tmp/qwen2eval-probe", "w").close()
        elif what == "fork":
            if os.fork() == 0:
                os._exit(0)
        elif what == "socket":
            socket.socket()
        elif what == "kill":
            os.kill(os.getppid(), 0)
    except OSError:
        return "refused"
    return "done"
"""
_ATTEMPTS = ("read", "write", "fork", "socket", "kill")
LAST_RESORT = (
    "Level `none` runs programs without protection. It is never chosen automatically; use disposable machines."
)


@dataclass(frozen=True)
class Probe:
    """The result of trying one level: `works`, and the reason if it does not."""

    level: str
    works: bool
    reason: str


@functools.cache
def probe(level: str) -> Probe:
    """Start a worker of this level, run a harmless program and one that tries what is forbidden."""
    try:
        worker = Worker(level)
    except SandboxError as err:
        return Probe(level, False, str(err))
    try:
        ran = run_check(worker, _HARMLESS, together=None).execution
        if ran.verdict != "passed":
            return Probe(level, False, f"{level}: a harmless program came out as {ran.verdict}: {ran.detail}")
        if level != NONE:
            for what in _ATTEMPTS:
                tests = f"assert f({what!r}) == 'refused'"
                tried = run_check(worker, Check(_HARMFUL, entry_point="f", tests=tests), together=None).execution
                if tried.verdict != "passed":
                    return Probe(level, False, f"{level}: a program was not kept from: {what} ({tried.detail})")
    except WorkerLostError as err:
        return Probe(level, False, f"{level}: the worker was lost: {err}")
    finally:
        worker.close()
    return Probe(level, True, "")


def choose_level(name: str) -> str:
    """Return the level to use: the named one if it works, for `auto` the strongest.

    Raises:
        SandboxError: none works; level `none` is never chosen automatically.
        ConfigError: there is no such level.
    """
    wanted = level_name(name)
    tried = []
    for level in STRONG_LEVELS if wanted == "auto" else (wanted,):
        found = probe(level)
        if found.works:
            return level
        tried.append(found.reason)
    raise SandboxError(
        "\n".join(["programs of a model can't be run safely here. Tried:", *tried, *fixes(tried), LAST_RESORT])
    )


def fixes(reasons: list[str]) -> list[str]:
    """Return what helps against these reasons, a line each."""
    text = "\n".join(reasons)
    found = []
    if "not installed" in text:
        found.append("Install bubblewrap: `apt install bubblewrap`, `dnf install bubblewrap`.")
    if "uid map" in text or "RTM_NEWADDR" in text:
        found.append(
            "Ubuntu 24.04 and later: use the distribution's /usr/bin/bwrap, which has an AppArmor profile, or "
            "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`."
        )
    if "new namespace" in text or "Operation not permitted" in text:
        found.append(
            "In a container: allow namespaces (docker run --security-opt seccomp=unconfined), or have Landlock."
        )
    if "Landlock" in text:
        found.append("Landlock: Linux 5.13 or newer with `landlock` in the kernel's `lsm=` list.")
    return found
