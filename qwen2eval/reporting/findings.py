"""What a reader must know before trusting the numbers of a run, worst first."""

from dataclasses import dataclass, replace
from typing import Literal

from qwen2eval.reporting import numbers
from qwen2eval.reporting.markup import clip
from qwen2eval.run_info import RunInfo

Level = Literal["error", "warning", "note"]
_ORDER: tuple[Level, ...] = ("error", "warning", "note")
MESSAGE_CHARS = 1200
"""Room for a message; an error may quote a whole response."""
_TITLES = {
    "preflight": "sanity check",
    "nan": "NaN answers",
    "empty": "empty answers",
    "unfinished": "unfinished answers",
    "extraction": "extraction failures",
    "no_sandbox": "ran without a sandbox",
}
_REPEAT = "Fix the cause and run the same command again: answers that are in the store are not asked for again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a reader must know."""

    level: Level
    task: str | None
    """None: it concerns the whole run."""
    title: str
    message: str
    advice: str | None = None
    """What to do, where the message doesn't say it."""


def check_title(check: str) -> str:
    """Return what a health check is called in a report.

    >>> check_title("chance_level"), check_title("nan")
    ('chance level', 'NaN answers')
    """
    return _TITLES.get(check, check.replace("_", " "))


def collect_findings(info: RunInfo) -> tuple[Finding, ...]:
    """Return failed tasks, health flags, warnings and a partial run, errors first, else in run order.

    Args:
        info: the run as in run.json.
    """
    findings = [finding for name in info.tasks for finding in _of_task(info, name)]
    findings += [Finding(level="warning", task=None, title="plan", message=text) for text in info.warnings]
    notes = info.judge.notes if info.judge is not None else ()
    findings += [Finding(level="warning", task=None, title="judge", message=text) for text in notes]
    findings += _of_part(info)
    findings.sort(key=lambda finding: _ORDER.index(finding.level))
    return tuple(replace(finding, message=clip(finding.message, limit=MESSAGE_CHARS)) for finding in findings)


def _of_task(info: RunInfo, name: str) -> list[Finding]:
    task = info.tasks[name]
    findings = []
    if task.is_failed:
        error = task.error or "no reason was recorded"
        findings.append(Finding(level="error", task=name, title="task failed", message=_ended(error), advice=_REPEAT))
    flags = info.health[name].flags if name in info.health else ()
    findings += [
        Finding(level=flag.level, task=name, title=check_title(flag.check), message=flag.message) for flag in flags
    ]
    # The run may have made a flag of it already.
    if task.preflight is not None and task.preflight not in ("ok", *(flag.message for flag in flags)):
        findings.append(Finding(level="warning", task=name, title="sanity check", message=task.preflight))
    return findings


def _ended(message: str) -> str:
    """Return a message that advice can follow.

    >>> _ended("MemoryError: no"), _ended("MemoryError: "), _ended("Run it again.")
    ('MemoryError: no.', 'MemoryError.', 'Run it again.')
    """
    bare = message.rstrip().removesuffix(":")
    return bare if bare.endswith((".", "!", "?", "…", "。")) else f"{bare}."


def _of_part(info: RunInfo) -> list[Finding]:
    """Return a note where tasks ran on a part of their docs: such scores look like the benchmark's and aren't."""
    parts = [
        f"{name} {numbers.format_part(task.n_docs, task.n_docs_total)}"
        for name, task in info.tasks.items()
        if task.n_docs < task.n_docs_total
    ]
    if not parts:
        return []
    more = f" and {len(parts) - 4} more tasks" if len(parts) > 4 else ""
    return [
        Finding(
            level="note",
            task=None,
            title="partial run",
            message=f"Only a part of the docs was asked: {', '.join(parts[:4])}{more}.",
            advice="Do not compare these scores with published ones; leave out --limit for the whole benchmark.",
        )
    ]
