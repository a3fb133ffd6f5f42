"""What a task may offer besides lm-eval's own methods: one protocol for each ability.

A task's class offers an ability by having its members; nothing has to be inherited or registered. `EvalTask` asks for
them in one place, and everything else asks `EvalTask`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from qwen2eval.requests import Doc
from qwen2eval.tasks.metric_spec import MetricSpec

if TYPE_CHECKING:
    from qwen2eval.backends.model_spec import ModelSpec
    from qwen2eval.config import RunConfig
    from qwen2eval.sandbox import Execution

Responses = Sequence[Any]
"""What lm-eval gives `process_results`: one entry for each request of a doc, of the type that the filter returns."""


@runtime_checkable
class SizedPrompts(Protocol):
    """A task whose prompts have a length in tokens of the model under test, so its docs are built for that model."""

    @property
    def longest_context(self) -> int | None:
        """Tokens of the longest context that the task asks for, independent of the model; None: not known."""

    def build_docs(self, spec: "ModelSpec", config: "RunConfig") -> None:
        """Build the docs for a model; `eval_docs` has them from then on."""


@runtime_checkable
class PublishedDocs(Protocol):
    """A task whose docs can be read from published files without a model."""

    def read_docs(self) -> list[Doc]:
        """Return all docs.

        Raises:
            MissingDataError: a file is missing.
            DataFileError: a file can't be read.
        """


@runtime_checkable
class RunsPrograms(Protocol):
    """A task whose answers are programs, which are run in the sandbox before the docs are scored."""

    @property
    def sandbox_level(self) -> str | None:
        """The level that programs ran at; None: none has run."""

    def run_programs(self, answered: Iterable[tuple[Doc, Responses]]) -> None:
        """Run the programs of docs, all at once; each doc comes with what `process_results` gets."""

    def executions(self, doc: Doc, results: Responses) -> "Sequence[Execution] | None":
        """Return the result of each program of a doc, in the order of the responses; None: it has not one for each."""


@runtime_checkable
class Judged(Protocol):
    """A task whose finished answers can be judged by a second model."""

    @property
    def judge_template(self) -> str:
        """What all of its prompts for the judge have in common; its hash is in run.json."""

    def judge_prompt(self, doc: Doc, response: str) -> str:
        """Return what the judge is asked about an answer."""

    def judge_metrics(self, verdict: str) -> Mapping[str, float | None]:
        """Return the metrics of a verdict by name; None: the verdict does not say. An empty verdict gives all names."""


@runtime_checkable
class HasTurns(Protocol):
    """A task whose docs are conversations: what the user says next is asked after the model has answered."""

    def next_turn(self, doc: Doc, responses: Sequence[str]) -> str | None:
        """Return what the user says next.

        Args:
            doc: the conversation; its first turn is the task's ordinary prompt.
            responses: what the model said in each turn so far, in order, at least one.

        Returns:
            None: the conversation is over.
        """


@runtime_checkable
class DescribesMetrics(Protocol):
    """A task that says unit, scale and direction of its metrics, those of a judge among them."""

    def metric_specs(self) -> Mapping[str, MetricSpec]:
        """Return what is known of each metric, by name."""
