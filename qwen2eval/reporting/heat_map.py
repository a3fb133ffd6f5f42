"""Scores by context length and depth, as in figure 1 of the Qwen2 report: values for pictures and for the reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from qwen2eval.colours import COLOUR_STOPS, DEFAULT_COLOURS
from qwen2eval.reporting.metrics import ShownMetric, metric_of
from qwen2eval.run_folder.folder import ScoreRecord
from qwen2eval.run_info import HeatMapInfo, RunInfo

Place = tuple[int | None, float | None]
"""Length and depth; None: all of them."""


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


def heat_maps(info: RunInfo, scores: Sequence[ScoreRecord], *, colours: str | None = None) -> tuple[HeatMap, ...]:
    """Return the heat maps of a run, in the order of its scores.

    Args:
        info: the run as in run.json.
        scores: as in scores.parquet.
        colours: of all of them; None: those that each task asks for.
    """
    grouped: dict[tuple[str, str, str | None], dict[Place, HeatCell]] = {}
    for row in scores:
        if row.subset == "original":
            cell = HeatCell(row.value, row.ci_low, row.ci_high, row.n_docs or 0, row.n_unscored or 0)
            grouped.setdefault((row.task, row.metric, row.filter), {})[row.cell_length, row.cell_depth] = cell
    found = []
    for (task, metric, filter_name), cells in grouped.items():
        # Other tasks have one score for all lengths and depths, and no cells
        if not any(length is not None and depth is not None for length, depth in cells):
            continue
        settings = (info.tasks[task].heat_map if task in info.tasks else None) or HeatMapInfo((), None)
        made = heat_map(
            cells,
            model=info.model.name,
            task=task,
            metric=metric_of(info, task, metric),
            filter_name=filter_name,
            missing_lengths=settings.missing_lengths,
            colours=colours or settings.colours or DEFAULT_COLOURS,
        )
        found.append(made)
    return tuple(found)


def heat_map(
    cells: Mapping[Place, HeatCell],
    *,
    model: str,
    task: str,
    metric: ShownMetric,
    filter_name: str | None = None,
    missing_lengths: Sequence[int] = (),
    colours: str = DEFAULT_COLOURS,
) -> HeatMap:
    """Return a heat map of cells, on the scale of its metric: its own, percent for shares, else 0 to 100 or more."""
    values = [cell.value for cell in cells.values() if cell.value is not None]
    bottom, top = 0.0, 100.0
    if all(metric.in_percent(value) for value in values) and (values or metric.in_percent()):
        cells = {place: _times_100(cell) for place, cell in cells.items()}
    elif metric.scale is not None:
        bottom, top = metric.scale
        cells = {place: _within(cell, bottom, top) for place, cell in cells.items()}
    else:
        # The end of the scale is not specified: it grows with the values
        top = max([top, *values])
    return HeatMap(
        model=model,
        task=task,
        metric=metric.name,
        filter=filter_name,
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


def _within(cell: HeatCell, bottom: float, top: float) -> HeatCell:
    """Cut an interval to the scale: of two answers Student's t reaches far beyond the grades that there are."""
    low, high = cell.low, cell.high
    return cell._replace(low=None if low is None else max(low, bottom), high=None if high is None else min(high, top))


def _times_100(cell: HeatCell) -> HeatCell:
    value, low, high = (None if number is None else 100 * number for number in cell[:3])
    return cell._replace(value=value, low=low, high=high)
