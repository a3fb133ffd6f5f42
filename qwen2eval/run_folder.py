"""The run folder: written whole or not at all, and read back as a `Run`."""

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen2eval.columns import schema_of
from qwen2eval.errors import RunFolderError
from qwen2eval.evidence import MATCH_COLUMNS, with_evidence
from qwen2eval.exit_codes import ExitCode
from qwen2eval.lm_eval_format import lm_eval_results, lm_eval_samples
from qwen2eval.lm_eval_task import EvalGroup
from qwen2eval.sample import TaskSamples
from qwen2eval.sample_columns import sample_columns, sample_rows
from qwen2eval.scores import Score, cell_scores, scores_frame

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
ROWS_A_BATCH = 512
LONGEST_NAME = 100
N_EXAMPLE_DOCS = 50
"""Docs a task from which the report picks examples."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    info: Mapping[str, Any]
    """run.json."""

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

    def sample_rows(self, task: str) -> Iterator[dict[str, Any]]:
        """Yield a task's samples as plain rows."""
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(self.path / "samples" / f"{file_name(task)}.parquet").iter_batches(ROWS_A_BATCH):
            yield from batch.to_pylist()

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
    def exit_code(self) -> ExitCode:
        """OK, or INCOMPLETE when a task failed or docs are missing from a score."""
        flags = [flag for health in self.info["health"].values() for flag in health["flags"]]
        is_incomplete = self.failed_tasks or any(flag["level"] == "error" for flag in flags)
        return ExitCode.INCOMPLETE if is_incomplete else ExitCode.OK


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
    except json.JSONDecodeError as err:
        raise RunFolderError(f"{str(file)!r} is not JSON ({err}): the run has to be made again") from err
    if info.get("schema_version") != SCHEMA_VERSION:
        raise RunFolderError(
            f"{str(folder)!r} has format {info.get('schema_version')}, this qwen2eval reads {SCHEMA_VERSION}: use the "
            f"version that wrote it ({info.get('qwen2eval_version')})"
        )
    return Run(folder.resolve(), info)


def file_name(name: str) -> str:
    """Return `name` fit for a file name: no path, no surprise; a long one ends in a hash, so that no two are equal.

    >>> file_name("../a b/c::d")
    '..-a-b-c-d'
    """
    plain = re.sub(r"[^\w.\-]+", "-", name) or "unnamed"
    if len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@contextmanager
def claimed_run_id(folder: Path, run_id: str) -> Iterator[str]:
    """Yield `run_id`, numbered where another run of the same second has it or is about to."""
    for number in itertools.count(1):
        name = run_id if number == 1 else f"{run_id}-{number}"
        claim = folder / f".{name}.claim"
        with suppress(FileExistsError):
            claim.mkdir()
            if not (folder / name).exists():
                break
            claim.rmdir()
    try:
        yield name
    finally:
        claim.rmdir()


def clear_leftovers(folder: Path) -> None:
    """Remove the drafts of runs that were killed while writing; a run whose replacement did not come is put back."""
    for path in folder.glob(".*.*.*"):
        name, _, rest = path.name[1:].rpartition(".")[0].rpartition(".")
        if path.suffix not in (".partial", ".old") or not rest.isdigit() or _is_running(int(rest)):
            continue
        if path.suffix == ".old" and not (folder / name).exists():
            path.rename(folder / name)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place when the block ends well, and is removed if not."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        if target.exists():
            target.rename(old)
        draft.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as err:
        raise RunFolderError(
            f"The run folder {str(target)!r} can't be written: {err.strerror or err}. Nothing is lost, the store has "
            "all answers: mend the cause and run the same command again"
        ) from err
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_run(
    target: Path,
    info: dict[str, Any],
    samples: Mapping[str, TaskSamples],
    scores: Sequence[Score],
    groups: Mapping[str, EvalGroup],
    *,
    matches: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Run:
    """Write everything a run leaves; `latest` points to it if it is new.

    Args:
        matches: by task, what a corpus holds of its docs; one row a match.
    """
    from qwen2eval.reporting.render import write_report

    clear_leftovers(target.parent)
    cells = [score for name, task in samples.items() for score in cell_scores(name, task, seed=info["seeds"]["numpy"])]
    frame, is_new = scores_frame([*scores, *cells]), not target.exists()
    for name in dict.fromkeys(score.task for score in cells):
        info["tasks"][name].setdefault("heat_map", _heat_map_settings(samples[name]))
    with replaced_folder(target) as folder:
        (folder / "samples").mkdir()
        for name, task_samples in samples.items():
            _write_parquet(folder / "samples" / f"{file_name(name)}.parquet", task_samples)
            with (folder / f"samples_{file_name(name)}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(lm_eval_samples(task_samples))
        for name, rows in (matches or {}).items():
            (folder / "contamination").mkdir(exist_ok=True)
            _write_matches(folder / "contamination" / f"{file_name(name)}.parquet", rows)
        frame.to_parquet(folder / "scores.parquet", index=False)
        frame.to_csv(folder / "scores.csv", index=False)
        _write_json(folder / "results.json", lm_eval_results(samples, scores, groups, info))
        examples = {
            name: with_evidence(example_rows(task), (matches or {}).get(name, ())) for name, task in samples.items()
        }
        write_report(folder, info, frame, examples=examples)
        _write_json(folder / "run.json", info)  # last: a folder that has it has everything
    if is_new:
        _point_latest(target)
    return load_run(target)


def _heat_map_settings(samples: TaskSamples) -> dict[str, Any]:
    """Return what a task says of its heat map besides the scores."""
    task = samples.plan.task
    return {
        "missing_lengths": list(task.missing_lengths),
        "colours": task.metadata.get("colours"),
    }


def example_rows(samples: TaskSamples) -> Iterator[dict[str, Any]]:
    """Yield the rows of a task's first docs; the report picks a few of them to show."""
    for name, docs in samples.by_filter.items():
        yield from sample_rows(TaskSamples(samples.plan, {name: docs[:N_EXAMPLE_DOCS]}))


def _write_parquet(path: Path, samples: TaskSamples) -> None:
    """Write the samples in batches, so that their prompts are never all in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = sample_columns(samples)
    schema = schema_of(columns)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []
        for row in sample_rows(samples, columns):
            batch.append(row)
            if len(batch) == ROWS_A_BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _write_matches(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from decontam.part_result import MATCH_SCHEMA

    schema = pa.schema([("doc_id", pa.int64()), *(MATCH_SCHEMA.field(name) for name in MATCH_COLUMNS)])
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path)


def _write_json(path: Path, value: Any) -> None:
    from lm_eval.utils import handle_non_serializable

    path.write_text(
        json.dumps(value, indent=1, default=handle_non_serializable, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _point_latest(target: Path) -> None:
    link = target.parent / "latest"
    draft = target.parent / f".latest.{os.getpid()}"
    try:
        draft.symlink_to(target.name)
        draft.replace(link)
    except OSError:  # a file system without links, or a real folder named latest: the run itself is complete
        draft.unlink(missing_ok=True)
