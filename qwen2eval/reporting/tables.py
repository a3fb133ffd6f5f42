"""The score table as plain rows, shared by the terminal and the reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qwen2eval.reporting import numbers
from qwen2eval.reporting.heat_map import is_cell
from qwen2eval.reporting.watches import check_title

if TYPE_CHECKING:
    import pandas as pd

HealthLevel = Literal["ok", "warning", "error", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One line of the score table: a metric of a task or group, after one filter."""

    task: str
    metric: str | None
    """None: the task failed or gave no score, and the row stands for that."""
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
    higher_is_better: bool | None
    chance: float | None
    """The value that guessing gives, for ratios only."""

    @property
    def in_percent(self) -> bool:
        """Whether the value is a ratio and shown in percent."""
        return self.metric is not None and numbers.is_ratio(self.metric, self.value)

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
        """An arrow to the better side; empty where nobody said which it is."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


def score_rows(info: Mapping[str, Any], scores: "pd.DataFrame") -> tuple[ScoreRow, ...]:
    """Return the rows of the score table in the order of the run.

    Only the subset "original" is shown here. A task without any score still gets a row, so that a failed one can't be
    overlooked: among the tasks, where it stands in the run.

    Args:
        info: the run as in run.json.
        scores: as in scores.parquet.
    """
    records = [row for row in scores.to_dict("records") if row["subset"] == "original" and not is_cell(row)]
    by_task: dict[str, list[Mapping[Any, Any]]] = {}
    for record in records:
        by_task.setdefault(str(record["task"]), []).append(record)
    rows: list[ScoreRow] = []
    for task in info["tasks"]:
        task_records = by_task.pop(task, [])
        rows += [_task_row(info, task, record) for record in task_records] or [_row_without_score(info, task)]
    for group, group_records in by_task.items():
        rows += [_group_row(info, group, record) for record in group_records]
    return tuple(rows)


def headline_rows(info: Mapping[str, Any], rows: Sequence[ScoreRow], *, limit: int = 8) -> tuple[ScoreRow, ...]:
    """Return the first row of each group and task, at most `limit`; tasks that a group shows give way first."""
    grouped = {task for group in info["groups"].values() for task in group["tasks"]}
    first: dict[str, ScoreRow] = {}
    for row in rows:
        first.setdefault(row.task, row)
    groups = [row for row in first.values() if row.is_group]
    tasks = [row for row in first.values() if not row.is_group]
    if len(groups) + len(tasks) > limit:
        tasks = [row for row in tasks if row.task not in grouped]
    return tuple((groups + tasks)[:limit])


def task_health(info: Mapping[str, Any], task: str) -> tuple[HealthLevel, str]:
    """Return what the health checks say of a task: a level, and a few words for a table."""
    if info["tasks"][task]["status"] == "failed":
        return "error", "failed"
    health = info["health"].get(task)
    if health is None:
        return "unknown", numbers.NOTHING
    checks = list(dict.fromkeys(check_title(flag["check"]) for flag in health["flags"]))
    if not checks:
        return "ok", "ok"
    level: HealthLevel = "error" if any(flag["level"] == "error" for flag in health["flags"]) else "warning"
    return level, ", ".join(checks) if len(checks) <= 2 else f"{len(checks)} flags"


def verdicts_text(health: Mapping[str, Any]) -> str:
    """Return what came of a task's programs in words; empty for tasks that have none.

    >>> verdicts_text({"verdicts": {"passed": 7, "timed_out": 1}, "n_same_process": 2})
    '7 passed, 1 timed out; 2 in one process with their tests'
    """
    counts = (health.get("verdicts") or {}).items()
    text = ", ".join(f"{numbers.format_count(count)} {verdict.replace('_', ' ')}" for verdict, count in counts)
    n_same = health.get("n_same_process")
    return f"{text}; {numbers.format_count(n_same)} in one process with their tests" if n_same else text


def _task_row(info: Mapping[str, Any], name: str, record: Mapping[Any, Any]) -> ScoreRow:
    task = info["tasks"][name]
    metric = str(record["metric"])
    level, health = task_health(info, name)
    return ScoreRow(
        task=name,
        health=health,
        health_level=level,
        is_group=False,
        n_docs_total=task["n_docs_total"],
        higher_is_better=task["metrics"].get(metric, {}).get("higher_is_better"),
        chance=task["chance"] if numbers.is_ratio(metric) else None,
        **_numbers_of(record),
    )


def _row_without_score(info: Mapping[str, Any], name: str) -> ScoreRow:
    task = info["tasks"][name]
    level, health = task_health(info, name)
    return ScoreRow(
        task=name,
        metric=None,
        filter=None,
        value=None,
        stderr=None,
        ci=None,
        n_docs=task["n_docs"] or None,
        n_docs_total=task["n_docs_total"] or None,
        n_unscored=task["n_docs"] or None,
        health=health,
        health_level=level,
        is_group=False,
        higher_is_better=None,
        chance=None,
    )


def _group_row(info: Mapping[str, Any], name: str, record: Mapping[Any, Any]) -> ScoreRow:
    members = info["groups"].get(name, {"tasks": []})["tasks"]
    known = [member for member in members if member in info["tasks"]]
    levels = [task_health(info, member)[0] for member in known]
    n_flagged = sum(level in ("warning", "error") for level in levels)
    metric = str(record["metric"])
    directions = {info["tasks"][member]["metrics"].get(metric, {}).get("higher_is_better") for member in known}
    worst: HealthLevel = "error" if "error" in levels else "warning" if n_flagged else "ok"
    return ScoreRow(
        task=name,
        health=f"{n_flagged} of {len(known)} flagged" if n_flagged else "ok",
        health_level=worst,
        is_group=True,
        n_docs_total=None,
        higher_is_better=directions.pop() if len(directions) == 1 else None,
        chance=None,
        **_numbers_of(record),
    )


def _numbers_of(record: Mapping[Any, Any]) -> dict[str, Any]:
    low, high = _float(record["ci_low"]), _float(record["ci_high"])
    filter_name = record["filter"]
    return {
        "metric": str(record["metric"]),
        "filter": filter_name if isinstance(filter_name, str) and filter_name != "none" else None,
        "value": _float(record["value"]),
        "stderr": _float(record["stderr"]),
        "ci": None if low is None or high is None else (low, high),
        "n_docs": _int(record["n_docs"]),
        "n_unscored": _int(record["n_unscored"]),
    }


def _float(cell: Any) -> float | None:
    """Return a table's cell as a number; None for each of the ways in which pandas says "nothing"."""
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return None
    return None if number != number else number


def _int(cell: Any) -> int | None:
    number = _float(cell)
    return None if number is None else int(number)
