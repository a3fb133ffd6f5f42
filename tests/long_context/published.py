"""Published results as samples of a task, to be aggregated as a run's are."""

from typing import Any

from qwen2eval.long_context.niah.task import NiahTask
from qwen2eval.planning.planned import TaskPlan
from qwen2eval.results.sample import DocSample, TaskSamples
from qwen2eval.tasks.lm_eval_task import EvalTask


def published_samples(rows: list[dict[str, Any]]) -> TaskSamples:
    """Return rows of `token_limit`, `depth_percent` and the judge's `score` as scored docs; None: not scored."""
    docs = [{"cell": {"length": row["token_limit"], "depth": row["depth_percent"]}} for row in rows]
    plan = TaskPlan(
        "niah", EvalTask(NiahTask({"task": "niah", "metadata": {}})), list(range(len(docs))), docs, len(docs), 1
    )
    scored = [
        DocSample(
            i, doc, "none", [], [], [], None, None if row["score"] is None else {"judge_score": float(row["score"])}
        )
        for i, (doc, row) in enumerate(zip(docs, rows, strict=True))
    ]
    return TaskSamples(plan, {"none": scored})
