"""What a reader must know before trusting the numbers."""

from dataclasses import dataclass
from typing import ClassVar

from qwen2eval.reporting.findings import Finding, collect_findings
from qwen2eval.reporting.sections.section import Section
from qwen2eval.run_info import RunInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingsSection(Section):
    """What a reader must know before trusting the numbers."""

    template: ClassVar[str] = "findings"
    findings: tuple[Finding, ...]
    """Worst first."""


def findings_section(info: RunInfo) -> FindingsSection:
    """Return what a reader must know before trusting the numbers."""
    return FindingsSection(findings=collect_findings(info))
