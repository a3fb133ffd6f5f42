"""One sandboxed zygote, seen from the host: start it, have it fork, end what it forked."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from qwen2eval.sandbox.inside.wire import Message
from qwen2eval.sandbox.levels import ENVIRONMENT, SandboxError, prepare_launch

START_SECONDS = 20.0
REPLY_SECONDS = 20.0
# An engine may have to fetch the image
CONTAINER_SECONDS = 120.0
MAX_REPLY_BYTES = 1 << 16


class WorkerLostError(Exception):
    """The zygote does not answer any more."""


class Forked:
    """A process of a check: its number here, and a descriptor that stays its own when the number is given again."""

    def __init__(self, pidfd: int) -> None:
        self.pidfd = pidfd
        self.pid = _pid_of(pidfd)

    def close(self) -> None:
        os.close(self.pidfd)


class Worker:
    """A zygote in a sandbox of the given level.

    Raises:
        SandboxError: it does not start; the message has the kernel's or bubblewrap's own words.
    """

    def __init__(self, level: str, packages: Sequence[str] = ()) -> None:
        self.level = level
        self.n_checks = 0
        self._launch = prepare_launch(level, packages)
        self._messages = os.memfd_create("stderr")
        try:
            self.control, self._process = self._start()
        except BaseException:
            self._remove_traces()
            raise
        try:
            reply, fds = self._receive(START_SECONDS)
            # Its first message carries its pidfd: the process that we started may be bwrap or a container engine
            zygote = Forked(fds[0])
        except (WorkerLostError, IndexError):
            words = self._last_words()
            self.close()
            raise SandboxError(f"{level}: {words or 'the worker did not start'}") from None
        self.python = str(reply["python"])
        self.pid = zygote.pid
        zygote.close()
        self.base_bytes = self.memory_pages(0)
        self.start_resident_bytes = self.memory_pages(1)

    def _start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        """Start the zygote and return the socket by which it obeys, and its process."""
        ours, theirs = socket_pair()
        # Readable when this process has ended: so the zygote notices even a kill -9
        host = above_standard(os.pidfd_open(os.getpid()))
        config = {**self._launch.config, "control_fd": theirs.fileno(), "host_fd": host}
        path = self._launch.socket_path
        listener = _listen(path) if path else None
        try:
            process = subprocess.Popen(
                [*self._launch.command, json.dumps(config)],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._messages,
                pass_fds=() if path else (theirs.fileno(), host),
                # A Ctrl-C in the terminal reaches the host only, which ends its workers in order
                start_new_session=True,
                cwd="/",
            )
            if listener is not None:
                ours.close()
                ours = _accept(listener, process)
        except OSError as err:
            ours.close()
            raise SandboxError(f"{self.level}: {err}") from err
        finally:
            theirs.close()
            os.close(host)
            if listener is not None:
                listener.close()
        return ours, process

    def ask_to_fork(self, request: Message, fds: list[int]) -> None:
        """Have the zygote fork a process of a check, which gets duplicates of `fds`; `forked` returns it.

        Raises:
            WorkerLostError: the zygote is gone.
        """
        self._send({"do": "spawn", **request}, fds)

    def forked(self) -> Forked:
        """Return the next of the processes that were asked for.

        Raises:
            WorkerLostError: the zygote is gone or can't fork.
        """
        reply, received = self._receive(REPLY_SECONDS)
        if not received:
            raise WorkerLostError(reply.get("error", "no process"))
        return Forked(received[0])

    def end_check(self) -> list[Message]:
        """Kill what is left of the check and return, for each process in order, wait status, KiB and CPU seconds."""
        self.n_checks += 1
        reply, _ = self._ask({"do": "end"})
        return list(reply["ended"])

    def uses_too_much_disk(self) -> bool:
        """Return whether the program has written more, or more files, than it may."""
        return bool(self._ask({"do": "usage"})[0]["too_much"])

    def _ask(self, request: Message) -> tuple[Message, list[int]]:
        self._send(request, [])
        return self._receive(REPLY_SECONDS)

    def _send(self, request: Message, fds: list[int]) -> None:
        try:
            socket.send_fds(self.control, [json.dumps(request).encode()], fds)
        except OSError as err:
            raise WorkerLostError(str(err)) from None

    def _receive(self, seconds: float) -> tuple[Message, list[int]]:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        if not poll.poll(seconds * 1000):
            raise WorkerLostError("no answer")
        try:
            # One datagram is one message (SOCK_SEQPACKET), so no length is needed
            data, fds, _, _ = socket.recv_fds(self.control, MAX_REPLY_BYTES, 4)
        except OSError as err:
            raise WorkerLostError(str(err)) from None
        if not data:
            raise WorkerLostError("ended")
        return json.loads(data), fds

    def memory_pages(self, field: int) -> int:
        """Return bytes of a field of the zygote's statm: 0 for address space, 1 for resident."""
        with open(f"/proc/{self.pid}/statm") as file:  # noqa: PTH123  # a hundred times a second
            return int(file.read().split()[field]) * os.sysconf("SC_PAGESIZE")

    def interrupt(self) -> None:
        """Have the zygote end; a thread that waits for it has lost its worker."""
        # Closed meanwhile
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the zygote and all it started, and remove its directory."""
        self.control.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._remove_traces()

    def _remove_traces(self) -> None:
        os.close(self._messages)
        if self._launch.box is not None:
            # The zygote has emptied it, unless it was killed
            with contextlib.suppress(RecursionError):
                shutil.rmtree(self._launch.box, ignore_errors=True)

    def _last_words(self) -> str:
        """Return what the worker wrote, of a traceback the last line, after giving it a moment to end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        lines = os.pread(self._messages, 1 << 16, 0).decode(errors="replace").strip().splitlines()
        is_traceback = any(line.startswith("Traceback") for line in lines)
        return (lines[-1] if is_traceback else " ".join(lines))[:500]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, of which the second can be given to a process that is started."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours, socket.socket(fileno=above_standard(theirs.detach()))


def above_standard(fd: int) -> int:
    """Return a descriptor, or what takes its place if it is 0, 1 or 2: a process that is started has its own of those.

    They are given out where a service's host has closed its input and output.
    """
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    # The container's user is another one; the directory has a name that nobody can guess
    path.chmod(0o777)
    listener.listen(1)
    listener.settimeout(0.2)
    return listener


def _accept(listener: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket:
    """Return the connection from the container, or an unconnected socket if it has ended before."""
    deadline = time.monotonic() + CONTAINER_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            connection = listener.accept()[0]
            connection.settimeout(None)
            return connection
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _pid_of(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
