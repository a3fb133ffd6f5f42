"""The process that lives in the sandbox, and of which each check is a fork.

It never sees a program, a test or an expected value: those reach the forks as open files. It obeys the host through a
socket, and ends with everything it started when the host is gone. Started with one argument, a JSON object that
`levels.py` writes.
"""

import array
import contextlib
import ctypes
import fcntl
import gc
import json
import os
import platform
import select
import signal
import socket
import struct
import sys
from types import ModuleType
from typing import NoReturn

if __name__ == "__main__":  # our own modules, and only those: neither packages' __init__ are run
    _here = os.path.dirname(os.path.abspath(__file__))  # pathlib is slow to import
    for _name, _path in (("qwen2eval", None), ("qwen2eval.sandbox", None), ("qwen2eval.sandbox.inside", _here)):
        _package = ModuleType(_name)
        _package.__path__ = [_path] if _path else []
        sys.modules[_name] = _package
    # What modules would do after each fork is for processes with threads, and costs a third of the fork's page faults
    _register_at_fork, os.register_at_fork = os.register_at_fork, lambda **_: None

import random  # after the line above

from qwen2eval.sandbox.inside import candidate, interpreter, landlock, preload, program, seccomp, tester, together
from qwen2eval.sandbox.inside.codec import decode
from qwen2eval.sandbox.inside.limits import MAX_DESCRIPTORS, set_limits
from qwen2eval.sandbox.inside.run_directory import empty_directory, measure_directory
from qwen2eval.sandbox.inside.wire import Channel, Message, read_all

MAX_REQUEST_BYTES, MAX_FDS = 1 << 16, 8
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SETUP_STATUS = 99

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_libc = ctypes.CDLL(None, use_errno=True)


class Zygote:
    """Forks processes for one check at a time, and cleans up after it."""

    def __init__(self, config: Message) -> None:
        self.config = config
        self.control = _open_control(config)
        self.children: list[int] = []
        self.directories = {role: os.path.join(config["box"], role) for role in ("program", "tests")}
        self.rulesets: dict[str, int] = {}
        self.filter: seccomp.Filter | None = None
        self.kept_fds: list[int] = []
        self.listable: list[str] = []
        self.readable: list[str] = []

    def prepare(self) -> None:
        """Make the rules of the forks, give up privileges, and import what programs use."""
        abi = landlock.landlock_abi() if self.config["landlock"] else 0
        if self.config["landlock"] and not abi:
            raise OSError("Landlock is not there, or switched off")
        self._find_interpreter()
        self._give_up_privileges()
        os.environ.update(HOME=self.directories["program"], TMPDIR=self.directories["program"])
        for directory in self.directories.values():
            os.mkdir(directory, 0o700)
        if abi:
            for role, directory in self.directories.items():
                grants = [(path, landlock.READ) for path in self.readable]
                grants += [(path, landlock.READ_DIR) for path in self.listable]
                grants += [(path, landlock.USE_DEVICE) for path in DEVICES]
                self.rulesets[role] = landlock.make_ruleset([*grants, (directory, landlock.READ_WRITE)], abi=abi)
        if self.config["seccomp"]:
            self.filter = seccomp.Filter(seccomp.build_filter(machine=platform.machine(), landlock_abi=abi))
        preload.preload(self.config["packages"])
        os.register_at_fork = _register_at_fork
        gc.collect()
        gc.disable()
        # Forks share these pages as long as nobody writes there
        gc.freeze()

    def _find_interpreter(self) -> None:
        """Set the import path, and keep it reachable when its parents will not be, once root has been given up."""
        folders = interpreter.import_path()
        readable = interpreter.readable_paths(folders)
        if prefix := self.config["prefix_by_fd"]:
            fd = os.open(prefix, os.O_PATH | os.O_DIRECTORY)
            # out of the way of the program's own, but on none that is open: the host's may have any number
            kept = fcntl.fcntl(fd, fcntl.F_DUPFD, MAX_DESCRIPTORS - 1)
            os.close(fd)
            self.kept_fds.append(kept)
            by_fd = f"/proc/self/fd/{kept}"
            folders, readable = ([_moved(path, prefix, by_fd) for path in paths] for paths in (folders, readable))
            for module in list(sys.modules.values()):
                if isinstance(path := getattr(module, "__path__", None), list):
                    path[:] = [_moved(entry, prefix, by_fd) for entry in path]
        packages = self.config["packages_path"]
        found = sorted(os.listdir(packages)) if os.path.isdir(packages) else []
        self.readable = [*readable, *(os.path.realpath(os.path.join(packages, name)) for name in found)]
        sys.path[:] = self.listable = [*folders, packages]
        sys.path_importer_cache.clear()

    def _give_up_privileges(self) -> None:
        uid = self.config["uid"]
        if uid is not None:
            os.chown(self.config["box"], uid, uid)
            if self._has_links():
                os.chown(self.config["packages_path"], uid, uid)
            os.setgroups([])
            # Groups first: after `setresuid` there is no right to change them
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        if self.config["drop_capabilities"]:
            _drop_capabilities()
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_DUMPABLE, 0)
        if not self.config["seccomp"]:
            # Children that a program leaves become ours
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        os.umask(0o077)

    def serve(self) -> None:
        """Do what the host asks until it closes the socket, or is gone."""
        self._reply({"ready": True, "python": platform.python_version()}, [os.pidfd_open(os.getpid())])
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        if not self.config["control_path"]:
            # The pidfd of the host: readable when it has ended
            poll.register(self.config["host_fd"], select.POLLIN)
        while True:
            events = dict(poll.poll())
            if self.config.get("host_fd") in events:
                return
            data, ancillary, _, _ = self.control.recvmsg(MAX_REQUEST_BYTES, socket.CMSG_SPACE(4 * MAX_FDS))
            if not data:
                return
            fds = array.array("i")
            for _, _, part in ancillary:
                fds.frombytes(part)
            self._obey(json.loads(data), list(fds))

    def _obey(self, request: Message, fds: list[int]) -> None:
        if request["do"] == "spawn":
            self._spawn(request, fds)
        elif request["do"] == "usage":
            self._reply({"too_much": any(measure_directory(path).is_too_much for path in self.directories.values())})
        else:
            self._reply({"ended": self.end_check()})

    def _spawn(self, request: Message, fds: list[int]) -> None:
        parent = os.getpid()
        # Here, not in the fork: less is copied
        random.seed()
        try:
            pid = os.fork()
        except OSError as err:
            self._reply({"error": f"fork: {err.strerror}"})
            return
        if pid == 0:
            self._be_child(request, fds, parent)
        # Before anything can fail: `end_check` must find every child
        self.children.append(pid)
        pidfd = os.pidfd_open(pid)
        for fd in fds:
            os.close(fd)
        self._reply({"pid": pid}, [pidfd])

    def _be_child(self, request: Message, fds: list[int], parent: int) -> NoReturn:
        status = SETUP_STATUS
        try:
            self._confine(request, fds, parent)
            status = _ROLES[request["role"]](request, fds)
        finally:
            os._exit(status)

    def _confine(self, request: Message, fds: list[int], parent: int) -> None:
        """Put this fork under all limits; nothing of the check has been read before."""
        # Set before the parent is checked: if it died between fork and here, the signal was never sent
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(SETUP_STATUS)
        role = "tests" if request["role"] == "tester" else "program"
        for source, standard in zip(fds[1:4], range(3), strict=False):
            if role == "program":
                os.dup2(source, standard)
                os.close(source)
        if role == "tests":
            # Nobody reads it; our own stderr is one file for all checks, and would fill up
            os.dup2(1, 2)
        os.chdir(self.directories[role])
        if self.rulesets:
            # Before descriptors are closed: the ruleset is one of them
            landlock.restrict_self(self.rulesets[role])
        _close_all_but([0, 1, 2, *fds, *self.kept_fds])
        set_limits(
            address_space_bytes=request["address_space_bytes"],
            cpu_seconds=request["cpu_seconds"],
            limit_threads=self.config["limit_threads"],
        )
        gc.enable()
        if self.filter:
            # Last: it forbids calls that the set-up above needs
            self.filter.install()

    def end_check(self) -> list[Message]:
        """Kill what still runs, report how each process ended, and empty its directories."""
        ended = []
        for pid in self.children:
            # Its number is its own until it is waited for
            os.kill(pid, signal.SIGKILL)
        for pid in self.children:
            _, status, usage = os.wait4(pid, 0)
            cpu = usage.ru_utime + usage.ru_stime
            ended.append({"status": status, "max_rss_kb": usage.ru_maxrss, "cpu_seconds": cpu})
        self.children.clear()
        self._end_strays()
        for directory in self.directories.values():
            empty_directory(directory)
        return ended

    def _end_strays(self) -> None:
        """Without a filter (level `none`) a program can leave children: they are given to us, and end here."""
        if self.filter:
            return
        for child in _children_of_self():
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def close(self) -> None:
        """End everything and remove the box."""
        self.end_check()
        for directory in self.directories.values():
            os.rmdir(directory)
        if self._has_links():
            empty_directory(self.config["packages_path"])
            os.rmdir(self.config["packages_path"])
        # A mount point, where there are namespaces
        with contextlib.suppress(OSError):
            os.rmdir(self.config["box"])

    def _has_links(self) -> bool:
        """Return whether packages are links in the box, to be removed with it; else they are mounted."""
        return bool(self.config["packages_path"].startswith(self.config["box"] + "/"))

    def _reply(self, message: Message, fds: list[int] | None = None) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        # The host is gone: the next look at the socket shows it
        with contextlib.suppress(OSError):
            self.control.sendmsg([json.dumps(message).encode()], ancillary)
        for fd in fds or []:
            os.close(fd)


def _open_control(config: Message) -> socket.socket:
    if path := config["control_path"]:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.connect(path)
        return control
    return socket.socket(fileno=config["control_fd"])


def _be_candidate(request: Message, fds: list[int]) -> int:
    source, calls, results = fds[0], fds[4], fds[5]
    channel = Channel(calls, results)
    candidate.serve(channel, read_all(source), is_text=request["is_text"], entry_point=request["entry_point"])
    return 0


def _be_tester(_request: Message, fds: list[int]) -> int:
    tests, calls, results, verdict = fds
    message = tester.judge(Channel(results, calls), decode(read_all(tests)))
    os.write(verdict, json.dumps(message).encode() + b"\n")
    return 0


def _be_both(request: Message, fds: list[int]) -> int:
    source, tests, token, verdict = fds[0], fds[4], fds[5], fds[6]
    # Bound before the program runs: it shares this process and may replace both
    write, dumps = os.write, json.dumps
    message = together.judge_together(read_all(source), tests, token, request)
    # Whatever the program put there
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    write(verdict, dumps(message).encode() + b"\n")
    return 0


def _be_program(request: Message, fds: list[int]) -> int:
    return program.run_program(read_all(fds[0]), is_text=request["is_text"])


_ROLES = {"candidate": _be_candidate, "tester": _be_tester, "both": _be_both, "program": _be_program}


def _close_all_but(kept: list[int]) -> None:
    edges = sorted(set(kept))
    for low, high in zip(edges, [*edges[1:], 1 << 20], strict=True):
        if low + 1 < high:
            os.closerange(low + 1, high)


def _moved(path: str, old: str, new: str) -> str:
    return new + path[len(old) :] if path == old or path.startswith(old + "/") else path


def _children_of_self() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _drop_capabilities() -> None:
    """Give up what root may do; nothing is left to drop when its number has been given up as well."""
    # Version 3, this thread; three sets of 64 bits
    header, nothing = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    if _libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(nothing)) != 0:
        raise OSError(ctypes.get_errno(), "capabilities can't be dropped")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def main() -> None:
    """Prepare, serve, leave nothing behind."""
    zygote = Zygote(json.loads(sys.argv[1]))
    sys.argv[:] = ["program.py"]
    zygote.prepare()
    try:
        zygote.serve()
    finally:
        zygote.close()


if __name__ == "__main__":
    main()
