"""A task whose docs depend on the model under test: they are built when its tokenizer and length are known.

YAML selects a subclass with `class:`. What the YAML doesn't say comes from the class's `DEFAULTS`, so that a user's own
variant takes three lines: `task`, `class`, `metadata`.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

from lm_eval.api.task import ConfigurableTask

from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.data.splits import LoadedData
from qwen2eval.errors import ConfigError
from qwen2eval.long_context.lengths import PromptCounter
from qwen2eval.requests import Doc
from qwen2eval.tasks.metric_spec import MetricSpec

Docs = list[Doc]


class _StandIn(list[Doc]):
    """The docs before they are built: one, without fields, for lm-eval's look at the first."""

    features: Mapping[str, Any] = {}


class LongContextTask(ConfigurableTask):  # type: ignore[misc]  # lm-eval has no types
    """A task without docs until `build_docs`; `plan_task` calls it once, before docs are read.

    A subclass overrides `make_docs`, and `prompt_of` where its docs don't hold their whole `prompt`. A doc may have a
    `cell`, a dict of JSON values such as {"length": 8192, "depth": 25}: its place in a heat map.
    """

    DEFAULTS: ClassVar[Mapping[str, Any]] = {"output_type": "generate_until", "num_fewshot": 0}
    """Fields of the YAML that have another default than lm-eval's."""

    def __init__(self, config: dict[str, object]) -> None:
        self.warnings: list[str] = []
        """What a reader of the scores must know of the docs."""
        self._docs: Docs | None = None
        self._is_initialised = False
        # a run's flags change what a task says of generation, in place
        defaults = copy.deepcopy(dict(self.DEFAULTS))
        super().__init__(config={**defaults, **{key: value for key, value in config.items() if key != "class"}})
        self._is_initialised = True

    def make_docs(self, counter: PromptCounter, config: RunConfig) -> Docs:
        """Return the docs for a model.

        Args:
            counter: counts in tokens of the model under test; `counter.spec` is the model.
        """
        raise NotImplementedError

    @property
    def longest_context(self) -> int | None:
        """Tokens of the longest context that the task asks for, whatever the model takes; None: not known."""
        return None

    def prompt_of(self, doc: Doc) -> str:
        """Return what the user says."""
        return str(doc["prompt"])

    def metric_specs(self) -> Mapping[str, MetricSpec]:
        """Return unit, scale and direction of each metric, those of a judge among them; a subclass says them here."""
        return {}

    def higher_is_better(self) -> dict[str, bool]:
        """Return the direction of the task's own metrics, as `metric_specs` says it, else as lm-eval does."""
        specs, directions = self.metric_specs(), dict(super().higher_is_better())
        directions |= {name: spec.higher_is_better for name, spec in specs.items() if spec.higher_is_better is not None}
        # lm-eval knows exact_match of every generating task, whether or not its class has that metric
        return {name: directions[name] for name in self.aggregation() if name in directions}

    def build_docs(self, spec: ModelSpec, config: RunConfig) -> None:
        """Build the docs for a model; from then on `eval_docs` has them.

        Raises:
            ConfigError: the model's tokenizer is unknown, or none of the task's lengths fits it.
        """
        self.warnings.clear()
        self._docs = self.make_docs(PromptCounter(spec, config, description=self.config.description or ""), config)
        self.dataset.warning = "; ".join(self.warnings) or None

    def download(self, dataset_kwargs: dict[str, object] | None = None, **kwargs: object) -> None:  # noqa: ARG002 - lm-eval's hook
        """Load nothing: `make_docs` does."""
        self.dataset = LoadedData()
        self.dataset.source, self.dataset.sha256 = "", None

    @property
    def eval_docs(self) -> Docs:
        """The docs.

        Raises:
            ConfigError: they are not built.
        """
        if self._docs is None and self._is_initialised:
            raise ConfigError(
                f"Task {self.task_name!r} has no docs but those that are built for a model when it is run: leave it out"
            )
        return _StandIn([{}]) if self._docs is None else self._docs

    def fewshot_docs(self) -> Docs:
        """Return none: the prompts have no room for examples."""
        return []

    def doc_to_text(self, doc: Doc, doc_to_text: object = None) -> Any:  # noqa: ARG002 - lm-eval's hook
        """Return what the user says."""
        return self.prompt_of(doc) if doc else ""

    def doc_to_target(self, doc: Doc, doc_to_target: object = None) -> Any:
        """Return the right answer as text, by the YAML's `doc_to_target`."""
        return super().doc_to_target(doc, doc_to_target) if doc else ""
