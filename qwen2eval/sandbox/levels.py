"""The levels of protection, strongest first, and how a worker of each is started.

`bwrap+landlock+seccomp`: namespaces by bubblewrap (own file tree, processes, network), Landlock, a seccomp filter.
`landlock+seccomp`: the same without namespaces; where these are forbidden, as in most containers.
`container`: a container of docker or podman, and Landlock and seccomp inside; when asked for.
`none`: limits only; never chosen automatically.
"""

import functools
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qwen2eval.errors import ConfigError, Qwen2EvalError
from qwen2eval.exit_codes import ExitCode
from qwen2eval.sandbox.inside.limits import MAX_THREADS
from qwen2eval.sandbox.inside.seccomp import ARCHITECTURES

BWRAP, LANDLOCK, CONTAINER, NONE = "bwrap+landlock+seccomp", "landlock+seccomp", "container", "none"
LEVELS = (BWRAP, LANDLOCK, CONTAINER, NONE)
# What `auto` accepts
STRONG_LEVELS = (BWRAP, LANDLOCK)
ALIASES = {"bwrap": BWRAP, "landlock": LANDLOCK}
IMAGE_VARIABLE, DEFAULT_IMAGE = "QWEN2EVAL_SANDBOX_IMAGE", "python:3.11-slim"
# Of all processes of a worker; each check has its own limit
CONTAINER_MEMORY_MB = 4_096

BOX_BYTES = 80 << 20  # of the namespace's own file system
DROPPED_UID = 64_999  # what root becomes: a number that nothing else uses
INSIDE = Path(__file__).parent / "inside"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
    # Else each thread reserves 64 MB of the address space that is limited
    "MALLOC_ARENA_MAX": "1",
}
FLAGS = ("-S", "-s", "-P", "-B", "-X", "utf8")


class SandboxError(Qwen2EvalError):
    """No level of protection works here, or the one that was asked for does not: what was tried, and what helps."""

    exit_code = ExitCode.MISSING_DATA


@dataclass(frozen=True)
class Launch:
    """How to start a worker: the command and the zygote's config.

    Attributes:
        box: a directory of this machine to remove afterwards.
        socket_path: where the zygote calls from a container, which inherits no descriptors.
    """

    command: list[str]
    config: dict[str, Any]
    box: Path | None
    socket_path: Path | None = None


def level_name(name: str) -> str:
    """Return the full name of a level, or `auto`.

    Raises:
        ConfigError: there is no such level.
    """
    full = ALIASES.get(name, name)
    if full not in (*LEVELS, "auto"):
        raise ConfigError(f"sandbox level {name!r}: give auto, {', '.join(LEVELS)}")
    return full


def uid_of_programs() -> int | None:
    """Return the user that programs run as if the caller is root, `None` if they run as the caller.

    In a user namespace that has one user only, root can become nobody else; its capabilities are dropped then.
    """
    if os.geteuid() != 0:
        return None
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return DROPPED_UID if any(first <= DROPPED_UID < first + size for first, _, size in ranges) else None


def prepare_launch(level: str, packages: Sequence[str] = ()) -> Launch:
    """Return how to start a worker of this level on this machine.

    Raises:
        SandboxError: the machine is of another kind, or a program that is needed is not installed.
        ConfigError: one of `packages`, which programs may import, is not installed.
    """
    if platform.system() != "Linux":
        raise SandboxError(f"{level}: needs Linux, this is {platform.system()}")
    if level != NONE and platform.machine() not in ARCHITECTURES:
        raise SandboxError(f"{level}: there is no filter of system calls for {platform.machine()}")
    root = os.geteuid() == 0
    config: dict[str, Any] = {
        "box": "/box",
        "uid": uid_of_programs(),
        "drop_capabilities": root,
        "landlock": level != NONE,
        "seccomp": level != NONE,
        "limit_threads": uid_of_programs() is not None
        # Where the kernel counts ours alone
        or (level == BWRAP and not root),
        "prefix_by_fd": None,
        "control_path": None,
        "packages": list(packages),
        "packages_path": "/packages",
    }
    folders = [folder for name in packages for folder in _package_folders(name)]
    # The interpreter behind a virtual environment, whose links the sandbox would not have
    executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)
    prefix = Path(os.path.realpath(sys.base_prefix))
    if level == BWRAP:
        return Launch([*bwrap_command(prefix, folders, root=root), executable, *FLAGS, "/code/zygote.py"], config, None)
    box = Path(tempfile.mkdtemp(prefix="qwen2eval-sandbox-", dir=shared_tempdir()))
    if level == CONTAINER:
        config.update(uid=None, drop_capabilities=False, limit_threads=True, control_path="/control/socket")
        return Launch(
            [*_container_command(box, folders), "python3", *FLAGS, "/code/zygote.py"], config, box, box / "socket"
        )
    config.update(box=str(box), packages_path=str(box / "packages"))
    (box / "packages").mkdir()
    for folder in folders:
        (box / "packages" / folder.name).symlink_to(folder)
    if root and not _others_may_enter(prefix):
        config["prefix_by_fd"] = str(prefix)
    return Launch([executable, *FLAGS, str(INSIDE / "zygote.py")], config, box)


def _package_folders(name: str) -> list[Path]:
    """Return the folder of an installed package, and that of the libraries that its wheel brought."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"package {name!r} for programs is not installed (a folder with __init__.py)")
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    return [folder, *(path for path in [folder.with_name(f"{name}.libs")] if path.is_dir())]


def bwrap_command(
    prefix: Path,
    packages: Sequence[Path],
    *,
    root: bool,
    folders: Sequence[Path] = (),
    options: Sequence[str] = (),
    box_bytes: int = BOX_BYTES,
) -> list[str]:
    """Return the command before which a program is put to run it in its own namespaces.

    Args:
        prefix: of the Python installation.
        packages: folders to be seen in `/packages`.
        root: the caller is root.
        folders: to be seen where they are, though only root may be able to enter those above them.
        options: further ones of bwrap.
        box_bytes: size of `/box`, the only place that can be written.

    Raises:
        SandboxError: bwrap is not installed.
    """
    # the system's own first: a distribution's AppArmor profile is for that one
    search = sorted(os.environ.get("PATH", os.defpath).split(os.pathsep), key=lambda folder: folder != "/usr/bin")
    bwrap = shutil.which("bwrap", path=os.pathsep.join(search))
    if bwrap is None:
        raise SandboxError("bwrap is not installed (Debian, Ubuntu, Fedora: package `bubblewrap`)")
    command = [bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    # As root there is no user namespace: its inside user would be root outside. The zygote gives root up instead.
    command += [] if root else ["--unshare-user", "--disable-userns"]
    command += ["--new-session", "--hostname", "sandbox", "--chdir", "/", "--ro-bind", "/usr", "/usr"]
    for name in ("/lib", "/lib64", "/lib32", "/bin"):
        path = Path(name)
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            command += ["--ro-bind", name, name]
    for path in (prefix, *folders):
        if not path.is_relative_to("/usr"):
            # Made by bwrap itself, only root could enter them
            for folder in reversed(path.parents[:-1]):
                command += ["--perms", "0755", "--dir", str(folder)]
            command += ["--ro-bind", str(path), str(path)]
    for name in ("/etc/ld.so.cache", "/etc/localtime"):
        command += ["--ro-bind-try", name, name]
    command += ["--ro-bind", str(INSIDE), "/code", "--perms", "0755", "--dir", "/packages"]
    for folder in packages:
        command += ["--ro-bind", str(folder), f"/packages/{folder.name}"]
    command += ["--perms", "0755", "--dir", "/dev"]
    for device in ("null", "zero", "full", "random", "urandom"):
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    return [*command, *options, "--size", str(box_bytes), "--tmpfs", "/box", "--remount-ro", "/", "--"]


@functools.cache
def _container_engine() -> str:
    """Return the first of docker and podman that answers: a client may be there without its daemon."""
    said = []
    for name in ("docker", "podman"):
        if engine := shutil.which(name):
            asked = subprocess.run([engine, "info"], capture_output=True, text=True, errors="replace", check=False)
            if asked.returncode == 0:
                return engine
            said.append(f"{name}: {asked.stderr.strip()[-300:]}")
    raise SandboxError("; ".join(said) or "neither docker nor podman is installed")


def _container_command(box: Path, packages: list[Path]) -> list[str]:
    try:
        engine = _container_engine()
    except SandboxError:
        shutil.rmtree(box)
        raise
    box.chmod(0o755)
    command = [engine, "run", "--rm", "--network", "none", "--read-only", "--user", f"{DROPPED_UID}:{DROPPED_UID}"]
    command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", str(MAX_THREADS)]
    command += ["--memory", f"{CONTAINER_MEMORY_MB}m", "--tmpfs", f"/box:rw,nosuid,nodev,mode=1777,size={BOX_BYTES}"]
    command += ["--volume", f"{INSIDE}:/code:ro", "--volume", f"{box}:/control", "--workdir", "/"]
    for folder in packages:
        command += ["--volume", f"{folder}:/packages/{folder.name}:ro"]
    # the official images have their Python in /usr/local
    for name, value in {**ENVIRONMENT, "PATH": f"/usr/local/bin:{ENVIRONMENT['PATH']}"}.items():
        command += ["--env", f"{name}={value}"]
    return [*command, os.environ.get(IMAGE_VARIABLE) or DEFAULT_IMAGE]


def shared_tempdir() -> str:
    """Return a directory for temporary files that the unprivileged user can reach, too."""
    for name in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108  # a new directory is made in it
        if os.geteuid() != 0 or _others_may_enter(Path(name)):
            return name
    return tempfile.gettempdir()


def _others_may_enter(path: Path) -> bool:
    """Return whether a user without any privileges can reach what lies in this directory."""
    resolved = path.resolve()
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (resolved, *resolved.parents))
