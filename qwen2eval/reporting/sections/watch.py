"""What a reader must know before trusting the numbers."""

from dataclasses import dataclass
from typing import ClassVar

from qwen2eval.reporting.sections.section import Section
from qwen2eval.reporting.watches import Watch, find_watches
from qwen2eval.run_info import RunInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSection(Section):
    """What to watch."""

    template: ClassVar[str] = "watch"
    watches: tuple[Watch, ...]
    """Worst first."""


def watch_section(info: RunInfo) -> WatchSection:
    """Return what to watch."""
    return WatchSection(watches=find_watches(info))
