"""How a metric is shown: in percent or as it is, on which scale, which way is better.

A metric says so itself in run.json. Older runs don't: there, the words of its name are all that there is to go by.
"""

from dataclasses import dataclass

from qwen2eval.reporting import numbers
from qwen2eval.run_info import MetricInfo, RunInfo

SHARE = "share"
"""Unit of a ratio of 0 to 1."""
_SCALES = {"judge_score": (1.0, 10.0)}
"""Lower and upper end of metrics that are neither a share nor points of 100, for runs that don't say it."""


@dataclass(frozen=True)
class ShownMetric:
    """How one metric of a run is shown."""

    name: str
    """lm-eval's."""
    higher_is_better: bool | None
    """None: not specified, or members of a group differ."""
    unit: str | None
    """None: not said."""
    scale: tuple[float, float] | None
    """Its lower and upper end, as the values are; None: not said."""

    def in_percent(self, value: float | None = None) -> bool:
        """Return whether a value is a share, shown in percent.

        Args:
            value: where the run doesn't say what the metric is, a value outside 0-1 proves that its name misleads.
        """
        return numbers.is_ratio(self.name, value) if self.unit is None else self.unit == SHARE


def metric_of(info: RunInfo, task: str, metric: str) -> ShownMetric:
    """Return how a metric of a task, or of a group by its members, is shown."""
    if task in info.tasks:
        known = [info.tasks[task].metrics.get(metric)]
    else:
        members = info.groups[task].tasks if task in info.groups else ()
        known = [info.tasks[name].metrics.get(metric) for name in members if name in info.tasks]
    said = [MetricInfo(None) if one is None else one for one in known] or [MetricInfo(None)]
    first, directions = said[0], {one.higher_is_better for one in said}
    higher_is_better = directions.pop() if len(directions) == 1 else None
    if first.unit is None:
        return guessed_metric(metric, higher_is_better=higher_is_better)
    scale = None if first.low is None or first.high is None else (first.low, first.high)
    return ShownMetric(metric, higher_is_better, first.unit, scale)


def guessed_metric(metric: str, *, higher_is_better: bool | None = None) -> ShownMetric:
    """Return how a metric is shown of which a run doesn't say what it is."""
    return ShownMetric(metric, higher_is_better, None, _SCALES.get(metric))
