import io
from pathlib import Path

import pytest

from qwen2eval.reporting.console import print_summary
from qwen2eval.run_folder.folder import Run
from tests.reporting.made_up import read


def _run(info, scores, folder=Path("runs/x"), **more) -> Run:
    run = Run(folder, read(info), **more)
    vars(run)["scores"] = scores  # as if it had been read
    return run


def _printed(*run, **more) -> str:
    file = io.StringIO()
    print_summary(_run(*run, **more), file=file)
    return file.getvalue()


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def test_fits_80_columns_without_control_codes(info, scores):
    text = _printed(info, scores)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_tells_scores_warnings_note_and_report(info, scores, tmp_path):
    text = _printed(info, scores, tmp_path)
    assert "colours   acc            27.0%  ± 4.5   18.3 – 35.7  100         0  chance level" in text
    assert "warning  colours: chance level: acc 0.27 is within noise of chance" in text
    assert "untrained stand-in" in text
    assert text.endswith(f"report   {tmp_path}/report.html\n")


def test_a_long_path_is_not_broken(info, scores, tmp_path):
    run_dir = tmp_path / ("long_" * 30)
    assert f"{run_dir}/report.html\n" in _printed(info, scores, run_dir)


def test_big_counts_still_fit(info, scores):
    scores["n_docs"] = scores["n_unscored"] = 1_319_042
    info["tasks"] = {f"{name}_with_quite_a_long_name": task for name, task in info["tasks"].items()}
    scores["task"] += "_with_quite_a_long_name"
    assert max(map(len, _printed(info, scores).splitlines())) <= 80


def test_a_stream_of_ascii_is_enough(info, scores):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    print_summary(_run(info, scores), file=file)
    assert b"+- 4.5" in raw.getvalue()


def test_hostile_text_reaches_the_terminal_as_text(info, scores):
    info["tasks"]["letters"]["error"] = "\x1b]0;owned\x07 [red]not markup[/red] \x1b[2J"
    text = _printed(info, scores)
    assert "\x1b" not in text
    assert "[red]not markup[/red]" in text


def test_a_clean_run_ends_with_the_report(clean_info, scores):
    text = _printed(clean_info, scores[scores["task"] == "facts"])
    assert "warning" not in text
    assert text.splitlines()[-1].startswith("report")


def test_a_report_that_is_not_there_is_not_named(clean_info, scores):
    assert "report.html" not in _printed(clean_info, scores, report_fault="no room")
