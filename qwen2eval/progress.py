"""Progress on stderr, silent where that is a pipe: a bar for each task and kind of request, and one for a scan."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

if TYPE_CHECKING:
    from decontam.scan import Progress as ScanProgress


class Bar:
    """One line of progress."""

    def __init__(self, rich_progress: RichProgress | None, task_id: int) -> None:
        self._progress, self._id = rich_progress, task_id

    def advance(self, n: int, *, from_store: bool = False) -> None:
        """Count `n` more answers; those from the store do not count as speed."""
        if self._progress is None or not n:
            return
        task = self._progress.tasks[self._id]
        if from_store:
            self._progress.reset(task.id, completed=n, total=task.total, description=task.description)
        else:
            self._progress.advance(task.id, n)


class Progress:
    """The bars of a run; `with Progress() as progress`.

    Args:
        quiet: no output, even on a terminal.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._rich: RichProgress | None = None
        if not quiet and sys.stderr.isatty():
            self._rich = RichProgress(
                # A task's name may have square brackets, which are no markup here
                TextColumn("{task.description:<34.34}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=Console(stderr=True),
            )

    def __enter__(self) -> "Progress":
        if self._rich is not None:
            self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    @contextmanager
    def task(self, name: str, kind: str, *, total: int) -> Iterator[Bar]:
        """Show a bar for `total` requests while the block runs."""
        if self._rich is None:
            yield Bar(None, 0)
            return
        # A control character could steer the terminal
        shown = "".join(character if character.isprintable() else "\ufffd" for character in name)
        task_id = self._rich.add_task(f"{shown} · {kind.replace('_', ' ')}", total=total)
        yield Bar(self._rich, self._rich.task_ids.index(task_id))


@contextmanager
def scan_progress(*, quiet: bool = False) -> "Iterator[Callable[[ScanProgress], None]]":
    """Yield what takes a scan's progress, and shows bytes, rate and time left from its first report on."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(), TextColumn("left"))
    bars = RichProgress(*columns, TimeRemainingColumn(), TextColumn("{task.description}"), console=Console(stderr=True))

    def show(progress: "ScanProgress") -> None:
        if not bars.tasks:
            bars.add_task("", total=progress.n_bytes_total)
            bars.start()
        found = f"{progress.n_documents:,} documents, {progress.n_matches:,} matches"
        bars.update(bars.tasks[0].id, completed=progress.n_bytes, description=found)

    try:
        yield show
    finally:
        bars.stop()
