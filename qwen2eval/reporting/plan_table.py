"""The plan of a run as a table, and the first prompt of each task as the model will get it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen2eval.errors import summarize_names
from qwen2eval.reporting.markup import clip, group_by_message, visible
from qwen2eval.reporting.numbers import format_count, format_percent, format_seconds

if TYPE_CHECKING:
    from qwen2eval.planning.estimate import Cost, Estimate
    from qwen2eval.planning.planned import Plan

PROMPT_CHARS = 1_500


def plan_as_dict(
    plan: "Plan", costs: "Mapping[str, Cost]", estimate: "Estimate | None", *, n_judge: int = 0
) -> dict[str, Any]:
    """Return the plan as plain JSON values, for `--json`.

    Args:
        costs: by task.
        n_judge: requests to a judge, at most.
    """
    tasks = {
        name: {
            "n_docs": len(task.docs),
            "n_docs_total": task.n_docs_total,
            "num_fewshot": task.task.num_fewshot,
            "kinds": task.kinds,
            "n_requests": task.n_requests,
            "n_prompt_tokens": task.n_prompt_tokens,
            "n_computed_tokens": costs[name].n_computed,
            "kv_bytes": costs[name].kv_bytes,
            "prompt_flops": costs[name].flops,
            "n_truncated": task.n_truncated,
            "shared_prefix_ratio": task.shared_prefix_ratio,
            "preflight": task.preflight,
            "generation": {key: one._asdict() for key, one in task.generation.items()},
            "first_prompt": task.first_prompt,
        }
        for name, task in plan.tasks.items()
    }
    return {
        "model": {"backend": plan.spec.backend, "name": plan.spec.name, "max_length": plan.spec.max_length},
        "n_requests": plan.n_requests,
        "n_judge_requests": n_judge,
        "estimated_seconds": None if estimate is None else estimate.seconds,
        "tasks": tasks,
        "failed": {name: str(err) for name, err in plan.failures.items()},
        "warnings": plan.warnings,
    }


def print_plan(
    plan: "Plan", costs: "Mapping[str, Cost]", estimate: "Estimate | None", *, n_judge: int = 0, file: TextIO
) -> None:
    """Print the table, the time it may take, the warnings and each task's first prompt.

    Args:
        n_judge: requests to a judge, at most.
    """
    console = Console(file=file, highlight=False, emoji=False, soft_wrap=False)
    length = f", context {format_count(plan.spec.max_length)} tokens" if plan.spec.max_length else ""
    console.print(Text(f"model {plan.spec.name} ({plan.spec.backend}{length})"))
    console.print(_task_table(plan, costs))
    if any(task.n_prompt_tokens is None for task in plan.tasks.values()):
        console.print(
            Text("tokens: not known before the server is asked (name a tokenizer= in --model_args)", style="dim")
        )
    if estimate is not None:
        console.print(Text(f"time: {_time_text(estimate)}"))
    if n_judge:
        console.print(Text(f"judge: {plan.config.judge}, asked about {format_count(n_judge)} answers at most"))
    notes = {name: task.preflight for name, task in plan.tasks.items() if task.preflight != "ok"}
    notes |= {name: str(err) for name, err in plan.failures.items()}
    for names, message in group_by_message(notes):
        console.print(Text(f"! {summarize_names(names)}: {message}", style="yellow"))
    settings = {
        name: ", ".join(f"{key}={one.value!r} ({one.source})" for key, one in task.generation.items())
        for name, task in plan.tasks.items()
        if task.generation
    }
    for names, message in group_by_message(settings):
        console.print(Text(visible(f"generation of {summarize_names(names)}: {message}")), soft_wrap=True)
    for warning in plan.warnings:
        console.print(Text(f"! {warning}", style="yellow"))
    for name, task in plan.tasks.items():
        console.print(Text(f"\nfirst prompt of {name}", style="bold"))
        console.print(Text(visible(clip(task.first_prompt, limit=PROMPT_CHARS))), soft_wrap=True)


def _task_table(plan: "Plan", costs: "Mapping[str, Cost]") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", overflow="fold")
    for name in ("docs", "shots", "requests", "tokens", "computed", "shared", "KV", "cut"):
        table.add_column(name, justify="right")
    for name, task in plan.tasks.items():
        shared = "—" if task.shared_prefix_ratio is None else format_percent(task.shared_prefix_ratio)
        docs = format_count(len(task.docs))
        table.add_row(
            name,
            docs if len(task.docs) == task.n_docs_total else f"{docs} of {format_count(task.n_docs_total)}",
            str(task.task.num_fewshot or 0),
            format_count(task.n_requests),
            format_count(task.n_prompt_tokens),
            format_count(costs[name].n_computed),
            shared,
            _gigabytes(costs[name].kv_bytes),
            format_count(task.n_truncated),
        )
    return table


def _gigabytes(n_bytes: int | None) -> str:
    """Return keys and values of the longest prompt in 10^9 bytes."""
    return format_count(None) if n_bytes is None else f"{n_bytes / 1e9:.2f} GB"


def _time_text(estimate: "Estimate") -> str:
    if estimate.run_id is not None:
        return f"about {format_seconds(estimate.seconds)}, at the speed of {estimate.run_id}"
    return (
        f"about {format_seconds(estimate.seconds)} for the prompts (estimated from this machine's "
        "matrix-multiplication speed), plus generation. Run with --limit once for a better estimate"
    )
