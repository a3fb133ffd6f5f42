"""All that a report shows, as plain values in the order in which it is shown; the templates only lay it out."""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from qwen2eval.redact import hide_secrets
from qwen2eval.reporting import numbers
from qwen2eval.reporting.contamination_table import (
    ContaminationRow,
    Evidence,
    contamination_rows,
    contamination_warnings,
    corpus_line,
    evidence,
)
from qwen2eval.reporting.examples import LONG_TEXT_CHARS, Example
from qwen2eval.reporting.markup import clip
from qwen2eval.reporting.tables import HealthLevel, ScoreRow, headline_rows, score_rows, task_health, verdicts_text
from qwen2eval.reporting.watches import MESSAGE_CHARS, Watch, find_watches

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Fact:
    """A label and what stands beside it."""

    label: str
    value: str
    is_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Where a ratio, its interval and chance lie on a line from 0 to 100."""

    value: float
    low: float
    width: float
    """Of the interval; 0 where there is none."""
    chance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """One of the numbers at the top."""

    row: ScoreRow
    bar: Bar | None


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
class ReportView:
    """A whole report."""

    model_name: str
    note: str | None
    run_id: str
    created: str
    version: str
    status: str
    status_level: HealthLevel
    model_facts: tuple[Fact, ...]
    run_facts: tuple[Fact, ...]
    headlines: tuple[Headline, ...]
    rows: tuple[ScoreRow, ...]
    contamination: tuple[ContaminationRow, ...]
    corpus: str | None
    """None: no corpus was searched."""
    contamination_warnings: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    groups: tuple[Fact, ...]
    watches: tuple[Watch, ...]
    tasks: tuple[TaskView, ...]
    environment: tuple[Fact, ...]
    command: str | None
    """None: the run was started from Python."""
    config: str


def build_view(
    info: Mapping[str, Any],
    scores: "pd.DataFrame",
    *,
    examples: Mapping[str, tuple[Example, ...]] | None = None,
) -> ReportView:
    """Return what a report of the run shows.

    Args:
        info: the run as in run.json.
        scores: as in scores.parquet.
        examples: by task; None for none.
    """
    rows = score_rows(info, scores)
    chosen = examples or {}
    n_failed = sum(task["status"] == "failed" for task in info["tasks"].values())
    return ReportView(
        model_name=clip(info["model"]["name"], limit=MESSAGE_CHARS),
        note=info["model"]["note"] and clip(info["model"]["note"], limit=MESSAGE_CHARS),
        run_id=info["run_id"],
        created=numbers.format_time(info["created"]),
        version=info["qwen2eval_version"],
        status=f"finished, {n_failed} of {len(info['tasks'])} tasks failed" if n_failed else "finished",
        status_level="error" if n_failed else "ok",
        model_facts=_model_facts(info["model"]),
        run_facts=_run_facts(info),
        headlines=tuple(Headline(row=row, bar=_bar(row)) for row in headline_rows(info, rows)),
        rows=rows,
        contamination=contamination_rows(info),
        corpus=corpus_line(info),
        contamination_warnings=contamination_warnings(info),
        evidence=evidence(info),
        groups=tuple(Fact(name, ", ".join(group["tasks"])) for name, group in info["groups"].items()),
        watches=find_watches(info),
        tasks=tuple(_task_view(info, name, chosen.get(name, ())) for name in info["tasks"]),
        environment=_environment_facts(info),
        command=hide_secrets(shlex.join(info["command"])) or None,
        config=hide_secrets(_as_yaml(info["config"])),
    )


def _as_yaml(config: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(config, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).strip()


def _bar(row: ScoreRow) -> Bar | None:
    if row.value is None or not row.in_percent:
        return None
    low, high = (_place(end) for end in row.ci or (row.value, row.value))
    chance = None if row.chance is None else _place(row.chance)
    return Bar(value=_place(row.value), low=low, width=round(high - low, 2), chance=chance)


def _place(ratio: float) -> float:
    return round(min(max(100 * ratio, 0.0), 100.0), 2)


def _model_facts(model: Mapping[str, Any]) -> tuple[Fact, ...]:
    return _known(
        ("Backend", model["backend"], False),
        ("Path", model["path"], True),
        ("Parameters", _written(model["n_parameters"], numbers.format_parameters), False),
        ("Data type", model["dtype"], False),
        ("Device", model["device"], False),
        ("Context length", _written(model["max_length"], lambda n: f"{n:,} tokens"), False),
        ("Fingerprint", model["fingerprint"], True),
        ("Tokenizer hash", model["tokenizer_hash"], True),
        ("Chat template hash", model["chat_template_hash"], True),
    )


def _run_facts(info: Mapping[str, Any]) -> tuple[Fact, ...]:
    requests, timings = info["requests"], info["timings"]
    sources = f"{requests['n_answered']:,} answered, {requests['n_from_store']:,} from the store"
    failed = f", {requests['n_failed']:,} failed" if requests["n_failed"] else ""
    return _known(
        ("Run", info["run_id"], True),
        ("Started", numbers.format_time(info["created"]), False),
        ("Finished", numbers.format_time(info["finished"]), False),
        ("Duration", numbers.format_seconds(timings["total_seconds"]), False),
        ("Requests", f"{requests['n_total']:,}: {sources}{failed}", False),
        ("Tokens", _tokens(requests), False),
    )


def _tokens(requests: Mapping[str, Any]) -> str | None:
    """Say what the engine computed; only our own tells, and only of what it answered in this run."""
    asked, computed = requests.get("n_tokens_asked"), requests.get("n_tokens_computed")
    if not asked or computed is None:
        return None
    shared = numbers.format_percent(max(0.0, 1 - computed / asked))
    return f"{asked:,} asked, {computed:,} computed: {shared} were in a prefix that another request had"


def _environment_facts(info: Mapping[str, Any]) -> tuple[Fact, ...]:
    machine = info["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    timings = (
        f"{name.removesuffix('_seconds')} {numbers.format_seconds(seconds)}"
        for name, seconds in info["timings"].items()
        if seconds is not None
    )
    return _known(
        ("qwen2eval", info["qwen2eval_version"], False),
        ("Git revision", machine["git_revision"], True),
        ("Python", machine["python"], False),
        ("Platform", machine["platform"], False),
        ("Processor", machine["processor"], False),
        ("CPUs", _written(machine["n_cpus"], str), False),
        ("Memory", _written(machine["memory_gb"], lambda gb: f"{gb:g} GB"), False),
        ("GPUs", ", ".join(map(str, machine["gpus"])) or "none", False),
        ("Packages", packages, False),
        ("Seeds", ", ".join(f"{name} {seed}" for name, seed in info["seeds"].items()), False),
        ("Timings", ", ".join(timings), False),
    )


def _task_view(info: Mapping[str, Any], name: str, examples: tuple[Example, ...]) -> TaskView:
    task = info["tasks"][name]
    level, health = task_health(info, name)
    prompt = task["first_prompt"]
    return TaskView(
        name=name,
        description=task["description"] and clip(task["description"], limit=MESSAGE_CHARS),
        summary=" · ".join(_summary(task)),
        health=health,
        health_level=level,
        error=task["error"] and clip(task["error"], limit=MESSAGE_CHARS),
        facts=_task_facts(task, info["health"].get(name) or {}),
        first_prompt=None if prompt is None else clip(prompt, limit=LONG_TEXT_CHARS),
        examples=examples,
    )


def _summary(task: Mapping[str, Any]) -> list[str]:
    parts = []
    if task["num_fewshot"] is not None:
        parts.append(f"{task['num_fewshot']}-shot")
    if task["output_type"]:
        parts.append(task["output_type"].replace("_", " "))
    if task["n_docs"]:
        parts.append(f"{numbers.format_part(task['n_docs'], task['n_docs_total'])} docs")
    return parts


def _task_facts(task: Mapping[str, Any], health: Mapping[str, Any]) -> tuple[Fact, ...]:
    if task["output_type"] is None:  # it failed before anything of it was known
        return ()
    words = {True: "higher is better", False: "lower is better"}
    directions = ((name, words.get(about.get("higher_is_better"))) for name, about in task["metrics"].items())
    metrics = ", ".join(f"{name} ({direction})" if direction else name for name, direction in directions)
    data = task["data"] or {"source": None, "sha256": None}
    gen_kwargs = task["generation_kwargs"]
    return (
        *_known(
            ("Shots", _written(task["num_fewshot"], str), False),
            ("Docs", _written(task["n_docs"], lambda n: numbers.format_part(n, task["n_docs_total"])), False),
            ("Requests", _written(task["n_requests"], numbers.format_count), False),
            ("Prompt tokens", _written(task["n_prompt_tokens"], numbers.format_count), False),
            ("Shared-prefix share", _written(task["shared_prefix_ratio"], numbers.format_percent), False),
            ("Output type", task["output_type"], True),
            ("Metrics", metrics, False),
            ("Chance", _written(task["chance"], numbers.format_percent), False),
            ("Filters", ", ".join(each for each in task["filters"] if each != "none") or "none", False),
            ("Generation arguments", gen_kwargs and json.dumps(gen_kwargs, ensure_ascii=False, default=str), True),
            ("Chat template", "applied" if task["apply_chat_template"] else "not applied", False),
            ("Errors clustered by", task["cluster"], True),
            ("Preflight", task["preflight"], False),
        ),
        *_known(
            ("Programs", verdicts_text(health), False),
            ("Sandbox", task.get("sandbox"), True),
        ),
        *_health_facts(health),
        *_known(
            ("Data", data["source"], True),
            ("Task version", task["version"] and str(task["version"]), False),
            ("Task hash", task["task_hash"], True),
            ("Template hash", task["template_hash"], True),
            ("Data SHA-256", data["sha256"], True),
        ),
    )


def _health_facts(health: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Return truncations always, as part of the protocol, and the other counts where they are not 0."""
    if not health:
        return ()
    failures = health["n_extraction_failures"].items()
    facts = [Fact("Truncated prompts", numbers.format_count(health["n_truncated_prompts"]))]
    named = {
        "n_unfinished": "Unfinished answers",
        "n_empty": "Empty answers",
        "n_nan": "NaN answers",
        "n_failed_requests": "Failed requests",
        "n_scoring_errors": "Scoring errors",
        "n_unscored": "Docs without a score",
    }
    facts += [Fact(label, numbers.format_count(health[key])) for key, label in named.items() if health[key]]
    failed = ", ".join(f"{count:,}" + ("" if name == "none" else f" ({name})") for name, count in failures if count)
    return (*facts, Fact("Extraction failures", failed)) if failed else tuple(facts)


def _written(number: Any, write: Callable[[Any], str]) -> str | None:
    return None if number is None else write(number)


def _known(*facts: tuple[str, str | None, bool]) -> tuple[Fact, ...]:
    """Return the facts that have a value; an unknown one would only be noise."""
    return tuple(Fact(label, clip(value, limit=MESSAGE_CHARS), is_code) for label, value, is_code in facts if value)
