"""The sandbox for programs in any language: a fresh one for each program, as many at a time as there are cores."""

import contextlib
import functools
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Self

from qwen2eval.errors import ConfigError
from qwen2eval.sandbox.compiled.check import DEFAULT_MEMORY_MB, CompiledCheck
from qwen2eval.sandbox.compiled.cold_run import run_cold
from qwen2eval.sandbox.compiled.hello import HELLO
from qwen2eval.sandbox.compiled.languages import LANGUAGES
from qwen2eval.sandbox.compiled.toolchains import NoToolchainError
from qwen2eval.sandbox.execution import DEFAULT_TIMEOUT_SECONDS, Execution
from qwen2eval.sandbox.levels import BWRAP, NONE, SandboxError, level_name
from qwen2eval.sandbox.probe import probe
from qwen2eval.sandbox.supervise import Outcome

_HELLO_SECONDS, _HELLO_MEMORY_MB = 20.0, 1_024


class CompiledSandbox:
    """Compiles and runs programs that nobody trusts; it may be shared between threads.

    Compilers start processes, so only namespaces can contain them: a language is run at the level
    `bwrap+landlock+seccomp`, or unprotected at `none`, which must be set explicitly. Where it can't be run at all
    (another level, no compiler), its programs come out as `not_run`, with the reason.

    Args:
        level: as `Sandbox` takes it; `auto` is `bwrap+landlock+seccomp`.
        workers: programs at a time; one a core by default.

    Raises:
        ConfigError: there is no such level.
    """

    def __init__(self, level: str = "auto", *, workers: int | None = None) -> None:
        wanted = level_name(level)
        self.level = BWRAP if wanted == "auto" else wanted
        self.n_workers = len(os.sched_getaffinity(0)) if workers is None else workers
        if self.n_workers < 1:
            raise ConfigError(f"workers {workers!r}: give 1 or more")

    def why_not(self, language: str) -> str | None:
        """Return why programs of a language can't be run here, None if they can: one is compiled and run to know."""
        return _why_not(self.level, language)

    def check(
        self,
        program: str | bytes,
        *,
        language: str,
        tests: str = "",
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        memory_mb: int = DEFAULT_MEMORY_MB,
    ) -> Execution:
        """Compile and run one program and return the result; the arguments are those of `CompiledCheck`.

        Raises:
            ConfigError: arguments that make no check.
        """
        return self.check_many([CompiledCheck(program, language, tests, timeout_seconds, memory_mb)])[0]

    def check_many(
        self, checks: Iterable[CompiledCheck], *, on_done: Callable[[int, Execution], None] | None = None
    ) -> list[Execution]:
        """Run checks on all cores and return the result of each, in the order given.

        Args:
            on_done: called with index and execution of each as it is finished, from any thread.
        """
        asked = list(checks)
        outcomes: list[Outcome | None] = [None] * len(asked)

        def run(index: int) -> None:
            outcomes[index] = outcome = self._run(asked[index])
            if on_done and not outcome.is_borderline:
                on_done(index, outcome.execution)

        threads = ThreadPoolExecutor(self.n_workers)
        try:
            list(threads.map(run, range(len(asked))))
        finally:
            # After an error or Ctrl-C the rest is not waited for
            threads.shutdown(cancel_futures=True)
        done = []
        for index, outcome in enumerate(outcomes):
            assert outcome is not None, "each check has an outcome, or its error was raised"
            done.append(outcome.execution)
            if outcome.is_borderline:
                done[-1] = self._run_alone(asked[index])
                if on_done:
                    on_done(index, done[-1])
        return done

    def _run_alone(self, check: CompiledCheck) -> Execution:
        """Repeat a check whose time was close to its limit, with no other of the same call beside it."""
        execution = self._run(check).execution
        if execution.verdict == "passed" and execution.seconds > check.timeout_seconds:
            late = f"it ran {execution.seconds:.2f} s of {check.timeout_seconds:g} s"
            execution = replace(execution, verdict="timed_out", detail=late)
        return replace(execution, retried=True)

    def _run(self, check: CompiledCheck) -> Outcome:
        if why := self.why_not(check.language):
            return Outcome(Execution("not_run", why, "", "", 0.0, 0.0, self.level, separated=False))
        with _slot() as slot:
            return run_cold(self.level, check, slot=slot)

    def close(self) -> None:
        """Do nothing: between two calls nothing is kept."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_lock = threading.Lock()
_free_slots: "queue.PriorityQueue[int]" = queue.PriorityQueue()
for _number in range(256):
    _free_slots.put(_number)


@contextlib.contextmanager
def _slot() -> Iterator[int]:
    slot = _free_slots.get()
    try:
        yield slot
    finally:
        _free_slots.put(slot)


def _why_not(level: str, language: str) -> str | None:
    # Two threads would compile the same program
    with _lock:
        return _probe(level, language)


@functools.cache
def _probe(level: str, name: str) -> str | None:
    title = LANGUAGES[name].title
    if level not in (BWRAP, NONE):
        return f"{title} can't be run at the level {level}: compilers start processes, which needs {BWRAP}"
    if not (found := probe(level)).works:
        return f"{title} can't be run here: compilers start processes, which needs {BWRAP}; {found.reason}"
    program, tests = HELLO[name]
    hello = CompiledCheck(program, name, tests, _HELLO_SECONDS, _HELLO_MEMORY_MB)
    try:
        with _slot() as slot:
            ran = run_cold(level, hello, slot=slot).execution
    except (NoToolchainError, SandboxError) as err:
        return f"{title} can't be run here: {err}"
    if ran.verdict == "passed":
        return None
    said = " ".join([ran.detail, ran.stderr.strip()[:300]]).strip()
    return f"{title} can't be run here: a first program came out as {ran.verdict}: {said}"
