"""config -> Plan: every request of a run, built and checked before any weights are loaded.

Prompts come from lm-eval's own task code, always built as rank 0 of 1 in the canonical order of docs; `--limit` picks
docs afterwards. So a prompt depends on its task, doc and seed alone.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qwen2eval.backends import open_front
from qwen2eval.backends.front import ModelFront
from qwen2eval.backends.rope import stretched_for
from qwen2eval.config import RunConfig, Seeds
from qwen2eval.data.locate import told_together
from qwen2eval.errors import ConfigError, Qwen2EvalError, TaskFileError
from qwen2eval.preflight import check_scorer
from qwen2eval.prompts import PrefixCounter, PromptPool, PromptText, TokenCounter, compiled_templates, digest_ids
from qwen2eval.requests import RequestKind
from qwen2eval.tasks import load_tasks, task_metadata

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

TOKENIZE_DOCS = 256
"""Docs whose prompts are tokenized in one call."""
TOKENIZE_CHARS = 1 << 24
"""Characters of prompts that are tokenized in one call: a few long ones take as much memory as many short ones."""
RUN_METADATA = ("data_dir", "offline", "config_source")
"""Keys of a task's metadata that say where this run is, not what the task is."""


@dataclass(slots=True)
class PlannedRequest:
    """One question to the model, without its prompt's text spelled out."""

    doc_id: int
    index: int
    """Place among the doc's requests: the choice's number in multiple choice."""
    kind: RequestKind
    prompt: PromptText
    continuation: str
    gen_kwargs: Mapping[str, Any] | None
    digest: bytes
    """sha256 of kind, exact token ids (the texts, where no tokenizer is known) and normalised generation arguments."""
    n_context_tokens: int | None = None
    n_continuation_tokens: int = 0
    is_truncated: bool = False
    """Whether the backend has to cut the prompt on the left to fit the model."""


@dataclass
class TaskPlan:
    """One task's docs and requests."""

    name: str
    task: "Task"
    doc_ids: list[int]
    docs: list[dict[str, Any]]
    n_docs_total: int
    repeats: int
    requests: list[PlannedRequest] = field(default_factory=list)
    model: tuple[RunConfig, ModelFront] | None = None
    """Config and model of a task that asks for a `rope` of its own in its metadata; None: those of the run."""
    shared_prefix_ratio: float | None = None
    """Share of prompt text (0-1) that another prompt already has as its prefix."""
    preflight: str = "ok"

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

    @property
    def cluster_column(self) -> str | None:
        """The doc column that errors are clustered by."""
        return task_metadata(self.task).get("cluster")


@dataclass
class Plan:
    """What a run will ask, and what it knows already that it can't ask."""

    config: RunConfig
    front: ModelFront
    tasks: dict[str, TaskPlan]
    groups: "dict[str, Group]"
    failures: dict[str, Qwen2EvalError]
    """Tasks that could not be loaded or did not pass the preflight."""
    warnings: list[str] = field(default_factory=list)

    @property
    def n_requests(self) -> int:
        """Requests of all tasks."""
        return sum(task.n_requests for task in self.tasks.values())

    def by_model(self) -> "list[Plan]":
        """Return plans of the tasks that one model answers, that of the run first; failures are those of this one."""
        parts: dict[int, Plan] = {}
        for name, task in sorted(self.tasks.items(), key=lambda item: item[1].model is not None):
            config, front = task.model or (self.config, self.front)
            part = parts.setdefault(id(front), Plan(config, front, {}, self.groups, self.failures))
            part.tasks[name] = task
        return list(parts.values())


def make_plan(config: RunConfig, front: ModelFront) -> Plan:
    """Load the tasks, build their requests and check what can be checked without weights.

    Raises:
        TaskNotFoundError: an unknown task or suite.
        Qwen2EvalError: no task is left to run; the first task's own error.
    """
    set_seeds(config.seeds)
    loaded = load_tasks(config)
    asked = config
    config, front, stretched = _with_room(asked, front, loaded.tasks.values())
    made = Plan(config, front, {}, loaded.groups, dict(loaded.failures), [*loaded.warnings, *stretched])
    if config.apply_chat_template and front.chat_template is None:
        raise ConfigError(f"--apply_chat_template: model {front.name!r} has no chat template; run without the flag")
    if front.is_instruct and not config.apply_chat_template:
        made.warnings.append(f"{front.name} looks like an instruct model, but --apply_chat_template was not given")
    opened: dict[str, ModelFront] = {}
    with compiled_templates():
        for name, task in loaded.tasks.items():
            set_seeds(config.seeds)  # a prompt never depends on the tasks before it
            try:
                model = _own_model(task, asked, opened)
                task_config, task_front = model or (config, front)
                made.tasks[name] = plan_task(name, task, config=task_config, front=task_front)
                made.tasks[name].model = model
            except Qwen2EvalError as err:
                made.failures[name] = err
            if warning := getattr(getattr(task, "dataset", None), "warning", None):
                made.warnings.append(warning)
            if name in made.tasks and (warning := _stretch_advice(made.tasks[name], task_front)):
                made.warnings.append(warning)
    made.failures = told_together(made.failures)
    if not made.tasks:
        raise next(iter(made.failures.values()))
    return made


def _own_model(task: "Task", config: RunConfig, opened: dict[str, ModelFront]) -> tuple[RunConfig, ModelFront] | None:
    """Return config and model of a task with a `rope` of its own.

    Args:
        config: what the user asked for.
        opened: models by rope; is added to.
    """
    own = own_config(task, config)
    if own is None:
        return None
    if own.rope not in opened:
        opened[own.rope] = open_front(own)
    return own, opened[own.rope]


def own_config(task: "Task", config: RunConfig) -> RunConfig | None:
    """Return the config with a task's own `rope`; None: it has none, `auto` being what every task has."""
    rope = task_metadata(task).get("rope")
    return None if rope in (None, "auto") else replace(config, rope=rope)


def _with_room(
    config: RunConfig, front: ModelFront, tasks: "Iterable[Task]"
) -> tuple[RunConfig, ModelFront, list[str]]:
    """Return config and model as `--rope auto` makes them for what long-context tasks ask for, and a warning."""
    for task in sorted(tasks, key=_longest_context, reverse=True):
        wider = stretched_for(config, front, _longest_context(task))
        if wider is None:
            break
        if _has_data(task):
            stretched = open_front(wider)
            said = f"{task.task_name} has texts of {_longest_context(task):,} tokens: the model's context is stretched"
            return wider, stretched, [f"{said} by {stretched.rope} (--rope auto; --rope none leaves it as it is)"]
    return config, front, []


def _longest_context(task: "Task") -> int:
    """Return the tokens of a task's longest text that the run's model is to have room for."""
    has_own = task_metadata(task).get("rope") not in (None, "auto")
    return 0 if has_own else getattr(task, "longest_context", None) or 0


def _has_data(task: "Task") -> bool:
    """Tell whether the published files that a task is made of can be read; planning it will say why not."""
    try:
        if hasattr(task, "read_docs"):  # a `PublishedTask`
            task.read_docs()
    except Qwen2EvalError:
        return False
    return True


def _stretch_advice(planned: "TaskPlan", front: ModelFront) -> str | None:
    """Say what would make room for prompts that have to be cut, where the backend can stretch the context."""
    if front.trained_length is None or not planned.n_truncated:
        return None
    longest = max(r.n_context_tokens or 0 for r in planned.requests)
    longest += max(r.n_continuation_tokens or max_gen_toks(r.gen_kwargs or {}, front) for r in planned.requests)
    factor = math.ceil(longest / min(front.trained_length, front.max_length or longest))
    return (
        f"{planned.name}: {planned.n_truncated} docs have prompts over the model's {front.max_length:,} tokens and are "
        f"cut. yarn_factor={factor} in --model_args fits {longest:,} (alone, or with dual_chunk=true)"
    )


def plan_task(name: str, task: "Task", *, config: RunConfig, front: ModelFront) -> TaskPlan:
    """Build one task's requests.

    Raises:
        TaskFileError: the task asks for images or audio, its templates or its scorer fail on its own docs.
        ConfigError: its answers would leave no room for a prompt.
    """
    if getattr(task, "MULTIMODAL", False):
        raise TaskFileError(f"Task {name!r} asks about images or audio; this version evaluates text only")
    _check_answer_room(name, task, front)
    try:
        if hasattr(task, "build_docs"):  # a `LongContextTask`: its prompts are as long as asked for this model
            task.build_docs(front, config)
        all_docs = list(task.eval_docs)
        clusters = [doc[column] for doc in all_docs] if (column := task_metadata(task).get("cluster")) else None
        doc_ids = pick_docs(len(all_docs), limit=config.limit, clusters=clusters)
        planned = TaskPlan(name, task, doc_ids, [all_docs[i] for i in doc_ids], len(all_docs), _repeats(task))
        _add_requests(planned, all_docs, config=config, front=front)
        planned.preflight = check_scorer(task, planned.docs[0], [r for r in planned.requests if r.doc_id == doc_ids[0]])
    except Qwen2EvalError:
        raise
    # templates and scorers are the task author's: what they raise is this task's failure
    except Exception as err:
        raise TaskFileError(f"Task {name!r} fails on its own docs: {type(err).__name__}: {err}") from err
    return planned


def pick_docs(n_docs: int, *, limit: float | None, clusters: Sequence[Any] | None = None) -> list[int]:
    """Return the doc ids of a run, ascending: the first `limit`, or, with clusters, spread over them evenly.

    >>> pick_docs(6, limit=2), pick_docs(6, limit=0.5)
    ([0, 1], [0, 1, 2])
    >>> pick_docs(6, limit=3, clusters=["a", "a", "a", "b", "b", "c"])
    [0, 3, 5]
    """
    if limit is None:
        return list(range(n_docs))
    n_picked = min(n_docs, math.ceil(n_docs * limit) if limit < 1 else int(limit))
    if clusters is None:
        return list(range(n_picked))
    seen: Counter[Any] = Counter()
    turns = []
    for doc_id, cluster in enumerate(clusters):
        turns.append((seen[cluster], doc_id))
        seen[cluster] += 1
    return sorted(doc_id for _, doc_id in sorted(turns)[:n_picked])


def set_seeds(seeds: Seeds) -> None:
    """Seed the global generators that task code may draw from, as lm-eval does; torch is seeded where it is loaded."""
    import random

    import numpy as np

    random.seed(seeds.python)
    np.random.seed(seeds.numpy)  # noqa: NPY002 - lm-eval's tasks draw from the legacy global generator


def task_hash(task: "Task") -> str:
    """Return a sha256 of everything in the task's YAML that decides prompts and scores."""
    config = dict(task.dump_config())
    config["metadata"] = {k: v for k, v in task_metadata(task).items() if k not in RUN_METADATA}
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def _add_requests(planned: TaskPlan, all_docs: list[dict[str, Any]], *, config: RunConfig, front: ModelFront) -> None:
    pool, prefixes = PromptPool(), PrefixCounter()
    counter = None if front.tokenizer is None else TokenCounter(front.tokenizer)
    batch, n_chars = list[PlannedRequest](), 0
    for instance in _instances(planned, all_docs, config=config, front=front):
        batch.append(_planned_request(instance, pool))
        is_repeated = len(batch) > 1 and batch[-2].prompt is batch[-1].prompt  # the choices of one doc
        n_chars += 0 if is_repeated else sum(map(len, batch[-1].prompt.pieces))
        if len(batch) >= 4 * TOKENIZE_DOCS or n_chars >= TOKENIZE_CHARS:
            _finish(batch, planned, counter, prefixes, front)
            batch, n_chars = [], 0
    _finish(batch, planned, counter, prefixes, front)
    planned.shared_prefix_ratio = prefixes.shared_ratio


def _instances(
    planned: TaskPlan, all_docs: list[dict[str, Any]], *, config: RunConfig, front: ModelFront
) -> Iterator["Instance"]:
    """Yield the picked docs' requests, built by lm-eval in canonical order.

    Few-shot examples come from one running random stream, so the docs before a picked one are built as well, unless the
    task's sampler draws nothing.
    """
    task, picked = planned.task, set(planned.doc_ids)
    template = front.chat_template if config.apply_chat_template else None
    draws = _draws_at_random(task)
    for doc_id in range(max(picked) + 1):
        if doc_id not in picked and not draws:
            continue
        doc = all_docs[doc_id]
        context = task.fewshot_context(
            doc,
            num_fewshot=task.config.num_fewshot or 0,
            system_instruction=config.system_instruction,
            apply_chat_template=bool(config.apply_chat_template),
            fewshot_as_multiturn=config.fewshot_as_multiturn,
            chat_template=template,
            gen_prefix=task.doc_to_prefix(doc),
        )
        if doc_id not in picked:
            continue
        built = task.construct_requests(
            doc=doc,
            ctx=context,
            metadata=(task.config["task"], doc_id, task.config.repeats),
            apply_chat_template=bool(config.apply_chat_template),
            chat_template=template,
        )
        yield from built if isinstance(built, list) else [built]


def _draws_at_random(task: "Task") -> bool:
    from lm_eval.api.samplers import FirstNSampler

    templates = (task.config.doc_to_text, task.config.doc_to_target, task.config.doc_to_choice, task.config.description)
    if any(callable(template) for template in templates):
        return True
    return bool(task.config.num_fewshot) and not isinstance(task.sampler, FirstNSampler)


def _planned_request(instance: "Instance", pool: PromptPool) -> PlannedRequest:
    first, *rest = instance.args
    second = rest[0] if rest else ""
    return PlannedRequest(
        doc_id=int(instance.doc_id or 0),
        index=int(instance.idx),
        kind=instance.request_type,
        prompt=pool.add(str(first)),
        continuation=second if isinstance(second, str) else "",
        gen_kwargs=second if isinstance(second, dict) else None,
        digest=b"",
    )


def _finish(
    batch: list[PlannedRequest],
    planned: TaskPlan,
    counter: TokenCounter | None,
    prefixes: PrefixCounter,
    front: ModelFront,
) -> None:
    """Count tokens, set digests and share generation arguments, then add the batch to the task."""
    if counter is not None:
        counter.prepare(request.prompt for request in batch)
    last: PromptText | None = None
    for request in batch:
        if request.prompt is not last:
            last = request.prompt
            ids = None if counter is None else counter.pieces(last)
            context_digest = hashlib.sha256(str(last).encode()).digest() if ids is None else digest_ids(ids)
            n_tokens = None if ids is None else sum(map(len, ids))
            # characters stand in for tokens where a piece's tokens are not known by themselves
            is_piecewise = ids is not None and counter is not None and counter.is_piecewise
            prefixes.add(last, [len(piece) for piece in (ids if is_piecewise and ids else last.pieces)])
        request.n_context_tokens = n_tokens
        tail = request.continuation.encode()
        if counter is not None and request.continuation:
            continuation_ids = counter.continuation(request.continuation)
            request.n_continuation_tokens, tail = len(continuation_ids), continuation_ids.tobytes()
        if request.gen_kwargs is not None and planned.requests and planned.requests[0].gen_kwargs == request.gen_kwargs:
            request.gen_kwargs = planned.requests[0].gen_kwargs
        options = json.dumps(request.gen_kwargs, sort_keys=True, default=str).encode()
        request.digest = hashlib.sha256(b"\0".join((request.kind.encode(), context_digest, tail, options))).digest()
        request.is_truncated = _is_truncated(request, front)
        planned.requests.append(request)
    if counter is not None and not counter.is_piecewise:
        counter.forget_prompts()


def _is_truncated(request: PlannedRequest, front: ModelFront) -> bool:
    if front.max_length is None or request.n_context_tokens is None or request.kind == "loglikelihood_rolling":
        return False
    if request.kind == "generate_until":
        return request.n_context_tokens > front.max_length - max_gen_toks(request.gen_kwargs or {}, front)
    return request.n_context_tokens + request.n_continuation_tokens > front.max_length + 1


def max_gen_toks(gen_kwargs: Mapping[str, Any], front: ModelFront) -> int:
    """Return how many tokens an answer may have, under any of the names that lm-eval takes."""
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    return int(next((gen_kwargs[name] for name in names if gen_kwargs.get(name) is not None), front.max_gen_toks))


def _check_answer_room(name: str, task: "Task", front: ModelFront) -> None:
    """lm-eval cuts the prompt away altogether when the answer may be as long as the model's context."""
    kwargs = task.config.generation_kwargs if task.get_config("output_type") == "generate_until" else None
    if kwargs is None or front.max_length is None:
        return
    if (room := max_gen_toks(kwargs, front)) >= front.max_length:
        raise ConfigError(
            f"Task {name!r} allows answers of {room} tokens, but the model's context is {front.max_length}: lower "
            f"it with --gen_kwargs max_gen_toks={max(1, front.max_length // 4)}"
        )


def _repeats(task: "Task") -> int:
    return max(1, int(task.get_config("repeats") or 1))
