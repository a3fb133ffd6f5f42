# Started for each program: pathlib would take a part of that
# ruff: noqa: PTH100, PTH102, PTH108, PTH118, PTH120, PTH123
"""The first process of a compiled program's sandbox: compiles, runs, reports how each step ended, ends all with itself.

It obeys one JSON argument that `launch.py` writes. Inside namespaces it is process 1: nothing in there can signal it
unless it wants to, and the kernel kills the rest when it ends. It ends when the host does.
"""

import array
import contextlib
import ctypes
import json
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
import time
from types import ModuleType
from typing import NoReturn

# Our own modules, and only those: none of the packages' __init__ is run
if __name__ == "__main__":
    _here = os.path.dirname(os.path.abspath(__file__))
    _shared = sys.argv[2]
    for _name, _path in (
        ("qwen2eval", None),
        ("qwen2eval.sandbox", None),
        ("qwen2eval.sandbox.inside", _shared),
        ("qwen2eval.sandbox.compiled", None),
        ("qwen2eval.sandbox.compiled.inside", _here),
    ):
        _package = ModuleType(_name)
        _package.__path__ = [_path] if _path else []
        sys.modules[_name] = _package

from qwen2eval.sandbox.compiled.inside import forbidden
from qwen2eval.sandbox.inside import landlock, seccomp
from qwen2eval.sandbox.inside.limits import apply_limits
from qwen2eval.sandbox.inside.wire import Message

MAX_DESCRIPTORS, MAX_TASKS = 256, 512
MAX_FILE_BYTES = 64 << 20
# In the box: the file system counts bytes, not files
MAX_FILES = 20_000
LOOK_SECONDS = 0.1
SETUP_STATUS = 99
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_EXECUTE, _MAKE_SOCK, _MAKE_FIFO = 1 << 0, 1 << 9, 1 << 10
_libc = ctypes.CDLL(None, use_errno=True)


class Supervisor:
    """Runs the steps of one program."""

    def __init__(self, config: Message) -> None:
        self.config = config
        self.control = socket.socket(fileno=config["control_fd"])
        self.work = os.path.join(config["box"], "work")
        self.ruleset: int | None = None
        self.filter: seccomp.Filter | None = None

    def prepare(self) -> None:
        """Give up privileges, make the rules of the steps, and put the program in its directory."""
        self._give_up_privileges()
        os.mkdir(self.work, 0o700)
        if self.config["landlock"]:
            abi = landlock.landlock_abi()
            if not abi:
                raise OSError("Landlock is not there, or switched off")
            grants = [(path, landlock.READ | _EXECUTE) for path in self.config["readable"]]
            grants += [(path, landlock.USE_DEVICE) for path in DEVICES]
            rights = landlock.READ_WRITE | _EXECUTE | _MAKE_FIFO | _MAKE_SOCK
            self.ruleset = landlock.make_ruleset([*grants, (self.config["box"], rights)], abi=abi)
        if self.config["seccomp"]:
            self.filter = seccomp.Filter(forbidden.build_filter(machine=platform.machine()))
        with open(self._source, "wb") as file, open(self.config["program_fd"], "rb") as program:
            file.write(program.read())

    @property
    def _source(self) -> str:
        return os.path.join(self.work, self.config["filename"])

    def _give_up_privileges(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        uid = self.config["uid"]
        if uid is not None:
            os.chown(self.config["box"], uid, uid)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        if self.config["drop_capabilities"]:
            # Version 3, this thread
            header, nothing = struct.pack("<Ii", 0x20080522, 0), bytes(24)
            if _libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(nothing)) != 0:
                raise OSError(ctypes.get_errno(), "capabilities can't be dropped")
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_DUMPABLE, 0)
        if not self.config["is_first"]:
            # Children that a program leaves become ours
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        os.umask(0o077)

    def run_steps(self) -> None:
        """Run one step after the other until one fails, or the host is gone."""
        self._report({"ready": True}, [os.pidfd_open(os.getpid())])
        steps = self.config["steps"]
        for number, step in enumerate(steps):
            if number == len(steps) - 1 and number > 0:
                # What holds the token; the compilers may have removed it
                with contextlib.suppress(OSError):
                    os.unlink(self._source)
            ended = self._run(step)
            if ended is None:
                return
            # Before the report: what a step leaves behind must not run beside the next one
            self.end_others()
            self._report({"step": number, **ended})
            if ended["status"] != 0:
                return

    def _run(self, step: Message) -> Message | None:
        """Run one step and return how it ended; None: the host is gone."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic()
        try:
            pid = os.fork()
        except OSError as err:
            return {"status": SETUP_STATUS << 8, "error": f"fork: {err.strerror}", "max_rss_kb": 0, "cpu_seconds": 0.0}
        if pid == 0:
            self._be_step(step)
        ended: Message = {}
        while (status := _reap(pid)) is None:
            if self._host_is_gone():
                return None
            if self._has_too_many_files():
                # Noted before the kill: the status alone would look like a crash
                ended["too_many_files"] = True
                # Not waited for yet: the number is its own
                os.kill(pid, signal.SIGKILL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        seconds = time.monotonic() - started
        return {**ended, "status": status, "max_rss_kb": after.ru_maxrss, "cpu_seconds": cpu, "wall_seconds": seconds}

    def _host_is_gone(self) -> bool:
        """Wait a moment for the end of a child, unless the host has ended or hung up."""
        poll = select.poll()
        for fd in (self.control.fileno(), self.config["host_fd"]):
            poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + LOOK_SECONDS
        pause = 0.001
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(1000 * min(pause, left)):
                return True
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return False
            pause = min(2 * pause, 0.01)
        return False

    def _has_too_many_files(self) -> bool:
        if not self.config["is_first"]:
            # The file system is not the program's own: counting would count others' files
            return False
        found = os.statvfs(self.config["box"])
        return found.f_files - found.f_ffree > MAX_FILES

    def _be_step(self, step: Message) -> NoReturn:
        try:
            self._confine(step)
            os.execve(step["argv"][0], step["argv"], step["env"])  # noqa: S606 - what this process is for
        except OSError as err:
            os.write(2, f"{step['argv'][0]}: {err.strerror or err}\n".encode())
        finally:
            os._exit(SETUP_STATUS)

    def _confine(self, step: Message) -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)
        # Ignored by Python or by us
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(self.work)
        nothing = os.open("/dev/null", os.O_RDONLY)
        for source, standard in ((nothing, 0), (step["stdout_fd"], 1), (step["stderr_fd"], 2)):
            os.dup2(source, standard)
        if self.ruleset is not None:
            landlock.restrict_self(self.ruleset)
        os.closerange(3, 1 << 20)
        _set_limits(cpu_seconds=step["cpu_seconds"], limit_tasks=self.config["limit_tasks"])
        if self.filter is not None:
            self.filter.install()

    def end_others(self) -> None:
        """Kill all that a step left behind, and wait for it."""
        if self.config["is_first"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-1, 0)
        while children := _children_of_self():
            for pid in children:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def _report(self, message: Message, fds: list[int] | None = None) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        # The host is gone: the next look shows it
        with contextlib.suppress(OSError):
            self.control.sendmsg([json.dumps(message).encode()], ancillary)
        for fd in fds or []:
            os.close(fd)


def _set_limits(*, cpu_seconds: int, limit_tasks: bool) -> None:
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_NOFILE: MAX_DESCRIPTORS,
    }
    if limit_tasks:
        limits[resource.RLIMIT_NPROC] = MAX_TASKS
    apply_limits(limits)


def _reap(pid: int) -> int | None:
    """Wait for all that has ended, orphans included; return the status of `pid` if it was among them."""
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended in (0, pid):
            return status if ended else None


def _children_of_self() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def main() -> None:
    """Run the steps; whatever happens, nothing is left."""
    supervisor = Supervisor(json.loads(sys.argv[1]))
    supervisor.prepare()
    try:
        supervisor.run_steps()
    finally:
        supervisor.end_others()


if __name__ == "__main__":
    main()
