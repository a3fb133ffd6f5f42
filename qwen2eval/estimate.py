"""How long a plan will take, by the speed of earlier runs of the same model on this machine."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from qwen2eval.plan import Plan


class Estimate(NamedTuple):
    """Seconds of answering, as if the store held nothing."""

    seconds: float
    run_id: str
    """The run whose speed it is."""


def estimate_time(plan: Plan) -> Estimate | None:
    """Return the time by the newest finished run of this model with the same kinds of task; None if there is none.

    Scoring prompts and generating text go at different speeds, so only a run with the same output types is compared;
    its seconds a prompt token are taken as the plan's.
    """
    n_tokens = [task.n_prompt_tokens for task in plan.tasks.values()]
    wanted = {task.task.OUTPUT_TYPE for task in plan.tasks.values()}
    for path in sorted(Path(plan.config.output_path).glob("*/run.json"), reverse=True):
        info = json.loads(path.read_text(encoding="utf-8"))
        tasks = [task for task in info["tasks"].values() if task["status"] == "scored"]
        known = [task["n_prompt_tokens"] for task in tasks]
        if not _is_comparable(info, plan) or {task["output_type"] for task in tasks} != wanted:
            continue
        if None in known or None in n_tokens or not sum(known):
            continue
        rate = info["timings"]["answer_seconds"] / sum(known)
        return Estimate(rate * sum(n or 0 for n in n_tokens), info["run_id"])
    return None


def _is_comparable(info: dict[str, Any], plan: Plan) -> bool:
    """Whether a run asked the same model and got nothing from the store."""
    model = info.get("model", {})
    same_model = (model.get("backend"), model.get("path")) == (plan.front.backend, plan.front.path)
    same_device = info["config"].get("device") == plan.config.device
    return same_model and same_device and info["requests"]["n_from_store"] == 0 and info["requests"]["n_answered"] > 0
