"""What a metric measures: its unit, its scale and which side is better, said once and never guessed from a name.

A task says it for its own metrics: `metadata.metrics` in its YAML, or `metric_specs` of its class. lm-eval's tasks only
name a metric: `STANDARD_METRICS` says it for the names that lm-eval itself defines or uses with one meaning.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, SupportsFloat, get_args

from qwen2eval.errors import TaskFileError

Unit = Literal["share", "points", "rating", "number"]
"""share: 0 to 1, shown in percent; points: 0 to 100; rating: a grade between two ends; number: the rest."""
_ENDS: Mapping[Unit, tuple[float | None, float | None]] = {
    "share": (0.0, 1.0),
    "points": (0.0, 100.0),
    "rating": (None, None),
    "number": (None, None),
}

MetricItem = Any
"""A metric's value for one doc: mostly a number; a pair for perplexity, or what else the task's aggregation takes."""
Aggregate = Callable[[list[MetricItem]], float]
"""Turns the items of all docs into the task's score."""


@dataclass(frozen=True)
class MetricSpec:
    """What is known of a metric besides its values."""

    higher_is_better: bool | None = None
    """None: the task does not say, so no report draws an arrow and no gate can use it."""
    unit: Unit | None = None
    """None: the task does not say; the value is then shown as it is."""
    low: float | None = None
    """The lower end of its scale; None: there is none, or it is not known."""
    high: float | None = None
    """The upper end of its scale; None: there is none, or it is not known."""

    def towards(self, higher_is_better: bool | None) -> "MetricSpec":
        """Return the same metric with a direction that a task says; None keeps what is known."""
        return self if higher_is_better is None else replace(self, higher_is_better=higher_is_better)


def metric(unit: Unit, *, higher_is_better: bool | None = True, scale: tuple[float, float] | None = None) -> MetricSpec:
    """Return a metric of a unit, on the unit's own scale unless another is given.

    >>> metric("share")
    MetricSpec(higher_is_better=True, unit='share', low=0.0, high=1.0)
    """
    low, high = scale or _ENDS[unit]
    return MetricSpec(higher_is_better, unit, low, high)


_SHARE, _POINTS, _LESS = metric("share"), metric("points"), metric("number", higher_is_better=False)

STANDARD_METRICS: Mapping[str, MetricSpec] = {
    # lm_eval/api/metrics.py at 0.4.13: means of 0 and 1
    **dict.fromkeys(("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "exact_match"), _SHARE),
    # Names that several tasks use in the same sense: a share of docs, instructions or parts
    **dict.fromkeys(("accuracy", "em", "math_verify", "extraction_rate", "non_greedy_accuracy"), _SHARE),
    **dict.fromkeys((f"{when}_level_{how}_acc" for when in ("prompt", "inst") for how in ("strict", "loose")), _SHARE),
    **dict.fromkeys(("acc_ambig", "acc_disambig", "accuracy_amb", "accuracy_disamb", "partial_accuracy"), _SHARE),
    **dict.fromkeys(("consistency_rate", "options_consistency_rate", "rouge1_acc", "rouge2_acc", "rougeL_acc"), _SHARE),
    **dict.fromkeys(("bleu_acc", "recall", "precision"), _SHARE),
    # sacrebleu gives 0 to 100; for TER, an error rate, less is better, and it may exceed 100
    **dict.fromkeys(("bleu", "chrf", "chrf++"), _POINTS),
    "ter": MetricSpec(higher_is_better=False, unit="number", low=0.0),
    "mcc": metric("number", scale=(-1.0, 1.0)),
    "brier_score": _LESS,
    **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"), _LESS),
}
"""By the metric's name. f1 and rouge are left out on purpose: some tasks give them as 0-1 and some as 0-100, so only
the task can say which."""
_PASS_AT = re.compile(r"pass@\d+|avg@\d+|maj@\d+")


def standard_metric(name: str) -> MetricSpec:
    """Return what is known of a metric by its exact name; nothing is known of a name that is not in the table.

    >>> standard_metric("pass@10").unit, standard_metric("my_acc").unit
    ('share', None)
    """
    if _PASS_AT.fullmatch(name):
        return _SHARE
    return STANDARD_METRICS.get(name, MetricSpec())


def spec_from_metadata(name: str, said: object, *, task: str, higher_is_better: bool | None = None) -> MetricSpec:
    """Return what a task's YAML says of a metric under `metadata.metrics`.

    Args:
        name: of the metric.
        said: `{unit: share}`, with `higher_is_better`, `low` and `high` where they differ from the unit's own.
        task: whose YAML it is, for the message.
        higher_is_better: the direction that the task says elsewhere (`metric_list`); None: it does not.

    Raises:
        TaskFileError: it is not of this form, or says another direction than the task does elsewhere.
    """
    if not isinstance(said, Mapping) or said.get("unit") not in get_args(Unit):
        raise TaskFileError(
            f"Task {task!r}: metadata.metrics.{name} is {said!r}; it must have `unit`, one of "
            f"{', '.join(get_args(Unit))}, and may have `higher_is_better`, `low` and `high`"
        )
    unit: Unit = said["unit"]
    low, high = (said.get(end, default) for end, default in zip(("low", "high"), _ENDS[unit], strict=True))
    is_better = said.get("higher_is_better", True if higher_is_better is None else higher_is_better)
    unknown = set(said) - {"unit", "higher_is_better", "low", "high"}
    if unknown or not isinstance(is_better, bool) or not all(_is_end(end) for end in (low, high)):
        raise TaskFileError(
            f"Task {task!r}: metadata.metrics.{name} is {dict(said)!r}; `higher_is_better` must be true or false, "
            "`low` and `high` must be numbers, and other keys are not allowed"
        )
    if higher_is_better not in (None, is_better):
        raise TaskFileError(
            f"Task {task!r}: metadata.metrics.{name} has higher_is_better: {str(is_better).lower()}, and the task's "
            f"metric_list or class says {str(higher_is_better).lower()}: make them equal"
        )
    return MetricSpec(is_better, unit, low, high)


def as_number(value: object) -> float | None:
    """Return a metric's value as a float; None for pairs, lists and texts, which only an aggregation understands."""
    # numpy's numbers and torch's scalars are not int or float, but have `item`
    is_scalar = hasattr(value, "item") and getattr(value, "ndim", 0) == 0
    return float(value) if isinstance(value, int | float) or (is_scalar and isinstance(value, SupportsFloat)) else None


def _is_end(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
