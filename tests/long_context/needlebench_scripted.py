"""Plans of NeedleBench and LV-Eval whose answers are written in the test: every request by a function of its doc."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from qwen2eval import RunConfig
from qwen2eval.evaluate import plan
from qwen2eval.planning.planned import Plan, PlannedRequest
from qwen2eval.requests import Answer
from qwen2eval.results.group_scores import score_tasks
from qwen2eval.results.sample import TaskSamples
from qwen2eval.results.score_docs import score_task
from qwen2eval.results.scores import scores_frame

Script = Callable[[dict[str, Any], PlannedRequest], str]


def planned(*tasks: str, data_dir: Any, tokenizer: Any = None, max_length: int | None = None, **options: Any) -> Plan:
    """Return the plan of tasks for the dummy, with a tokenizer where one is given."""
    args = {"tokenizer": str(tokenizer)} if tokenizer else {}
    args |= {"max_length": max_length} if max_length else {}
    config = RunConfig(model="dummy", model_args=args, tasks=tasks, data_dir=str(data_dir), offline=True, **options)
    return plan(config)


def score_scripted(made: Plan, script: Script) -> tuple[pd.DataFrame, dict[str, TaskSamples]]:
    """Return the scores, as scores.parquet has them, and samples of a plan whose requests a script answers."""
    samples = {}
    for name, task in made.tasks.items():
        docs = dict(zip(task.doc_ids, task.docs, strict=True))
        answers = {
            (request.digest, 0): Answer(response=script(docs[request.doc_id], request), finish_reason="stop")
            for request in task.requests
        }
        samples[name] = score_task(task, answers)
    return scores_frame(score_tasks(samples, made.groups, seed=1)), samples


def value_of(scores: pd.DataFrame, task: str, metric: str) -> float:
    """Return one score, that of all docs and not of a cell."""
    is_whole = scores.cell_length.isna() & scores.cell_depth.isna()
    (value,) = scores[(scores.task == task) & (scores.metric == metric) & is_whole].value
    return float(value)
