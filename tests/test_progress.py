"""Progress of a scan: on a terminal from the first report on, and nowhere else."""

import io
import sys

import pytest

from decontam.scan import Progress
from qwen2eval.progress import Progress as TaskProgress
from qwen2eval.progress import scan_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "is_shown"),
    [(Terminal(), False, True), (Terminal(), True, False), (io.StringIO(), False, False)],
    ids=["terminal", "quiet", "pipe"],
)
def test_where_a_scan_is_shown(monkeypatch, stream, quiet, is_shown):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with scan_progress(quiet=quiet) as show:
        show(Progress(500_000, 1_000_000, 40, 2))
        show(Progress(1_000_000, 1_000_000, 80, 3))
    assert ("80 documents, 3 matches" in stream.getvalue()) == is_shown
    assert stream.getvalue().count("\n") <= 1  # one bar, whatever is reported


def test_nothing_is_shown_without_a_scan(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with scan_progress():
        pass
    assert sys.stderr.getvalue() == ""


def test_a_name_with_brackets_and_escapes_is_shown(monkeypatch):
    """Square brackets were taken for markup, and `[/x]` ended the run."""
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with TaskProgress() as progress, progress.task("a[/b]\x1b]0;title\x07", "generate_until", total=1) as bar:
        bar.advance(1)
    assert "a[/b]" in stream.getvalue()
    assert "\x1b]0;" not in stream.getvalue()
