"""What is asked of the sandbox, and what it answers."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from qwen2eval.errors import ConfigError

Verdict = Literal[
    "passed", "failed", "error", "timed_out", "out_of_memory", "crashed", "output_limit", "not_run"
]  # of one check
Comparison = Literal["text", "numbers"]
VERDICTS: tuple[str, ...] = get_args(Verdict)

DEFAULT_TIMEOUT_SECONDS = 10.0
DEFAULT_MEMORY_MB = 512
# Characters: it has to fit in one message to the worker
MAX_NAME = 1_000
_NO_PROGRAM = ("SyntaxError:", "IndentationError:", "TabError:", "NameError: the program does not define")


@dataclass(frozen=True)
class Check:
    """One program and what decides on it: `tests` for a function, `expected_stdout` for a whole program.

    Attributes:
        program: source; bytes are read as Python reads a file, with its coding line.
        entry_point: the function that the tests call; `Class.method` is called on one new object.
        tests: source that defines `check(candidate)`, or asserts that call the function by its name.
        setup: trusted source that the tests build upon (imports, helpers of the prompt); runs before them.
        stdin: of a whole program; nothing to read by default.
        expected_stdout: of a whole program; equal up to white space at the ends of lines and of the text. `None`: the
            program only has to end with status 0.
        timeout_seconds: of run time, without waiting for a processor.
        memory_mb: MiB of address space above what the interpreter has.
        compare: `numbers`: lines of what is printed are also equal if they are the same decimal numbers (`1.50` and
            `1.5`), and white space before a line does not count.
    """

    program: str | bytes
    entry_point: str | None = None
    tests: str | None = None
    setup: str = ""
    stdin: str | bytes | None = None
    expected_stdout: str | bytes | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    memory_mb: int = DEFAULT_MEMORY_MB
    compare: Comparison = "text"

    def __post_init__(self) -> None:
        self._refuse_other_types()
        if self.tests is not None and not self.entry_point:
            raise ConfigError("tests need entry_point, the name of the function that they call")
        if len(self.entry_point or "") > MAX_NAME:
            raise ConfigError(f"entry_point of {len(self.entry_point or ''):,} characters: give at most {MAX_NAME:,}")
        if self.tests is not None and (self.stdin is not None or self.expected_stdout is not None):
            raise ConfigError(
                "give tests, or stdin and expected_stdout: a check is of a function or of a whole program"
            )
        if self.tests is None and (self.entry_point or self.setup):
            raise ConfigError("entry_point and setup have no meaning without tests")
        if not 0 < self.timeout_seconds <= 86_400:
            raise ConfigError(f"timeout_seconds {self.timeout_seconds!r}: give seconds above 0, at most a day")
        if not 1 <= self.memory_mb <= 1 << 20:
            raise ConfigError(f"memory_mb {self.memory_mb!r}: give MiB from 1 to {1 << 20:,}")

        if self.compare not in get_args(Comparison):
            raise ConfigError(f"compare {self.compare!r}: give one of {', '.join(get_args(Comparison))}")

    def _refuse_other_types(self) -> None:
        values: dict[str, tuple[Any, Any]] = {
            "program": (self.program, str | bytes),
            "entry_point": (self.entry_point, str | None),
            "tests": (self.tests, str | None),
            "setup": (self.setup, str),
            "stdin": (self.stdin, str | bytes | None),
            "expected_stdout": (self.expected_stdout, str | bytes | None),
            "timeout_seconds": (self.timeout_seconds, int | float),
            "memory_mb": (self.memory_mb, int),
        }
        for name, (value, kinds) in values.items():
            if not isinstance(value, kinds):
                raise ConfigError(f"{name} is a {type(value).__name__}, not {kinds}")


@dataclass(frozen=True)
class Execution:
    """The result of a check.

    Attributes:
        verdict: `passed`; `failed`: a test or the output says no; `error`: an exception, or the program ended by
            itself; `crashed`: ended by a signal; `not_run`: the check itself is broken, the program is not to blame.
        detail: why, for people; empty for `passed`.
        stdout: what the program printed, at most 256 KiB, undecodable bytes replaced.
        stderr: the same of standard error.
        seconds: run time without waiting for a processor.
        max_rss_mb: MiB, the largest of the check's processes, with the interpreter's own.
        level: of the sandbox that ran it.
        separated: whether program and tests were in separate processes; `None` for whole programs.
        retried: whether it was repeated alone, because it ended close to its time limit or lost its worker.
    """

    verdict: Verdict
    detail: str
    stdout: str
    stderr: str
    seconds: float
    max_rss_mb: float
    level: str
    separated: bool | None = None
    retried: bool = False

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"

    @property
    def is_no_program(self) -> bool:
        """Whether there was nothing to test: what was given is not Python, or lacks the function."""
        return self.verdict == "error" and self.detail.startswith(_NO_PROGRAM)
