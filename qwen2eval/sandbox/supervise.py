"""One check on one worker: descriptors, processes, limits; `verdict.py` decides on the result."""

import os
import select
from dataclasses import dataclass

from qwen2eval.sandbox.clock import BUSY_SHARE, RunClock
from qwen2eval.sandbox.execution import Check, Execution
from qwen2eval.sandbox.inside.codec import encode
from qwen2eval.sandbox.inside.limits import MAX_THREADS
from qwen2eval.sandbox.inside.wire import Message
from qwen2eval.sandbox.separation import examine_tests
from qwen2eval.sandbox.verdict import KEPT_BYTES, PRINTED_TOO_MUCH, Run, Stream, as_bytes, decide, tester_message
from qwen2eval.sandbox.worker import Forked, Worker, above_standard

MAX_VERDICT_BYTES = 1 << 20
ENDING_SECONDS = 0.5  # from closed pipes to the end of a process
LOOK_SECONDS = 0.25  # between two looks at the clock and at the disk
COMPILE_BYTES = 256  # for each character of the tests
TOKEN_BYTES = 16


@dataclass
class Outcome:
    """An execution, and whether it should be repeated alone before it is believed."""

    execution: Execution
    is_borderline: bool = False


class Descriptors:
    """Opens what a check needs; on leaving, all are closed."""

    def __init__(self) -> None:
        self.open: set[int] = set()

    def __enter__(self) -> "Descriptors":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self.open:
            os.close(fd)

    def file(self, data: bytes) -> int:
        """Return a file in memory that holds `data`, at its start."""
        fd = above_standard(os.memfd_create("check", os.MFD_CLOEXEC))
        self.open.add(fd)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def pipe(self) -> tuple[int, int]:
        near, far = os.pipe2(os.O_CLOEXEC)
        ends = above_standard(near), above_standard(far)
        self.open.update(ends)
        return ends

    def stream(self, limit: int) -> tuple[Stream, int]:
        """Return the stream that reads a new pipe, and the end to write to."""
        near, far = self.pipe()
        os.set_blocking(near, False)
        return Stream(near, limit), far

    def nothing(self) -> int:
        fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.open.add(fd)
        return fd

    def close(self, *fds: int) -> None:
        for fd in fds:
            os.close(fd)
            self.open.discard(fd)


def run_check(worker: Worker, check: Check, *, together: str | None) -> Outcome:
    """Run one check on a worker that has nothing else to do.

    Args:
        together: why program and tests have to share a process, `None` if they need not.

    Raises:
        InseparableError: `together` is `None`, but an argument of the tests can't be carried.
        WorkerLostError: the worker is gone, and must be replaced.
    """
    with Descriptors() as descriptors:
        clock = RunClock(float(check.timeout_seconds))
        expected = as_bytes(check.expected_stdout or b"")
        # More than the expected output takes: only output that is far longer is not compared
        (stdout, out), (stderr, err) = (
            descriptors.stream(KEPT_BYTES + 2 * len(expected)),
            descriptors.stream(KEPT_BYTES),
        )
        # Drawn for each check: a program can't have seen it in an earlier one
        token = os.urandom(TOKEN_BYTES)
        run = Run(clock, stdout, stderr, None)
        try:
            asked = _ask_for_processes(worker, check, run, descriptors, (out, err), token=token if together else None)
            for _ in range(asked):
                run.processes.append(worker.forked())
                clock.pids.append(run.processes[-1].pid)
            _watch(worker, run)
            if not run.stopped and (together or tester_message(run).get("verdict") == "lost"):
                run.candidate_ended = _ends_soon(run.processes[0])
            wait = clock.wait_seconds()
            seconds = clock.run_seconds()
            wall = clock.wall_seconds
            ended = worker.end_check()
        finally:
            for process in run.processes:
                process.close()
        _read_rest(run)
    verdict, detail = decide(check, run, ended, token=token if together else None)
    if together:
        detail = f"{detail} (program and tests in one process: {together})".strip()
    execution = Execution(
        verdict=verdict,
        detail=detail,
        stdout=stdout.kept[:KEPT_BYTES].decode(errors="replace"),
        stderr=stderr.kept.decode(errors="replace"),
        seconds=seconds,
        max_rss_mb=max(process["max_rss_kb"] for process in ended) / 1024,
        level=worker.level,
        separated=None if check.tests is None else together is None,
    )
    return Outcome(execution, _is_borderline(execution, clock, busy=wait > BUSY_SHARE * wall))


def _is_borderline(execution: Execution, clock: RunClock, *, busy: bool) -> bool:
    """A run that ended by itself after its limit, or was stopped while others used the machine."""
    if execution.verdict == "timed_out":
        return busy
    return execution.seconds > clock.timeout_seconds


def _ask_for_processes(
    worker: Worker,
    check: Check,
    run: Run,
    descriptors: Descriptors,
    outputs: tuple[int, int],
    *,
    token: bytes | None,
) -> int:
    """Ask the worker for the processes of a check and return how many.

    The zygote gets the tests' file with a separate request, so it does not have it when it forks the candidate.
    """
    is_text = isinstance(check.program, str)
    program = descriptors.file(as_bytes(check.program))
    request: Message = {
        "role": _role(check, token),
        "is_text": is_text,
        "entry_point": check.entry_point,
        "address_space_bytes": worker.base_bytes + (check.memory_mb << 20),
        # The kernel's limit is only a backstop for the clock here, so it comes later; it counts whole seconds
        "cpu_seconds": int(run.clock.stop_seconds) + 2,
    }

    if check.tests is None:
        worker.ask_to_fork(request, [program, descriptors.file(as_bytes(check.stdin or b"")), *outputs])
        descriptors.close(*outputs)
        return 1
    job: Message = {"tests": check.tests, "setup": check.setup, "entry_point": check.entry_point}
    job["defines_check"] = examine_tests(check).defines_check
    run.verdict, verdict = descriptors.stream(MAX_VERDICT_BYTES)
    if token is not None:
        token_out, token_in = descriptors.pipe()
        os.write(token_in, token)
        fds = [program, descriptors.nothing(), *outputs, descriptors.file(encode(job)), token_out, verdict]
        worker.ask_to_fork(request, fds)
        descriptors.close(*outputs, verdict)
        return 1
    calls, results = descriptors.pipe(), descriptors.pipe()
    worker.ask_to_fork(request, [program, descriptors.nothing(), *outputs, calls[0], results[1]])
    # Our copies of the ends must go: a pipe has an end only when nobody can write to it any more
    descriptors.close(*outputs, calls[0], results[1])
    tests = descriptors.file(encode(job))
    # compiling large tests takes memory, which is not the program's
    room = request["address_space_bytes"] + COMPILE_BYTES * (len(check.tests) + len(check.setup))
    request |= {"role": "tester", "address_space_bytes": room}
    worker.ask_to_fork(request, [tests, calls[1], results[0], verdict])
    descriptors.close(calls[1], results[0], verdict)
    return 2


def _role(check: Check, token: bytes | None) -> str:
    """Return what the first process of a check does: only a process that also runs the tests has a token."""
    if check.tests is None:
        return "program"
    return "candidate" if token is None else "both"


def _watch(worker: Worker, run: Run) -> None:
    """Read what comes until the check has ended or must be stopped."""
    poll = select.poll()
    streams = {stream.fd: stream for stream in (run.stdout, run.stderr, run.verdict) if stream is not None}
    for fd in (*streams, *(process.pidfd for process in run.processes)):
        poll.register(fd, select.POLLIN)
    last = run.processes[-1].pidfd
    next_look = min(LOOK_SECONDS, run.clock.stop_seconds)
    while True:
        # At least 1 ms: 0 would spin, and a negative time-out would wait forever
        for fd, _ in poll.poll(max(1.0, (next_look - run.clock.wall_seconds) * 1000)):
            if fd == last:
                return
            if fd not in streams or not streams[fd].read():
                poll.unregister(fd)
        # The newline is written last: without it the message may be half a message
        if run.verdict is not None and run.verdict.kept.endswith(b"\n"):
            return
        if run.has_printed_too_much:
            run.stopped, run.why = "output_limit", PRINTED_TOO_MUCH
            return
        wall = run.clock.wall_seconds
        if wall < next_look:
            continue
        seconds = run.clock.run_seconds()
        if seconds > run.clock.stop_seconds or wall > run.clock.max_wall_seconds:
            run.stopped, run.why = "timed_out", f"it ran longer than {run.clock.timeout_seconds:g} s"
            return
        next_look = wall + min(LOOK_SECONDS, run.clock.stop_seconds - seconds + 0.001)
        if any(n_threads(pid) > MAX_THREADS for pid in run.clock.pids):
            run.stopped, run.why = "error", f"it started more than {MAX_THREADS} threads"
            return
        if worker.uses_too_much_disk():
            run.stopped, run.why = "output_limit", "it wrote too much, or too many files"
            return


def _ends_soon(process: Forked) -> bool:
    """Return whether a process ends: its pipes are closed before, so what ended it is not known at once."""
    poll = select.poll()
    poll.register(process.pidfd, select.POLLIN)
    return bool(poll.poll(ENDING_SECONDS * 1000))


def _read_rest(run: Run) -> None:
    """Read what is left in the pipes; the processes are gone, so there is an end."""
    for stream in (run.stdout, run.stderr, run.verdict):
        while stream is not None and stream.read():
            pass


def n_threads(pid: int) -> int:
    """Return the number of threads of a process, 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123  # several times a second
            return int(file.read().rpartition(")")[2].split()[17])
    except OSError:
        return 0
