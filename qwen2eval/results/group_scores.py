"""Scores of tasks -> scores of groups: lm-eval's own rule for the value, an interval from those of the tasks."""

from collections.abc import Iterator, Mapping

from qwen2eval.results.sample import TaskSamples
from qwen2eval.results.scores import Score, lm_eval_metrics, task_scores
from qwen2eval.stats.errors import sum_interval
from qwen2eval.tasks.eval_group import EvalGroup
from qwen2eval.tasks.metric_spec import MetricItem, as_number


def score_tasks(samples: Mapping[str, TaskSamples], groups: Mapping[str, EvalGroup], *, seed: int) -> list[Score]:
    """Return the scores of all tasks, then of all groups."""
    scores = [score for name, task in samples.items() for score in task_scores(name, task, seed=seed)]
    return scores + group_scores(scores, groups)


def group_scores(scores: list[Score], groups: Mapping[str, EvalGroup]) -> list[Score]:
    """Aggregate groups by lm-eval's own rule, which combines the standard errors of the tasks into the group's.

    A clustered error of a task therefore also widens its group's. A group with an unscored task has no score. A metric
    that none of the tasks has is a score without a value.
    """
    metrics, with_clusters = lm_eval_metrics(scores), lm_eval_metrics(scores, is_clustered=True)
    rows = []
    for name, group in groups.items():
        if not group.has_aggregation:
            continue
        tasks = set(group.task_names)
        own = [score for score in scores if score.task in tasks]
        merged, merged_clustered = group.aggregate(metrics), group.aggregate(with_clusters)
        for metric, filter_name, value in _metrics_of(merged):
            parts = [s for s in own if s.metric == metric and s.filter == filter_name]
            # A mean over the tasks that happen to have a score would be taken for the group's
            is_complete = tasks <= {part.task for part in parts if part.value is not None}
            number = as_number(value) if is_complete else None
            naive, stderr = (
                None if number is None else as_number(one.get(f"{metric}_stderr,{filter_name}"))
                for one in (merged, merged_clustered)
            )
            weights = {} if number is None else group.weights(metrics, f"{metric},{filter_name}")
            ends = None if number is None else _interval(number, parts, weights)
            rows.append(_row(name, metric, filter_name, parts, number, stderr, naive, ends))
        rows += [_row(name, metric, filter_name, own) for metric, filter_name in _nowhere(group, own)]
    return rows


def _row(
    name: str,
    metric: str,
    filter_name: str,
    parts: list[Score],
    value: float | None = None,
    stderr: float | None = None,
    naive_stderr: float | None = None,
    ends: tuple[float, float] | None = None,
) -> Score:
    """Return a group's score; without a value where none is given.

    Args:
        parts: scores of its tasks; of one task several where none of them has the metric.
    """
    n_docs = {part.task: part.n_docs for part in parts}
    n_unscored = {part.task: part.n_unscored for part in parts}
    has_metric = any(part.metric == metric and part.filter == filter_name for part in parts)
    low, high = ends or (None, None)
    return Score(
        task=name,
        metric=metric,
        filter=filter_name,
        subset="original",
        n_docs=sum(n_docs.values()),
        value=value,
        stderr=stderr,
        ci_low=low,
        ci_high=high,
        n_unscored=sum((n_unscored if has_metric else n_docs).values()),
        naive_stderr=naive_stderr,
    )


def _metrics_of(row: Mapping[str, MetricItem]) -> Iterator[tuple[str, str, MetricItem]]:
    """Yield (metric, filter, value) of a row of lm-eval's scores; it also has an alias, a count and the errors."""
    for key, value in row.items():
        metric, comma, filter_name = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            yield metric, filter_name, value


def _nowhere(group: EvalGroup, scores: list[Score]) -> Iterator[tuple[str, str]]:
    """Yield (metric, filter) that a group asks for and none of its tasks has; nothing where no task has any score."""
    there = {(score.metric, score.filter) for score in scores}
    for metric, filters in group.asked if scores else ():
        if filters is None and all(metric != other for other, _ in there):
            yield metric, "none"
        yield from ((metric, name) for name in filters or () if (metric, name) not in there)


def _interval(value: float, parts: list[Score], weights: Mapping[str, float]) -> tuple[float, float] | None:
    """Return a group's 95 % interval; None where a task has none, or the group's rule is no weighted sum."""
    ends = []
    for part in parts:
        if part.value is None or part.task not in weights:
            return None
        if part.ci_low is not None and part.ci_high is not None:
            ends.append((weights[part.task], part.value, part.ci_low, part.ci_high))
        elif part.stderr:
            reach = 1.96 * part.stderr
            ends.append((weights[part.task], part.value, part.value - reach, part.value + reach))
        else:
            return None
    is_sum = abs(sum(weight * of_part for weight, of_part, _, _ in ends) - value) <= 1e-9 * max(1.0, abs(value))
    return sum_interval(ends) if is_sum else None
