"""What all sections of a report have in common."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a report, as plain values: its template only lays them out."""

    template: ClassVar[str]
    """Name of its templates, without ending."""
