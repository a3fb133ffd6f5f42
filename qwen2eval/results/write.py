"""Writes the run folder, completely or not at all. It holds data only: the report is made from it afterwards."""

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen2eval.columns import Row, schema_of
from qwen2eval.errors import RunFolderError
from qwen2eval.results.lm_eval_format import json_text, lm_eval_results, lm_eval_samples
from qwen2eval.results.sample import TaskSamples
from qwen2eval.results.sample_columns import sample_columns, sample_rows
from qwen2eval.results.scores import SCORE_COLUMNS, Score, cell_scores, scores_frame
from qwen2eval.run_folder.evidence import MATCH_COLUMNS
from qwen2eval.run_folder.folder import ROWS_A_BATCH, Run, file_name, load_run
from qwen2eval.run_info import HeatMapInfo, RunInfo
from qwen2eval.tasks.eval_group import EvalGroup


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
    """Yield an empty folder next to `target`; it replaces `target` if the block succeeds, and is removed otherwise."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        # The old folder is moved away first and removed last: at every moment one complete folder is on the disk
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        if target.exists():
            target.rename(old)
        draft.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as err:
        raise RunFolderError(
            f"The run folder {str(target)!r} can't be written: {err.strerror or err}. Nothing is lost, the store has "
            "all answers: fix the cause and run the same command again"
        ) from err
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_run(
    target: Path,
    info: RunInfo,
    samples: Mapping[str, TaskSamples],
    scores: Sequence[Score],
    groups: Mapping[str, EvalGroup],
    *,
    matches: Mapping[str, Sequence[Row]] | None = None,
) -> Run:
    """Write the data that a run leaves; `latest` points to it if it is new.

    Args:
        matches: by task, what a corpus holds of its docs; one row a match.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    clear_leftovers(target.parent)
    cells = [score for name, task in samples.items() for score in cell_scores(name, task, seed=info.seeds.numpy)]
    frame, is_new = scores_frame([*scores, *cells]), not target.exists()
    info = _with_heat_maps(info, {name: samples[name] for name in dict.fromkeys(score.task for score in cells)})
    with replaced_folder(target) as folder:
        (folder / "samples").mkdir()
        for name, task_samples in samples.items():
            _write_parquet(folder / "samples" / f"{file_name(name)}.parquet", task_samples)
            with (folder / f"samples_{file_name(name)}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(lm_eval_samples(task_samples))
        for name, rows in (matches or {}).items():
            (folder / "contamination").mkdir(exist_ok=True)
            _write_matches(folder / "contamination" / f"{file_name(name)}.parquet", rows)
        table = pa.Table.from_pandas(frame, schema=schema_of(SCORE_COLUMNS), preserve_index=False)
        pq.write_table(table, folder / "scores.parquet")
        frame.to_csv(folder / "scores.csv", index=False)
        results = lm_eval_results(samples, scores, groups, info)
        (folder / "results.json").write_text(json_text(results), encoding="utf-8")
        # Last: a folder that has it has everything
        (folder / "run.json").write_text(json_text(info.to_json()), encoding="utf-8")
    # A run that is scored again does not become the latest one
    if is_new:
        _point_latest(target)
    return load_run(target)


def _with_heat_maps(info: RunInfo, samples: Mapping[str, TaskSamples]) -> RunInfo:
    """Return run.json with what tasks say of their heat maps besides the scores; existing entries are kept.

    Args:
        samples: of the tasks that have heat maps.
    """
    tasks = dict(info.tasks)
    for name, task_samples in samples.items():
        task = task_samples.plan.task
        colours = task.metadata.get("colours")
        settings = HeatMapInfo(
            missing_lengths=task.missing_lengths,
            colours=None if colours is None else str(colours),
        )
        tasks[name] = replace(tasks[name], heat_map=tasks[name].heat_map or settings)
    return replace(info, tasks=tasks)


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


def _write_matches(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from decontam.part_result import MATCH_SCHEMA

    schema = pa.schema([("doc_id", pa.int64()), *(MATCH_SCHEMA.field(name) for name in MATCH_COLUMNS)])
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path)


def _point_latest(target: Path) -> None:
    link = target.parent / "latest"
    # A link can't be changed in place: a new one takes its name
    draft = target.parent / f".latest.{os.getpid()}"
    try:
        draft.symlink_to(target.name)
        draft.replace(link)
    except OSError:  # a file system without links, or a real folder named latest: the run itself is complete
        draft.unlink(missing_ok=True)
