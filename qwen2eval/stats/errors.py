"""Standard errors and 95 % intervals of a task's score.

Clustered errors follow Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), section 2.2;
Wilson intervals for small n follow Bowyer et al. (arXiv 2503.01747).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
"""What an aggregation is made of: a doc's value, of any type."""
CONFIDENCE = 0.95
N_BOOTSTRAP = 200


class Estimate(NamedTuple):
    """How sure a score is; None where it can't be known (one doc, one cluster)."""

    stderr: float | None
    ci_low: float | None
    ci_high: float | None


UNKNOWN = Estimate(None, None, None)


def mean_estimate(values: Sequence[float], *, clusters: Sequence[object] | None = None) -> Estimate:
    """Estimate the error of a mean.

    Args:
        values: one a doc.
        clusters: the cluster of each doc (subject, passage); None: docs are independent.

    Returns:
        The standard error (clustered if clusters are given) and the 95 % interval: Wilson for independent 0/1 values,
        else Student's t with n-1 (clusters-1) degrees of freedom, cut to 0-1 if all values lie there.

    >>> mean_estimate([1.0, 0.0, 1.0, 1.0]).stderr
    0.25
    >>> mean_estimate([1.0, 1.0, 0.0, 0.0], clusters="aabb").stderr  # two clusters of equals: half the information
    0.5
    """
    x = np.asarray(values, dtype=float)
    if len(x) < 2 or not np.isfinite(x).all():
        return UNKNOWN
    if clusters is None:
        # the same expression as lm-eval's mean_stderr, for the same last digit
        mean = sum(values) / len(values)
        stderr = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) / math.sqrt(len(values))
        if set(x) <= {0.0, 1.0}:
            return Estimate(stderr, *_wilson(int(x.sum()), len(x)))
        return Estimate(stderr, *_student(float(x.mean()), stderr, len(x) - 1, x))
    sums: dict[object, float] = defaultdict(float)
    for value, cluster in zip(x - x.mean(), clusters, strict=True):
        sums[cluster] += float(value)
    if len(sums) < 2:
        return UNKNOWN
    # small-sample factor G/(G-1): with clusters of one doc each this is the ordinary standard error
    variance = sum(s * s for s in sums.values()) * len(sums) / (len(sums) - 1)
    stderr = math.sqrt(variance) / len(x)
    # The clusters agree: no sign of certainty, as few of them would
    if stderr == 0:
        is_binary = set(x) <= {0.0, 1.0}
        return Estimate(stderr, *(_wilson(float(x.mean()) * len(sums), len(sums)) if is_binary else (None, None)))
    return Estimate(stderr, *_student(float(x.mean()), stderr, len(sums) - 1, x))


def bootstrap_estimate(aggregate: Callable[[list[T]], float], items: Sequence[T], *, seed: int) -> Estimate:
    """Estimate the error of any aggregation by resampling docs: standard deviation and percentiles of 200 draws."""
    if len(items) < 2:
        return UNKNOWN
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(N_BOOTSTRAP):
        picked = rng.integers(0, len(items), len(items))
        draws.append(float(aggregate([items[i] for i in picked])))
    values = np.asarray(draws)
    # An aggregation may fail on a draw (one class only): then percentiles mean nothing
    if not np.isfinite(values).all():
        return UNKNOWN
    # All draws agree, as with a median of zeros: no sign of certainty
    if np.ptp(values) == 0:
        return Estimate(0.0, None, None)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Estimate(float(values.std(ddof=1)), float(low), float(high))


def sum_interval(parts: Sequence[tuple[float, float, float, float]]) -> tuple[float, float]:
    """Return the 95 % interval of a weighted sum of independent scores from their own intervals.

    The distances of each end are added in squares: the method of variance estimates recovery for a linear function of
    proportions (Zou, Huang and Zhang 2009, "A note on confidence interval estimation for a linear function of binomial
    proportions"). With Wilson intervals it is a stratified Wilson interval; of one score it is that score's own.
    Coverage against new draws: tests/stats/test_errors.py.

    Args:
        parts: (weight, score, lower end, upper end) each; the weights are not negative.

    >>> sum_interval([(1.0, 0.0, 0.0, 0.5)])
    (0.0, 0.5)
    """
    value = sum(weight * score for weight, score, _, _ in parts)
    below = math.hypot(*(weight * (score - low) for weight, score, low, _ in parts))
    above = math.hypot(*(weight * (high - score) for weight, score, _, high in parts))
    return value - below, value + above


def part_difference(
    values: Sequence[float], is_part: Sequence[bool], *, clusters: Sequence[object] | None = None
) -> Estimate:
    """Estimate the error of mean(part) - mean(all), where the part's values are among all.

    The two means share docs, so their errors don't add up. Both are linear in the docs, to first order (delta method):
    each doc moves the difference by (its distance from the part's mean) / (the part's share) if it is of the part, less
    its distance from the mean of all. The standard error is that of the mean of these, clustered if clusters are given;
    the interval is Student's t with the part's degrees of freedom.

    Where values are 0 or 1 this knows no doubt in a group that is all right or all wrong. The difference is also (share
    of the others) (mean(part) - mean(others)), two disjoint groups, and the interval reaches at least as far as
    Newcombe's for these. Against new draws and resampling: tests/stats/test_errors.py.

    Args:
        values: one a doc.
        is_part: whether each belongs to the part.
    """
    x, part = np.asarray(values, dtype=float), np.asarray(is_part, dtype=bool)
    if part.sum() < 2 or not np.isfinite(x).all():
        return UNKNOWN
    # Influence of each doc on the difference; their sum over a cluster is the cluster's influence
    moves = part * (x - x[part].mean()) / part.mean() - (x - x.mean())
    labels = np.arange(len(x)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    sums, n_free = np.bincount(labels, weights=moves), len(np.unique(labels[part])) - 1
    if len(sums) < 2:
        return UNKNOWN
    stderr = math.sqrt(float(sums @ sums) * len(sums) / (len(sums) - 1)) / len(x)
    is_binary = set(x) <= {0.0, 1.0}
    if n_free < 1 or (np.ptp(x) == 0 and not is_binary and not part.all()):
        return Estimate(stderr, None, None)
    from scipy.special import stdtrit

    delta = float(x[part].mean() - x.mean())
    reach = float(stdtrit(n_free, 0.5 + CONFIDENCE / 2)) * stderr
    low, high = delta - reach, delta + reach
    if is_binary and not part.all():
        ends = newcombe(x[part], x[~part])
        share = 1 - float(part.mean())
        low, high = max(-1.0, min(low, share * ends[0])), min(1.0, max(high, share * ends[1]))
    return Estimate(stderr, low, high)


def bootstrap_difference(
    aggregate: Callable[[list[T]], float], items: Sequence[T], is_part: Sequence[bool], *, seed: int
) -> Estimate:
    """Estimate the error of aggregate(part) - aggregate(all) by resampling docs together with their membership."""

    def difference(pairs: list[tuple[T, bool]]) -> float:
        return aggregate([item for item, is_in in pairs if is_in]) - aggregate([item for item, _ in pairs])

    return bootstrap_estimate(difference, list(zip(items, is_part, strict=True)), seed=seed)


def newcombe(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of mean(x) - mean(y), of two groups of zeros and ones (Newcombe 1998, method 10)."""
    (x_low, x_high), (y_low, y_high) = (_wilson(float(group.sum()), len(group)) for group in (x, y))
    mean_x, mean_y = float(x.mean()), float(y.mean())
    low = mean_x - mean_y - math.hypot(mean_x - x_low, y_high - mean_y)
    return low, mean_x - mean_y + math.hypot(x_high - mean_x, mean_y - y_low)


def _wilson(n_successes: float, n: int) -> tuple[float, float]:
    # scipy.stats has this, too, but takes 0.6 s and 60 MB to import
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    share = n_successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Exactly 0 and 1 at the ends: rounding would leave 1e-17 there
    low = 0.0 if n_successes == 0 else middle - reach
    return low, 1.0 if n_successes == n else middle + reach


def _student(mean: float, stderr: float, df: int, values: NDArray[np.float64]) -> tuple[float, float]:
    from scipy.special import stdtrit

    reach = float(stdtrit(df, 0.5 + CONFIDENCE / 2)) * stderr
    low, high = mean - reach, mean + reach
    return (max(0.0, low), min(1.0, high)) if values.min() >= 0 and values.max() <= 1 else (low, high)
