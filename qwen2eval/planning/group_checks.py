"""Does a group ask for scores that its tasks have? lm-eval leaves out the others, without a word on the screen."""

from collections.abc import Iterator, Mapping

from qwen2eval.errors import summarize_names
from qwen2eval.planning.planned import TaskPlan
from qwen2eval.tasks.eval_group import EvalGroup


def group_warnings(groups: Mapping[str, EvalGroup], tasks: Mapping[str, TaskPlan]) -> list[str]:
    """Name the metrics and filters of groups that none, or not all, of their tasks have."""
    return [warning for name, group in groups.items() for warning in _warnings(name, group, tasks)]


def _warnings(name: str, group: EvalGroup, tasks: Mapping[str, TaskPlan]) -> Iterator[str]:
    planned = [tasks[task] for task in group.task_names if task in tasks]
    for metric, filters in group.asked if planned else ():
        wanted = f"Group {name!r} asks for the metric {metric!r}"
        lacking = [one.name for one in planned if metric not in one.metric_names]
        if len(lacking) == len(planned):
            there = dict.fromkeys(one for task in planned for one in task.metric_names)
            yield f"{wanted}, which none of its tasks has: it has no score. They have: {', '.join(there)}"
            continue
        if lacking:
            yield f"{wanted}, which {summarize_names(lacking)} does not have: the group has no score of it"
        for one in filters or ():
            without = [task.name for task in planned if one not in task.task.filter_names]
            if without:
                there = dict.fromkeys(found for task in planned for found in task.task.filter_names)
                yield (
                    f"{wanted} with the filter {one!r}, which {summarize_names(without)} does not have: the group has "
                    f"no score of it. The filters are: {', '.join(there)}"
                )
