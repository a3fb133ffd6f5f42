"""The columns of samples and scores: one list each, from which rows, files and documentation are made."""

from dataclasses import fields, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from qwen2eval import RunConfig, run
from qwen2eval.columns import Column, describe_columns, schema_of
from qwen2eval.results import sample_columns, scores
from qwen2eval.results.sample_columns import SAMPLE_COLUMNS, metric_column
from qwen2eval.results.scores import SCORE_COLUMNS, Score, scores_frame
from qwen2eval.run_folder.folder import REQUIRED_SAMPLE_COLUMNS, REQUIRED_SCORE_COLUMNS, ScoreRecord
from tests.conftest import REPOSITORY
from tests.local_tasks import write_tasks


@pytest.fixture
def config(tmp_path):
    return RunConfig(
        model="dummy",
        tasks=("pick",),
        include_path=(str(write_tasks(tmp_path / "tasks")),),
        limit=2,
        output_path=str(tmp_path / "runs"),
        offline=True,
    )


def test_a_column_is_added_in_one_place(config, monkeypatch):
    """F4: a column that was added where a newcomer finds them was dropped without a word."""
    own = Column("own_column", "string", "Something.", lambda at: f"column of {at.sample.doc_id}")
    group = (*sample_columns.CELL_COLUMNS, own)
    groups = tuple(group if one is sample_columns.CELL_COLUMNS else one for one in sample_columns.COLUMN_GROUPS)
    monkeypatch.setattr(sample_columns, "COLUMN_GROUPS", groups)
    made = run(config, quiet=True)
    assert made.samples("pick")["own_column"].tolist() == ["column of 0", "column of 1"]


def test_files_have_the_columns_of_the_tables_in_their_order(config):
    made = run(config, quiet=True)
    schema = pq.read_schema(made.path / "samples" / "pick.parquet")
    judge = {column.name for column in sample_columns.JUDGE_COLUMNS}
    ours = [column for column in SAMPLE_COLUMNS if column.name not in judge]
    assert [name for name in schema.names if not name.startswith("acc")] == [column.name for column in ours]
    assert all(schema.field(column.name).type == schema_of([column]).field(0).type for column in ours)
    assert pq.read_schema(made.path / "scores.parquet").equals(schema_of(SCORE_COLUMNS))


def test_what_a_finished_run_must_have_is_in_the_tables():
    assert set(REQUIRED_SCORE_COLUMNS) <= {column.name for column in SCORE_COLUMNS}
    assert set(REQUIRED_SAMPLE_COLUMNS) <= {column.name for column in SAMPLE_COLUMNS}
    assert {field.name for field in fields(ScoreRecord)} == {column.name for column in SCORE_COLUMNS}


def test_a_score_has_its_columns():
    score = Score("t", "acc", "none", "original", 4, 0.5, 0.1, 0.3, 0.7, 1)
    frame = scores_frame([score, replace(score, cell_length=1024, cell_depth=25.0)])
    assert frame["cell_length"].isna().tolist() == [True, False]
    assert frame.loc[0, ["task", "n_docs", "value", "ci_high", "n_unscored"]].tolist() == ["t", 4, 0.5, 0.7, 1]
    assert str(frame["n_docs"].dtype) == "int64"


def test_the_documentation_is_that_of_the_tables():
    page = (Path(REPOSITORY) / "docs" / "run-folder.md").read_text(encoding="utf-8")
    for columns in (SCORE_COLUMNS, SAMPLE_COLUMNS):
        if describe_columns(columns) not in page:
            pytest.fail(f"docs/run-folder.md has to hold this table:\n{describe_columns(columns)}", pytrace=False)


def test_no_two_columns_share_a_name():
    for columns in (SAMPLE_COLUMNS, scores.SCORE_COLUMNS):
        names = [column.name for column in columns]
        assert len(names) == len(set(names))
    assert all(metric_column(column.name) == f"metric_{column.name}" for column in SAMPLE_COLUMNS)
