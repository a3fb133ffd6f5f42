"""Heat maps with their curves and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qwen2eval.reporting.heat_map import heat_maps
from qwen2eval.reporting.heat_map_view import HeatMapView, figure_names, view_heat_map
from qwen2eval.reporting.sections.section import Section
from qwen2eval.run_folder.folder import ScoreRecord
from qwen2eval.run_info import RunInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresSection(Section):
    """Heat maps."""

    template: ClassVar[str] = "figures"
    figures: tuple[HeatMapView, ...]
    """One for each metric of each task that has places in one."""


def figures_section(info: RunInfo, scores: Sequence[ScoreRecord]) -> FiguresSection | None:
    """Return the heat maps of a run; None where it has none."""
    maps = heat_maps(info, scores)
    views = [view_heat_map(one, file=name) for one, name in zip(maps, figure_names(maps), strict=True)]
    return FiguresSection(figures=tuple(views)) if views else None
