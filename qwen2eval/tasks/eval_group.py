"""`EvalGroup`: one lm-eval group of tasks as a run uses it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval.api.group import Group


class EvalGroup:
    """A group of tasks with its own score.

    Args:
        lm_eval: the group as lm-eval built it.
    """

    def __init__(self, lm_eval: "Group") -> None:
        self.lm_eval = lm_eval

    @property
    def task_names(self) -> list[str]:
        """Names of all tasks in it and in its subgroups."""
        return [str(task.task_name) for task in self.lm_eval.get_all_tasks()]

    @property
    def has_aggregation(self) -> bool:
        """Whether it has a score."""
        return bool(self.lm_eval.has_aggregation)

    def aggregate(self, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return its row of scores by lm-eval's own rule.

        Args:
            metrics: task -> {"metric,filter": value, "metric_stderr,filter": …}.
        """
        return dict(self.lm_eval.aggregate(metrics))
