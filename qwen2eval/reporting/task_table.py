"""Tables of tasks and suites for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from qwen2eval.tasks.index import TaskEntry
    from qwen2eval.tasks.registry import Suite

MOST_ROWS = 60


def print_tasks(entries: "Sequence[TaskEntry]", *, query: str, file: TextIO) -> None:
    """Print the first 60 entries, and how many more there are."""
    console = Console(file=file, highlight=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "kind", "from", "answers", "summary"):
        table.add_column(
            name, overflow="fold" if name in ("name", "summary") else "ellipsis", no_wrap=name in ("kind", "from")
        )
    for entry in entries[:MOST_ROWS]:
        table.add_row(*(Text(t) for t in (entry.name, entry.kind, entry.origin, entry.output_type, entry.summary)))
    console.print(table)
    if len(entries) > MOST_ROWS:
        console.print(Text(f"… and {len(entries) - MOST_ROWS} more: narrow the search, or use --json", style="dim"))
    if not query:
        console.print(Text("lm-eval's own tasks run by name as well: search with `qwen2eval tasks QUERY`", style="dim"))


def print_suites(found: "Sequence[Suite]", *, file: TextIO) -> None:
    """Print the suites and their tasks."""
    console = Console(file=file, highlight=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("suite", "tasks", "summary"):
        table.add_column(name, overflow="fold")
    for suite in found:
        table.add_row(Text(suite.name), Text(", ".join(suite.tasks)), Text(suite.summary))
    console.print(table)
