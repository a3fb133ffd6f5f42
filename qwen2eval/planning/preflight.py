"""Checks before the weights are loaded: does the scorer work, can the folders be written?

A scorer that would fail, or that rates a wrong answer like a right one, must be found before the run, not hours later.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen2eval.errors import ConfigError, TaskFileError
from qwen2eval.planning.planned import PlannedRequest
from qwen2eval.requests import Doc
from qwen2eval.tasks.lm_eval_task import EvalTask
from qwen2eval.tasks.metric_spec import as_number

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


def check_scorer(task: EvalTask, doc: Doc, requests: Sequence[PlannedRequest]) -> str:
    """Score a known right and a known wrong answer to `doc` with the task's own filters and metrics.

    Returns:
        "ok", or a warning: the scorer rates both the same. A task whose target is not an answer declares
        `target_is_answer = False`.

    Raises:
        TaskFileError: a metric whose aggregation does not exist.
        Exception: any error of the scorer; the caller names the task.
    """
    for metric, aggregate in task.aggregations.items():
        if not callable(aggregate):
            raise TaskFileError(
                f"Task {task.name!r}: lm-eval has no aggregation for the metric {metric!r}; name another"
            )
    right = _score(task, doc, requests, right=True)
    wrong = _score(task, doc, requests, right=False)
    comparable = [key for key in right if key in wrong and right[key] is not None and wrong[key] is not None]
    metrics = task.metrics()
    if unknown := _unknown_metrics(task, right):
        return f"metadata.metrics describes {unknown[0]!r}, which is no metric of the task: check its name"
    if not comparable:
        return "ok"
    # One metric that rates the right answer higher is enough: others may not depend on the answer
    for key in comparable:
        spec = metrics.get(key.split(",")[0])
        if _is_better(right[key], wrong[key], None if spec is None else spec.higher_is_better):
            return "ok"
    if not task.target_is_answer:
        return "ok"
    return (
        "sanity check failed: the scorer does not rate the target itself above a wrong answer; check extraction and "
        "metric on a few samples"
    )


def _unknown_metrics(task: EvalTask, scored: Mapping[str, float | None]) -> list[str]:
    """Return the metrics that the task's YAML describes and that neither its scorer nor a judge gives."""
    known = {key.rsplit(",", 1)[0] for key in scored} | set(task.aggregations)
    if task.judged is not None:
        known |= set(task.judged.judge_metrics(""))
    return [name for name in task.metadata.get("metrics") or () if name not in known]


def _score(task: EvalTask, doc: Doc, requests: Sequence[PlannedRequest], *, right: bool) -> dict[str, float | None]:
    """Return each numeric metric by "metric,filter"."""
    target = _target(task, doc)
    gold = task.gold_choices(doc)
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
    for filter_name, filtered in task.filtered([doc] * len(requests), responses).items():
        for metric, value in task.score(doc, filtered).items():
            scored[f"{metric},{filter_name}"] = as_number(value)
    return scored


def _target(task: EvalTask, doc: Doc) -> str:
    """Return the right answer as text, the first one where there are several."""
    target = task.target(doc)
    if isinstance(target, int) and not isinstance(target, bool) and task.has_choices:
        return str(task.choices(doc)[target])
    return str(target[0] if isinstance(target, list) and target else target)


def _is_better(right: float | None, wrong: float | None, higher_is_better: bool | None) -> bool:
    assert right is not None, "only comparable metrics are passed"
    assert wrong is not None, "only comparable metrics are passed"
    return right < wrong if higher_is_better is False else right > wrong
