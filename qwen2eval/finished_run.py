"""Reading what a run left: the folder as a `Run`, and all runs of an output folder.

Knows neither tasks nor models, so that reports, estimates and comparisons can read a run without them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen2eval.errors import RunFolderError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
ROWS_A_BATCH = 512
LONGEST_NAME = 100


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    info: Mapping[str, Any]
    """run.json."""
    report_fault: str | None = None
    """Why its report could not be written just now, and what to do; None: it is there, or nobody has tried."""

    @cached_property
    def scores(self) -> "pd.DataFrame":
        """The table of scores.parquet."""
        import pandas as pd

        return pd.read_parquet(self.path / "scores.parquet")

    def samples(self, task: str) -> "pd.DataFrame":
        """Return a task's samples, one row a doc, filter and repeat.

        Raises:
            RunFolderError: the run has no such task.
        """
        import pandas as pd

        path = self.path / "samples" / f"{file_name(task)}.parquet"
        if not path.is_file():
            there = sorted(p.stem for p in (self.path / "samples").glob("*.parquet"))
            raise RunFolderError(f"{self.path} has no samples of task {task!r}; it has {', '.join(there) or 'none'}")
        return pd.read_parquet(path)

    def sample_rows(self, task: str, *, columns: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield a task's samples as plain rows.

        Args:
            columns: those to read, where the file has them; None: all.
        """
        import pyarrow.parquet as pq

        file = pq.ParquetFile(self.path / "samples" / f"{file_name(task)}.parquet")
        wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(ROWS_A_BATCH, columns=wanted):
            yield from batch.to_pylist()

    def chosen_sample_rows(self, task: str, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield some of a task's sample rows, reading only the parts of the file that hold them.

        Args:
            numbers: of the rows, from 0, ascending.
        """
        import pyarrow.parquet as pq

        file = pq.ParquetFile(self.path / "samples" / f"{file_name(task)}.parquet")
        begin = 0
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            if inside := [number - begin for number in numbers if begin <= number < end]:
                yield from file.read_row_group(group).take(inside).to_pylist()
            begin = end

    def match_rows(self, task: str) -> list[dict[str, Any]]:
        """Return what a corpus holds of a task's docs, one row a match; none where no corpus was searched."""
        import pyarrow.parquet as pq

        path = self.path / "contamination" / f"{file_name(task)}.parquet"
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.is_file() else []
        return rows

    @property
    def failed_tasks(self) -> dict[str, str]:
        """Tasks that have no score, with the reason."""
        return {name: task["error"] for name, task in self.info["tasks"].items() if task["status"] == "failed"}

    @property
    def exit_code(self) -> int:
        """0, or 70 when a task failed, docs are missing from a score, or the report could not be written."""
        flags = [flag for health in self.info["health"].values() for flag in health["flags"]]
        is_whole = not self.failed_tasks and all(flag["level"] != "error" for flag in flags)
        return 0 if is_whole and self.report_fault is None else 70


def load_run(path: str | Path) -> Run:
    """Read a run folder; `latest` under the output folder works as well.

    Raises:
        RunFolderError: no such folder, or one that no run wrote, or one of another version.
    """
    folder = Path(path)
    file = folder / "run.json"
    if not file.is_file():
        raise RunFolderError(
            f"{str(folder)!r} is not a run folder (no run.json in it): give a folder under runs/, or runs/latest"
        )
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        reason = err.strerror if isinstance(err, OSError) else f"it is not JSON: {err}"
        raise RunFolderError(f"{str(file)!r} can't be read ({reason}): the run has to be made again") from err
    if not isinstance(info, dict):
        raise RunFolderError(f"{str(file)!r} is not the record of a run: it holds no JSON object")
    if info.get("schema_version") != SCHEMA_VERSION:
        raise RunFolderError(
            f"{str(folder)!r} has format {info.get('schema_version')}, this qwen2eval reads {SCHEMA_VERSION}: use the "
            f"version that wrote it ({info.get('qwen2eval_version')})"
        )
    return Run(folder.resolve(), info)


class FoundRuns(NamedTuple):
    """What an output folder holds."""

    runs: tuple[Run, ...]
    """Newest first."""
    unreadable: tuple[RunFolderError, ...]
    """Why each folder that has a run.json and yet is no run of this version can't be read."""


def find_runs(folder: str | Path) -> FoundRuns:
    """Read the run.json of all runs of an output folder; foreign and damaged folders are passed over, and named."""
    runs: list[Run] = []
    unreadable: list[RunFolderError] = []
    # `latest` is a link to one of the others, and names with a dot are drafts
    paths = [file.parent for file in Path(folder).glob("*/run.json")]
    for path in sorted((p for p in paths if not p.is_symlink() and not p.name.startswith(".")), reverse=True):
        try:
            runs.append(load_run(path))
        except RunFolderError as err:
            unreadable.append(err)
    return FoundRuns(tuple(runs), tuple(unreadable))


def file_name(name: str) -> str:
    """Return `name` fit for a file name: no path, no surprise; a long one ends in a hash, so that no two are equal.

    >>> file_name("../a b/c::d")
    '..-a-b-c-d'
    """
    plain = re.sub(r"[^\w.\-]+", "-", name) or "unnamed"
    if len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
