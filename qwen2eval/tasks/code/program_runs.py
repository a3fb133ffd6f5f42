"""Programs of a task's answers, run in the sandbox: all of them at once, on all cores, each only once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

from qwen2eval.sandbox import Execution

AnyCheck = Any
"""A check of the kind that the task's sandbox runs: `Check` for Python, `CompiledCheck` for other languages."""


class RunsChecks(Protocol):
    """A `Sandbox`, or one for other languages, with its own kind of checks."""

    def check_many(self, checks: Iterable[AnyCheck], /) -> list[Execution]:
        """Run checks and return the result of each."""


MakeSandbox = Callable[[], AbstractContextManager[RunsChecks]]


class ProgramRuns:
    """The results of programs, by keys that the caller chooses.

    Args:
        open_sandbox: opens the sandbox that runs them; called when there is something to run.
    """

    def __init__(self, open_sandbox: MakeSandbox) -> None:
        self._open_sandbox = open_sandbox
        self._done: dict[str, Execution] = {}

    def __getitem__(self, key: str) -> Execution:
        return self._done[key]

    def __contains__(self, key: str) -> bool:
        return key in self._done

    @property
    def level(self) -> str | None:
        """The level that programs ran at; None: none has run."""
        return next((one.level for one in self._done.values() if one.level), None)

    def note_not_run(self, key: str, why: str) -> None:
        """Record that a program can't be run, for a reason outside of it."""
        self._done[key] = Execution("not_run", why, "", "", 0.0, 0.0, level="")

    def run(self, programs: Mapping[str, Sequence[AnyCheck]]) -> None:
        """Run programs, those that ran before not again.

        Args:
            programs: for each key its checks. They are run one after the other until one is not passed: that one is
                the program's result, with the time of all checks.

        Raises:
            SandboxError: no level of the sandbox works on this machine.
        """
        new = {key: list(checks) for key, checks in programs.items() if key not in self._done}
        for key in [key for key, checks in new.items() if not checks]:
            self.note_not_run(key, "there are no tests")
            del new[key]
        if not new:
            return
        with self._open_sandbox() as sandbox:
            n_round = 0
            while waiting := [key for key in new if n_round < len(new[key]) and self._goes_on(key, n_round)]:
                done = sandbox.check_many(new[key][n_round] for key in waiting)
                for key, execution in zip(waiting, done, strict=True):
                    self._done[key] = _joined(self._done.get(key), execution)
                n_round += 1

    def _goes_on(self, key: str, n_round: int) -> bool:
        return n_round == 0 or self._done[key].passed


def _joined(before: Execution | None, last: Execution) -> Execution:
    if before is None:
        return last
    return replace(
        last,
        seconds=before.seconds + last.seconds,
        max_rss_mb=max(before.max_rss_mb, last.max_rss_mb),
        retried=before.retried or last.retried,
    )
