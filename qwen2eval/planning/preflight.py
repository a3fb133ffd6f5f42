"""Checks before the weights are loaded: does the scorer work, can the folders be written?

A scorer that would fail, or that rates a wrong answer like a right one, must be found before the run, not hours later.
"""

import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qwen2eval.errors import TASK_ERRORS, ConfigError, TaskFileError
from qwen2eval.planning.planned import PlannedRequest, TaskPlan
from qwen2eval.requests import Doc
from qwen2eval.tasks.lm_eval_task import EvalTask
from qwen2eval.tasks.metric_spec import MetricItem, as_number

WRONG_TEXT = "¤ no answer ¤"
MADE_UP_DOCS = 32
"""Docs that the scorer is tried on."""


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


def check_scorer(planned: TaskPlan) -> str:
    """Score known right and wrong answers to a task's first docs with its own filters, metrics and aggregations.

    Each request gets as many answers as the task repeats it. The plan gets the names of the metrics.

    Returns:
        "ok", or a warning: the scorer rates both the same. A task whose target is not an answer declares
        `target_is_answer = False`.

    Raises:
        TaskFileError: an aggregation that does not exist, or that gives no number.
        Exception: any error of the scorer or an aggregation; the caller names the task.
    """
    task = planned.task
    for metric, aggregate in task.aggregations.items():
        if not callable(aggregate):
            raise TaskFileError(
                f"Task {task.name!r}: lm-eval has no aggregation for the metric {metric!r}; name another"
            )
    pairs = list(_scored_pairs(planned))
    without_value = _check_aggregations(planned, pairs)
    found = dict.fromkeys(key.rsplit(",", 1)[0] for pair in pairs for key in pair.right)
    of_judge = () if task.judged is None else task.judged.judge_metrics("")
    planned.metric_names = tuple(dict.fromkeys((*found, *task.aggregations, *of_judge)))
    if unknown := [name for name in task.metadata.get("metrics") or () if name not in planned.metric_names]:
        return f"metadata.metrics describes {unknown[0]!r}, which is no metric of the task: check its name"
    if without_value:
        return f"sanity check failed: the aggregation of {without_value[0]} gives NaN for made-up answers"
    if not task.target_is_answer or any(_tells_apart(task, pair) for pair in pairs) or not any(map(_numbers, pairs)):
        return "ok"
    return (
        "sanity check failed: the scorer does not rate the target itself above a wrong answer; check extraction and "
        "metric on a few samples"
    )


class _Pair(NamedTuple):
    """A doc's metrics by "metric,filter", for a right and a wrong answer."""

    right: dict[str, MetricItem]
    wrong: dict[str, MetricItem]


def _scored_pairs(planned: TaskPlan) -> Iterator[_Pair]:
    """Yield the metrics of the first docs; of one doc where programs are run, which takes time.

    A doc that the scorer fails on is passed over, as in the run, where it is not scored; if it fails on all, it raises.
    """
    n_docs = MADE_UP_DOCS if planned.task.programs is None else 1
    by_doc: dict[int, list[PlannedRequest]] = defaultdict(list)
    for request in planned.requests:
        by_doc[request.doc_id].append(request)
    errors: list[BaseException] = []
    tried = list(zip(planned.doc_ids, planned.docs, strict=True))[:n_docs]
    for doc_id, doc in tried:
        try:
            yield _Pair(*(_score(planned, doc, by_doc[doc_id], right=right) for right in (True, False)))
        except ImportError:
            raise
        except TASK_ERRORS as err:  # the task author's code may raise anything
            errors.append(err)
    if len(errors) == len(tried):
        raise errors[0]


def _check_aggregations(planned: TaskPlan, pairs: Sequence[_Pair]) -> list[str]:
    """Aggregate made-up answers, every second one right.

    Returns:
        The metrics for which that gives NaN.

    Raises:
        TaskFileError: the result is no number.
        Exception: any error of the task author's aggregation.
    """
    items: dict[str, list[MetricItem]] = defaultdict(list)
    for number, pair in enumerate(pairs):
        for key, item in (pair.wrong if number % 2 else pair.right).items():
            items[key].append(item)
    # With only some of the docs an aggregation may lack what others have, so that its error means nothing
    is_whole = len(pairs) == len(planned.docs)
    nan = []
    for key, values in items.items():
        metric = key.rsplit(",", 1)[0]
        try:
            result = planned.task.aggregation(metric).function(values)
        except (ImportError, NameError, AttributeError, TypeError):
            raise
        except OverflowError:
            continue
        except TASK_ERRORS:
            if is_whole and len(values) > 1:
                raise
            continue
        value = as_number(result)
        if value is not None and math.isnan(value) and len(values) > 1:
            nan.append(metric)
        if value is None:
            raise TaskFileError(
                f"Task {planned.name!r}: the aggregation of the metric {metric!r} gives {result!r}, not a number"
            )
    return nan


def _tells_apart(task: EvalTask, pair: _Pair) -> bool:
    """Return whether any metric rates the right answer higher: others may not depend on the answer."""
    specs = task.metrics()
    for key, (right, wrong) in _numbers(pair).items():
        spec = specs.get(key.split(",")[0])
        if _is_better(right, wrong, None if spec is None else spec.higher_is_better):
            return True
    return False


def _numbers(pair: _Pair) -> dict[str, tuple[float, float]]:
    """Return the metrics that are numbers for both answers."""
    both = {key: (as_number(item), as_number(pair.wrong.get(key))) for key, item in pair.right.items()}
    return {key: (right, wrong) for key, (right, wrong) in both.items() if right is not None and wrong is not None}


def _score(planned: TaskPlan, doc: Doc, requests: Sequence[PlannedRequest], *, right: bool) -> dict[str, MetricItem]:
    """Return each metric by "metric,filter"."""
    task = planned.task
    target = _target(task, doc)
    gold = task.gold_choices(doc)
    responses: list[Any] = []
    for request in requests:
        if request.kind == "generate_until":
            response: Any = target if right else WRONG_TEXT
        elif request.kind == "loglikelihood_rolling":
            response = -1.0 if right else -1000.0
        else:
            is_gold = not gold or request.index in gold
            response = (-0.1, True) if is_gold == right else (-10.0, False)
        responses.append([response] * planned.repeats)
    return {
        f"{metric},{filter_name}": value
        for filter_name, filtered in task.filtered([doc] * len(requests), responses).items()
        for metric, value in task.score(doc, filtered).items()
    }


def _target(task: EvalTask, doc: Doc) -> str:
    """Return the right answer as text, the first one where there are several."""
    target = task.target(doc)
    if isinstance(target, int) and not isinstance(target, bool) and task.has_choices:
        return str(task.choices(doc)[target])
    return str(target[0] if isinstance(target, list) and target else target)


def _is_better(right: float, wrong: float, higher_is_better: bool | None) -> bool:
    return right < wrong if higher_is_better is False else right > wrong
