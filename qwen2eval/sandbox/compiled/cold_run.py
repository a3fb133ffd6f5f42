"""One program in one fresh sandbox: compiled, run, watched, and what is decided on it."""

import contextlib
import json
import os
import select
import signal
import socket
from dataclasses import dataclass, field

from qwen2eval.sandbox.clock import BUSY_SHARE
from qwen2eval.sandbox.compiled.check import CompiledCheck
from qwen2eval.sandbox.compiled.languages import LANGUAGES, Language
from qwen2eval.sandbox.compiled.launch import Started, Step, commands_of, started
from qwen2eval.sandbox.compiled.toolchains import find_toolchain
from qwen2eval.sandbox.compiled.tree import MAX_PROCESSES, TreeClock
from qwen2eval.sandbox.execution import Execution, Verdict
from qwen2eval.sandbox.inside.wire import Message
from qwen2eval.sandbox.levels import BWRAP
from qwen2eval.sandbox.supervise import Descriptors, Outcome
from qwen2eval.sandbox.verdict import KEPT_BYTES, MAX_PRINTED_BYTES, PRINTED_TOO_MUCH, Stream, as_bytes, signal_name
from qwen2eval.sandbox.worker import Forked

COMPILE_MEMORY_MB = 2_048
LOOK_SECONDS = 0.05
START_SECONDS = 20.0
MAX_MESSAGE_BYTES = 1 << 16
_WORDS_OF_NO_MEMORY = ("OutOfMemoryError", "std::bad_alloc", "heap out of memory", "Allowed memory size")


@dataclass
class _Run:
    """A program that is under way."""

    steps: list[Step]
    compiler: Stream
    stdout: Stream
    stderr: Stream
    sandbox: Forked | None = None
    clock: TreeClock | None = None
    ended: list[Message] = field(default_factory=list)
    peak_rss_mb: float = 0.0
    stopped: tuple[Verdict, str] | None = None
    lost: str = ""

    @property
    def step(self) -> Step:
        """The step under way, or the one that was the last."""
        n_well = len([ended for ended in self.ended if ended["status"] == 0])
        return self.steps[min(n_well, len(self.steps) - 1)]

    @property
    def what(self) -> str:
        return "it" if self.step is self.steps[-1] else "the compiler"

    def begin_step(self) -> None:
        assert self.sandbox is not None, "the first process sends its number before any step begins"
        if self.clock is not None:
            self.peak_rss_mb = max(self.peak_rss_mb, self.clock.peak_rss_mb)
        self.clock = TreeClock(self.step.timeout_seconds, self.sandbox.pid)


def run_cold(level: str, check: CompiledCheck, *, slot: int) -> Outcome:
    """Compile and run one program.

    Args:
        slot: a number that no other run of this process has meanwhile.

    Raises:
        NoToolchainError: the language can't be run on this machine.
        SandboxError: the sandbox can't be started.
    """
    language, toolchain = LANGUAGES[check.language], find_toolchain(check.language)
    # New for each run: a program that prints the word of another run proves nothing
    token = os.urandom(16).hex()
    tests = language.with_finish(check.tests, token) if check.tests else None
    source = as_bytes(check.program) + b"\n" + as_bytes(check.tests if tests is None else tests)
    with Descriptors() as descriptors:
        (compiler, far_compiler) = descriptors.stream(MAX_PRINTED_BYTES)
        (stdout, far_out), (stderr, far_err) = (descriptors.stream(MAX_PRINTED_BYTES) for _ in range(2))
        steps = [
            Step(command, language.compile_seconds, COMPILE_MEMORY_MB, far_compiler, far_compiler)
            for command in commands_of(language, toolchain)[:-1]
        ]
        last = commands_of(language, toolchain)[-1]
        steps.append(Step(last, float(check.timeout_seconds), check.memory_mb, far_out, far_err))
        run = _Run(steps, compiler, stdout, stderr)
        try:
            with started(level, language, toolchain, steps, descriptors.file(source), slot=slot) as sandbox:
                _watch(sandbox, run)
                # The kernel ends the rest with it
                if run.sandbox is not None and level == BWRAP:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(run.sandbox.pidfd, signal.SIGKILL)
                sandbox.end()
                # After the end of the sandbox: only then has it written its last message
                run.lost = run.lost and sandbox.last_words()
        finally:
            if run.sandbox is not None:
                run.sandbox.close()
        for stream in (compiler, stdout, stderr):
            while stream.read():
                pass
    return _outcome(level, check, run, language, token=None if tests is None else token)


def _watch(sandbox: Started, run: _Run) -> None:
    """Read what comes until the last step has ended, or one must be stopped."""
    streams = {stream.fd: stream for stream in (run.compiler, run.stdout, run.stderr)}
    poll = select.poll()
    for fd in (sandbox.control.fileno(), *streams):
        poll.register(fd, select.POLLIN)
    next_look = 0.0
    while True:
        events = poll.poll(1000 * (LOOK_SECONDS if run.clock else START_SECONDS))
        if not events and run.clock is None:
            run.lost = "no answer"
            return
        for fd, _ in events:
            if fd == sandbox.control.fileno():
                if _hear(sandbox.control, run):
                    return
                next_look = 0.0
            elif not streams[fd].read():
                # A closed pipe is always readable: it would turn the loop into a busy one
                poll.unregister(fd)
        if any(stream.n_bytes >= MAX_PRINTED_BYTES for stream in streams.values()):
            run.stopped = "output_limit", PRINTED_TOO_MUCH
        elif run.clock is not None and run.clock.wall_seconds >= next_look:
            run.stopped = _look(run, run.clock)
            next_look = run.clock.wall_seconds + LOOK_SECONDS
        if run.stopped:
            return


def _hear(control: socket.socket, run: _Run) -> bool:
    """Take a message of the sandbox; return whether it was the last."""
    try:
        data, fds, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
    except OSError as err:
        data, fds, run.lost = b"", [], str(err)
    if not data:
        run.lost = run.lost or "ended"
        return True
    message = json.loads(data)
    if fds:
        run.sandbox = Forked(fds[0])
    else:
        run.ended.append(message)
        if message["status"] != 0 or len(run.ended) == len(run.steps):
            return True
    run.begin_step()
    return False


def _look(run: _Run, clock: TreeClock) -> tuple[Verdict, str] | None:
    """Return why the step must be stopped now, if it must."""
    usage = clock.look()
    if usage.rss_mb > run.step.memory_mb:
        return "out_of_memory", f"{run.what} needed more than {run.step.memory_mb} MiB"
    if usage.n_processes > MAX_PROCESSES:
        return "error", f"{run.what} started more than {MAX_PROCESSES} processes"
    # threads that wait while others of the same program run would stop the clock for ever
    is_busy = clock.cpu_seconds > 2 * clock.stop_seconds
    if is_busy or clock.run_seconds() > clock.stop_seconds or clock.wall_seconds > clock.max_wall_seconds:
        return "timed_out", f"{run.what} ran longer than {run.step.timeout_seconds:g} s"
    return None


def _outcome(level: str, check: CompiledCheck, run: _Run, language: Language, *, token: str | None) -> Outcome:
    seconds = wait = wall = 0.0
    if run.clock is not None and run.step is run.steps[-1]:
        wait = run.clock.wait_seconds()
        wall = run.ended[-1]["wall_seconds"] if len(run.ended) == len(run.steps) else run.clock.wall_seconds
        seconds = max(0.0, wall - wait)
    verdict, detail = _decide(run, language, token)
    if check.tests and token is None:
        detail = f"{detail} (where the tests end was not found: an early exit would not be noticed)".strip()
    peaks = [run.peak_rss_mb, run.clock.peak_rss_mb if run.clock else 0.0]
    peaks += [ended["max_rss_kb"] / 1024 for ended in run.ended]
    printed = bytes(run.stdout.kept).replace((token or "").encode() + b"\n", b"", 1) if token else run.stdout.kept
    messages = run.stderr if run.stderr.n_bytes else run.compiler
    execution = Execution(
        verdict=verdict,
        detail=detail,
        stdout=printed[:KEPT_BYTES].decode(errors="replace"),
        stderr=messages.kept[:KEPT_BYTES].decode(errors="replace"),
        seconds=seconds,
        max_rss_mb=max(peaks),
        level=level,
        separated=False,
    )
    if verdict == "timed_out":
        return Outcome(execution, wait > BUSY_SHARE * wall)
    return Outcome(execution, seconds > check.timeout_seconds)


def _decide(run: _Run, language: Language, token: str | None) -> tuple[Verdict, str]:
    if run.stopped:
        return run.stopped
    if run.lost or not run.ended:
        return "crashed", f"the sandbox was lost: {run.lost}"
    last = run.ended[-1]
    if last.get("too_many_files"):
        return "output_limit", "it wrote too many files"
    status = last["status"]
    if len(run.ended) < len(run.steps):
        return "error", f"it does not compile: {_first_error(run.compiler)}"
    said = b"\n".join((run.stderr.kept, run.stdout.kept)).decode(errors="replace")
    # Some test runners report failures and still end with status 0
    is_against = any(word.encode() in run.stderr.kept for word in language.words_against)
    if status == 0 and not is_against and not (language.must_be_quiet and run.stderr.n_bytes):
        if any(line.lstrip().startswith(language.words_of_failure) for line in said.splitlines()):
            return _decide_failure(status, said, run, language)
        if token is None or token.encode() in run.stdout.kept:
            return "passed", ""
        return "error", "it ended before the tests were done"
    return _decide_failure(status, said, run, language)


def _decide_failure(status: int, said: str, run: _Run, language: Language) -> tuple[Verdict, str]:
    """Return in which way a program did not pass; its own messages are believed here."""
    line = _last_line(run.stderr) or _last_line(run.stdout)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGXFSZ):
        is_time = os.WTERMSIG(status) == signal.SIGXCPU
        return ("timed_out", "it used too much processor time") if is_time else ("output_limit", "a file is too large")
    if any(word in said for word in _WORDS_OF_NO_MEMORY):
        return "out_of_memory", line
    if any(word in said for word in language.words_of_failure):
        found = [text for text in said.splitlines() if any(word in text for word in language.words_of_failure)]
        return "failed", (found or [line])[0].strip()[:500]
    if os.WIFSIGNALED(status):
        return "crashed", f"ended by {signal_name(os.WTERMSIG(status))}"
    if not run.stderr.n_bytes and language.silent_failure:
        return "failed", "a test failed"
    return "error", line or f"it ended with status {os.waitstatus_to_exitcode(status)}"


def _first_error(stream: Stream) -> str:
    lines = [line.strip() for line in stream.kept.decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no message")[:500]


def _last_line(stream: Stream) -> str:
    return stream.kept.decode(errors="replace").strip().rpartition("\n")[2][:500]
