"""How the sandbox of one compiled program is started: its command, its config, its processes."""

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen2eval.sandbox.compiled.languages import Language
from qwen2eval.sandbox.compiled.toolchains import Toolchain
from qwen2eval.sandbox.inside.seccomp import ARCHITECTURES
from qwen2eval.sandbox.levels import (
    BWRAP,
    DROPPED_UID,
    FLAGS,
    INSIDE,
    SandboxError,
    bwrap_command,
    shared_tempdir,
    uid_of_programs,
)
from qwen2eval.sandbox.worker import above_standard, socket_pair

HERE = Path(__file__).parent / "inside"
# Of files, in memory
BOX_BYTES = 256 << 20
_END_SECONDS = 5.0
# Links by which /usr/bin names compilers on Debian
_ETC = (Path("/etc/alternatives"),)
_READABLE = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc", "/proc")


@dataclass(frozen=True)
class Step:
    """One command: `stdout` and `stderr` are descriptors to write to."""

    argv: tuple[str, ...]
    timeout_seconds: float
    memory_mb: int
    stdout: int
    stderr: int


@dataclass
class Started:
    """A sandbox that runs: the socket by which its first process reports, and the process that we are parent of."""

    control: socket.socket
    process: "subprocess.Popen[bytes]"
    messages: int

    def end(self) -> None:
        """Hang up, by which the sandbox ends itself with all that runs in it, and wait until it has."""
        self.control.close()
        try:
            self.process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def last_words(self) -> str:
        """Return the last line that the sandbox itself wrote, once it has ended."""
        lines = os.pread(self.messages, 1 << 16, 0).decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else "it ended without a word"


def commands_of(language: Language, toolchain: Toolchain) -> list[tuple[str, ...]]:
    """Return the commands that compile and run a program, with the paths of this machine."""
    made = []
    for command in (*language.compile, language.run):
        first = toolchain.commands.get(command[0], command[0])
        made.append((first, *(word.format_map(toolchain.files) for word in command[1:])))
    return made


@contextlib.contextmanager
def started(
    level: str, language: Language, toolchain: Toolchain, steps: list[Step], program: int, *, slot: int
) -> Iterator[Started]:
    """Start a sandbox; on leaving, it and all that ran in it are gone.

    Args:
        level: `bwrap+landlock+seccomp`, or `none`.
        program: a descriptor of the source.
        slot: a number that no other sandbox of this process has at the time: root gives each its own user.

    Raises:
        SandboxError: bwrap is not installed, or there is no filter for this machine.
    """
    if level == BWRAP and (platform.system() != "Linux" or platform.machine() not in ARCHITECTURES):
        raise SandboxError(f"{level}: there is no filter of system calls for {platform.machine()}")
    host, messages = above_standard(os.pidfd_open(os.getpid())), os.memfd_create("stderr")
    ours, theirs = socket_pair()
    box = "/box" if level == BWRAP else tempfile.mkdtemp(prefix="qwen2eval-sandbox-", dir=shared_tempdir())
    config = _config(level, language, toolchain, steps, box, slot=slot)
    config.update(control_fd=theirs.fileno(), host_fd=host, program_fd=program)
    passed = {theirs.fileno(), host, program, *(fd for step in steps for fd in (step.stdout, step.stderr))}
    sandbox = None
    try:
        process = subprocess.Popen(
            [*_command(level, toolchain), json.dumps(config), "/code" if level == BWRAP else str(INSIDE)],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            pass_fds=tuple(passed),
            start_new_session=True,
            cwd=os.sep,
        )
        sandbox = Started(ours, process, messages)
        theirs.close()
        yield sandbox
    finally:
        theirs.close()
        ours.close()
        if sandbox is not None:
            sandbox.end()
        os.close(host)
        os.close(messages)
        if level != BWRAP:
            shutil.rmtree(box, ignore_errors=True)


def _config(
    level: str, language: Language, toolchain: Toolchain, steps: list[Step], box: str, *, slot: int
) -> dict[str, Any]:
    uid = uid_of_programs()
    is_root = os.geteuid() == 0
    folders = [str(Path(path).parent) for path in toolchain.commands.values()]
    env = {
        "PATH": ":".join(dict.fromkeys([*folders, "/usr/bin", "/bin"])),
        "HOME": box,
        "TMPDIR": box,
        "LANG": "C.UTF-8",
        **{name: value.format(box=box) for name, value in language.env.items()},
    }
    return {
        "box": box,
        "uid": None if uid is None else DROPPED_UID - 1 - slot,
        "drop_capabilities": is_root,
        "landlock": level == BWRAP,
        "seccomp": level == BWRAP,
        "is_first": level == BWRAP,
        "limit_tasks": level == BWRAP and (uid is not None or not is_root),
        "readable": [*_READABLE, *map(str, toolchain.folders)],
        "filename": language.filename,
        "steps": [
            {
                "argv": list(step.argv),
                "env": env,
                "cpu_seconds": 10 * int(step.timeout_seconds) + 5,
                "stdout_fd": step.stdout,
                "stderr_fd": step.stderr,
            }
            for step in steps
        ],
    }


def _command(level: str, toolchain: Toolchain) -> list[str]:
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)
    if level != BWRAP:
        return [python, *FLAGS, str(HERE / "supervisor.py")]
    # shells open /dev/fd/N for `<(...)`; Java and Mono find themselves in /proc
    options = ["--as-pid-1", "--proc", "/proc", "--ro-bind", str(HERE), "/compiled", "--symlink", "/box"]
    options += ["/tmp"]  # noqa: S108 - its own
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        options += ["--symlink", f"/proc/self/{target}", f"/dev/{name}"]
    prefix = Path(os.path.realpath(sys.base_prefix))
    folders = [*toolchain.folders, *(path for path in _ETC if path.exists())]
    bwrap = bwrap_command(prefix, (), root=os.geteuid() == 0, folders=folders, options=options, box_bytes=BOX_BYTES)
    return [*bwrap, python, *FLAGS, "/compiled/supervisor.py"]
