"""Progress on stderr: one bar a task and kind of request, with rate and time left; silent where stderr is a pipe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


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
        quiet: no output whatever stderr is.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._rich: RichProgress | None = None
        if not quiet and sys.stderr.isatty():
            self._rich = RichProgress(
                TextColumn("{task.description:<34.34}"),
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
        task_id = self._rich.add_task(f"{name} · {kind.replace('_', ' ')}", total=total)
        yield Bar(self._rich, self._rich.task_ids.index(task_id))
