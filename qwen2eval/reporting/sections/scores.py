"""The table of scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qwen2eval.reporting.sections.facts import Fact
from qwen2eval.reporting.sections.section import Section
from qwen2eval.reporting.tables import ScoreRow
from qwen2eval.run_info import RunInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresSection(Section):
    """The table of scores."""

    template: ClassVar[str] = "scores"
    rows: tuple[ScoreRow, ...]
    """Of tasks, then of groups."""
    groups: tuple[Fact, ...]
    """Each with its members."""


def scores_section(info: RunInfo, rows: Sequence[ScoreRow]) -> ScoresSection:
    """Return the table of scores."""
    groups = tuple(Fact(name, ", ".join(group.tasks)) for name, group in info.groups.items())
    return ScoresSection(rows=tuple(rows), groups=groups)
