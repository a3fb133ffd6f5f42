"""All that a report shows, as plain values in the order in which it is shown; the templates only lay it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwen2eval.reporting import numbers
from qwen2eval.reporting.examples import Example
from qwen2eval.reporting.findings import MESSAGE_CHARS
from qwen2eval.reporting.markup import clip
from qwen2eval.reporting.sections.contamination import contamination_section
from qwen2eval.reporting.sections.environment import environment_section
from qwen2eval.reporting.sections.figures import figures_section
from qwen2eval.reporting.sections.findings import findings_section
from qwen2eval.reporting.sections.headline import headline_section
from qwen2eval.reporting.sections.repeat import repeat_section
from qwen2eval.reporting.sections.scores import scores_section
from qwen2eval.reporting.sections.section import Section
from qwen2eval.reporting.sections.tasks import tasks_section
from qwen2eval.reporting.tables import HealthLevel, score_rows
from qwen2eval.run_folder.folder import ScoreRecord
from qwen2eval.run_info import RunInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """A whole report: its head, and its sections in order."""

    model_name: str
    """The title."""
    note: str | None
    """What makes the scores mean something else; None: nothing does."""
    created: str
    """When the run was started."""
    version: str
    """Of qwen2eval."""
    status: str
    """In a few words."""
    status_level: HealthLevel
    """error: some task has no score."""
    sections: tuple[Section, ...]
    """A section that has nothing to show is left out."""


def build_view(
    info: RunInfo,
    scores: Sequence[ScoreRecord],
    *,
    examples: Mapping[str, tuple[Example, ...]] | None = None,
) -> ReportView:
    """Return what a report of the run shows.

    Args:
        info: the run as in run.json.
        scores: as in scores.parquet.
        examples: by task; None for none.
    """
    rows = score_rows(info, scores)
    sections: tuple[Section | None, ...] = (
        headline_section(info, rows),
        scores_section(info, rows),
        contamination_section(info),
        figures_section(info, scores),
        findings_section(info),
        tasks_section(info, examples or {}),
        environment_section(info),
        repeat_section(info),
    )
    n_failed = len(info.tasks) - len(info.scored_tasks)
    return ReportView(
        model_name=clip(info.model.name, limit=MESSAGE_CHARS),
        note=info.model.note and clip(info.model.note, limit=MESSAGE_CHARS),
        created=numbers.format_time(info.created),
        version=info.qwen2eval_version,
        status=f"finished, {n_failed} of {len(info.tasks)} tasks failed" if n_failed else "finished",
        status_level="error" if n_failed else "ok",
        sections=tuple(section for section in sections if section is not None),
    )
