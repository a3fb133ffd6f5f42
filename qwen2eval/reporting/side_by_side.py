"""Several runs on one page: their heat maps on one scale, curves by length, and long-context scores as in table 12."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen2eval.errors import ConfigError, RunFolderError
from qwen2eval.reporting.heat_map import HeatMap, heat_maps, is_cell
from qwen2eval.reporting.numbers import NOTHING, format_interval, format_value

if TYPE_CHECKING:
    import pandas as pd

FAMILIES = {"needlebench": "NeedleBench", "needlebench_v2": "NeedleBench v2", "lveval": "LV-Eval"}
"""Benchmarks with a score a length: what their groups' names begin with, and what the report calls them."""
_GROUP = re.compile(rf"({'|'.join(FAMILIES)})_(\d+)k")


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


class Picture(NamedTuple):
    """A figure of several runs."""

    title: str
    file: str
    data: str
    """SVG in base64."""


def write_side_by_side(runs: "Sequence[tuple[Mapping[str, Any], pd.DataFrame]]", folder: Path) -> tuple[Path, ...]:
    """Write `side_by_side.html`, `.md` and the figures as SVG and PNG.

    Args:
        runs: run.json and scores.parquet of each.
        folder: made where it is missing.

    Raises:
        ConfigError: the runs have no heat map and no long-context score.
        RunFolderError: the folder can't be written to.
    """
    from qwen2eval.reporting.heat_map_figure import write_side_by_side_figures
    from qwen2eval.reporting.render import render_page

    runs = [({**info, "label": name}, scores) for (info, scores), name in zip(runs, labels(runs), strict=True)]
    grouped = grouped_maps(runs)
    table = length_table(runs)
    if not grouped and not table.columns:
        raise ConfigError("These runs have nothing to be put side by side: no heat map, no NeedleBench, no LV-Eval")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise RunFolderError(f"Can't write {str(folder)!r}: {err.strerror}") from err
    written, pictures = [], []
    for number, maps in enumerate(grouped, 1):
        for kind, path in write_side_by_side_figures(folder, maps, name=f"figure_{number}"):
            written.append(path)
            if path.suffix == ".svg":
                data = base64.b64encode(path.read_bytes()).decode()
                pictures.append(Picture(f"{maps[0].name} {kind}", path.name, data))
    pages = render_page("side_by_side", table=table, pictures=pictures, names=[label(info) for info, _ in runs])
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
        written.append(folder / name)
    return tuple(written)


def grouped_maps(runs: "Sequence[tuple[Mapping[str, Any], pd.DataFrame]]") -> list[list[HeatMap]]:
    """Return the heat maps that belong together: of one task, metric and filter, one a run."""
    found: dict[str, list[HeatMap]] = {}
    for info, scores in runs:
        for one in heat_maps(info, scores):
            rope = info["tasks"].get(one.task, {}).get("rope") or info["model"].get("rope")
            found.setdefault(one.name, []).append(replace(one, model=label(info, rope=rope)))
    return list(found.values())


def length_table(runs: "Sequence[tuple[Mapping[str, Any], pd.DataFrame]]") -> LengthTable:
    """Return the long-context scores of runs in the form of the Qwen2 report's table 12."""
    by_run = [_group_scores(scores) for _, scores in runs]
    order = list(FAMILIES)
    columns = sorted(set().union(*by_run), key=lambda c: (order.index(c.family), c.thousands))
    missing = (NOTHING, "")
    rows = [
        (label(info), tuple(of_run.get(column, missing) for column in columns))
        for (info, _), of_run in zip(runs, by_run, strict=True)
        if of_run
    ]
    return LengthTable(tuple(columns), tuple(rows))


def labels(runs: "Sequence[tuple[Mapping[str, Any], pd.DataFrame]]") -> list[str]:
    """Return what each run is called; where two would be called the same, with their ids."""
    names = [label(info) for info, _ in runs]
    return [
        f"{name} ({info['run_id']})" if names.count(name) > 1 else name
        for name, (info, _) in zip(names, runs, strict=True)
    ]


def label(info: Mapping[str, Any], *, rope: str | None = None) -> str:
    """Return a run's model with how its context was stretched, if it was; `rope`: that of a task with its own."""
    if "label" in info:
        return str(info["label"])
    rope = rope or info["model"].get("rope")
    return str(info["model"]["name"]) + (f" {rope}" if rope not in (None, "none") else "")


def _group_scores(scores: "pd.DataFrame") -> dict[Column, tuple[str, str]]:
    found: dict[Column, tuple[str, str]] = {}
    for row in scores.to_dict("records"):
        match = _GROUP.fullmatch(str(row["task"]))
        if match and row["subset"] == "original" and not is_cell(row):
            column = Column(match[1], int(match[2]))
            if column not in found:  # the first metric is the one that is reported
                value, low, high = (None if number != number else number for number in _numbers(row))
                interval = None if low is None or high is None else (low, high)
                text = format_value(value, in_percent=True)
                between = format_interval(interval, in_percent=True, has_value=value is not None)
                found[column] = (text, between if interval else "")
    return found


def _numbers(row: Mapping[Any, Any]) -> tuple[float, float, float]:
    return tuple(float(row[name]) for name in ("value", "ci_low", "ci_high"))  # type: ignore[return-value]
