import math

import pandas as pd
import pytest

from qwen2eval.reporting.tables import headline_rows, score_rows
from tests.reporting.made_up import read, records


def test_rows_follow_the_run_and_show_the_original_subset(info, scores):
    rows = score_rows(read(info), records(scores))
    assert [(row.task, row.metric, row.filter) for row in rows] == [
        ("colours", "acc", None),
        ("facts", "acc", None),
        ("facts", "acc_norm", None),
        ("sums", "exact_match", "strict-match"),
        ("sums", "exact_match", "flexible-extract"),
        ("running_text", "word_perplexity", None),
        ("letters", None, None),
        ("choices", "acc", None),
    ]
    assert [row.task for row in rows if row.is_group] == ["choices"]


def test_a_row_shows_what_the_table_holds(info, scores):
    row = score_rows(read(info), records(scores))[0]
    assert (row.value, row.stderr, row.ci, row.n_docs, row.n_unscored) == (0.27, 0.0446, (0.1826, 0.3574), 100, 0)
    assert (row.value_text, row.stderr_text, row.ci_text) == ("27.0%", "± 4.5", "18.3 – 35.7")
    assert (row.chance, row.chance_text, row.direction) == (0.25, "25.0%", "↑")


def test_a_failed_task_has_a_row_without_numbers(info, scores):
    row = next(row for row in score_rows(read(info), records(scores)) if row.task == "letters")
    assert (row.value_text, row.stderr_text, row.ci_text, row.n_docs_text) == ("—", "—", "—", "—")
    assert (row.health, row.health_level) == ("failed", "error")


@pytest.mark.parametrize("nothing", [None, math.nan, pd.NA, pd.NaT])
def test_every_kind_of_nothing_is_not_scored(info, scores, nothing):
    scores = scores.astype(object)
    for column in ("value", "stderr", "ci_low", "ci_high", "n_docs", "n_unscored"):
        scores.loc[0, column] = nothing
    row = score_rows(read(info), records(scores))[0]
    assert (row.value, row.stderr, row.ci, row.n_docs, row.n_unscored) == (None,) * 5
    assert (row.value_text, row.stderr_text, row.ci_text, row.n_docs_text) == ("—",) * 4


def test_a_value_without_an_error_estimate_is_told_from_no_value(info, scores):
    perplexity = next(row for row in score_rows(read(info), records(scores)) if row.metric == "word_perplexity")
    assert (perplexity.value_text, perplexity.stderr_text, perplexity.ci_text) == ("412.3", "n/a", "n/a")


def test_health_is_short(info, scores):
    health = {row.task: (row.health_level, row.health) for row in score_rows(read(info), records(scores))}
    assert health == {
        "colours": ("warning", "chance level"),
        "facts": ("ok", "ok"),
        "sums": ("error", "3 flags"),
        "running_text": ("ok", "ok"),
        "letters": ("error", "failed"),
        "choices": ("warning", "1 of 2 flagged"),
    }


def test_unknown_health_is_not_ok(info, scores):
    del info["health"]["facts"]
    row = next(row for row in score_rows(read(info), records(scores)) if row.task == "facts")
    assert (row.health_level, row.health) == ("unknown", "—")


def test_headlines_are_groups_then_tasks_and_grouped_tasks_give_way(info, scores):
    rows = score_rows(read(info), records(scores))
    names = ["choices", "colours", "facts", "sums", "running_text", "letters"]
    assert [row.task for row in headline_rows(read(info), rows)] == names
    assert [row.task for row in headline_rows(read(info), rows, limit=5)] == [
        "choices",
        "sums",
        "running_text",
        "letters",
    ]


def test_no_scores_at_all(info, scores):
    rows = score_rows(read(info), records(scores.iloc[:0]))
    assert [row.task for row in rows] == list(info["tasks"])
    assert {row.value for row in rows} == {None}
