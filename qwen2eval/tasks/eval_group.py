"""`EvalGroup`: one lm-eval group of tasks as a run uses it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task


class EvalGroup:
    """A group of tasks with its own score.

    Args:
        lm_eval: the group as lm-eval built it.
    """

    def __init__(self, lm_eval: "Group") -> None:
        self.lm_eval = lm_eval
        find_all = lm_eval.get_all_tasks

        def each_once(recursive: bool = True) -> "list[Task]":
            """Return the tasks, each once: lm-eval lists one that two subgroups share twice, and so counts it twice."""
            return list({task.task_name: task for task in find_all(recursive=recursive)}.values())

        # lm-eval's own aggregation asks the group for its tasks
        self.lm_eval.get_all_tasks = each_once

    @property
    def task_names(self) -> list[str]:
        """Names of all tasks in it and in its subgroups, each once."""
        return [str(task.task_name) for task in self.lm_eval.get_all_tasks()]

    @property
    def asked(self) -> list[tuple[str, list[str] | None]]:
        """The metrics of its score, each with the filters that are named for it; None: all that its tasks have."""
        return [(str(one.metric), one.filter_list) for one in self.lm_eval.aggregate_metric_list or ()]

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

    def weights(self, metrics: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, float]:
        """Return the weight that its rule gives to each task's value: what it makes of 1 there and 0 elsewhere.

        Args:
            metrics: as `aggregate` takes them.
            key: "metric,filter".
        """
        own = [name for name in self.task_names if key in metrics.get(name, {})]
        rows = {name: {**metrics[name], key: 0.0} for name in own}
        made = {name: self.aggregate({**rows, name: {**rows[name], key: 1.0}}).get(key) for name in own}
        return {name: float(weight) for name, weight in made.items() if isinstance(weight, int | float)}
