"""Standard errors and intervals against lm-eval, a regression package's sandwich estimator, and simulation."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.stats.errors import UNKNOWN, bootstrap_estimate, mean_estimate

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
