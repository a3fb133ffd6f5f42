"""Tasks whose answers are programs: each is run against the doc's tests in the sandbox, and pass@k counted.

YAML selects it with `class:`; a filter of `scoring.programs` turns responses into complete programs. All of a task's
programs run at once, on all cores, before its docs are scored.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import comb
from typing import Any, TypeVar

from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask

from qwen2eval.errors import Qwen2EvalError, TaskFileError
from qwen2eval.requests import Doc
from qwen2eval.sandbox import Check, Execution, Sandbox
from qwen2eval.tasks.code.program_runs import AnyCheck, ProgramRuns
from qwen2eval.tasks.protocols import Responses
from qwen2eval.typed_json import JsonObject

T = TypeVar("T")
PACKAGES = ("numpy",)
"""What programs may import besides the standard library: answers do, and EvalPlus' tests."""


class CodeTask(ConfigurableTask):
    """A task whose docs have `entry_point`, `prompt` and `test`, as HumanEval's.

    Tests are source of `check(candidate)`, or asserts that call the function by its name.

    What the tests may use besides is the doc's `setup`, where it has that column, else its `prompt`.

    `metadata`: `k`, a list of how many tries pass@k is about (1 by default); `timeout_seconds` and `memory_mb` of one
    program; `packages`, what programs and tests may import besides the standard library (numpy); `test_column`, another
    column for `test`.
    """

    PROGRAMS_AT_ONCE = 1 << 20
    """Programs whose tests are in memory together."""

    def __init__(self, config: JsonObject) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        super().__init__(config=config)
        metadata = self.config.metadata
        level = str(metadata.get("sandbox") or "auto")
        packages = tuple(metadata.get("packages", PACKAGES))
        self._limits = {
            "timeout_seconds": float(metadata.get("timeout_seconds", 10)),
            "memory_mb": int(metadata.get("memory_mb", 512)),
        }
        self._test_column = str(metadata.get("test_column", "test"))
        self._k = tuple(int(k) for k in metadata.get("k", (1,)))
        if max(self._k) > (repeats := int(self.config.repeats or 1)):
            raise TaskFileError(
                f"Task {self.task_name!r}: pass@{max(self._k)} needs as many answers, and `repeats` is {repeats}"
            )
        self._runs = ProgramRuns(lambda: Sandbox(level, packages=packages))

    def aggregation(self) -> dict[str, Any]:
        """Return how each pass@k is aggregated: as a mean over docs."""
        return {f"pass@{k}": mean for k in self._k}

    def higher_is_better(self) -> dict[str, bool]:
        """Return that more is better."""
        return {f"pass@{k}": True for k in self._k}

    @property
    def sandbox_level(self) -> str | None:
        """The level that programs ran at; None: none has run."""
        return self._runs.level

    def run_programs(self, answered: Iterable[tuple[Doc, Responses]]) -> None:
        """Run the programs of docs, all at once; those that ran before are not run again.

        Args:
            answered: docs, each with what `process_results` gets.

        Raises:
            SandboxError: no level of the sandbox works on this machine.
        """
        programs = {self.key(doc, program): (doc, program) for doc, results in answered for program in results[0]}
        new = {key: pair for key, pair in programs.items() if key not in self._runs}
        for some in batched(new.items(), self.PROGRAMS_AT_ONCE):
            self._runs.run(dict(self._checks_of(some)))

    def _checks_of(self, programs: Iterable[tuple[str, tuple[Doc, str]]]) -> Iterator[tuple[str, Sequence[AnyCheck]]]:
        """Yield the checks of programs; of a doc whose tests can't be read, record that they were not run."""
        for key, (doc, program) in programs:
            try:
                yield key, self.checks(doc, program)
            except (Qwen2EvalError, ValueError) as err:
                self._runs.note_not_run(key, str(err))

    def executions(self, doc: Doc, results: Responses) -> list[Execution]:
        """Return the results of a doc's programs, in the order of the responses."""
        self.run_programs([(doc, results)])
        return [self._runs[self.key(doc, program)] for program in results[0]]

    def process_results(self, doc: Doc, results: Responses) -> dict[str, float]:
        """Return pass@k of one doc.

        Raises:
            ValueError: the doc's own tests don't run, so it has no score.
        """
        found = self.executions(doc, results)
        if broken := [one.detail for one in found if one.verdict == "not_run"]:
            raise ValueError(f"the tests could not be run: {broken[0]}")
        n_passed = sum(one.passed for one in found)
        return {f"pass@{k}": pass_at_k(len(found), n_passed, k) for k in self._k if k <= len(found)}

    def checks(self, doc: Doc, program: str) -> Sequence[AnyCheck]:
        """Return what decides on a program, for the task's sandbox: it has to pass all of these.

        Raises:
            ValueError, Qwen2EvalError: the doc's tests can't be read.
        """
        setup = doc["setup"] if "setup" in doc else doc["prompt"]
        tests = doc[self._test_column]
        if not all(name.isidentifier() for name in doc["entry_point"].split(".")):
            raise ValueError(f"the doc's entry_point is {doc['entry_point']!r}, not the name of a function")
        return [Check(program, entry_point=doc["entry_point"], tests=tests, setup=setup, **self._limits)]  # type: ignore[arg-type]

    def key(self, doc: Doc, program: str) -> str:
        """Return what a program and its tests are known by."""
        return digest(doc[self._test_column], doc["entry_point"], program)


def digest(*parts: str) -> str:
    """Return a sha256 of texts, in hex."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


def pass_at_k(n: int, n_passed: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of k tries passes, from n tries (Chen et al. 2021, eq. 1).

    >>> pass_at_k(4, 2, 1)
    0.5
    """
    return 1 - comb(n - n_passed, k) / comb(n, k)


def batched(items: Iterable[T], n: int) -> Iterator[list[T]]:
    """Yield lists of up to `n` items; Python 3.12 has it.

    >>> list(batched("abc", 2))
    [['a', 'b'], ['c']]
    """
    left = iter(items)
    while batch := list(islice(left, n)):
        yield batch
