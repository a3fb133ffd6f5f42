"""What run.json says of a run: config, model, tasks, health, environment, timings."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qwen2eval import __version__
from qwen2eval.answering import TaskAnswers
from qwen2eval.backends import Backend, ModelFront
from qwen2eval.config import RunConfig
from qwen2eval.environment import describe_environment
from qwen2eval.errors import Qwen2EvalError
from qwen2eval.finished_run import SCHEMA_VERSION, file_name
from qwen2eval.health import chance_score, check_health
from qwen2eval.plan import Plan, task_hash
from qwen2eval.samples import TaskSamples
from qwen2eval.store import fingerprint
from qwen2eval.tasks import task_metadata


class Clock:
    """Wall time of each part of a run."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._begin = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the block's seconds to `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = round(self._seconds.get(name, 0.0) + time.perf_counter() - begin, 3)

    def timings(self) -> dict[str, float]:
        """Return seconds by part, and in total so far."""
        return {**self._seconds, "total_seconds": round(time.perf_counter() - self._begin, 3)}


def store_identity(plan: Plan, backend: Backend) -> dict[str, Any]:
    """Return what the store tells models apart by."""
    front = plan.front
    return {
        **backend.identity(),
        "tokenizer": front.tokenizer_hash,
        "chat_template": front.chat_template_hash if plan.config.apply_chat_template else None,
        "max_length": backend.max_length,
    }


@dataclass(frozen=True)
class ModelRecord:
    """What run.json says of a model; made while it is open."""

    model: dict[str, Any]
    usage: Mapping[str, int]
    """Counts of the work that it did."""

    @classmethod
    def of(cls, plan: Plan, backend: Backend) -> "ModelRecord":
        """Describe the model that answered a plan."""
        model = describe_model(plan.front, backend, fingerprint(store_identity(plan, backend)))
        return cls(model, backend.usage())

    @classmethod
    def first(cls, records: "Sequence[ModelRecord]") -> "ModelRecord":
        """Return the first of several that answered one run, with the work of all."""
        usage = Counter[str]()
        for record in records:
            usage.update(record.usage)  # a sum of counters would lose what is 0
        return cls(records[0].model, usage)


def describe_run(
    plan: Plan,
    asked: ModelRecord,
    answers: Mapping[str, TaskAnswers],
    samples: Mapping[str, TaskSamples],
    *,
    clock: "Clock",
    command: list[str] | None,
) -> dict[str, Any]:
    """Return run.json."""
    config, front = plan.config, plan.front
    label = file_name(f"{front.name}_{config.label}")
    failed = {name: describe_failure(err) for name, err in plan.failures.items()}
    health = {name: check_health(task_samples).as_dict() for name, task_samples in samples.items()}
    for name, planned in plan.tasks.items():
        if name in health and planned.preflight != "ok":
            health[name]["flags"].append({"check": "preflight", "level": "warning", "message": planned.preflight})
    tasks = {name: describe_task(task_samples, plan) for name, task_samples in samples.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": f"{clock.started:%Y%m%dT%H%M%SZ}_{label}",
        "created": clock.started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "failed_tasks" if failed else "finished",
        "qwen2eval_version": __version__,
        "command": command or [],
        "config": {**config.as_dict(), **absolute_places(config)},
        "model": asked.model,
        "tasks": {**tasks, **failed},
        "groups": {
            name: {"tasks": [t.task_name for t in group.get_all_tasks()]} for name, group in plan.groups.items()
        },
        "health": health,
        "warnings": plan.warnings,
        "requests": {
            "n_total": plan.n_requests,
            **{
                name: sum(getattr(got, name) for got in answers.values())
                for name in ("n_from_store", "n_answered", "n_failed")
            },
            **asked.usage,
        },
        "environment": describe_environment(),
        "seeds": vars(config.seeds).copy(),
        "timings": clock.timings(),
    }


def absolute_places(config: RunConfig) -> dict[str, Any]:
    """Return the folders a run read from, so that it can be scored again from anywhere."""
    data_dir = config.data_dir or os.environ.get("QWEN2EVAL_DATA")
    return {
        "data_dir": None if data_dir is None else str(Path(data_dir).resolve()),
        "corpus": [str(Path(path).absolute()) for path in config.corpus],
        "matches": None if config.matches is None else str(Path(config.matches).resolve()),
        "include_path": [str(Path(folder).resolve()) for folder in config.include_path],
        "tasks": [
            str(Path(t).resolve()) if t.endswith((".yaml", ".yml")) and Path(t).is_file() else t for t in config.tasks
        ],
    }


def describe_model(front: ModelFront, backend: Backend, model_fingerprint: str) -> dict[str, Any]:
    """Return the `model` part of run.json."""
    return {
        "backend": front.backend,
        "name": front.name,
        "path": front.path,
        "dtype": getattr(backend, "dtype", None),
        "device": getattr(backend, "device", None),
        "max_length": backend.max_length,
        "rope": front.rope,
        "n_parameters": backend.n_parameters,
        "fingerprint": model_fingerprint,
        "tokenizer_hash": front.tokenizer_hash,
        "chat_template_hash": front.chat_template_hash,
        "note": front.note,
    }


def describe_task(samples: TaskSamples, plan: Plan) -> dict[str, Any]:
    """Return one entry of `tasks` in run.json."""
    planned, task = samples.plan, samples.plan.task
    metadata = task_metadata(task)
    dataset = getattr(task, "dataset", None)
    template = [str(task.get_config(key)) for key in ("description", "doc_to_text", "doc_to_target", "doc_to_choice")]
    return {
        "status": "scored",
        "error": None,
        "description": metadata.get("summary") or str(task.get_config("task_alias") or planned.name),
        **describe_scoring(samples),
        "output_type": task.OUTPUT_TYPE,
        "rope": planned.model[1].rope if planned.model else None,
        "num_fewshot": task.get_config("num_fewshot"),
        "n_docs": len(planned.docs),
        "n_docs_total": planned.n_docs_total,
        "n_requests": planned.n_requests,
        "n_prompt_tokens": planned.n_prompt_tokens,
        "shared_prefix_ratio": planned.shared_prefix_ratio,
        "generation_kwargs": task.get_config("generation_kwargs") if task.OUTPUT_TYPE == "generate_until" else None,
        "cluster": planned.cluster_column,
        "apply_chat_template": bool(plan.config.apply_chat_template),
        "template_hash": fingerprint({"templates": "\n".join(template)}),
        "data": {
            "source": getattr(dataset, "source", None) or str(task.get_config("dataset_path")),
            "sha256": getattr(dataset, "sha256", None),
        },
        "preflight": planned.preflight,
        "first_prompt": planned.first_prompt,
        "chance": chance_score(samples),
    }


def describe_scoring(samples: TaskSamples) -> dict[str, Any]:
    """Return the part of a task's entry that a new scoring may change."""
    task = samples.plan.task
    better = {**(task.higher_is_better() or {}), **dict.fromkeys(samples.judge_metrics, True)}
    return {
        "version": str(task.VERSION),
        "filters": [ensemble.name for ensemble in task._filters],
        "metrics": {name: {"higher_is_better": higher} for name, higher in better.items()},
        "task_hash": task_hash(task),
        "sandbox": getattr(task, "sandbox_level", None),
    }


def describe_failure(error: Qwen2EvalError) -> dict[str, Any]:
    """Return the entry of a task that has no score: the same keys, mostly empty."""
    unknown = ("description", "version", "output_type", "num_fewshot", "n_prompt_tokens", "shared_prefix_ratio")
    empty = dict.fromkeys((*unknown, "generation_kwargs", "cluster", "task_hash", "template_hash", "preflight"))
    empty |= dict.fromkeys(("first_prompt", "chance", "sandbox"))
    counts = dict.fromkeys(("n_docs", "n_docs_total", "n_requests"), 0)
    rest = {"filters": [], "metrics": {}, "apply_chat_template": False, "data": {"source": None, "sha256": None}}
    return {"status": "failed", "error": str(error), **empty, **counts, **rest}
