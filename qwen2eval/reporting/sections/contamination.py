"""Scores with and without the docs that a corpus holds, and where these docs occur in it."""

from dataclasses import dataclass
from typing import ClassVar

from qwen2eval.reporting.contamination_table import (
    ContaminationRow,
    Evidence,
    contamination_rows,
    contamination_warnings,
    corpus_line,
    evidence,
)
from qwen2eval.reporting.sections.section import Section
from qwen2eval.run_info import RunInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class ContaminationSection(Section):
    """The table of original, clean and contaminated scores."""

    template: ClassVar[str] = "contamination"
    rows: tuple[ContaminationRow, ...]
    """One for each metric of each task."""
    corpus: str
    """What was searched, and by which rule."""
    warnings: tuple[str, ...]
    """Warnings about the clean scores."""
    evidence: tuple[Evidence, ...]
    """Passages of the corpus."""


def contamination_section(info: RunInfo) -> ContaminationSection | None:
    """Return the table; None where no corpus was searched."""
    corpus = corpus_line(info.contamination)
    if corpus is None:
        return None
    return ContaminationSection(
        rows=contamination_rows(info),
        corpus=corpus,
        warnings=contamination_warnings(info.contamination),
        evidence=evidence(info),
    )
