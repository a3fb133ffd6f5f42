"""Groups: each task once, intervals at least as wide as those of their tasks, metrics that nobody has are named."""

import json

import pytest
from scipy.stats import binomtest

from qwen2eval import RunConfig
from qwen2eval.backends import load_spec
from qwen2eval.planning.plan import make_plan
from qwen2eval.results.group_scores import group_scores
from qwen2eval.results.scores import Score
from qwen2eval.stats.errors import mean_estimate
from qwen2eval.tasks.registry import load_tasks
from tests.local_tasks import run_here, write_task, write_tasks

MEAN = {"metric": "exact_match", "aggregation": "mean", "weight_by_size": True}


@pytest.fixture
def tasks_dir(tmp_path):
    return write_tasks(tmp_path / "tasks")


def write_group(folder, name, members, *metrics, **changes):
    group = {"group": name, "task": members, "aggregate_metric_list": [one | changes for one in metrics or (MEAN,)]}
    (folder / f"{name}.yaml").write_text(json.dumps(group))


def rows_of(folder, name, results, metric="exact_match"):
    """Return the group's rows where its tasks have the given results, 0 or 1 a doc."""
    groups = load_tasks(RunConfig(model="dummy", tasks=(name,), include_path=(str(folder),))).groups
    scores = []
    for task, values in results.items():
        estimate = mean_estimate(values)
        value = sum(values) / len(values)
        scores.append(Score(task, metric, "none", "original", len(values), value, *estimate, 0, estimate.stderr))
    return {row.task: row for row in group_scores(scores, groups)}


def wilson(n_right, n):
    interval = binomtest(n_right, n).proportion_ci(method="wilson")
    return interval.low, interval.high


@pytest.fixture
def shared(tasks_dir):
    """`one` is in both subgroups."""
    for name in ("one", "two"):
        write_task(tasks_dir, name, like="say", filter_list=None)
    write_group(tasks_dir, "sub_a", ["one"])
    write_group(tasks_dir, "sub_b", ["one", "two", "one"])
    write_group(tasks_dir, "root", ["sub_a", "sub_b"])
    write_group(tasks_dir, "alike", ["sub_a", "sub_b"], weight_by_size=False)
    return tasks_dir


RESULTS = {"one": [0.0, 0.0], "two": [1.0] * 4}


@pytest.mark.parametrize(("name", "value"), [("root", 4 / 6), ("alike", 1 / 2)])
def test_a_task_of_two_subgroups_counts_once(shared, name, value):
    """4 of 6 right were 50 %."""
    row = rows_of(shared, name, RESULTS)[name]
    assert (row.value, row.n_docs) == (pytest.approx(value), 6)


def test_results_json_counts_it_once_too(shared, tmp_path):
    made = run_here(shared, tmp_path / "runs", tasks="root")
    results = json.loads((made.path / "results.json").read_text())["results"]
    assert results["root"]["sample_len"] == 12


@pytest.mark.parametrize("n_right", [0, 1, 3])
def test_the_interval_of_a_group_is_that_of_its_only_task(shared, n_right):
    """0 of 3 right was certain: 0.0 - 0.0."""
    row = rows_of(shared, "sub_a", {"one": [1.0] * n_right + [0.0] * (3 - n_right)})["sub_a"]
    assert (row.ci_low, row.ci_high) == pytest.approx(wilson(n_right, 3), abs=1e-9)


def test_the_interval_of_two_tasks_adds_their_distances_in_squares(shared):
    """By hand: weights 1/3 and 2/3, Wilson ends of 0 of 2 and of 4 of 4."""
    row = rows_of(shared, "sub_b", RESULTS)["sub_b"]
    above, below = wilson(0, 2)[1] / 3, 2 / 3 * (1 - wilson(4, 4)[0])
    assert (row.ci_low, row.ci_high) == pytest.approx((2 / 3 - below, 2 / 3 + above))


def test_a_metric_that_no_task_has_is_a_row_and_a_warning(tasks_dir, tmp_path, capsys):
    """It was nothing at all."""
    write_group(tasks_dir, "lost", ["say", "draw"], {**MEAN, "metric": "acc"})
    made = run_here(tasks_dir, tmp_path / "runs", tasks="lost")
    row = made.scores.query("task == 'lost'").iloc[0]
    assert (row["metric"], row["n_docs"], row["n_unscored"]) == ("acc", 12, 12)
    assert row.isna()["value"]
    said = (
        "Group 'lost' asks for the metric 'acc', which none of its tasks has: it has no score. They have: exact_match"
    )
    assert made.info.warnings == (said,)
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("members", "metrics", "said"),
    [
        (["say", "pick"], [MEAN], "which pick does not have"),
        (["say", "draw"], [{**MEAN, "filter_list": ["strict"]}], "with the filter 'strict', which draw does not have"),
        (["say"], [{**MEAN, "filter_list": ["strict", "loose"]}], None),
    ],
    ids=["metric", "filter", "all there"],
)
def test_what_some_tasks_lack_is_said_in_the_plan(tasks_dir, members, metrics, said):
    write_group(tasks_dir, "some", members, *metrics)
    config = RunConfig(model="dummy", tasks=("some",), include_path=(str(tasks_dir),))
    warnings = make_plan(config, load_spec(config)).warnings
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]
