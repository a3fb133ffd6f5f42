"""The numbers at the top: the first metric of each group and task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qwen2eval.reporting.sections.section import Section
from qwen2eval.reporting.tables import ScoreRow, headline_rows
from qwen2eval.run_info import RunInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Where a ratio, its interval and chance lie on a line from 0 to 100."""

    value: float
    low: float
    width: float
    """Of the interval; 0 where there is none."""
    chance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """One of the numbers at the top."""

    row: ScoreRow
    bar: Bar | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadlineSection(Section):
    """The numbers at the top."""

    template: ClassVar[str] = "headline"
    headlines: tuple[Headline, ...]
    """Groups, then tasks."""


def headline_section(info: RunInfo, rows: Sequence[ScoreRow]) -> HeadlineSection:
    """Return the numbers at the top.

    Args:
        info: the run.
        rows: of its score table.
    """
    return HeadlineSection(headlines=tuple(Headline(row=row, bar=_bar(row)) for row in headline_rows(info, rows)))


def _bar(row: ScoreRow) -> Bar | None:
    if row.value is None or not row.in_percent:
        return None
    low, high = (_place(end) for end in row.ci or (row.value, row.value))
    chance = None if row.chance is None else _place(row.chance)
    return Bar(value=_place(row.value), low=low, width=round(high - low, 2), chance=chance)


def _place(ratio: float) -> float:
    return round(min(max(100 * ratio, 0.0), 100.0), 2)
