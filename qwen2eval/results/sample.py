"""Scored docs as plain values: what `score_task` makes, and all that scores, run folder and reports are made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen2eval.planning.planned import PlannedRequest, TaskPlan
from qwen2eval.requests import Answer, Doc
from qwen2eval.tasks.task_values import doc_hash

if TYPE_CHECKING:
    from qwen2eval.sandbox import Execution

NO_EXTRACTION = "[invalid]"
"""What lm-eval's extraction filters return when they find no answer."""


class Cell(NamedTuple):
    """The place of a doc in a heat map."""

    length: int
    """Tokens of context."""
    depth: float
    """Percent from the start."""


class Judgement(NamedTuple):
    """What a judge says of one answer."""

    verdict: str | None
    """What it said; None: it said nothing."""
    error: str | None = None
    """Why it said nothing, or why what it said can't be read."""


@dataclass
class DocSample:
    """One doc under one filter."""

    doc_id: int
    doc: Doc
    filter: str
    requests: list[PlannedRequest]
    answers: list[list[Answer]]
    """For each request its repeats' answers."""
    extracted: list[Any]
    """For each request the filtered responses; [] for docs that are not scored."""
    target: Any
    """The right answer: a text, a choice's number, or a list of them."""
    metrics: dict[str, Any] | None
    """By name: a number, or what only the task's own aggregation understands; None: not scored."""
    error: str | None = None
    """Why it is not scored."""
    executions: "Sequence[Execution] | None" = None
    """For tasks of programs: the result of each repeat's program; None: the task has none."""
    judgement: Judgement | None = None
    """None: no judge was asked about the answer."""

    @property  # not kept: prompts are never all in memory
    def prompt(self) -> str:
        """The first request's prompt, spelled out."""
        return str(self.requests[0].prompt)

    @cached_property
    def doc_hash(self) -> str:
        """lm-eval's hash of the doc; parquet, JSON lines and the task's hash ask for it."""
        return doc_hash(self.doc)


@dataclass
class TaskSamples:
    """All samples of a task, in doc order, filter by filter."""

    plan: TaskPlan
    """The task, with its docs and requests."""
    by_filter: dict[str, list[DocSample]] = field(default_factory=dict)
    contamination: Mapping[int, str] | None = None
    """By doc_id: clean, contaminated, not_testable or template by the n-gram rule; None: no corpus was searched."""
    contamination_qwen2: Mapping[int, str] | None = None
    """The same by n-gram and longest common subsequence."""
    without_value: tuple[str, ...] = ()
    """Metrics that docs have and whose aggregation gives no number."""
    judge_metrics: tuple[str, ...] = ()
    """Metrics of a judge's verdicts, whether or not any doc has them; empty: no judge was asked."""

    def __iter__(self) -> Iterator[DocSample]:
        for samples in self.by_filter.values():
            yield from samples


def cell_of(doc: Doc) -> Cell | None:
    """Return a doc's place in a heat map, its `cell`; None for docs of other tasks.

    >>> cell_of({"cell": {"length": 8192, "depth": 25}}), cell_of({"cell": "B2"})
    (Cell(length=8192, depth=25.0), None)
    """
    cell = doc.get("cell")
    if not isinstance(cell, Mapping) or set(cell) != set(Cell._fields):
        return None
    return Cell(int(cell["length"]), float(cell["depth"]))


def metric_names(samples: TaskSamples, docs: Sequence[DocSample] | None = None) -> list[str]:
    """Return the metrics that any doc has (where none is scored: those that the task would have), then the judge's.

    Args:
        docs: some of the task's; None: all of them.
    """
    scored = (sample.metrics or {} for sample in (samples if docs is None else docs))
    found = dict.fromkeys(metric for metrics in scored for metric in metrics if metric not in samples.judge_metrics)
    return [*(found or dict.fromkeys(samples.plan.task.aggregations)), *samples.judge_metrics]


def raw_response(answer: Answer, kind: str) -> Any:
    """Return an answer as lm-eval's backends return it."""
    if kind == "generate_until":
        return answer.response
    return answer.logprob if kind == "loglikelihood_rolling" else (answer.logprob, answer.is_greedy)
