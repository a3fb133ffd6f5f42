"""Parts of lm-eval that it does not promise to keep, and that this project relies on: all are named here.

pyproject bounds lm-eval's version for them; `INTERNALS` names each one, and a test looks it up in the installed
lm-eval, so that a new version fails there, by name, and not in the middle of somebody's run.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qwen2eval.requests import Doc
from qwen2eval.tasks.index import TaskEntry

if TYPE_CHECKING:
    from jinja2 import Template
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.evaluator_utils import EvalAcc

_ONE_EXPRESSION = re.compile(r"\s*\{\{-?((?:(?!\}\}|\{\{|\{%).)+?)-?\}\}\s*", re.DOTALL)
INTERNALS = (
    "lm_eval.tasks:TaskManager.load",
    "lm_eval.tasks._index:Entry",
    "lm_eval.tasks._index:Kind",
    "lm_eval.utils:apply_template",
    "lm_eval.utils:env",
    "lm_eval.utils:handle_non_serializable",
    "lm_eval.utils:hash_string",
    "lm_eval.utils:sanitize_list",
    "lm_eval.evaluator_utils:EvalAcc",
    "lm_eval.evaluator_utils:EvalAcc._to_eval_results",
    "lm_eval.evaluator_utils:aggregate_groups",
    "lm_eval.api.samplers:FirstNSampler",
    "lm_eval.api.utils:Message",
    "lm_eval.api.utils:maybe_delimit",
    "lm_eval.api.utils:multiturn_to_singleturn",
    "lm_eval.config.group:AggMetricConfig",
    "lm_eval.models.utils:resolve_max_length",
    # used by the backends, on lm-eval's own model classes
    "lm_eval.api.model:TemplateLM._encode_pair",
    "lm_eval.api.model:TemplateLM._loglikelihood_tokens",
    "lm_eval.models.api_models:TemplateAPI._create_payload",
    "lm_eval.api.task:ConfigurableTask._metric_fn_list",
    "lm_eval.api.task:ConfigurableTask._filters",
    "lm_eval.api.task:ConfigurableTask._aggregation_list",
    "lm_eval.models.api_models:TemplateAPI._seed",
    "lm_eval.models.api_models:TemplateAPI._max_gen_toks",
)
"""Module and name of each; the last five are attributes that an instance has."""


def load_entry(name: str, known: Mapping[str, TaskEntry], metadata: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Build one task, group or tag with lm-eval's own factory.

    Args:
        name: what to build.
        known: every entry that it may refer to; lm-eval's own index, which takes seconds to build, is left out.
        metadata: goes into the metadata of every task that is built.

    Returns:
        `tasks` and `groups` by name.
    """
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry, Kind

    manager = TaskManager(include_defaults=False, metadata=dict(metadata))
    manager._index = {
        known_name: Entry(
            name=known_name,
            kind=Kind.PY_TASK if entry.is_python else Kind[entry.kind.upper()],
            yaml_path=None if entry.path is None else _path(entry.path),
            tags=set(entry.members),
        )
        for known_name, entry in known.items()
    }
    built: dict[str, dict[str, Any]] = dict(manager.load([name]))
    return {"tasks": built["tasks"], "groups": built.get("groups", {})}


def filter_chains(task: "Task") -> list[Any]:
    """Return a task's filter chains, each with a `name` and `filters`."""
    return list(task._filters)


def apply_chain(chain: Any, docs: Sequence[Doc], responses: Sequence[Any]) -> list[Any]:
    """Apply one filter chain to all responses at once, as lm-eval does."""
    filtered: Any = list(responses)
    for make_filter in chain.filters:
        filtered = make_filter().apply(filtered, list(docs))
    return list(filtered)


def repeats_used(chain: Any, n_repeats: int) -> int:
    """Return how many of a request's answers a filter chain hands to the scorer, or makes one answer of.

    Filters of lm-eval's modules `extraction` and `transformation` work on each answer by itself; of another author's
    it is not known, so it is taken to use all.
    """
    from lm_eval.filters.selection import TakeFirstFilter, TakeKFilter

    for make_filter in chain.filters:
        kind = getattr(make_filter, "func", make_filter)
        if kind is TakeFirstFilter:
            return min(n_repeats, 1)
        if kind is TakeKFilter:
            n_repeats = min(n_repeats, int(make_filter.keywords["k"]))
        elif getattr(kind, "__module__", "") not in ("lm_eval.filters.extraction", "lm_eval.filters.transformation"):
            return n_repeats
    return n_repeats


def scorer_namespaces(task: "Task") -> Iterator[dict[str, Any]]:
    """Yield the global names of the modules that a task's scorers are in."""
    scorers = [getattr(task.config, "process_results", None), *getattr(task, "_metric_fn_list", {}).values()]
    for scorer in scorers:
        # lm-eval keeps a metric's function as its `__call__`
        names = getattr(getattr(scorer, "__self__", scorer), "__globals__", None)
        if names is not None:
            yield names


def known_metrics() -> list[str]:
    """Return the names of lm-eval's own metrics."""
    import lm_eval.api.metrics  # noqa: F401 - registers them
    from lm_eval.api.registry import metric_registry

    return list(metric_registry.keys())


def known_aggregations() -> list[str]:
    """Return the names of lm-eval's own aggregations."""
    import lm_eval.api.metrics  # noqa: F401 - registers them
    from lm_eval.api.registry import aggregation_registry

    return list(aggregation_registry.keys())


def missing_metrics(task: "Task") -> list[str]:
    """Return the metrics of a task that neither lm-eval nor its own scorer has a function for."""
    if getattr(task.config, "process_results", None) is not None:
        return []
    return [name for name, function in getattr(task, "_metric_fn_list", {}).items() if function is None]


def missing_aggregations(task: "Task") -> list[tuple[str, str]]:
    """Return (metric, name of its aggregation) where the task's YAML names an aggregation that lm-eval doesn't know."""
    listed = getattr(task.config, "metric_list", None) or ()
    found = getattr(task, "_aggregation_list", {})
    named = [(str(one.get("metric")), str(one["aggregation"])) for one in listed if "aggregation" in one]
    return [(metric, name) for metric, name in named if metric in found and found[metric] is None]


def splits_of_failed(err: Exception) -> list[str] | None:
    """Return the splits of the data set of a task whose construction failed; None: it had none yet."""
    traceback = err.__traceback__
    while traceback is not None:
        dataset = getattr(traceback.tb_frame.f_locals.get("self"), "dataset", None)
        if isinstance(dataset, Mapping):
            return [str(name) for name in dataset]
        traceback = traceback.tb_next
    return None


def has_constant_target(task: "Task") -> bool:
    """Return whether a task scores by its own function and has one target for all docs: a stand-in, as IFEval's 0."""
    target = getattr(task.config, "doc_to_target", None)
    if getattr(task.config, "process_results", None) is None or callable(target):
        return False
    return not isinstance(target, str) or ("{" not in target and target not in getattr(task, "features", ()))


def native_value(task: "Task", template: object, doc: Doc, rendered: object) -> Any:
    """Return the value that a template of a task stands for, before lm-eval makes it text.

    Args:
        template: a column, a template of one expression, or another, whose value is what lm-eval renders.
        rendered: that; what a function returns is its value, too.
    """
    if not isinstance(template, str):
        return rendered
    if template in getattr(task, "features", ()):
        return doc[template]
    expression = _ONE_EXPRESSION.fullmatch(template)
    return rendered if expression is None else _compiled_expression(expression[1])(**doc)


@functools.lru_cache(maxsize=256)
def _compiled_expression(expression: str) -> Callable[..., Any]:
    from lm_eval import utils

    compiled: Callable[..., Any] = utils.env.compile_expression(expression, undefined_to_none=False)
    return compiled


def forget_metadata(task: "Task | Group", names: Iterable[str]) -> None:
    """Take keys out of a task's or group's metadata that lm-eval merged into it while it was loaded."""
    parts: tuple[Any, ...] = (getattr(task, "config", None), task, getattr(task, "_config", None))
    for part in parts:
        if isinstance(metadata := getattr(part, "metadata", None), dict):
            part.metadata = {key: value for key, value in metadata.items() if key not in set(names)}


def samplers(task: "Task") -> list[Any]:
    """Return all samplers that a task draws examples with: one, or one for each cluster; none for tasks without."""
    own = getattr(task, "sampler", None)
    return [*([] if own is None else [own]), *getattr(task, "cluster_samplers", ())]


def is_ordered(sampler: Any) -> bool:
    """Return whether a sampler takes examples in their order: any but lm-eval's default one, which draws them."""
    from lm_eval.api.samplers import ContextSampler

    return type(sampler) is not ContextSampler


def draws_at_random(task: "Task") -> bool:
    """Return whether building a prompt may draw from the task's random stream, so that later prompts depend on it."""
    from lm_eval.api.samplers import FirstNSampler

    templates = (task.config.doc_to_text, task.config.doc_to_target, task.config.doc_to_choice, task.config.description)
    if any(callable(template) for template in templates):
        return True
    return bool(task.config.num_fewshot) and not isinstance(task.sampler, FirstNSampler)


def eval_results(collected: "EvalAcc") -> dict[str, Any]:
    """Return what lm-eval's `simple_evaluate` returns of the results of tasks, groups aggregated."""
    from lm_eval.evaluator_utils import aggregate_groups

    return dict(aggregate_groups(collected)._to_eval_results())


@contextmanager
def compiled_templates() -> Iterator[None]:
    """Let lm-eval's `apply_template` reuse compiled templates inside the `with` block.

    lm-eval compiles a Jinja template again for every doc and every shot: 45 s for 56,000 five-shot requests that take
    3.6 s with this, byte for byte the same.
    """
    from lm_eval import utils

    @functools.lru_cache(maxsize=4096)
    def compile_once(template: str) -> "Template":
        compiled: Template = utils.env.from_string(template)
        # Every rendering copies the globals, and a ChainMap is slow to copy
        compiled.globals = dict(compiled.globals)
        return compiled

    def apply_template(template: str, doc: Doc) -> str:
        return str(compile_once(template).render(**doc))

    original = utils.apply_template
    utils.apply_template = apply_template
    try:
        yield
    finally:
        utils.apply_template = original


def _path(text: str) -> Any:
    from pathlib import Path

    return Path(text)
