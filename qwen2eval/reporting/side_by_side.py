"""Several runs on one page: their scores, heat maps on one scale, curves by length, and lengths as in table 12."""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from qwen2eval.errors import ConfigError, RunFolderError
from qwen2eval.reporting.heat_map import HeatMap, heat_maps
from qwen2eval.reporting.markup import FORMATS
from qwen2eval.reporting.metrics import metric_of
from qwen2eval.reporting.numbers import NOTHING, format_count, format_interval, format_value
from qwen2eval.run_folder.folder import ScoreRecord
from qwen2eval.run_info import RunInfo, TaskInfo

FAMILIES = {"needlebench": "NeedleBench", "needlebench_v2": "NeedleBench v2", "lveval": "LV-Eval"}
"""Benchmarks with a score a length: what their groups' names begin with, and what the report calls them."""
_GROUP = re.compile(rf"({'|'.join(FAMILIES)})_(\d+)k")
_ARROWS = {True: "↑", False: "↓", None: ""}
_PROTOCOL: Mapping[str, Callable[[TaskInfo], object]] = {
    "docs": lambda task: task.n_docs,
    "shots": lambda task: task.num_fewshot,
    "template": lambda task: task.template_hash,
    "chat template": lambda task: task.apply_chat_template,
    "filters": lambda task: task.filters,
    "generation arguments": lambda task: task.generation_kwargs,
    "data": lambda task: task.data.sha256,
}
"""What two runs of a task must have in common for their scores to be compared."""


class ComparedRun(NamedTuple):
    """One of the runs that are compared."""

    name: str
    """What the page calls it: no two are called the same."""
    info: RunInfo
    """The run as in run.json."""
    scores: Sequence[ScoreRecord]
    """As in scores.parquet."""


class Column(NamedTuple):
    """A benchmark at one length."""

    family: str
    thousands: int

    @property
    def title(self) -> str:
        """As in table 12, `NeedleBench/8k`."""
        return f"{FAMILIES[self.family]}/{self.thousands}k"


@dataclass(frozen=True)
class LengthTable:
    """Scores by benchmark and length, one row a run, in percent."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """Model and setting; for each column value and 95 % interval."""


class ScoreCell(NamedTuple):
    """One run's score."""

    value: str = NOTHING
    """As shown."""
    interval: str = ""
    """95 %; empty where it is not known."""
    n: str = ""
    """Docs, scored or not."""


@dataclass(frozen=True)
class ComparedScore:
    """One metric of one task, one cell a run."""

    task: str
    """Task or group."""
    metric: str
    """Its name."""
    filter: str | None
    """None: the task has no named filter."""
    direction: str
    """An arrow to the better side; empty if the direction is not specified."""
    cells: tuple[ScoreCell, ...]
    """In the order of the runs."""


@dataclass(frozen=True)
class ScoreTable:
    """The scores of several runs."""

    rows: tuple[ComparedScore, ...]
    """In the order in which the runs have them."""
    differences: tuple[tuple[str, str], ...]
    """Tasks whose runs differ in more than the model, and in what."""


class Picture(NamedTuple):
    """A figure of several runs."""

    title: str
    file: str
    data: str
    """SVG in base64."""


def write_side_by_side(
    runs: Sequence[tuple[RunInfo, Sequence[ScoreRecord]]], folder: Path, *, formats: Iterable[str] = FORMATS
) -> tuple[Path, ...]:
    """Write `side_by_side.html`, `.md` and the figures as SVG and PNG.

    Args:
        runs: run.json and scores.parquet of each.
        folder: made where it is missing.
        formats: "html", "md" or both.

    Raises:
        ConfigError: the runs have no score.
        RunFolderError: the folder can't be written to.
    """
    from qwen2eval.reporting.render import render_page, write_whole

    compared = [ComparedRun(name, *run) for name, run in zip(labels(runs), runs, strict=True)]
    table, grouped = score_table(compared), grouped_maps(compared)
    if not table.rows and not grouped:
        raise ConfigError("None of these runs has a score, so there is nothing to compare")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise RunFolderError(f"Can't write {str(folder)!r}: {err.strerror}") from err
    pictures, written = _draw(grouped, folder)
    pages = render_page(
        "side_by_side",
        formats=formats,
        scores=table,
        table=length_table(compared),
        pictures=pictures,
        names=[run.name for run in compared],
    )
    for name, text in pages.items():
        write_whole(folder / name, text)
        written.append(folder / name)
    return tuple(written)


def _draw(grouped: Sequence[Sequence[HeatMap]], folder: Path) -> tuple[list[Picture], list[Path]]:
    """Write the figures, and return those that the page shows, and the paths of all."""
    pictures, written = list[Picture](), list[Path]()
    for number, maps in enumerate(grouped, 1):
        from qwen2eval.reporting.heat_map_figure import write_side_by_side_figures

        for kind, path in write_side_by_side_figures(folder, maps, name=f"figure_{number}"):
            written.append(path)
            if path.suffix == ".svg":
                data = base64.b64encode(path.read_bytes()).decode()
                pictures.append(Picture(f"{maps[0].name} {kind}", path.name, data))
    return pictures, written


def score_table(runs: Sequence[ComparedRun]) -> ScoreTable:
    """Return the scores of all docs of each task and group, one row a metric and filter, one cell a run."""
    by_run = [_scores_of_all_docs(run) for run in runs]
    # An ordered set: rows are in the order of the first run that has them
    keys = dict.fromkeys(key for rows in by_run for key in rows)
    rows = []
    for task, metric, filter_name in keys:
        found = [of_run.get((task, metric, filter_name)) for of_run in by_run]
        first = next(run for run, row in zip(runs, found, strict=True) if row is not None)
        cells = (_score_cell(run.info, row) for run, row in zip(runs, found, strict=True))
        direction = _ARROWS[metric_of(first.info, task, metric).higher_is_better]
        rows.append(ComparedScore(task, metric, filter_name, direction, tuple(cells)))
    # Another protocol may explain a difference of the scores, not only the model
    tasks = dict.fromkeys(task for run in runs for task in run.info.scored_tasks)
    differing = ((task, _differences([run.info for run in runs], task)) for task in tasks)
    return ScoreTable(tuple(rows), tuple((task, said) for task, said in differing if said))


def _scores_of_all_docs(run: ComparedRun) -> dict[tuple[str, str, str | None], ScoreRecord]:
    """Return the scores by task, metric and filter; without subsets and parts of heat maps."""
    rows = (row for row in run.scores if row.subset == "original" and not row.is_cell)
    return {(row.task, row.metric, row.filter): row for row in rows}


def _score_cell(info: RunInfo, row: ScoreRecord | None) -> ScoreCell:
    if row is None:
        return ScoreCell()
    in_percent = metric_of(info, row.task, row.metric).in_percent(row.value)
    return ScoreCell(
        value=format_value(row.value, in_percent=in_percent),
        interval="" if row.interval is None else format_interval(row.interval, in_percent=in_percent),
        n=format_count(row.n_docs),
    )


def _differences(infos: Sequence[RunInfo], task: str) -> str:
    """Say in what runs of a task differ besides the model; empty: in nothing."""
    found = [info.scored_tasks[task] for info in infos if task in info.scored_tasks]
    return ", ".join(name for name, get in _PROTOCOL.items() if any(get(one) != get(found[0]) for one in found))


def grouped_maps(runs: Sequence[ComparedRun]) -> list[list[HeatMap]]:
    """Return the heat maps that belong together: of one task, metric and filter, one a run."""
    found: dict[str, list[HeatMap]] = {}
    for run in runs:
        for one in heat_maps(run.info, run.scores):
            found.setdefault(one.name, []).append(replace(one, model=_map_name(run, one.task)))
    return list(found.values())


def _map_name(run: ComparedRun, task: str) -> str:
    """Return what a run is called over a heat map: a task may have stretched the model in its own way."""
    rope = run.info.tasks[task].rope if task in run.info.tasks else None
    return run.name if run.name != label(run.info) else label(run.info, rope=rope)


def length_table(runs: Sequence[ComparedRun]) -> LengthTable:
    """Return the long-context scores of runs in the form of the Qwen2 report's table 12."""
    by_run = [_group_scores(run.scores) for run in runs]
    order = list(FAMILIES)
    columns = sorted(set().union(*by_run), key=lambda c: (order.index(c.family), c.thousands))
    missing = (NOTHING, "")
    rows = [
        (run.name, tuple(of_run.get(column, missing) for column in columns))
        for run, of_run in zip(runs, by_run, strict=True)
        if of_run
    ]
    return LengthTable(tuple(columns), tuple(rows))


def labels(runs: Sequence[tuple[RunInfo, Sequence[ScoreRecord]]]) -> list[str]:
    """Return what each run is called; where two would be called the same, with their ids."""
    names = [label(info) for info, _ in runs]
    return [
        f"{name} ({info.run_id})" if names.count(name) > 1 else name
        for name, (info, _) in zip(names, runs, strict=True)
    ]


def label(info: RunInfo, *, rope: str | None = None) -> str:
    """Return a run's model with how its context was stretched, if it was; `rope`: that of a task with another one."""
    rope = rope or info.model.rope
    return info.model.name + (f" {rope}" if rope not in (None, "none") else "")


def _group_scores(scores: Sequence[ScoreRecord]) -> dict[Column, tuple[str, str]]:
    found: dict[Column, tuple[str, str]] = {}
    for row in scores:
        match = _GROUP.fullmatch(row.task)
        if match and row.subset == "original" and not row.is_cell:
            interval = "" if row.interval is None else format_interval(row.interval, in_percent=True)
            # The first metric is the one that is reported
            found.setdefault(Column(match[1], int(match[2])), (format_value(row.value, in_percent=True), interval))
    return found
