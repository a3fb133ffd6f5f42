"""What runs are called where they stand side by side: by their models, and by their ids where that is not enough."""

import pandas as pd

from qwen2eval.reporting.side_by_side import labels, write_side_by_side
from tests.reporting.made_up import a_task, an_info, records


def a_run(name, run_id, rope=None):
    cells = pd.DataFrame(
        {
            "task": "niah",
            "metric": "acc",
            "filter": "none",
            "subset": "original",
            "n_docs": 20,
            "value": [0.5, 0.25],
            "ci_low": 0.1,
            "ci_high": 0.9,
            "n_unscored": 0,
            "cell_length": [8192, 16384],
            "cell_depth": 5.0,
        }
    )
    return an_info(model=name, rope=rope, run_id=run_id, tasks={"niah": a_task()}), records(cells)


def test_models_of_different_names_need_no_ids():
    runs = [a_run("small", "r1"), a_run("large", "r2"), a_run("large", "r3", rope="yarn x4")]
    assert labels(runs) == ["small", "large", "large yarn x4"]


def test_runs_of_one_model_are_told_apart_by_their_ids():
    """Both were called alike, so that one row of the table and one heat map could not be told from the other."""
    runs = [a_run("small", "r1"), a_run("large", "r2"), a_run("small", "r3")]
    assert labels(runs) == ["small (r1)", "large", "small (r3)"]


def test_the_page_names_them_so(tmp_path):
    write_side_by_side([a_run("small", "r1"), a_run("small", "r3")], tmp_path / "out")
    page = (tmp_path / "out" / "side_by_side.md").read_text()
    assert "small (r1)" in page
    assert "small (r3)" in page
