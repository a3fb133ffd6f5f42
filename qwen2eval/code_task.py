"""Tasks whose answers are programs: each is run against the doc's tests in the sandbox, and pass@k counted.

YAML selects it with `class:`; a filter makes whole programs of the responses. All of a task's programs run at once, on
all cores, before its docs are scored.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from math import comb
from typing import Any

from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask

from qwen2eval.sandbox import Check, Execution, Sandbox

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


class CodeTask(ConfigurableTask):
    """A task whose docs have `prompt`, `entry_point` and `test`, the source of `check(candidate)`, as HumanEval's.

    `metadata`: `k`, a list of how many tries pass@k is about (1 by default); `timeout_seconds` of one program.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        super().__init__(config=config)
        metadata = self.config.metadata
        self._level = str(metadata.get("sandbox") or "auto")
        self._timeout_seconds = float(metadata.get("timeout_seconds", 10))
        self._k = tuple(int(k) for k in metadata.get("k", (1,)))
        self._executions: dict[str, Execution] = {}

    def aggregation(self) -> dict[str, Any]:
        """Return how each pass@k is aggregated: as a mean over docs."""
        return {f"pass@{k}": mean for k in self._k}

    def higher_is_better(self) -> dict[str, bool]:
        """Return that more is better."""
        return {f"pass@{k}": True for k in self._k}

    @property
    def sandbox_level(self) -> str | None:
        """The level that programs ran at; None: none has run."""
        return next((one.level for one in self._executions.values()), None)

    def run_programs(self, answered: Iterable[tuple[Mapping[str, Any], Sequence[Any]]]) -> None:
        """Run the programs of docs, all at once; those that ran before are not run again.

        Args:
            answered: docs, each with what `process_results` gets.

        Raises:
            SandboxError: no level of the sandbox works on this machine.
        """
        checks = {_key(doc, program): (doc, program) for doc, results in answered for program in results[0]}
        new = {key: pair for key, pair in checks.items() if key not in self._executions}
        if new:
            with Sandbox(self._level) as sandbox:
                done = sandbox.check_many(self._check(*pair) for pair in new.values())
            self._executions.update(zip(new, done, strict=True))

    def executions(self, doc: Mapping[str, Any], results: Sequence[Any]) -> list[Execution]:
        """Return what came of a doc's programs, in the order of the responses."""
        self.run_programs([(doc, results)])
        return [self._executions[_key(doc, program)] for program in results[0]]

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
        """Return pass@k of one doc.

        Raises:
            ValueError: the doc's own tests don't run, so it has no score.
        """
        found = self.executions(doc, results)
        if broken := [one.detail for one in found if one.verdict == "not_run"]:
            raise ValueError(f"the tests could not be run: {broken[0]}")
        n_passed = sum(one.passed for one in found)
        return {f"pass@{k}": pass_at_k(len(found), n_passed, k) for k in self._k if k <= len(found)}

    def _check(self, doc: Mapping[str, Any], program: str) -> Check:
        return Check(
            program,
            entry_point=doc["entry_point"],
            tests=doc["test"],
            setup=doc["prompt"],
            timeout_seconds=self._timeout_seconds,
        )


def pass_at_k(n: int, n_passed: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of k tries passes, from n tries (Chen et al. 2021, eq. 1).

    >>> pass_at_k(4, 2, 1)
    0.5
    """
    return 1 - comb(n - n_passed, k) / comb(n, k)


def complete(responses: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return programs of which the prompt is the beginning: a base model goes on with the function's body."""
    return [[doc["prompt"] + text for text in of_doc] for of_doc, doc in zip(responses, docs, strict=True)]


def extract(responses: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the programs of a chat model's answers: the first fenced block that defines the function, else all of it.

    A block with the function's body only is put behind the prompt.
    """
    return [[_extracted(text, doc) for text in of_doc] for of_doc, doc in zip(responses, docs, strict=True)]


def _extracted(text: str, doc: Mapping[str, Any]) -> str:
    blocks = _FENCE.findall(text) or [text]
    defines = re.compile(rf"^\s*(?:async\s+)?def\s+{re.escape(doc['entry_point'])}\b", re.MULTILINE)
    for block in blocks:
        if defines.search(block):
            # what the prompt imports and defines, the answer may use
            return f"{doc['prompt']}    pass\n\n{block}"
    return str(doc["prompt"]) + str(blocks[0])


def _key(doc: Mapping[str, Any], program: str) -> str:
    return hashlib.sha256("\0".join((doc["test"], doc["entry_point"], program)).encode("utf-8", "replace")).hexdigest()
