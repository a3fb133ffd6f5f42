"""Reading what a run left: the folder as a `Run`, and all runs of an output folder.

Independent of tasks and models, so that reports, estimates and comparisons can read a run without them.
"""

import hashlib
import json
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsFloat

from qwen2eval.errors import RunFolderError
from qwen2eval.exit_codes import ExitCode
from qwen2eval.run_folder.evidence import MATCH_COLUMNS
from qwen2eval.run_info import RunInfo

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.parquet as pq

ROWS_A_BATCH = 512
"""Samples in memory at a time, reading and writing: prompts may be long."""
LONGEST_NAME = 100


REQUIRED_SCORE_COLUMNS = (
    *("task", "metric", "filter", "subset", "n_docs", "value", "stderr", "ci_low", "ci_high", "n_unscored"),
)
"""What scores.parquet must have to be read; the places of heat maps are in newer ones only."""
REQUIRED_SAMPLE_COLUMNS = (
    *("task", "doc_id", "doc_hash", "repeat", "filter", "prompt", "response", "extracted", "target", "finish_reason"),
    *("n_prompt_tokens", "n_response_tokens", "truncated", "contamination", "contamination_qwen2", "error"),
)
"""What samples/<task>.parquet must have to be read."""
_ASK_AGAIN = "run the same command again, the store has the answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRecord:
    """One row of scores.parquet."""

    task: str
    """Task or group."""
    metric: str
    """Its name."""
    filter: str | None
    """None: the task has no named filter."""
    subset: str
    """original, clean or contaminated."""
    n_docs: int | None
    """Docs of the subset, scored or not; None: not known."""
    value: float | None
    """None: not scored. Never 0 in its place."""
    stderr: float | None
    """None: not known."""
    ci_low: float | None
    """Lower end of the 95 % interval; None: not known."""
    ci_high: float | None
    """Upper end; None: not known."""
    n_unscored: int | None
    """Docs without a score; None: not known."""
    cell_length: int | None
    """Tokens; of the docs of one length only. None: of all."""
    cell_depth: float | None
    """Percent; of the docs of one depth only. None: of all."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, ends included; None: not known."""
        return None if self.ci_low is None or self.ci_high is None else (self.ci_low, self.ci_high)

    @property
    def is_cell(self) -> bool:
        """Whether it is a part of a heat map, not a score of the whole task."""
        return self.cell_length is not None or self.cell_depth is not None


def score_records(rows: Iterable[Mapping[Hashable, Any]]) -> tuple[ScoreRecord, ...]:
    """Return rows of scores.parquet as records.

    Args:
        rows: as plain values or as pandas has them: each of its ways to say "nothing" becomes None.
    """
    return tuple(
        ScoreRecord(
            task=str(row["task"]),
            metric=str(row["metric"]),
            filter=row["filter"] if isinstance(row["filter"], str) and row["filter"] != "none" else None,
            subset=str(row["subset"]),
            n_docs=_whole(row["n_docs"]),
            value=known_number(row["value"]),
            stderr=known_number(row.get("stderr")),
            ci_low=known_number(row["ci_low"]),
            ci_high=known_number(row["ci_high"]),
            n_unscored=_whole(row["n_unscored"]),
            cell_length=_whole(row.get("cell_length")),
            cell_depth=known_number(row.get("cell_depth")),
        )
        for row in rows
    )


def known_number(cell: object) -> float | None:
    """Return a table's cell as a number; None for NaN, other missing values and everything that is not a number.

    >>> known_number(2), known_number(float("nan")), known_number(None), known_number([1, 2]), known_number("3")
    (2.0, None, None, None, None)
    """
    try:
        number = float(cell) if isinstance(cell, SupportsFloat) else None
    except (TypeError, ValueError):
        return None
    return None if number is None or math.isnan(number) else number


def _whole(cell: object) -> int | None:
    number = known_number(cell)
    return None if number is None else int(number)


@contextmanager
def _named(path: Path, remedy: str) -> Iterator[None]:
    """Name the file, and what to do, where it can't be read."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as err:
        raise RunFolderError(f"{str(path)!r} is missing: {remedy}") from err
    except (OSError, pa.ArrowException) as err:
        reason = " ".join(str(err).split())[:200]
        raise RunFolderError(f"{str(path)!r} is damaged ({reason}): {remedy}") from err


def _check_columns(path: Path, there: Iterable[str], wanted: Iterable[str], remedy: str) -> None:
    known = set(there)
    if missing := [name for name in wanted if name not in known]:
        raise RunFolderError(
            f"{str(path)!r} has no column {missing[0]!r}: it is damaged, or another version of qwen2eval wrote it: "
            f"{remedy}"
        )


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    info: RunInfo
    """run.json; `info.to_json()` is the file's own form."""
    report_fault: str | None = None
    """Why the report could not be written by this call, and what to do; None: it was written, or not requested."""

    @cached_property
    def scores(self) -> "pd.DataFrame":
        """The table of scores.parquet.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        import pandas as pd

        path, remedy = self.path / "scores.parquet", f"`qwen2eval score {self.path}` recreates it"
        with _named(path, remedy):
            frame = pd.read_parquet(path)
        _check_columns(path, frame.columns, REQUIRED_SCORE_COLUMNS, remedy)
        known = {*self.info.tasks, *self.info.groups}
        if foreign := sorted({str(name) for name in frame["task"]} - known):
            raise RunFolderError(f"{str(path)!r} is of another run: it has scores of {foreign[0]!r}: {remedy}")
        return frame

    def score_rows(self) -> tuple[ScoreRecord, ...]:
        """Return the rows of scores.parquet as records.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        return score_records(self.scores.to_dict("records"))

    def samples(self, task: str) -> "pd.DataFrame":
        """Return a task's samples, one row a doc, filter and repeat.

        Raises:
            RunFolderError: the run has no such task, or its file is missing or damaged.
        """
        import pandas as pd

        self._open_samples(task)
        path = self._samples_path(task)
        with _named(path, _ASK_AGAIN):
            return pd.read_parquet(path)

    def sample_rows(self, task: str, *, columns: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield a task's samples as plain rows.

        Args:
            task: its name.
            columns: those to read, where the file has them; None: all.

        Raises:
            RunFolderError: the run has no such task, or its file is missing or damaged.
        """
        file = self._open_samples(task)
        wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        with _named(self._samples_path(task), _ASK_AGAIN):
            for batch in file.iter_batches(ROWS_A_BATCH, columns=wanted):
                yield from batch.to_pylist()

    def chosen_sample_rows(self, task: str, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield some of a task's sample rows, reading only the parts of the file that hold them.

        Args:
            task: its name.
            numbers: of the rows, from 0, ascending.

        Raises:
            RunFolderError: the run has no such task, or its file is missing or damaged.
        """
        # Row group by row group: the prompts of a long-context task would fill the memory
        file, begin = self._open_samples(task), 0
        with _named(self._samples_path(task), _ASK_AGAIN):
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                if inside := [number - begin for number in numbers if begin <= number < end]:
                    yield from file.read_row_group(group).take(inside).to_pylist()
                begin = end

    def match_rows(self, task: str) -> list[dict[str, Any]]:
        """Return what a corpus holds of a task's docs, one row a match; none where no corpus was searched.

        Raises:
            RunFolderError: run.json says that one was searched, and the file is missing or damaged.
        """
        import pyarrow.parquet as pq

        if self.info.contamination is None or task not in self.info.contamination.tasks:
            return []
        path = self.path / "contamination" / f"{file_name(task)}.parquet"
        remedy = f"`qwen2eval decontam apply {self.path} --matches {self.info.contamination.matches}` recreates it"
        with _named(path, remedy):
            table = pq.read_table(path)
        _check_columns(path, table.column_names, ("doc_id", *MATCH_COLUMNS), remedy)
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def _samples_path(self, task: str) -> Path:
        return self.path / "samples" / f"{file_name(task)}.parquet"

    def _open_samples(self, task: str) -> "pq.ParquetFile":
        import pyarrow.parquet as pq

        if task not in self.info.scored_tasks:
            there = ", ".join(self.info.scored_tasks) or "none"
            raise RunFolderError(f"{self.path} has no samples of task {task!r}; it has {there}")
        path = self._samples_path(task)
        with _named(path, _ASK_AGAIN):
            file = pq.ParquetFile(path)
        _check_columns(path, file.schema_arrow.names, REQUIRED_SAMPLE_COLUMNS, _ASK_AGAIN)
        with _named(path, _ASK_AGAIN):
            first = next(file.iter_batches(1, columns=["task"]), None)
        if first is not None and first.num_rows and (found := first["task"][0].as_py()) != task:
            raise RunFolderError(f"{str(path)!r} is of another run: it has samples of {found!r}: {_ASK_AGAIN}")
        return file

    @property
    def failed_tasks(self) -> dict[str, str]:
        """Tasks that have no score, with the reason."""
        return {
            name: task.error or "no reason was recorded" for name, task in self.info.tasks.items() if task.is_failed
        }

    @property
    def exit_code(self) -> ExitCode:
        """INCOMPLETE when a task failed, docs are missing, or the report could not be written.

        Else MISSING_DATA when the corpus was not read in full, since clean scores are as good as that; else OK.
        """
        flags = [flag for health in self.info.health.values() for flag in health.flags]
        is_whole = not self.failed_tasks and all(flag.level != "error" for flag in flags)
        if not is_whole or self.report_fault is not None:
            return ExitCode.INCOMPLETE
        contamination = self.info.contamination
        return ExitCode.MISSING_DATA if contamination is not None and contamination.problems else ExitCode.OK


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
        raise RunFolderError(f"{str(file)!r} can't be read ({reason}): repeat the run") from err
    return Run(folder.resolve(), RunInfo.from_json(info, file=str(file)))


class FoundRuns(NamedTuple):
    """What an output folder holds."""

    runs: tuple[Run, ...]
    """Newest first."""
    unreadable: tuple[RunFolderError, ...]
    """Why each folder that has a run.json can't be read as a run of this version."""


def find_runs(folder: str | Path) -> FoundRuns:
    """Read the run.json of all runs of an output folder; unreadable ones are listed with the reason."""
    runs: list[Run] = []
    unreadable: list[RunFolderError] = []
    # `latest` is a link to one of the run folders, and names with a dot are drafts
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
