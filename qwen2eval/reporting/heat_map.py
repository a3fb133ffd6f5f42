"""Scores by context length and depth, as in figure 1 of the Qwen2 report: values for pictures and for the reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen2eval.colours import COLOUR_STOPS, DEFAULT_COLOURS
from qwen2eval.reporting import numbers

if TYPE_CHECKING:
    import pandas as pd

Place = tuple[int | None, float | None]
"""Length and depth; None stands for all."""
SCALES: Mapping[str, tuple[float, float]] = {"judge_score": (1.0, 10.0)}
"""Lower and upper end of metrics that are neither a share nor points of 100."""


class HeatCell(NamedTuple):
    """A part of a heat map."""

    value: float | None
    """On the map's scale; None: not scored."""
    low: float | None
    """95 % interval; None: not known."""
    high: float | None
    n_docs: int
    n_unscored: int


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """One metric of one task by length and depth."""

    model: str
    task: str
    metric: str
    filter: str | None
    """None: the task has no named filter."""
    cells: Mapping[Place, HeatCell]
    """By (length, depth), (length, all depths) and (all lengths, depth)."""
    overall: HeatCell | None
    top: float
    """The scale's upper end; 100 for ratios, which are in percent."""
    bottom: float = 0.0
    """The scale's lower end."""
    missing_lengths: tuple[int, ...] = ()
    """Asked for, but over the model's length."""
    colours: str = DEFAULT_COLOURS

    def ratio(self, value: float) -> float:
        """Return a value's place on the scale, 0 to 1."""
        return (value - self.bottom) / (self.top - self.bottom)

    @property
    def lengths(self) -> tuple[int, ...]:
        """All lengths, ascending, the missing ones among them."""
        return tuple(sorted({length for length, _ in self.cells if length is not None} | set(self.missing_lengths)))

    @property
    def depths(self) -> tuple[float, ...]:
        """All depths, ascending."""
        return tuple(sorted({depth for _, depth in self.cells if depth is not None}))

    @property
    def name(self) -> str:
        """Of the task and what was measured."""
        return " ".join(part for part in (self.task, self.metric, self.filter) if part)


def is_cell(row: Mapping[Any, Any]) -> bool:
    """Tell whether a row of scores.parquet is a part of a heat map, not a score of the whole task."""
    return any(_number(row.get(name)) is not None for name in ("cell_length", "cell_depth"))


def heat_maps(info: Mapping[str, Any], scores: "pd.DataFrame", *, colours: str | None = None) -> tuple[HeatMap, ...]:
    """Return the heat maps of a run, in the order of its scores.

    Args:
        info: the run as in run.json.
        scores: as in scores.parquet.
        colours: of all of them; None: those that each task asks for.
    """
    if "cell_length" not in scores or not scores[["cell_length", "cell_depth"]].notna().any(axis=None):
        return ()
    grouped: dict[tuple[str, str, str], dict[Place, Mapping[Any, Any]]] = {}
    for row in scores.to_dict("records"):
        if row["subset"] == "original":
            place = (_whole(row["cell_length"]), _number(row["cell_depth"]))
            grouped.setdefault((str(row["task"]), str(row["metric"]), str(row["filter"])), {})[place] = row
    found = []
    for (task, metric, filter_name), rows in grouped.items():
        told = info["tasks"].get(task, {}).get("heat_map") or {}
        if any(length is not None and depth is not None for length, depth in rows):
            found.append(
                heat_map(
                    {place: _cell(row) for place, row in rows.items()},
                    model=str(info["model"]["name"]),
                    task=task,
                    metric=metric,
                    filter_name=filter_name,
                    missing_lengths=tuple(told.get("missing_lengths") or ()),
                    colours=colours or told.get("colours") or DEFAULT_COLOURS,
                )
            )
    return tuple(found)


def heat_map(
    cells: Mapping[Place, HeatCell],
    *,
    model: str,
    task: str,
    metric: str,
    filter_name: str = "none",
    missing_lengths: Sequence[int] = (),
    colours: str = DEFAULT_COLOURS,
) -> HeatMap:
    """Return a heat map of cells, on the scale of its metric: `SCALES`, percent for ratios, else 0 to 100 or more."""
    values = [cell.value for cell in cells.values() if cell.value is not None]
    bottom, top = SCALES.get(metric, (0.0, 100.0))
    if metric in SCALES:
        cells = {place: _within(cell, bottom, top) for place, cell in cells.items()}
    elif all(numbers.is_ratio(metric, value) for value in values):
        cells = {place: _times_100(cell) for place, cell in cells.items()}
    else:
        top = max([top, *values])
    return HeatMap(
        model=model,
        task=task,
        metric=metric,
        filter=None if filter_name == "none" else filter_name,
        cells={place: cell for place, cell in cells.items() if place != (None, None)},
        overall=cells.get((None, None)),
        top=top,
        bottom=bottom,
        missing_lengths=tuple(missing_lengths),
        colours=colours if colours in COLOUR_STOPS else DEFAULT_COLOURS,
    )


def colour_of(ratio: float, colours: str) -> str:
    """Return the colour of a place on the scale, 0 to 1.

    >>> colour_of(0, "classic"), colour_of(0.75, "classic"), colour_of(1, "classic")
    ('#f0496e', '#7cc86c', '#0cd79f')
    """
    stops = COLOUR_STOPS[colours]
    place = min(max(ratio, 0.0), 1.0) * (len(stops) - 1)
    k = min(int(place), len(stops) - 2)
    pairs = zip(_channels(stops[k]), _channels(stops[k + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - k)):02x}" for a, b in pairs)


def ink_on(colour: str) -> str:
    """Return black or white, whichever can be read on a colour (relative luminance as in WCAG 2, contrast over 4.5)."""
    parts = [c / 255 for c in _channels(colour)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"


def format_length(n_tokens: int) -> str:
    """Write a length in tokens as people say it.

    >>> [format_length(n) for n in (8192, 131072, 1000, 128000, 500)]
    ['8K', '128K', '1,000', '128,000', '500']
    """
    return f"{n_tokens // 1024}K" if n_tokens % 1024 == 0 and n_tokens % 1000 else f"{n_tokens:,}"


def depth_labels(depths: Sequence[float]) -> list[str]:
    """Write depths as the intervals that they are the middles of, where they are such, else as they are.

    >>> depth_labels([25, 75]), depth_labels([0, 50, 100])
    (['0–50', '50–100'], ['0', '50', '100'])
    """
    step = 100 / len(depths) if depths else 0.0
    if all(abs(depth - step * (i + 0.5)) < 1e-6 for i, depth in enumerate(depths)):
        return [f"{step * i:g}–{step * (i + 1):g}" for i in range(len(depths))]
    return [f"{depth:g}" for depth in depths]


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _cell(row: Mapping[Any, Any]) -> HeatCell:
    value, low, high = (_number(row[name]) for name in ("value", "ci_low", "ci_high"))
    return HeatCell(value, low, high, int(row["n_docs"]), int(row["n_unscored"]))


def _within(cell: HeatCell, bottom: float, top: float) -> HeatCell:
    """Cut an interval to the scale: of two answers Student's t reaches far beyond the grades that there are."""
    low, high = cell.low, cell.high
    return cell._replace(low=None if low is None else max(low, bottom), high=None if high is None else min(high, top))


def _times_100(cell: HeatCell) -> HeatCell:
    value, low, high = (None if number is None else 100 * number for number in cell[:3])
    return cell._replace(value=value, low=low, high=high)


def _number(value: Any) -> float | None:
    """Return a table's cell as a number; None for each of the ways in which pandas says "nothing"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if number != number else number


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
