"""The summary that ends a run in the terminal: scores, what to watch, where the report is."""

import textwrap
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen2eval.reporting.contamination_table import print_contamination
from qwen2eval.reporting.findings import collect_findings
from qwen2eval.reporting.markup import fold_name, visible
from qwen2eval.reporting.tables import ScoreRow, score_rows, store_text, verdicts_text
from qwen2eval.run_folder.folder import Run
from qwen2eval.run_info import RequestCounts, RunInfo

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red", "note": "cyan", "unknown": "dim"}
_ASCII = str.maketrans({"±": "+-", "—": "-", "–": "-", "↑": "^", "↓": "v", "∞": "inf", "─": "-", "⟨": "<", "⟩": ">"})


def print_summary(run: Run, *, file: TextIO) -> None:
    """Print the score table, the health warnings and the path of the report.

    Without a terminal there are no colours and no control codes, and a path is never broken over lines.

    Args:
        run: a finished run.
        file: where to print; its encoding may be less than UTF-8.
    """
    console = Console(file=file, highlight=False, emoji=False)
    with console.capture() as capture:
        _print_all(console, run)
    text = "\n".join(line.rstrip() for line in capture.get().split("\n"))
    file.write(_fit_encoding(text, getattr(file, "encoding", None)))
    file.flush()


def _print_all(console: Console, run: Run) -> None:
    info = run.info
    if info.model.note:
        _print_wrapped(console, "! ", f"{info.model.name}: {info.model.note}", style="bold yellow")
        console.print()
    # All columns but the two of names take 59 characters.
    console.print(_score_table(score_rows(info, run.score_rows()), room=max(console.width - 59, 21)))
    console.print()
    _print_programs(console, info)
    if info.contamination is not None:
        print_contamination(info, console=console)
        console.print()
    _print_findings(console, info)
    _print_stored(console, info.requests)
    if run.report_fault is None:
        _print_line(console, Text.assemble(("report   ", "bold"), visible(str(run.path / "report.html"))))


def _print_stored(console: Console, requests: RequestCounts) -> None:
    """Say that not all answers are new, where that is so."""
    if requests.stored_from is not None:
        n_all = requests.n_from_store + requests.n_answered + requests.n_failed
        text = store_text(requests).replace(" from", f" of {n_all:,} answers from", 1)
        _print_wrapped(console, "answers  ", f"{text}; `run --fresh` asks the model again", style="bold")


def _print_programs(console: Console, info: RunInfo) -> None:
    """Print the verdicts on the programs of tasks that have programs, and a blank line after them."""
    texts = {name: verdicts_text(info.health.get(name)) for name in info.tasks}
    for name, text in texts.items():
        if text:
            _print_wrapped(console, "programs ", f"{name}: {text} (sandbox {info.tasks[name].sandbox})", style="bold")
    if any(texts.values()):
        console.print()


def _print_findings(console: Console, info: RunInfo) -> None:
    """Print what a reader must know before trusting the scores, and a blank line after it."""
    findings = collect_findings(info)
    for finding in findings:
        about = f"{finding.task}: {finding.title}: " if finding.task else f"{finding.title}: "
        advice = f" {finding.advice}" if finding.advice else ""
        _print_wrapped(console, f"{finding.level:<7}  ", about + finding.message + advice, style=_STYLES[finding.level])
    if findings:
        console.print()


def _score_table(rows: tuple[ScoreRow, ...], *, room: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True, show_edge=False)
    table.add_column("Task", overflow="fold", min_width=8)
    table.add_column("Metric", overflow="fold", min_width=8)
    for header in ("Value", "Error", "95% interval", "n", "Unscored"):
        # The interval of a large number takes two lines, so that the names have room
        table.add_column(
            header, justify="right", no_wrap=header != "95% interval", min_width=8 if " " in header else None
        )
    table.add_column("Health", overflow="fold", min_width=8)
    for row in rows:
        table.add_row(*_cells(row, task_width=room * 3 // 7, metric_width=room * 4 // 7))
    return table


def _cells(row: ScoreRow, *, task_width: int, metric_width: int) -> tuple[Text, ...]:
    metric = Text(fold_name(row.metric or "—", metric_width))
    if row.higher_is_better is False:
        metric.append(" ↓")
    if row.filter:
        metric.append(f"\n{fold_name(row.filter, metric_width)}", style="dim")
    return (
        Text(fold_name(row.task, task_width), style="bold" if row.is_group else ""),
        metric,
        Text(row.value_text, style="bold"),
        Text(row.stderr_text),
        Text(row.ci_text),
        Text(row.n_docs_text),
        Text(row.n_unscored_text, style="red" if row.n_unscored else ""),
        Text(visible(row.health), style=_STYLES[row.health_level]),
    )


def _print_wrapped(console: Console, head: str, text: str, *, style: str) -> None:
    """Print a message with a hanging indent; a word longer than the line, such as a path, stays whole."""
    lines = textwrap.wrap(
        " ".join(visible(text).split()),
        width=max(console.width - len(head), 20),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for number, line in enumerate(lines):
        _print_line(console, Text.assemble((head if number == 0 else " " * len(head), style), line))


def _print_line(console: Console, line: Text) -> None:
    console.print(line, soft_wrap=True)


def _fit_encoding(text: str, encoding: str | None) -> str:
    """Put plain characters where the stream can't hold better ones, rather than fail after hours of work."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text
