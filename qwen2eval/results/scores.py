"""Samples -> scores: each task's metrics by lm-eval's own aggregation, with errors, intervals and counts."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from qwen2eval.columns import ArrowType, Column, Value, row_of
from qwen2eval.errors import TASK_ERRORS
from qwen2eval.results.sample import DocSample, TaskSamples, cell_of, metric_names
from qwen2eval.stats.errors import UNKNOWN, Estimate, bootstrap_estimate, mean_estimate
from qwen2eval.tasks.metric_spec import Aggregate, MetricItem, as_number
from qwen2eval.tasks.task_values import Aggregation

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Score:
    """One row of scores.parquet."""

    task: str
    """Name of the task or group."""
    metric: str
    """lm-eval's name of the metric."""
    filter: str
    """The filter whose answers were scored; "none": the task has none."""
    subset: str
    """original, clean or contaminated."""
    n_docs: int
    """Docs of the subset, scored or not."""
    value: float | None
    """None: no doc is scored. Never 0 in its place."""
    stderr: float | None
    """Clustered where the task has clusters; None: not known."""
    ci_low: float | None
    """Lower end of the 95 % interval; None: not known."""
    ci_high: float | None
    """Upper end of the 95 % interval; None: not known."""
    n_unscored: int
    """Docs of the subset that are not scored."""
    naive_stderr: float | None = None
    """lm-eval's: without clusters. Goes to results.json, not to the table."""
    cell_length: int | None = None
    """Tokens; of the docs of one length only."""
    cell_depth: float | None = None
    """Percent; of the docs of one depth only."""

    @property
    def key(self) -> str:
        """lm-eval's name of the score."""
        return f"{self.metric},{self.filter}"


def _column(name: str, kind: ArrowType, doc: str) -> Column[Score]:
    get: Callable[[Score], Value] = attrgetter(name)
    return Column(name, kind, doc, get)


SCORE_COLUMNS = (
    _column("task", "string", "The name of the task or group."),
    _column("metric", "string", "lm-eval's name of the metric; its unit and direction are in run.json."),
    _column("filter", "string", "The filter whose answers were scored; `none` if the task has none."),
    _column("subset", "string", "Docs of the score: `original` for all, or `clean` or `contaminated` by a corpus."),
    _column("n_docs", "int64", "Docs of the subset, scored or not."),
    _column("value", "float64", "The score; null: no doc is scored."),
    _column("stderr", "float64", "Its standard error, clustered where the task says so; null: not known."),
    _column("ci_low", "float64", "Lower end of the 95 % interval; null: not known."),
    _column("ci_high", "float64", "Upper end of the 95 % interval; null: not known."),
    _column("n_unscored", "int64", "Docs of the subset that are not scored."),
    _column("cell_length", "int64", "Tokens of the docs of one part of a heat map; null: of all lengths."),
    _column("cell_depth", "float64", "Depth in percent of the docs of one part of a heat map; null: of all depths."),
)
"""The columns of scores.parquet and scores.csv. The last two are null but for the parts of a heat map: its cells have
both, its columns (all depths of a length) and its rows (all lengths of a depth) one of them."""


def task_scores(name: str, samples: TaskSamples, *, seed: int, subset: str = "original") -> list[Score]:
    """Aggregate one task's metrics, filter by filter; the samples get the names of those without a value."""
    scores = [
        _score(samples, docs, metric=metric, filter_name=filter_name, seed=seed, subset=subset, name=name)
        for filter_name, docs in samples.by_filter.items()
        for metric in metric_names(samples, docs)
    ]
    if subset == "original":
        lost = [score.metric for score in scores if score.value is None and score.n_unscored < score.n_docs]
        samples.without_value = tuple(dict.fromkeys(lost))
    return scores


def cell_scores(name: str, samples: TaskSamples, *, seed: int) -> list[Score]:
    """Aggregate the parts of a heat map: its cells, then all depths of each length, then all lengths of each depth.

    Returns:
        Nothing for a task whose docs have no place in one.
    """
    scores = []
    for filter_name, docs in samples.by_filter.items():
        parts: dict[tuple[int | None, float | None], list[DocSample]] = defaultdict(list)
        for sample in docs:
            if (cell := cell_of(sample.doc)) is not None:
                for place in ((cell.length, cell.depth), (cell.length, None), (None, cell.depth)):
                    parts[place].append(sample)
        for metric in metric_names(samples, docs):
            for length, depth in sorted(parts, key=_cells_first):
                score = _score(
                    samples, parts[length, depth], metric=metric, filter_name=filter_name, seed=seed, name=name
                )
                scores.append(replace(score, cell_length=length, cell_depth=depth))
    return scores


def _cells_first(place: tuple[int | None, float | None]) -> tuple[bool, bool, int, float]:
    length, depth = place
    return length is None, depth is None, length or 0, depth or 0.0


def _score(
    samples: TaskSamples,
    docs: list[DocSample],
    *,
    metric: str,
    filter_name: str,
    seed: int,
    name: str,
    subset: str = "original",
) -> Score:
    """Aggregate one metric of docs."""
    aggregation = samples.plan.task.aggregation(metric)
    scored = [sample for sample in docs if sample.metrics is not None and metric in sample.metrics]
    items = [sample.metrics[metric] for sample in scored if sample.metrics is not None]
    is_part = subset != "original" or len(docs) < len(samples.plan.docs)
    value = aggregated(aggregation.function, items, is_part=is_part)
    clusters = _clusters(samples, scored)
    estimate = UNKNOWN if value is None else _estimate(aggregation, items, clusters, seed=seed)
    is_mean = aggregation.is_mean and value is not None
    naive = _estimate(aggregation, items, None, seed=seed) if is_mean else estimate
    return Score(name, metric, filter_name, subset, len(docs), value, *estimate, len(docs) - len(items), naive.stderr)


def aggregated(aggregate: Aggregate, items: list[MetricItem], *, is_part: bool) -> float | None:
    """Aggregate a metric's items; None where there are none, or the result is no number, NaN or infinite.

    Args:
        is_part: the items are some of a task's; an aggregation that doesn't survive this has no value there, as the
            score of all docs is reported anyway.
    """
    if not items:
        return None
    try:
        value = as_number(aggregate(items))
        return value if value is not None and math.isfinite(value) else None
    # As of a perplexity: what is too large for a float is no number either
    except OverflowError:
        return None
    # The aggregation is the task author's, and may ask for all classes, or divide by what only other docs have
    except TASK_ERRORS:
        if is_part:
            return None
        raise


def lm_eval_metrics(scores: list[Score], *, is_clustered: bool = False) -> dict[str, dict[str, Any]]:
    """Return scores as lm-eval keeps them: task -> {"metric,filter": value, "metric_stderr,filter": …}.

    Args:
        is_clustered: with our standard errors, which respect clusters, in the place of lm-eval's.
    """
    metrics: dict[str, dict[str, Any]] = {}
    for score in scores:
        row = metrics.setdefault(score.task, {"name": score.task, "alias": score.task, "sample_len": 0})
        row["sample_len"] = max(row["sample_len"], score.n_docs - score.n_unscored)
        if score.value is not None:
            row[score.key] = score.value
            stderr = score.stderr if is_clustered else score.naive_stderr
            row[f"{score.metric}_stderr,{score.filter}"] = "N/A" if stderr is None else stderr
    return metrics


def scores_frame(scores: list[Score]) -> "pd.DataFrame":
    """Return the scores as the table of scores.parquet."""
    import pandas as pd

    names = [column.name for column in SCORE_COLUMNS]
    frame = pd.DataFrame([row_of(SCORE_COLUMNS, score) for score in scores], columns=names)
    # pandas' own type of whole numbers has no null, and only a place in a heat map may be missing
    types = {"int64": "int64", "float64": "float64"}
    kinds = {column.name: types[column.type] for column in SCORE_COLUMNS if column.type in types}
    return frame.astype(kinds | {"cell_length": "Int64"})


def _estimate(
    aggregation: Aggregation, items: list[MetricItem], clusters: list[object] | None, *, seed: int
) -> Estimate:
    if aggregation.is_mean:
        numbers = [number for item in items if (number := as_number(item)) is not None]
        return mean_estimate(numbers, clusters=clusters) if len(numbers) == len(items) else UNKNOWN
    try:
        return bootstrap_estimate(aggregation.function, items, seed=seed)
    # An aggregation of a task author's may not survive a resample (a class that is missing, a division by zero)
    except TASK_ERRORS:
        return UNKNOWN


def _clusters(samples: TaskSamples, scored: list[DocSample]) -> list[object] | None:
    column = samples.plan.task.cluster_column
    return None if column is None else [sample.doc[column] for sample in scored]
