"""Checks before the weights are loaded: does the scorer work, can the folders be written?

A scorer that would fail, or that can't tell a right answer from a wrong one, must not be found out hours later.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen2eval.errors import ConfigError, TaskFileError

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from qwen2eval.plan import PlannedRequest

WRONG_TEXT = "¤ no answer ¤"


def check_writable(folder: Path) -> None:
    """Make `folder` and a file in it.

    Raises:
        ConfigError: it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write-test-"):
            pass
    except OSError as err:
        why = "it is a file" if folder.is_file() else os.strerror(err.errno or 0)
        raise ConfigError(f"--output_path {str(folder)!r} can't be written: {why}") from err


def check_scorer(task: "Task", doc: dict[str, Any], requests: "Sequence[PlannedRequest]") -> str:
    """Score a known right and a known wrong answer to `doc` with the task's own filters and metrics.

    Returns:
        "ok", or a warning: the scorer does not tell the two apart. A task whose target is no answer can say so:
        `target_is_answer = False`.

    Raises:
        TaskFileError: a metric whose aggregation does not exist.
        Exception: whatever the scorer raises; the caller names the task.
    """
    for metric, aggregate in (task.aggregation() or {}).items():
        if not callable(aggregate):
            raise TaskFileError(
                f"Task {task.task_name!r}: lm-eval has no aggregation for the metric {metric!r}; name another"
            )
    right = _score(task, doc, requests, right=True)
    wrong = _score(task, doc, requests, right=False)
    comparable = [key for key in right if key in wrong and right[key] is not None and wrong[key] is not None]
    if not comparable:
        return "ok"
    better = task.higher_is_better() or {}
    is_told_apart = any(_is_better(right[k], wrong[k], better.get(k.split(",")[0])) for k in comparable)
    if is_told_apart or not getattr(task, "target_is_answer", True):
        return "ok"
    return (
        "the scorer gives a known right answer (the target itself) no better score than a wrong one: "
        "check extraction and metric on a few samples"
    )


def _score(
    task: "Task", doc: dict[str, Any], requests: "Sequence[PlannedRequest]", *, right: bool
) -> dict[str, float | None]:
    """Return each numeric metric by "metric,filter"."""
    from qwen2eval.samples import as_number, filter_responses

    target = _target(task, doc)
    gold = _gold_indices(task, doc)
    responses: list[Any] = []
    for request in requests:
        if request.kind == "generate_until":
            responses.append([target if right else WRONG_TEXT])
        elif request.kind == "loglikelihood_rolling":
            responses.append([-1.0 if right else -1000.0])
        else:
            is_gold = not gold or request.index in gold
            responses.append([(-0.1, True) if is_gold == right else (-10.0, False)])
    scored: dict[str, float | None] = {}
    for filter_name, filtered in filter_responses(task, [doc] * len(requests), responses).items():
        for metric, value in task.process_results(doc, filtered).items():
            scored[f"{metric},{filter_name}"] = as_number(value)
    return scored


def _target(task: "Task", doc: dict[str, Any]) -> str:
    """Return the right answer as text."""
    target = task.doc_to_target(doc)
    if isinstance(target, int) and not isinstance(target, bool) and getattr(task.config, "doc_to_choice", None):
        return str(task.doc_to_choice(doc)[target])
    return str(target[0] if isinstance(target, list) and target else target)


def _gold_indices(task: "Task", doc: dict[str, Any]) -> set[int]:
    if getattr(task, "OUTPUT_TYPE", None) != "multiple_choice" or not hasattr(task, "doc_to_choice"):
        return set()
    gold = task.doc_to_text(doc) if getattr(task, "multiple_input", 0) else task.doc_to_target(doc)
    choices = task.doc_to_choice(doc)
    found = {
        choices.index(g) if isinstance(g, str) and g in choices else g
        for g in (gold if isinstance(gold, list) else [gold])
    }
    return {g for g in found if isinstance(g, int)}


def _is_better(right: float | None, wrong: float | None, higher_is_better: bool | None) -> bool:
    assert right is not None, "only comparable metrics are passed"
    assert wrong is not None, "only comparable metrics are passed"
    return right < wrong if higher_is_better is False else right > wrong
