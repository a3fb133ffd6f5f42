"""Heat maps and curves by length as files: SVG and PNG, drawn by matplotlib without a display."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen2eval.colours import COLOUR_STOPS
from qwen2eval.reporting.heat_map import HeatMap, colour_of, depth_labels, format_length, ink_on
from qwen2eval.reporting.heat_map_view import cell_text
from qwen2eval.reporting.markup import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "font.size": 9,
    "svg.hashsalt": "qwen2eval",  # the same map is the same file
    "text.parse_math": False,  # a name may contain dollar signs
}
_MISSING = "#e6e6e6"


def draw_heat_maps(maps: Sequence[HeatMap]) -> "Figure":
    """Draw heat maps side by side, one for each model or setting, on the scale of the widest and in one's colours."""
    top, bottom = max(one.top for one in maps), min(one.bottom for one in maps)
    maps = [replace(one, colours=maps[0].colours, top=top, bottom=bottom) for one in maps]
    widths = [max(len(one.lengths), 4) for one in maps]
    height = 1.5 + 0.3 * max(len(one.depths) for one in maps)
    figure = _new_figure(width=1.2 + 0.55 * sum(widths) + 0.5 * len(maps), height=height)
    grid = figure.add_gridspec(1, len(maps) + 1, width_ratios=[*widths, 0.35])
    for i, one in enumerate(maps):
        has_depths = i == 0 or one.depths != maps[i - 1].depths
        _draw_cells(figure.add_subplot(grid[0, i]), one, has_depths=has_depths)
    _draw_scale(figure, figure.add_subplot(grid[0, len(maps)]), maps[0])
    return figure


def draw_curves(maps: Sequence[HeatMap]) -> "Figure":
    """Draw the score by length, with its 95 % band, of one or more heat maps."""
    figure = _new_figure(width=6.4, height=3.2)
    axes = figure.add_subplot()
    for number, one in enumerate(maps):
        colour = colour_of(0.25 + 0.5 * number / max(len(maps) - 1, 1), "viridis")
        _draw_curve(axes, one, colour)
    top, bottom = max(one.top for one in maps), min(one.bottom for one in maps)
    lengths = sorted({length for one in maps for length in one.lengths})
    axes.set(ylim=(bottom, top + 0.03 * (top - bottom)), xlabel="context length, tokens", ylabel=_unit(maps[0]))
    axes.set_xticks(lengths, [format_length(length) for length in lengths], rotation=45 if len(lengths) > 10 else 0)
    axes.spines["right"].set_visible(False)
    axes.legend(frameon=False, loc="lower left", fontsize=8)
    return figure


def _draw_curve(axes: "Axes", one: HeatMap, colour: str) -> None:
    """Draw the scores of all depths by length, and their band where it is known."""
    cells = [(length, one.cells[length, None]) for length in one.lengths if (length, None) in one.cells]
    points = [(length, cell.value) for length, cell in cells if cell.value is not None]
    axes.plot([length for length, _ in points], [value for _, value in points], "o-", color=colour, label=_title(one))
    band = [(length, cell.low, cell.high) for length, cell in cells if cell.low is not None and cell.high is not None]
    if band:
        xs, lows, highs = zip(*band, strict=True)
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.2, linewidth=0)


def write_figures(folder: Path, maps: Sequence[HeatMap], *, names: Sequence[str]) -> list[Path]:
    """Write each heat map and its curve as SVG and PNG, each file whole or not at all.

    Args:
        folder: made where it is missing.
        names: of the files, without ending, one a map.
    """
    import matplotlib as mpl

    folder.mkdir(exist_ok=True)
    with mpl.rc_context(_STYLE):
        return [
            path
            for one, name in zip(maps, names, strict=True)
            for kind, figure in (("", draw_heat_maps([one])), ("_by_length", draw_curves([one])))
            for path in _save(figure, folder / f"{name}{kind}")
        ]


def write_side_by_side_figures(folder: Path, maps: Sequence[HeatMap], *, name: str) -> list[tuple[str, Path]]:
    """Write heat maps side by side, and their curves in one picture, and return what each file shows.

    Args:
        name: of the files, without ending.
    """
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        drawn = {"by length and depth": draw_heat_maps(maps), "by length": draw_curves(maps)}
        endings = ("", "_by_length")
        return [
            (kind, path)
            for ending, (kind, figure) in zip(endings, drawn.items(), strict=True)
            for path in _save(figure, folder / f"{name}{ending}")
        ]


def _save(figure: "Figure", stem: Path) -> list[Path]:
    written = []
    for ending, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 160})):
        path = stem.with_name(f"{stem.name}.{ending}")
        # Another name until the file is complete; no date in it, so that the same run gives the same bytes
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            figure.savefig(draft, format=ending, **options)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        written.append(path)
    return written


def _new_figure(*, width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_cells(axes: "Axes", one: HeatMap, *, has_depths: bool) -> None:
    from matplotlib.patches import Rectangle

    for i, length in enumerate(one.lengths):
        for j, depth in enumerate(one.depths):
            cell = one.cells.get((length, depth))
            value = None if cell is None else cell.value
            colour = _MISSING if value is None else colour_of(one.ratio(value), one.colours)
            hatch = "///" if value is None else None
            axes.add_patch(Rectangle((i, j), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8, hatch=hatch))
            if cell is not None:
                text = cell_text(cell)
                axes.text(i + 0.5, j + 0.5, text, ha="center", va="center", color=ink_on(colour), fontsize=7)
    n_lengths, n_depths = len(one.lengths), len(one.depths)
    axes.set(xlim=(0, n_lengths), ylim=(n_depths, 0), xlabel="context length, tokens")
    axes.set_title(_title(one), fontsize=9)
    labels = [format_length(length) for length in one.lengths]
    axes.set_xticks([i + 0.5 for i in range(n_lengths)], labels, rotation=45 if n_lengths > 12 else 0)
    axes.set_yticks([j + 0.5 for j in range(n_depths)], depth_labels(one.depths) if has_depths else [])
    if has_depths:
        axes.set_ylabel("depth of the needle, %")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_scale(figure: "Figure", axes: "Axes", one: HeatMap) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours: Any = LinearSegmentedColormap.from_list(one.colours, COLOUR_STOPS[one.colours])
    bar = figure.colorbar(ScalarMappable(Normalize(one.bottom, one.top), colours), cax=axes)
    bar.outline.set_visible(False)
    bar.set_label(_unit(one))


def _title(one: HeatMap) -> str:
    return visible(f"{one.model}: {one.name}")[:120]


def _unit(one: HeatMap) -> str:
    return visible(f"{one.metric}, %" if one.top == 100 else one.metric)[:60]
