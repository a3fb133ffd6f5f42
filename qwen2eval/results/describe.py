"""Describing a run for run.json: config, model, tasks, health, environment, timings."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from qwen2eval.answers.answering import TaskAnswers
from qwen2eval.answers.store import fingerprint
from qwen2eval.backends import Backend, ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.environment import describe_environment
from qwen2eval.errors import Qwen2EvalError
from qwen2eval.planning.planned import Plan
from qwen2eval.results.health import chance_score, check_health
from qwen2eval.results.sample import TaskSamples, metric_names
from qwen2eval.run_folder.folder import file_name
from qwen2eval.run_info import (
    SCHEMA_VERSION,
    DataInfo,
    FlagInfo,
    GroupInfo,
    HealthInfo,
    MetricInfo,
    ModelInfo,
    RequestCounts,
    RunInfo,
    SeedInfo,
    TaskInfo,
    TimingInfo,
)
from qwen2eval.tasks.metric_spec import MetricSpec
from qwen2eval.typed_json import read_json
from qwen2eval.version import VERSION


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

    def timings(self) -> TimingInfo:
        """Return seconds by part, and in total so far."""
        total = round(time.perf_counter() - self._begin, 3)
        return read_json(TimingInfo, {**self._seconds, "total_seconds": total})


def store_identity(plan: Plan, backend: Backend) -> dict[str, Any]:
    """Return what identifies a model in the store."""
    spec = plan.spec
    return {
        **backend.identity(),
        "tokenizer": spec.tokenizer_hash,
        "chat_template": spec.chat_template_hash if plan.config.apply_chat_template else None,
        "max_length": backend.max_length,
    }


@dataclass(frozen=True)
class ModelRecord:
    """What run.json says of a model; made while it is open."""

    model: ModelInfo
    usage: Mapping[str, int]
    """Counts of the work that it did."""

    @classmethod
    def of(cls, plan: Plan, backend: Backend) -> "ModelRecord":
        """Describe the model that answered a plan."""
        model = describe_model(plan.spec, backend, fingerprint(store_identity(plan, backend)))
        return cls(model, backend.usage())

    @classmethod
    def first(cls, records: "Sequence[ModelRecord]") -> "ModelRecord":
        """Return the first of several that answered one run, with the work of all."""
        usage = Counter[str]()
        for record in records:
            # Not the sum of counters, which would drop entries that are 0
            usage.update(record.usage)
        return cls(records[0].model, usage)


def describe_run(
    plan: Plan,
    asked: ModelRecord,
    answers: Mapping[str, TaskAnswers],
    samples: Mapping[str, TaskSamples],
    *,
    clock: "Clock",
    command: list[str] | None,
) -> RunInfo:
    """Return run.json."""
    config = plan.config
    label = file_name(f"{plan.spec.name}_{config.label}")
    tasks = {name: describe_task(task_samples, plan) for name, task_samples in samples.items()}
    failed = {name: describe_failure(err) for name, err in plan.failures.items()}
    return RunInfo(
        schema_version=SCHEMA_VERSION,
        run_id=f"{clock.started:%Y%m%dT%H%M%SZ}_{label}",
        created=clock.started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        status="failed_tasks" if failed else "finished",
        qwen2eval_version=VERSION,
        command=tuple(command or ()),
        # The environment and the current folder may differ when the run is scored again
        config={**config.as_dict(), **absolute_places(config)},
        model=asked.model,
        tasks={**tasks, **failed},
        groups={name: GroupInfo(tuple(group.task_names)) for name, group in plan.groups.items()},
        health={name: describe_health(task_samples) for name, task_samples in samples.items()},
        warnings=tuple(plan.warnings),
        requests=count_requests(plan, answers, asked.usage, clock.started),
        environment=describe_environment(),
        seeds=SeedInfo(**vars(config.seeds)),
        timings=clock.timings(),
    )


def describe_health(samples: TaskSamples) -> HealthInfo:
    """Return what happened to a task's docs, and the result of its sanity check before the run."""
    health, preflight = check_health(samples), samples.plan.preflight
    flags = () if preflight == "ok" else (FlagInfo("preflight", "warning", preflight),)
    return replace(health, flags=(*health.flags, *flags))


def count_requests(
    plan: Plan, answers: Mapping[str, TaskAnswers], usage: Mapping[str, int], started: datetime
) -> RequestCounts:
    """Return what was asked of the model.

    Args:
        usage: the backend's own counts.
        started: when the run began; answers that another task of it got since then are not old.
    """
    begin = started.isoformat(timespec="milliseconds")
    given = (answer.answered_at for got in answers.values() for answer in got.by_request.values())
    times = [at for at in given if at and at < begin]
    return RequestCounts(
        stored_from=min(times, default=None),
        stored_to=max(times, default=None),
        n_total=plan.n_requests,
        n_from_store=sum(got.n_from_store for got in answers.values()),
        n_answered=sum(got.n_answered for got in answers.values()),
        n_failed=sum(got.n_failed for got in answers.values()),
        n_tokens_asked=usage.get("n_tokens_asked"),
        n_tokens_computed=usage.get("n_tokens_computed"),
        extra={name: count for name, count in usage.items() if name not in ("n_tokens_asked", "n_tokens_computed")},
    )


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


def describe_model(spec: ModelSpec, backend: Backend, model_fingerprint: str) -> ModelInfo:
    """Return the `model` part of run.json."""
    return ModelInfo(
        backend=spec.backend,
        name=spec.name,
        path=spec.path,
        dtype=_text(getattr(backend, "dtype", None)),
        device=_text(getattr(backend, "device", None)),
        max_length=backend.max_length,
        rope=spec.rope,
        n_parameters=backend.n_parameters,
        fingerprint=model_fingerprint,
        tokenizer_hash=spec.tokenizer_hash,
        chat_template_hash=spec.chat_template_hash,
        note=spec.note,
    )


def describe_task(samples: TaskSamples, plan: Plan) -> TaskInfo:
    """Return one entry of `tasks` in run.json. lm-eval checks few of a task's values: here each gets its type."""
    planned, task = samples.plan, samples.plan.task
    scoring = describe_scoring(samples)
    return TaskInfo(
        status="scored",
        error=None,
        description=task.summary,
        version=scoring.version,
        filters=scoring.filters,
        metrics=scoring.metrics,
        task_hash=scoring.task_hash,
        sandbox=scoring.sandbox,
        output_type=task.output_type,
        rope=planned.model[1].rope if planned.model else None,
        num_fewshot=task.num_fewshot,
        n_docs=len(planned.docs),
        n_docs_total=planned.n_docs_total,
        n_requests=planned.n_requests,
        n_prompt_tokens=planned.n_prompt_tokens,
        shared_prefix_ratio=planned.shared_prefix_ratio,
        generation_kwargs={name: one.value for name, one in planned.generation.items()} or task.generation_kwargs,
        generation_sources={name: one.source for name, one in planned.generation.items()},
        cluster=task.cluster_column,
        apply_chat_template=bool(plan.config.apply_chat_template),
        template_hash=fingerprint({"templates": task.templates}),
        data=DataInfo(source=task.data.source, sha256=task.data.sha256),
        preflight=planned.preflight,
        first_prompt=planned.first_prompt,
        chance=chance_score(samples),
    )


class Scoring(NamedTuple):
    """The part of a task's entry that a new scoring may change."""

    version: str
    """The task's own."""
    filters: tuple[str, ...]
    """Names of its filters."""
    metrics: Mapping[str, MetricInfo]
    """What each metric is, by name."""
    task_hash: str
    """sha256 of what decides prompts and scores."""
    sandbox: str | None
    """The level that programs ran at; None: none has run."""


def describe_scoring(samples: TaskSamples) -> Scoring:
    """Return what a task's entry says of its scoring."""
    task = samples.plan.task
    specs = task.metrics(metric_names(samples))
    return Scoring(
        version=task.version,
        filters=tuple(task.filter_names),
        metrics={name: describe_metric(spec) for name, spec in specs.items()},
        task_hash=task.hash(),
        sandbox=None if task.programs is None else task.programs.sandbox_level,
    )


def describe_metric(spec: MetricSpec) -> MetricInfo:
    """Return what run.json says of a metric; one whose unit is not specified is a plain number."""
    return MetricInfo(spec.higher_is_better, unit=spec.unit or "number", low=spec.low, high=spec.high)


def describe_failure(error: Qwen2EvalError) -> TaskInfo:
    """Return the entry of a task that has no score: the same keys, mostly empty."""
    return TaskInfo(
        status="failed",
        error=str(error),
        description=None,
        version=None,
        filters=(),
        metrics={},
        task_hash=None,
        sandbox=None,
        output_type=None,
        num_fewshot=None,
        n_docs=0,
        n_docs_total=0,
        n_requests=0,
        n_prompt_tokens=None,
        shared_prefix_ratio=None,
        generation_kwargs=None,
        cluster=None,
        apply_chat_template=False,
        template_hash=None,
        data=DataInfo(source=None, sha256=None),
        preflight=None,
        first_prompt=None,
        chance=None,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
