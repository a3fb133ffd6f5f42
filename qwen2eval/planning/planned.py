"""What a run will ask, as plain values: the requests of each task, and the plan of all tasks. `plan` makes them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.errors import Qwen2EvalError
from qwen2eval.generation import Setting
from qwen2eval.prompts import PromptText
from qwen2eval.requests import Doc, GenKwargs, RequestKind
from qwen2eval.tasks.eval_group import EvalGroup
from qwen2eval.tasks.lm_eval_task import EvalTask
from qwen2eval.thoughts import Thinking


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One question to the model, without its prompt's text spelled out."""

    doc_id: int
    """Place of the doc in the task."""
    index: int
    """Place among the doc's requests: the choice's number in multiple choice, the turn in a conversation."""
    kind: RequestKind
    """What is asked: a log-likelihood, a rolling one, or a generation."""
    prompt: PromptText
    """What the model reads, in pieces that prompts share."""
    continuation: str
    """The text whose log-probability is asked; empty for generation."""
    gen_kwargs: GenKwargs | None
    """None for log-likelihoods."""
    digest: bytes
    """See `request_key.request_digest`."""
    n_context_tokens: int | None = None
    """None where no tokenizer is known."""
    n_continuation_tokens: int = 0
    """0 for generation."""
    is_truncated: bool = False
    """Whether the backend has to cut the prompt on the left to fit the model."""


@dataclass
class TaskPlan:
    """One task's docs and requests."""

    name: str
    """As `--tasks` takes it."""
    task: EvalTask
    """The task, with the run's settings applied."""
    doc_ids: list[int]
    """Places of the picked docs among all docs of the task, ascending."""
    docs: list[Doc]
    """The picked docs."""
    n_docs_total: int
    """Docs that the whole task has."""
    repeats: int
    """Answers to each request."""
    requests: list[PlannedRequest] = field(default_factory=list)
    """In the order of docs; those of later turns are added while the model answers."""
    model: tuple[RunConfig, ModelSpec] | None = None
    """Config and model of a task that asks for another `rope` in its metadata; None: those of the run."""
    thinking: Thinking = field(default_factory=Thinking)
    """How thoughts in the model's responses are recognised."""
    count_tokens: Callable[[str], int] | None = None
    """Counts the tokens of a thought; None: no tokenizer is known."""
    generation: dict[str, Setting] = field(default_factory=dict)
    """The generation arguments as they are applied, and where each comes from; empty: nothing is generated."""
    shared_prefix_ratio: float | None = None
    """Share of prompt text (0-1) that another prompt already has as its prefix."""
    metric_names: tuple[str, ...] = ()
    """Metrics that the task declares, or that its scorer gave to made-up answers."""
    preflight: str = "ok"
    """"ok", or why the scorer's check before the run was not passed."""

    @property
    def n_requests(self) -> int:
        """Requests, repeats counted."""
        return len(self.requests) * self.repeats

    @property
    def n_prompt_tokens(self) -> int | None:
        """Tokens of all prompts and continuations, as if nothing were shared; None without a tokenizer."""
        if any(r.n_context_tokens is None for r in self.requests):
            return None
        return self.repeats * sum((r.n_context_tokens or 0) + r.n_continuation_tokens for r in self.requests)

    @property
    def n_truncated(self) -> int:
        """Docs with a prompt that doesn't fit the model."""
        return len({r.doc_id for r in self.requests if r.is_truncated})

    @property
    def kinds(self) -> list[RequestKind]:
        """The kinds of request, in order of appearance."""
        return list(Counter(r.kind for r in self.requests))

    @property
    def first_prompt(self) -> str:
        """The first request as the model gets it; a continuation follows after `⟶`."""
        if not self.requests:
            return ""
        first = self.requests[0]
        return str(first.prompt) + (f"⟶{first.continuation}" if first.continuation else "")


@dataclass
class Plan:
    """Everything a run will ask."""

    config: RunConfig
    """The run's settings, with what `--rope auto` decided."""
    spec: ModelSpec
    """What is known of the model before its weights are loaded."""
    tasks: dict[str, TaskPlan]
    """By name, in the order in which they were asked for."""
    groups: dict[str, EvalGroup]
    """By name; groups that have a score of all their tasks."""
    failures: dict[str, Qwen2EvalError] = field(default_factory=dict)
    """Tasks that could not be loaded or did not pass the preflight."""
    warnings: list[str] = field(default_factory=list)
    """What a reader of the scores must know of the plan."""

    @property
    def n_requests(self) -> int:
        """Requests of all tasks."""
        return sum(task.n_requests for task in self.tasks.values())

    def by_model(self) -> "list[Plan]":
        """Return plans of the tasks that one model answers, that of the run first; failures are those of this one."""
        parts: dict[int, Plan] = {}
        for name, task in sorted(self.tasks.items(), key=lambda item: item[1].model is not None):
            config, spec = task.model or (self.config, self.spec)
            part = parts.setdefault(id(spec), Plan(config, spec, {}, self.groups, self.failures))
            part.tasks[name] = task
        return list(parts.values())
