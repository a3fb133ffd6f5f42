"""The protocol of each task, and some of its docs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from qwen2eval.reporting import numbers
from qwen2eval.reporting.examples import LONG_TEXT_CHARS, Example
from qwen2eval.reporting.findings import MESSAGE_CHARS
from qwen2eval.reporting.markup import clip
from qwen2eval.reporting.sections.facts import Fact, known, written
from qwen2eval.reporting.sections.section import Section
from qwen2eval.reporting.tables import HealthLevel, task_health, verdicts_text
from qwen2eval.run_info import HealthInfo, RunInfo, TaskInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task's protocol and examples."""

    name: str
    description: str | None
    summary: str
    """The protocol in one line."""
    health: str
    health_level: HealthLevel
    error: str | None
    facts: tuple[Fact, ...]
    first_prompt: str | None
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksSection(Section):
    """Protocol and examples."""

    template: ClassVar[str] = "tasks"
    tasks: tuple[TaskView, ...]
    """In the order of the run."""


def tasks_section(info: RunInfo, examples: Mapping[str, tuple[Example, ...]]) -> TasksSection:
    """Return the protocol and the examples of each task.

    Args:
        info: the run.
        examples: by task.
    """
    return TasksSection(tasks=tuple(_task_view(info, name, examples.get(name, ())) for name in info.tasks))


def _task_view(info: RunInfo, name: str, examples: tuple[Example, ...]) -> TaskView:
    task = info.tasks[name]
    level, health = task_health(info, name)
    prompt = task.first_prompt
    return TaskView(
        name=name,
        description=task.description and clip(task.description, limit=MESSAGE_CHARS),
        summary=" · ".join(_summary(task)),
        health=health,
        health_level=level,
        error=task.error and clip(task.error, limit=MESSAGE_CHARS),
        facts=_task_facts(task, info.health.get(name)),
        first_prompt=None if prompt is None else clip(prompt, limit=LONG_TEXT_CHARS),
        examples=examples,
    )


def _summary(task: TaskInfo) -> list[str]:
    parts = []
    if task.num_fewshot is not None:
        parts.append(f"{task.num_fewshot}-shot")
    if task.output_type:
        parts.append(task.output_type.replace("_", " "))
    if task.n_docs:
        parts.append(f"{numbers.format_part(task.n_docs, task.n_docs_total)} docs")
    return parts


def _task_facts(task: TaskInfo, health: HealthInfo | None) -> tuple[Fact, ...]:
    # The task failed before anything else was known
    if task.output_type is None:
        return ()
    words: dict[bool | None, str] = {True: "higher is better", False: "lower is better"}
    directions = ((name, words.get(metric.higher_is_better)) for name, metric in task.metrics.items())
    metrics = ", ".join(f"{name} ({direction})" if direction else name for name, direction in directions)
    return (
        *known(
            ("Shots", written(task.num_fewshot, str), False),
            ("Docs", written(task.n_docs, lambda n: numbers.format_part(n, task.n_docs_total)), False),
            ("Requests", written(task.n_requests, numbers.format_count), False),
            ("Prompt tokens", written(task.n_prompt_tokens, numbers.format_count), False),
            ("Shared-prefix share", written(task.shared_prefix_ratio, numbers.format_percent), False),
            ("Output type", task.output_type, True),
            ("Metrics", metrics, False),
            ("Chance", written(task.chance, numbers.format_percent), False),
            ("Filters", ", ".join(each for each in task.filters if each != "none") or "none", False),
            ("Generation arguments", _generation_text(task), True),
            ("Chat template", "applied" if task.apply_chat_template else "not applied", False),
            ("Errors clustered by", task.cluster, True),
            ("Preflight", task.preflight, False),
        ),
        *known(
            ("Programs", verdicts_text(health), False),
            ("Sandbox", task.sandbox, True),
        ),
        *_health_facts(health),
        *known(
            ("Data", task.data.source, True),
            ("Task version", task.version, False),
            ("Task hash", task.task_hash, True),
            ("Template hash", task.template_hash, True),
            ("Data SHA-256", task.data.sha256, True),
        ),
    )


def _generation_text(task: TaskInfo) -> str | None:
    """Return the generation arguments as they were applied, each with where it comes from."""
    if not task.generation_kwargs:
        return None
    if task.generation_sources is None:  # an older run: as the task had them
        return json.dumps(task.generation_kwargs, ensure_ascii=False, default=str)
    return ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False, default=str)} ({task.generation_sources.get(name, 'task')})"
        for name, value in task.generation_kwargs.items()
    )


def _health_facts(health: HealthInfo | None) -> tuple[Fact, ...]:
    """Return truncations always, as part of the protocol, and the other counts where they are not 0."""
    if health is None:
        return ()
    failures = health.n_extraction_failures.items()
    facts = [Fact("Truncated prompts", numbers.format_count(health.n_truncated_prompts))]
    named = {
        "Unfinished answers": health.n_unfinished,
        "Empty answers": health.n_empty,
        "NaN answers": health.n_nan,
        "Failed requests": health.n_failed_requests,
        "Scoring errors": health.n_scoring_errors,
        "Docs without a score": health.n_unscored,
    }
    facts += [Fact(label, numbers.format_count(count)) for label, count in named.items() if count]
    failed = ", ".join(f"{count:,}" + ("" if name == "none" else f" ({name})") for name, count in failures if count)
    return (*facts, Fact("Extraction failures", failed)) if failed else tuple(facts)
