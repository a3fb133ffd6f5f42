"""Which weights, which software, which machine, how long it took."""

from dataclasses import dataclass
from typing import ClassVar

from qwen2eval.reporting import numbers
from qwen2eval.reporting.sections.facts import Fact, known, written
from qwen2eval.reporting.sections.section import Section
from qwen2eval.reporting.tables import store_text
from qwen2eval.run_info import ModelInfo, RequestCounts, RunInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSection(Section):
    """Model, run and environment."""

    template: ClassVar[str] = "environment"
    model: tuple[Fact, ...]
    """Of the model under test."""
    run: tuple[Fact, ...]
    """When, how long, how many requests."""
    environment: tuple[Fact, ...]
    """Software and machine."""


def environment_section(info: RunInfo) -> EnvironmentSection:
    """Return model, run and environment."""
    return EnvironmentSection(
        model=_model_facts(info.model), run=_run_facts(info), environment=_environment_facts(info)
    )


def _model_facts(model: ModelInfo) -> tuple[Fact, ...]:
    return known(
        ("Backend", model.backend, False),
        ("Path", model.path, True),
        ("Parameters", written(model.n_parameters, numbers.format_parameters), False),
        ("Data type", model.dtype, False),
        ("Device", model.device, False),
        ("Context length", written(model.max_length, lambda n: f"{n:,} tokens"), False),
        ("Fingerprint", model.fingerprint, True),
        ("Tokenizer hash", model.tokenizer_hash, True),
        ("Chat template hash", model.chat_template_hash, True),
    )


def _run_facts(info: RunInfo) -> tuple[Fact, ...]:
    requests, timings = info.requests, info.timings
    sources = f"{requests.n_answered:,} answered, {store_text(requests)}"
    failed = f", {requests.n_failed:,} failed" if requests.n_failed else ""
    return known(
        ("Run", info.run_id, True),
        ("Started", numbers.format_time(info.created), False),
        ("Finished", numbers.format_time(info.finished), False),
        ("Duration", numbers.format_seconds(timings.total_seconds), False),
        ("Requests", f"{requests.n_total:,}: {sources}{failed}", False),
        ("Tokens", _tokens(requests), False),
    )


def _tokens(requests: RequestCounts) -> str | None:
    """Say what the engine computed in this run; None for all backends but qwen2, which alone reports it."""
    asked, computed = requests.n_tokens_asked, requests.n_tokens_computed
    if not asked or computed is None:
        return None
    shared = numbers.format_percent(max(0.0, 1 - computed / asked))
    return f"{asked:,} asked, {computed:,} computed: {shared} were in a prefix that another request had"


def _environment_facts(info: RunInfo) -> tuple[Fact, ...]:
    machine = info.environment
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    timings = (
        f"{name.removesuffix('_seconds')} {numbers.format_seconds(seconds)}"
        for name, seconds in info.timings.parts().items()
    )
    return known(
        ("qwen2eval", info.qwen2eval_version, False),
        ("Git revision", machine.git_revision, True),
        ("Python", machine.python, False),
        ("Platform", machine.platform, False),
        ("Processor", machine.processor, False),
        ("CPUs", written(machine.n_cpus, str), False),
        ("Memory", written(machine.memory_gb, lambda gb: f"{gb:g} GB"), False),
        ("GPUs", ", ".join(machine.gpus) or "none", False),
        ("Packages", packages, False),
        ("Seeds", ", ".join(f"{name} {seed}" for name, seed in info.seeds.to_json().items()), False),
        ("Timings", ", ".join(timings), False),
    )
