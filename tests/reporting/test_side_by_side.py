"""Several runs on one page: what belongs together, the scores of table 12, and what is refused."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from qwen2eval.errors import ConfigError
from qwen2eval.reporting.side_by_side import (
    ComparedRun,
    grouped_maps,
    label,
    labels,
    length_table,
    score_table,
    write_side_by_side,
)
from tests.reporting.made_up import a_task, an_info, records

COLUMNS = ("task", "metric", "filter", "subset", "n_docs", "value", "ci_low", "ci_high", "n_unscored")


def a_run(name, values, rope="none"):
    """A run with a cell at each (length, depth) and groups by name."""
    rows = []
    for key, value in values.items():
        cell = {"cell_length": None, "cell_depth": None}
        if not isinstance(key, str):
            cell = dict(zip(cell, key, strict=True))
        task = key if isinstance(key, str) else "niah"
        row = (task, "acc", "none", "original", 20, value, value - 0.01, min(value + 0.01, 1), 0)
        rows.append(dict(zip(COLUMNS, row, strict=True)) | cell)
    heat_map = {"missing_lengths": [], "colours": None}
    info = an_info(model=name, rope=rope, tasks={"niah": a_task(heat_map=heat_map)})
    return info, records(pd.DataFrame(rows))


def compared(*runs):
    return [ComparedRun(name, *run) for name, run in zip(labels(runs), runs, strict=True)]


PLAIN = a_run("small", {(8192, 5.0): 1.0, (8192, None): 1.0, "needlebench_8k": 0.5, "lveval_16k": 0.25, "mmlu": 0.3})
STRETCHED = a_run("small", {(8192, 5.0): 0.5, (16384, 5.0): 0.0, "needlebench_32k": 0.125}, rope="yarn+dca x4")


def test_maps_of_one_task_are_put_together():
    (maps,) = grouped_maps(compared(PLAIN, STRETCHED))
    assert [one.model for one in maps] == ["small", "small yarn+dca x4"]
    assert [one.cells[8192, 5.0].value for one in maps] == [100.0, 50.0]


def test_scores_by_length_as_in_table_12():
    table = length_table(compared(PLAIN, STRETCHED))
    assert [column.title for column in table.columns] == ["NeedleBench/8k", "NeedleBench/32k", "LV-Eval/16k"]
    assert table.rows == (
        ("small", (("50.0%", "49.0 – 51.0"), ("—", ""), ("25.0%", "24.0 – 26.0"))),
        ("small yarn+dca x4", (("—", ""), ("12.5%", "11.5 – 13.5"), ("—", ""))),
    )


def test_the_page(tmp_path):
    info, scores = PLAIN
    hostile = (replace(info, model=replace(info.model, name="<script>x</script>")), scores)
    written = write_side_by_side([hostile, STRETCHED], tmp_path / "out")
    names = [path.name for path in written]
    assert names[:4] == ["figure_1.svg", "figure_1.png", "figure_1_by_length.svg", "figure_1_by_length.png"]
    html = (tmp_path / "out" / "side_by_side.html").read_text()
    assert "<script>" not in html
    assert html.count("data:image/svg+xml;base64,") == 2
    assert "NeedleBench/8k" in (tmp_path / "out" / "side_by_side.md").read_text()


def test_scores_of_ordinary_runs_stand_side_by_side(tmp_path):
    """Only runs with heat maps and long-context groups could be shown together."""
    runs = []
    for model, value, n_docs in (("small", 0.5, 20), ("large", 0.75, 40)):
        tasks = {"sums": a_task(n_docs=n_docs), model: a_task()}
        rows = [
            (task, "acc", "none", "original", n_docs, value, value - 0.1, value + 0.1, 0) for task in ("sums", model)
        ]
        runs.append((an_info(model=model, tasks=tasks), records(pd.DataFrame(rows, columns=COLUMNS))))
    table = score_table(compared(*runs))
    assert [(row.task, row.metric, row.direction) for row in table.rows] == [
        ("sums", "acc", "↑"),
        ("small", "acc", "↑"),
        ("large", "acc", "↑"),
    ]
    assert table.rows[0].cells == (("50.0%", "40.0 – 60.0", "20"), ("75.0%", "65.0 – 85.0", "40"))
    assert table.rows[1].cells == (("50.0%", "40.0 – 60.0", "20"), ("—", "", ""))
    assert table.differences == (("sums", "docs"),)
    write_side_by_side(runs, tmp_path)
    assert "| `sums` | `acc` ↑ | 50.0% (40.0 – 60.0), n = 20 | 75.0% (65.0 – 85.0), n = 40 |" in (
        tmp_path / "side_by_side.md"
    ).read_text("utf-8")
    html = (tmp_path / "side_by_side.html").read_text("utf-8")
    assert "<strong>sums</strong> (docs)" in html
    assert "<img" not in html


def test_runs_without_any_score_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="so there is nothing to compare"):
        write_side_by_side([a_run("small", {})], tmp_path)


def test_a_model_is_called_by_its_setting():
    assert json.dumps([label(PLAIN[0]), label(STRETCHED[0])]) == '["small", "small yarn+dca x4"]'
