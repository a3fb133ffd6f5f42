"""How a metric is shown: by what a run says of it, and by its name only where a run says nothing."""

import pytest

from qwen2eval.reporting.heat_map import heat_maps
from qwen2eval.reporting.metrics import metric_of
from qwen2eval.reporting.tables import score_rows
from tests.reporting.made_up import a_task, an_info, read, records


def said(**changes):
    return an_info(tasks={"t": a_task(metrics={"acc": {"higher_is_better": True, **changes}})})


@pytest.mark.parametrize(
    ("changes", "values", "wanted"),
    [
        ({}, (0.5, 7.0), (True, False)),  # nobody said: the name, unless the value proves it wrong
        ({"unit": "share"}, (0.5, 1.2), (True, True)),
        ({"unit": "points"}, (0.5, 7.0), (False, False)),
    ],
    ids=["nothing", "a share", "points"],
)
def test_in_percent(changes, values, wanted):
    metric = metric_of(said(**changes), "t", "acc")
    assert tuple(metric.in_percent(value) for value in values) == wanted


def test_the_scale_is_the_runs_or_that_of_the_name():
    assert metric_of(said(unit="grade", low=1, high=5), "t", "acc").scale == (1, 5)
    assert metric_of(said(unit="grade"), "t", "acc").scale is None
    assert metric_of(said(), "t", "judge_score").scale == (1.0, 10.0)
    assert metric_of(said(), "unknown", "judge_score").scale == (1.0, 10.0)


def test_a_group_is_shown_as_its_members(info):
    assert metric_of(read(info), "choices", "acc").higher_is_better is True
    info["tasks"]["facts"]["metrics"]["acc"]["higher_is_better"] = False
    assert metric_of(read(info), "choices", "acc").higher_is_better is None


def test_tables_and_heat_maps_go_by_what_the_run_says(info, scores):
    info["tasks"]["colours"]["metrics"]["acc"] |= {"unit": "grade", "low": 0, "high": 5}
    assert score_rows(read(info), records(scores))[0].value_text == "0.27"
    cells = scores.iloc[:1].assign(cell_length=8192, cell_depth=50.0, value=4.0, ci_low=3.0, ci_high=9.0)
    (found,) = heat_maps(read(info), records(cells))
    assert (found.bottom, found.top, found.cells[8192, 50.0].high) == (0, 5, 5)
