"""Standard errors and intervals against lm-eval, a regression package's sandwich estimator, and simulation."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.stats.errors import (
    UNKNOWN,
    bootstrap_difference,
    bootstrap_estimate,
    mean_estimate,
    part_difference,
    sum_interval,
)

values = st.lists(st.floats(-10, 10), min_size=2, max_size=40)


@given(values)
def test_the_plain_standard_error_is_lm_evals(x):
    from lm_eval.api.metrics import mean_stderr

    assert mean_estimate(x).stderr == mean_stderr(x)


@given(values, st.randoms(use_true_random=False))
def test_the_clustered_error_is_the_sandwich_estimate(x, rng):
    """Cluster-robust variance of an intercept-only regression, by the definition of Liang and Zeger (1986)."""
    clusters = [rng.randrange(4) for _ in x]
    groups = sorted(set(clusters))
    if len(groups) < 2:
        assert mean_estimate(x, clusters=clusters) == UNKNOWN
        return
    design = np.ones((len(x), 1))
    residual = np.asarray(x) - np.mean(x)
    bread = np.linalg.inv(design.T @ design)
    meat = sum(
        (design[mask].T @ residual[mask, None]) @ (design[mask].T @ residual[mask, None]).T
        for g in groups
        if (mask := np.asarray(clusters) == g).any()
    )
    expected = np.sqrt((bread @ meat @ bread)[0, 0] * len(groups) / (len(groups) - 1))
    assert mean_estimate(x, clusters=clusters).stderr == pytest.approx(expected, abs=1e-9)


@given(values)
def test_clusters_of_one_doc_change_nothing(x):
    assert mean_estimate(x, clusters=range(len(x))).stderr == pytest.approx(mean_estimate(x).stderr, abs=1e-9)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=60))
def test_an_interval_of_zeros_and_ones_stays_inside_and_holds_the_mean(x):
    low, high = mean_estimate(x)[1:]
    assert 0 <= low <= sum(x) / len(x) + 1e-12
    assert sum(x) / len(x) - 1e-12 <= high <= 1
    assert low < high


@pytest.mark.parametrize("x", [[], [1.0], [1.0, float("nan")]])
def test_what_cannot_be_known_is_none(x):
    assert mean_estimate(x) == UNKNOWN


def test_intervals_cover_the_truth_as_often_as_they_say():
    """1,000 draws of 60 docs: 95 % intervals cover p = 0.3 in 92-98 %; fails by chance once in some 10,000 seeds."""
    rng = random.Random(5)
    covered = 0
    for _ in range(1000):
        low, high = mean_estimate([float(rng.random() < 0.3) for _ in range(60)])[1:]
        covered += low <= 0.3 <= high
    assert 920 <= covered <= 980


def test_the_bootstrap_agrees_with_the_formula_where_there_is_one():
    rng = random.Random(1)
    x = [rng.gauss(0, 1) for _ in range(300)]
    drawn = bootstrap_estimate(lambda items: sum(items) / len(items), x, seed=3)
    assert drawn.stderr == pytest.approx(mean_estimate(x).stderr, rel=0.2)
    assert drawn == bootstrap_estimate(lambda items: sum(items) / len(items), x, seed=3)


def test_clusters_that_agree_do_not_make_a_score_certain():
    """Two docs in two clusters, both right, once gave an interval of no width."""
    estimate = mean_estimate([1.0, 1.0], clusters="ab")
    assert estimate.ci_low == pytest.approx(mean_estimate([1.0, 1.0]).ci_low)
    assert estimate.ci_high == 1.0
    assert mean_estimate([0.5, 0.5], clusters="ab")[1:] == (None, None)


def test_the_interval_of_a_sum_covers_the_truth_as_often_as_it_says():
    """2,000 draws of three tasks, two of them near 0 and 1: at least 94 % hold the truth; more is no lie."""
    rng = np.random.default_rng(8)
    tasks = ((10, 0.03), (20, 0.5), (30, 0.97))
    n_docs = sum(n for n, _ in tasks)
    truth = sum(n * p for n, p in tasks) / n_docs
    covered = 0
    for _ in range(2000):
        parts = []
        for n, p in tasks:
            values = (rng.random(n) < p).astype(float)
            estimate = mean_estimate(values.tolist())
            parts.append((n / n_docs, float(values.mean()), estimate.ci_low, estimate.ci_high))
        low, high = sum_interval(parts)
        covered += low <= truth <= high
    assert covered >= 1880


def draws_of_part(rng, n_docs, *, n_clusters=0):
    """Draw docs of which some leaked: these are easier."""
    clusters = rng.integers(0, n_clusters, n_docs) if n_clusters else None
    shift = rng.normal(0, 0.2, n_clusters)[clusters] if n_clusters else 0.0
    is_clean = rng.random(n_docs) < 0.6
    values = (rng.random(n_docs) < np.clip(np.where(is_clean, 0.4, 0.8) + shift, 0, 1)).astype(float)
    return values, is_clean, clusters


@pytest.mark.parametrize("n_clusters", [0, 30], ids=["docs", "clusters"])
def test_the_difference_of_a_part_is_as_sure_as_it_says(n_clusters):
    """Over new draws the difference varies as the standard error says, and the interval holds the truth."""
    rng, truth = np.random.default_rng(0), 0.4 - (0.6 * 0.4 + 0.4 * 0.8)
    found, stderrs, hits = [], [], 0
    for _ in range(1_000):
        values, is_clean, clusters = draws_of_part(rng, 300, n_clusters=n_clusters)
        estimate = part_difference(values.tolist(), is_clean.tolist(), clusters=clusters)
        found.append(values[is_clean].mean() - values.mean())
        stderrs.append(estimate.stderr)
        hits += estimate.ci_low <= truth <= estimate.ci_high
    assert np.mean(stderrs) == pytest.approx(np.std(found), rel=0.08)
    assert 0.92 <= hits / 1_000 <= 0.97  # with few clusters an interval is a little short


def test_the_difference_of_a_part_is_that_of_resampling():
    values, is_clean, _ = draws_of_part(np.random.default_rng(1), 400)
    ours = part_difference(values.tolist(), is_clean.tolist())
    drawn = bootstrap_difference(np.mean, values.tolist(), is_clean.tolist(), seed=0)
    assert ours.stderr == pytest.approx(drawn.stderr, rel=0.2)
    assert (ours.ci_low, ours.ci_high) == pytest.approx((drawn.ci_low, drawn.ci_high), abs=0.015)


def test_a_part_that_is_all_does_not_differ():
    assert part_difference([1.0, 0.0, 1.0], [True] * 3) == pytest.approx((0.0, 0.0, 0.0))
    assert part_difference([1.0, 0.0, 1.0], [True, False, False]) == UNKNOWN


def test_equal_values_do_not_make_a_difference_certain():
    """All docs wrong, in the part and outside: the difference is 0, but no more sure than either score."""
    stderr, low, high = part_difference([0.0] * 9, [True] * 5 + [False] * 4)
    # Wilson's upper ends of 0 of 5 and 0 of 4, times the share of the others
    assert (stderr, low, high) == pytest.approx((0.0, -0.4899 * 4 / 9, 0.4345 * 4 / 9), abs=1e-4)
    assert part_difference([1.0, 0.0, *[0.0] * 30], [True] * 2 + [False] * 30)[1:] == (-1.0, 1.0)
    assert part_difference([0.5] * 9, [True] * 5 + [False] * 4) == (0.0, None, None)
    assert part_difference([0.0] * 9, [True] * 9) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("n_docs", "leaked", "p"), [(1319, 0.055, 0.015), (300, 0.05, 0.99)])
def test_a_group_all_right_or_all_wrong_is_no_proof_of_a_difference(n_docs, leaked, p):
    """Leaked docs are as hard as the others; often none of the few has the rare outcome."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        is_clean, values = rng.random(n_docs) >= leaked, (rng.random(n_docs) < p).astype(float)
        estimate = part_difference(values.tolist(), is_clean.tolist())
        hits += estimate.ci_low <= 0 <= estimate.ci_high
    assert hits / 400 >= 0.93


def test_a_small_part_has_few_degrees_of_freedom():
    values, is_part = [0.9, 0.1, 0.8] + [0.0, 1.0] * 20, [True] * 3 + [False] * 40
    estimate = part_difference(values, is_part)
    assert estimate.ci_high - estimate.ci_low == pytest.approx(2 * 4.3027 * estimate.stderr, rel=1e-4)
    assert part_difference(values, is_part, clusters=["a"] * 3 + ["b", "c"] * 20)[1:] == (None, None)
