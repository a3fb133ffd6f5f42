"""Decides the verdict of a check. The host decides; no message of the program counts by itself."""

import contextlib
import json
import os
import signal
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from qwen2eval.sandbox.clock import RunClock
from qwen2eval.sandbox.execution import Check, Verdict
from qwen2eval.sandbox.inside.program import MEMORY_STATUS
from qwen2eval.sandbox.inside.wire import Message
from qwen2eval.sandbox.worker import Forked

# Of each of stdout and stderr
KEPT_BYTES = 256 << 10
MAX_PRINTED_BYTES = 16 * KEPT_BYTES
PRINTED_TOO_MUCH = f"it printed more than {MAX_PRINTED_BYTES >> 20} MiB"


class InseparableError(Exception):
    """The tests pass what can't be carried to another process: run them together."""


@dataclass
class Stream:
    """What is read from one pipe: the first bytes are kept, the rest is counted."""

    fd: int
    limit: int
    kept: bytearray = field(default_factory=bytearray)
    n_bytes: int = 0

    def read(self) -> bool:
        """Read what is there; return False if there is nothing, or nothing more."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return False
        self.n_bytes += len(data)
        if len(self.kept) < self.limit:
            self.kept += data[: self.limit - len(self.kept)]
        return bool(data)


@dataclass
class Run:
    """A check that is under way."""

    clock: RunClock
    stdout: Stream
    stderr: Stream
    verdict: Stream | None
    processes: list[Forked] = field(default_factory=list)
    stopped: Verdict | None = None
    why: str = ""
    # By itself, not because the check was over
    candidate_ended: bool = True

    @property
    def has_printed_too_much(self) -> bool:
        return any(stream.n_bytes > stream.limit + MAX_PRINTED_BYTES for stream in (self.stdout, self.stderr))


def decide(check: Check, run: Run, ended: list[Message], *, token: bytes | None) -> tuple[Verdict, str]:
    """Return verdict and detail from what this side knows: its own limits, the tester's word, how processes ended."""
    if run.stopped:
        return run.stopped, run.why
    if run.has_printed_too_much:
        return "output_limit", PRINTED_TOO_MUCH
    if check.tests is None:
        return _decide_program(check, run, ended[0])
    message = tester_message(run)
    if token is None and message.get("verdict") == "inseparable":
        raise InseparableError(str(message.get("detail")))
    said, detail = message.get("verdict"), str(message.get("detail", ""))
    if said == "passed" and (token is None or message.get("token") == token.hex()):
        return "passed", ""
    if said in ("failed", "error", "out_of_memory") or (said == "not_run" and token is None):
        # A program must not call itself not run
        return said, detail
    if said == "lost" or token is not None:
        return _decide_lost(run, ended[0], "the program ended itself before the tests were done", detail)
    return _decide_lost(run, ended[-1], "the tests' process ended before the tests were done", "")


def tester_message(run: Run) -> Message:
    """Return what the tester said, empty if it said nothing."""
    if run.verdict is None or not run.verdict.kept:
        return {}
    with contextlib.suppress(ValueError, RecursionError):
        message = json.loads(run.verdict.kept)
        if isinstance(message, dict):
            return message
    return {}


def _decide_lost(run: Run, process: Message, ended_itself: str, detail: str) -> tuple[Verdict, str]:
    """Return the verdict when a process is gone, or has broken the protocol, before there was one."""
    if process["cpu_seconds"] >= run.clock.stop_seconds:
        return "timed_out", f"it used more than {run.clock.timeout_seconds:g} s of processor time"
    if not run.candidate_ended:
        return "error", detail or "the program closed the channel of its results"
    status = process["status"]
    if os.WIFSIGNALED(status) and not detail:
        return "crashed", f"ended by {signal_name(os.WTERMSIG(status))}"
    return "error", detail or f"{ended_itself} (status {os.waitstatus_to_exitcode(status)})"


def _decide_program(check: Check, run: Run, process: Message) -> tuple[Verdict, str]:
    status = process["status"]
    last_line = run.stderr.kept.decode(errors="replace").strip().rpartition("\n")[2][:500]
    if os.WIFSIGNALED(status):
        return _decide_lost(run, process, "", "")
    code = os.waitstatus_to_exitcode(status)
    if code == MEMORY_STATUS and last_line.startswith("MemoryError"):
        return "out_of_memory", f"it needed more than {check.memory_mb} MiB"
    if code != 0:
        return "error", last_line or f"it ended with status {code}"
    if check.expected_stdout is None:
        return "passed", ""
    if run.stdout.n_bytes > len(run.stdout.kept):
        return "output_limit", f"it printed more than {len(run.stdout.kept) >> 10} KiB, far more than expected"
    same = same_numbers if check.compare == "numbers" else same_text
    if same(bytes(run.stdout.kept), as_bytes(check.expected_stdout)):
        return "passed", ""
    return "failed", "it printed something else"


def same_text(printed: bytes, expected: bytes) -> bool:
    r"""Return whether two texts are equal but for white space at the ends of lines and of the text.

    >>> same_text(b"1 2  \n\n", b"1 2"), same_text(b"12", b"1 2")
    (True, False)
    """
    return _without_ends(printed) == _without_ends(expected)


def same_numbers(printed: bytes, expected: bytes) -> bool:
    r"""Return whether the lines of two texts are equal, or the same decimal numbers.

    >>> same_numbers(b" 1.50 2\nyes", b"1.5 2.0\nyes\n"), same_numbers(b"1.5000001", b"1.5")
    (True, False)
    """
    lines, wanted = (text.decode(errors="replace").strip().split("\n") for text in (printed, expected))
    return len(lines) == len(wanted) and all(map(_same_line, lines, wanted))


def _same_line(line: str, wanted: str) -> bool:
    if line.strip() == wanted.strip():
        return True
    try:
        # Decimal, not float, which would round numbers of many digits to the same value
        numbers, wanted_numbers = ([Decimal(part) for part in text.split()] for text in (line, wanted))
    except InvalidOperation:
        return False
    # NaN and infinity are words here, and were compared as text above
    return all(number.is_finite() for number in numbers) and numbers == wanted_numbers


def as_bytes(text: str | bytes) -> bytes:
    """Return UTF-8, with lone surrogates as they are."""
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def signal_name(number: int) -> str:
    """Return `SIGSEGV` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _without_ends(text: bytes) -> list[bytes]:
    return [line.rstrip() for line in text.rstrip().split(b"\n")]
