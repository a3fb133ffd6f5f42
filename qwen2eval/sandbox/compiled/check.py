"""What is asked of the sandbox of compiled programs."""

from dataclasses import dataclass
from typing import Any

from qwen2eval.errors import ConfigError
from qwen2eval.sandbox.compiled.languages import LANGUAGES
from qwen2eval.sandbox.execution import DEFAULT_TIMEOUT_SECONDS

DEFAULT_MEMORY_MB = 1_024


@dataclass(frozen=True)
class CompiledCheck:
    """One program of any language, and the tests that are put behind it.

    Attributes:
        program: source; may end in the middle of a function or class that the tests close.
        language: a key of `LANGUAGES`.
        tests: source in MultiPL-E's form. Without it the program only has to end with status 0.
        timeout_seconds: of run time, without compiling and without waiting for a processor.
        memory_mb: MiB of physical memory of the program and all it starts, shared pages counted for each.
    """

    program: str | bytes
    language: str
    tests: str = ""
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    memory_mb: int = DEFAULT_MEMORY_MB

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ConfigError(f"language {self.language!r}: give one of {', '.join(LANGUAGES)}")
        given: dict[str, tuple[Any, Any]] = {"program": (self.program, str | bytes), "tests": (self.tests, str)}
        for name, (value, kinds) in given.items():
            if not isinstance(value, kinds):
                raise ConfigError(f"{name} is a {type(value).__name__}, not {kinds}")
        if not 0 < self.timeout_seconds <= 86_400:
            raise ConfigError(f"timeout_seconds {self.timeout_seconds!r}: give seconds above 0, at most a day")
        if not 1 <= self.memory_mb <= 1 << 20:
            raise ConfigError(f"memory_mb {self.memory_mb!r}: give MiB from 1 to {1 << 20:,}")
