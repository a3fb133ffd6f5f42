"""A heat map and its curve as shapes with places and colours: the report's template only draws them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qwen2eval.reporting.heat_map import (
    HeatCell,
    HeatMap,
    colour_of,
    depth_labels,
    format_length,
    ink_on,
)
from qwen2eval.reporting.markup import clip

# Pixels
_LEFT, _TOP, _BOTTOM = 74, 8, 54
_ROW, _GAP = 30, 1.5
_WIDTH, _NARROWEST, _WIDEST = 960, 480, 96
_CURVE_HEIGHT = 150
_SCALE_WIDTH, _SCALE_STEPS = 120, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A cell of the picture, in pixels."""

    x: float
    y: float
    width: float
    height: float
    colour: str | None
    """None: there is no value."""
    ink: str
    text: str
    title: str
    """The text shown when the pointer is over it."""

    @property
    def text_x(self) -> float:
        """Where the middle of its text is."""
        return round(self.x + self.width / 2, 2)

    @property
    def text_y(self) -> float:
        """The position of its text."""
        return round(self.y + self.height / 2 + 4.5, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A word at an axis, in pixels."""

    x: float
    y: float
    text: str
    anchor: str = "middle"
    """Of SVG: start, middle or end."""
    is_soft: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A point of the curve, in pixels."""

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """A line of the table below the picture."""

    length: str
    depth: str
    value: str
    interval: str
    n: str
    n_unscored: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMapView:
    """One heat map, and the curve over its lengths."""

    name: str
    note: str
    width: float
    height: float
    boxes: tuple[Box, ...]
    labels: tuple[Label, ...]
    scale: tuple[Box, ...]
    """Colours from the lower end to the upper."""
    curve: str
    """Points of the polyline."""
    band: str
    """Points of the 95 % band around it."""
    dots: tuple[Dot, ...]
    curve_height: float
    curve_labels: tuple[Label, ...]
    ticks: tuple[Label, ...]
    by_length: tuple[TableRow, ...]
    by_depth: tuple[TableRow, ...]
    by_cell: tuple[TableRow, ...]
    file: str
    """Of the pictures, without its ending."""


def view_heat_map(found: HeatMap, *, file: str) -> HeatMapView:
    """Lay out a heat map."""
    lengths, depths, labels = found.lengths, found.depths, depth_labels(found.depths)
    column = min(_WIDEST, (_WIDTH - _LEFT) / len(lengths))
    right = max(_LEFT + column * len(lengths), _NARROWEST)
    bottom = _TOP + _ROW * len(depths)
    middles = [_LEFT + column * (i + 0.5) for i in range(len(lengths))]
    curve, band, dots = _curve(found, middles)
    named = list(zip(depths, labels, strict=True))
    return HeatMapView(
        name=clip(found.name, limit=300),
        note=_note(found),
        width=round(right + 8, 1),
        height=bottom + _BOTTOM,
        boxes=tuple(_boxes(found, named, column=column)),
        labels=(
            *(Label(x=_LEFT - 8, y=_TOP + _ROW * (j + 0.5) + 4, text=t, anchor="end") for j, t in enumerate(labels)),
            *_length_labels(lengths, middles, y=bottom + 18),
            Label(x=_LEFT, y=bottom + 44, text="depth, % ↓   length, tokens →", anchor="start", is_soft=True),
            Label(x=right - _SCALE_WIDTH - 38, y=bottom + 44, text=f"{found.bottom:g}", anchor="end"),
            Label(x=right, y=bottom + 44, text=f"{found.top:g}", anchor="end"),
        ),
        scale=tuple(_scale(found, x=right - _SCALE_WIDTH - 32, y=bottom + 33)),
        curve=curve,
        band=band,
        dots=dots,
        curve_height=_TOP + _CURVE_HEIGHT + 30,
        curve_labels=_length_labels(lengths, middles, y=_TOP + _CURVE_HEIGHT + 20),
        ticks=tuple(
            Label(x=_LEFT - 8, y=_y(found, tick), text=f"{tick:g}")
            for tick in (found.bottom, (found.bottom + found.top) / 2, found.top)
        ),
        by_length=tuple(_table_row(found, (length, None), "all") for length in lengths),
        by_depth=tuple(_table_row(found, (None, depth), label) for depth, label in named),
        by_cell=tuple(_table_row(found, (length, depth), label) for length in lengths for depth, label in named),
        file=file,
    )


def figure_names(maps: Sequence[HeatMap]) -> list[str]:
    """Return a file name for each heat map, without ending; no two are alike, and none can steer what names it."""
    names: list[str] = []
    for one in maps:
        plain = re.sub(r"[^\w.-]+", "-", one.name).strip(".-")[:80] or "figure"
        names.append(plain if plain not in names else f"{plain}-{len(names) + 1}")
    return names


def _length_labels(lengths: Sequence[int], middles: Sequence[float], *, y: float) -> tuple[Label, ...]:
    return tuple(Label(x=round(x, 1), y=y, text=format_length(n)) for x, n in zip(middles, lengths, strict=True))


def _boxes(found: HeatMap, depths: Sequence[tuple[float, str]], *, column: float) -> Iterator[Box]:
    for i, length in enumerate(found.lengths):
        for j, (depth, label) in enumerate(depths):
            where = f"length {length:,}, depth {label}%"
            yield _box(found, (length, depth), where, x=_LEFT + column * i, y=_TOP + _ROW * j, width=column)


def _scale(found: HeatMap, *, x: float, y: float) -> Iterator[Box]:
    width = _SCALE_WIDTH / _SCALE_STEPS
    for i in range(_SCALE_STEPS):
        colour = colour_of(i / (_SCALE_STEPS - 1), found.colours)
        yield Box(x=round(x + width * i, 2), y=y, width=width, height=12, colour=colour, ink="", text="", title="")


def cell_text(cell: HeatCell | None) -> str:
    """Write a cell's value as the picture shows it."""
    if cell is None or cell.value is None:
        return "—"
    return f"{cell.value:.0f}" if abs(cell.value) >= 10 or cell.value == int(cell.value) else f"{cell.value:.1f}"


def _box(found: HeatMap, place: tuple[int, float | None], where: str, *, x: float, y: float, width: float) -> Box:
    cell = found.cells.get(place)
    is_missing = place[0] in found.missing_lengths
    colour = None if cell is None or cell.value is None else colour_of(found.ratio(cell.value), found.colours)
    said = "not asked: over the model's length" if is_missing else "not asked" if cell is None else _said(cell)
    return Box(
        x=round(x, 2),
        y=y,
        width=round(width - _GAP, 2),
        height=_ROW - _GAP,
        colour=colour,
        ink="currentColor" if colour is None else ink_on(colour),
        text="" if cell is None else cell_text(cell),
        title=f"{where}: {said}",
    )


def _said(cell: HeatCell) -> str:
    counted = f"n = {cell.n_docs}" + (f", {cell.n_unscored} not scored" if cell.n_unscored else "")
    if cell.value is None:
        return f"not scored, {counted}"
    return f"{cell.value:.1f}{_interval(cell, before=', 95% interval ')}, {counted}"


def _interval(cell: HeatCell, *, before: str = "") -> str:
    return "" if cell.low is None or cell.high is None else f"{before}{cell.low:.1f} – {cell.high:.1f}"


def _curve(found: HeatMap, middles: Sequence[float]) -> tuple[str, str, tuple[Dot, ...]]:
    """Return the points of the curve over all depths, of its band, and a dot for each length."""
    points, lows, highs, dots = [], [], [], []
    for length, x in zip(found.lengths, middles, strict=True):
        cell = found.cells.get((length, None))
        if cell is None or cell.value is None:
            continue
        y = _y(found, cell.value)
        points.append(f"{x:.1f},{y:.1f}")
        if cell.low is not None and cell.high is not None:
            lows.append(f"{x:.1f},{_y(found, cell.low):.1f}")
            highs.append(f"{x:.1f},{_y(found, cell.high):.1f}")
        title = f"length {length:,}: {_said(cell)}"
        dots.append(Dot(x=round(x, 1), y=round(y, 1), title=title))
    return " ".join(points), " ".join([*highs, *reversed(lows)]), tuple(dots)


def _y(found: HeatMap, value: float) -> float:
    return _TOP + _CURVE_HEIGHT * (1 - found.ratio(value))


def _table_row(found: HeatMap, place: tuple[int | None, float | None], label: str) -> TableRow:
    length, cell = place[0], found.cells.get(place)
    return TableRow(
        length="all" if length is None else f"{length:,}",
        depth=label,
        value="—" if cell is None or cell.value is None else f"{cell.value:.1f}",
        interval="—" if cell is None else _interval(cell) or "—",
        n="—" if cell is None else f"{cell.n_docs:,}",
        n_unscored="—" if cell is None else f"{cell.n_unscored:,}",
    )


def _note(found: HeatMap) -> str:
    n_cells = sum(length is not None and depth is not None for length, depth in found.cells)
    unit = "percent" if found.top == 100 else f"{found.bottom:g} to {found.top:g}"
    note = f"{clip(found.metric, limit=100)} in {unit}, {n_cells} cells"
    if found.overall is not None and found.overall.value is not None:
        note += f", overall {found.overall.value:.1f}{_interval(found.overall, before=', 95% interval ')}"
    if found.missing_lengths:
        n_missing = len(found.missing_lengths) * len(found.depths)
        over = ", ".join(format_length(length) for length in found.missing_lengths)
        note += f"; {n_missing} cells are missing: {over} are over the model's length"
    return note + "."
