"""The score table as plain rows, shared by the terminal and the reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qwen2eval.reporting import numbers
from qwen2eval.reporting.findings import check_title
from qwen2eval.reporting.metrics import ShownMetric, metric_of
from qwen2eval.run_folder.folder import ScoreRecord
from qwen2eval.run_info import HealthInfo, RequestCounts, RunInfo

HealthLevel = Literal["ok", "warning", "error", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One line of the score table: a metric of a task or group, after one filter."""

    task: str
    metric: str | None
    """None: the task failed or gave no score, and the row records that."""
    filter: str | None
    """None: the task has no named filter."""
    value: float | None
    """None: not scored. Never 0 in its place."""
    stderr: float | None
    ci: tuple[float, float] | None
    """The 95 % interval, ends included."""
    n_docs: int | None
    n_docs_total: int | None
    """Docs that the whole benchmark has; None where not known and for groups."""
    n_unscored: int | None
    health: str
    """What the health checks found, in a few words; "ok" where they found nothing."""
    health_level: HealthLevel
    is_group: bool
    shown: ShownMetric | None
    """How the metric is shown; None: there is none."""
    chance: float | None
    """The value that guessing gives, for ratios only."""

    @property
    def in_percent(self) -> bool:
        """Whether the value is a ratio and shown in percent."""
        return self.shown is not None and self.shown.in_percent(self.value)

    @property
    def higher_is_better(self) -> bool | None:
        """None: not specified."""
        return None if self.shown is None else self.shown.higher_is_better

    @property
    def value_text(self) -> str:
        """The value as shown."""
        return numbers.format_value(self.value, in_percent=self.in_percent)

    @property
    def stderr_text(self) -> str:
        """The standard error as shown, with its "±"."""
        return numbers.format_stderr(self.stderr, in_percent=self.in_percent, has_value=self.value is not None)

    @property
    def ci_text(self) -> str:
        """The interval as shown."""
        return numbers.format_interval(self.ci, in_percent=self.in_percent, has_value=self.value is not None)

    @property
    def n_docs_text(self) -> str:
        """The number of docs as shown."""
        return numbers.format_count(self.n_docs)

    @property
    def n_unscored_text(self) -> str:
        """The number of docs without a score as shown."""
        return numbers.format_count(self.n_unscored)

    @property
    def chance_text(self) -> str | None:
        """The chance level as shown; None where there is none."""
        return None if self.chance is None else numbers.format_value(self.chance, in_percent=self.in_percent)

    @property
    def direction(self) -> str:
        """An arrow to the better side; empty if the direction is not specified."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


def score_rows(info: RunInfo, scores: Sequence[ScoreRecord]) -> tuple[ScoreRow, ...]:
    """Return the rows of the score table in the order of the run.

    Only the subset "original" is shown here. A task without any score still gets a row, so that a failed one can't be
    overlooked: among the tasks, its position in the run.

    Args:
        info: the run as in run.json.
        scores: as in scores.parquet.
    """
    by_task: dict[str, list[ScoreRecord]] = {}
    for record in scores:
        if record.subset == "original" and not record.is_cell:
            by_task.setdefault(record.task, []).append(record)
    rows: list[ScoreRow] = []
    for task in info.tasks:
        records = by_task.pop(task, [])
        rows += [_task_row(info, record) for record in records] or [_row_without_score(info, task)]
    for group_records in by_task.values():
        rows += [_group_row(info, record) for record in group_records]
    return tuple(rows)


def headline_rows(info: RunInfo, rows: Sequence[ScoreRow], *, limit: int = 8) -> tuple[ScoreRow, ...]:
    """Return the first row of each group and task, at most `limit`; tasks of a group are left out if there are more."""
    grouped = {task for group in info.groups.values() for task in group.tasks}
    first: dict[str, ScoreRow] = {}
    for row in rows:
        first.setdefault(row.task, row)
    groups = [row for row in first.values() if row.is_group]
    tasks = [row for row in first.values() if not row.is_group]
    # MMLU's 57 tasks would hide everything else; their group's score summarises them
    if len(groups) + len(tasks) > limit:
        tasks = [row for row in tasks if row.task not in grouped]
    return tuple((groups + tasks)[:limit])


def task_health(info: RunInfo, task: str) -> tuple[HealthLevel, str]:
    """Return what the health checks say of a task: a level, and a few words for a table."""
    if info.tasks[task].is_failed:
        return "error", "failed"
    health = info.health.get(task)
    if health is None:
        return "unknown", numbers.NOTHING
    checks = list(dict.fromkeys(check_title(flag.check) for flag in health.flags))
    if not checks:
        return "ok", "ok"
    level: HealthLevel = "error" if any(flag.level == "error" for flag in health.flags) else "warning"
    return level, ", ".join(checks) if len(checks) <= 2 else f"{len(checks)} flags"


def verdicts_text(health: HealthInfo | None) -> str:
    """Return the results of a task's programs in words, such as "7 passed, 1 timed out"; empty where it has none."""
    if health is None:
        return ""
    counts = health.verdicts.items()
    text = ", ".join(f"{numbers.format_count(count)} {verdict.replace('_', ' ')}" for verdict, count in counts)
    n_same = health.n_same_process
    return f"{text}; {numbers.format_count(n_same)} in one process with their tests" if n_same else text


def store_text(requests: RequestCounts) -> str:
    """Say how many answers come from the store, and from when, such as "3 from the store (answered 2026-11-24)"."""
    times = dict.fromkeys(numbers.format_time(at) for at in (requests.stored_from, requests.stored_to) if at)
    when = f" (answered {' to '.join(times)})" if times else ""
    return f"{requests.n_from_store:,} from the store{when}"


def _task_row(info: RunInfo, record: ScoreRecord) -> ScoreRow:
    task, shown = info.tasks[record.task], metric_of(info, record.task, record.metric)
    level, health = task_health(info, record.task)
    return ScoreRow(
        health=health,
        health_level=level,
        is_group=False,
        n_docs_total=task.n_docs_total,
        shown=shown,
        chance=task.chance if shown.in_percent() else None,
        **_numbers_of(record),
    )


def _row_without_score(info: RunInfo, name: str) -> ScoreRow:
    task = info.tasks[name]
    level, health = task_health(info, name)
    return ScoreRow(
        task=name,
        metric=None,
        filter=None,
        value=None,
        stderr=None,
        ci=None,
        n_docs=task.n_docs or None,
        n_docs_total=task.n_docs_total or None,
        n_unscored=task.n_docs or None,
        health=health,
        health_level=level,
        is_group=False,
        shown=None,
        chance=None,
    )


def _group_row(info: RunInfo, record: ScoreRecord) -> ScoreRow:
    members = info.groups[record.task].tasks if record.task in info.groups else ()
    levels = [task_health(info, member)[0] for member in members if member in info.tasks]
    n_flagged = sum(level in ("warning", "error") for level in levels)
    worst: HealthLevel = "error" if "error" in levels else "warning" if n_flagged else "ok"
    return ScoreRow(
        health=f"{n_flagged} of {len(levels)} flagged" if n_flagged else "ok",
        health_level=worst,
        is_group=True,
        n_docs_total=None,
        shown=metric_of(info, record.task, record.metric),
        chance=None,
        **_numbers_of(record),
    )


def _numbers_of(record: ScoreRecord) -> dict[str, Any]:
    return {
        "task": record.task,
        "metric": record.metric,
        "filter": record.filter,
        "value": record.value,
        "stderr": record.stderr,
        "ci": record.interval,
        "n_docs": record.n_docs,
        "n_unscored": record.n_unscored,
    }
