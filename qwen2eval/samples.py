"""Answers -> samples: lm-eval's filters and `process_results` on each doc, one row a doc and filter.

A doc with an answer missing (a failed request, NaN) is not scored: its metrics are None and it is counted, never 0.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen2eval.plan import PlannedRequest, TaskPlan
from qwen2eval.requests import Answer

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from qwen2eval.sandbox import Execution

SAMPLE_COLUMNS = (
    *("task", "doc_id", "doc_hash", "prompt_hash", "target_hash", "repeat", "filter", "cluster", "prompt", "response"),
    *("extracted", "target", "finish_reason", "n_prompt_tokens", "n_response_tokens", "truncated", "contamination"),
    *("contamination_qwen2", "cell", "verdict", "verdict_detail", "error"),
)
"""The columns of samples/<task>.parquet that every task has; its metrics follow."""
JUDGE_COLUMNS = ("judge_response", "judge_error")
"""Two more, of tasks whose answers a judge was asked about: see `Judgement`."""
NO_EXTRACTION = "[invalid]"
"""What lm-eval's extraction filters return when they find no answer."""


class Cell(NamedTuple):
    """Where a doc stands in a heat map."""

    length: int
    """Tokens of context."""
    depth: float
    """Percent from the start."""


class Judgement(NamedTuple):
    """What a judge says of one answer."""

    response: str | None
    """Its verdict; None: it said nothing."""
    error: str | None = None
    """Why it said nothing, or why what it said can't be read."""


@dataclass
class DocSample:
    """One doc under one filter."""

    doc_id: int
    doc: dict[str, Any]
    filter: str
    requests: list[PlannedRequest]
    answers: list[list[Answer]]
    """For each request its repeats' answers."""
    extracted: list[Any]
    """For each request what the filter made of its responses; [] for unscored docs."""
    target: Any
    metrics: dict[str, Any] | None
    """None: not scored."""
    error: str | None = None
    """Why it is not scored."""
    executions: "Sequence[Execution] | None" = None
    """For tasks of programs: what came of each repeat's."""
    judgement: Judgement | None = None
    """None: no judge was asked about the answer."""

    @cached_property
    def doc_hash(self) -> str:
        """lm-eval's hash of the doc; parquet, JSON lines and the task's hash ask for it."""
        return doc_hash(self.doc)


@dataclass
class TaskSamples:
    """All samples of a task, in doc order, filter by filter."""

    plan: TaskPlan
    by_filter: dict[str, list[DocSample]] = field(default_factory=dict)
    contamination: Mapping[int, str] | None = None
    """By doc_id: clean, contaminated or not_testable by the n-gram rule; None: no corpus was searched."""
    contamination_qwen2: Mapping[int, str] | None = None
    """The same by n-gram and longest common subsequence."""
    judge_metrics: tuple[str, ...] = ()
    """Metrics that come of a judge's verdicts, whether or not any doc has them; empty: no judge was asked."""

    def __iter__(self) -> Iterator[DocSample]:
        for samples in self.by_filter.values():
            yield from samples


def score_task(planned: TaskPlan, answers: Mapping[tuple[bytes, int], Answer]) -> TaskSamples:
    """Filter and score every doc.

    Args:
        planned: the task's docs and requests.
        answers: by (digest of the request, repeat).
    """
    from qwen2eval.prompts import compiled_templates

    by_doc: dict[int, list[PlannedRequest]] = defaultdict(list)
    for request in planned.requests:
        by_doc[request.doc_id].append(request)
    for requests in by_doc.values():
        requests.sort(key=lambda r: r.index)
    given = {
        doc_id: [[answers[(r.digest, k)] for k in range(planned.repeats)] for r in requests]
        for doc_id, requests in by_doc.items()
    }
    problems = {doc_id: _problem(rows) for doc_id, rows in given.items()}
    samples = TaskSamples(planned)
    with compiled_templates():
        filtered = _filter_answered(planned, by_doc, given, problems)
        for name, per_doc in filtered.items():
            _run_programs(planned, per_doc)
            samples.by_filter[name] = [
                _score_doc(
                    planned, doc_id, doc, name, by_doc[doc_id], given[doc_id], per_doc.get(doc_id), problems[doc_id]
                )
                for doc_id, doc in zip(planned.doc_ids, planned.docs, strict=True)
            ]
    return samples


def filter_responses(task: "Task", docs: Sequence[dict[str, Any]], responses: list[Any]) -> dict[str, list[Any]]:
    """Apply each of the task's filter chains to all responses at once, as lm-eval does.

    Args:
        docs: the doc of each request.
        responses: for each request the list of its repeats' responses.
    """
    result = {}
    for ensemble in task._filters:
        filtered: Any = list(responses)
        for make_filter in ensemble.filters:
            filtered = make_filter().apply(filtered, list(docs))
        result[ensemble.name] = list(filtered)
    return result


def as_number(value: Any) -> float | None:
    """Return a metric's value as a float; None for pairs, lists and texts, which only an aggregation understands."""
    if isinstance(value, bool | int | float) or (hasattr(value, "item") and getattr(value, "ndim", 0) == 0):
        return float(value)
    return None


def sample_rows(samples: TaskSamples) -> Iterator[dict[str, Any]]:
    """Yield the rows of `samples/<task>.parquet`: one a doc, filter and repeat; metrics stand on repeat 0."""
    cluster = samples.plan.cluster_column
    for sample in samples:
        first = sample.requests[0]
        prompt = str(first.prompt)
        for repeat in range(samples.plan.repeats):
            given = [rows[repeat] for rows in sample.answers]
            yield {
                "task": samples.plan.name,
                "doc_id": sample.doc_id,
                "doc_hash": sample.doc_hash,
                "prompt_hash": _sha256(prompt),
                "target_hash": _sha256(str(sample.target)),
                "repeat": repeat,
                "filter": sample.filter,
                "cluster": None if cluster is None else str(sample.doc[cluster]),
                "prompt": prompt,
                "response": response_text(given, sample.requests),
                "extracted": extracted_text(samples.plan, sample),
                "target": target_text(samples.plan, sample),
                "finish_reason": given[0].finish_reason,
                "n_prompt_tokens": first.n_context_tokens,
                "n_response_tokens": given[0].n_response_tokens,
                "truncated": any(r.is_truncated for r in sample.requests),
                "contamination": None if samples.contamination is None else samples.contamination[sample.doc_id],
                "contamination_qwen2": None
                if samples.contamination_qwen2 is None
                else samples.contamination_qwen2[sample.doc_id],
                "cell": None if (cell := cell_of(sample.doc)) is None else json.dumps(cell._asdict()),
                "verdict": None if sample.executions is None else sample.executions[repeat].verdict,
                "verdict_detail": None if sample.executions is None else sample.executions[repeat].detail or None,
                "error": sample.error,
                **(_judge_columns(sample.judgement) if samples.judge_metrics else {}),
                **{metric_column(m): as_number(v) for m, v in (sample.metrics or {}).items() if repeat == 0},
            }


def cell_of(doc: Mapping[str, Any]) -> Cell | None:
    """Return a doc's place in a heat map, its `cell`; None for docs of other tasks.

    >>> cell_of({"cell": {"length": 8192, "depth": 25}}), cell_of({"cell": "B2"})
    (Cell(length=8192, depth=25.0), None)
    """
    cell = doc.get("cell")
    if not isinstance(cell, Mapping) or set(cell) != set(Cell._fields):
        return None
    return Cell(int(cell["length"]), float(cell["depth"]))


def metric_column(metric: str) -> str:
    """Return the column of a metric; one that is called like a column of every task gets a prefix.

    >>> metric_column("acc"), metric_column("response")
    ('acc', 'metric_response')
    """
    return f"metric_{metric}" if metric in (*SAMPLE_COLUMNS, *JUDGE_COLUMNS) else metric


def metric_names(samples: TaskSamples, docs: "Sequence[DocSample] | None" = None) -> list[str]:
    """Return the metrics that any doc has (where none is scored: those that the task would have), then the judge's.

    Args:
        docs: some of the task's; None: all of them.
    """
    scored = (sample.metrics or {} for sample in (samples if docs is None else docs))
    found = dict.fromkeys(metric for metrics in scored for metric in metrics if metric not in samples.judge_metrics)
    return [*(found or dict.fromkeys(samples.plan.task.aggregation() or {})), *samples.judge_metrics]


def response_text(given: Sequence[Answer], requests: Sequence[PlannedRequest]) -> str | None:
    """Return a doc's answers as text: the response itself, or JSON `[[logprob, is_greedy], …]` in choice order.

    There, NaN is `[null, …]`, and a request that was not answered is `null`.
    """
    if len(given) == 1 and requests[0].kind == "generate_until":
        return given[0].response
    values: list[Any] = []
    for answer, request in zip(given, requests, strict=True):
        if answer.error is not None or request.kind == "generate_until":
            values.append(answer.response)
        else:
            logprob = None if answer.logprob is None or math.isnan(answer.logprob) else answer.logprob
            values.append([logprob, answer.is_greedy])
    return json.dumps(values, ensure_ascii=False)


def parse_response(text: str | None, requests: Sequence[PlannedRequest], *, error: str | None) -> list[Answer]:
    """Read back what `response_text` wrote."""
    if text is None:
        return [Answer(error=error or "not answered")] * len(requests)
    if len(requests) == 1 and requests[0].kind == "generate_until":
        return [Answer(response=text)]
    answers = []
    for value, request in zip(json.loads(text), requests, strict=True):
        if value is None:
            answers.append(Answer(error=error or "not answered"))
        elif request.kind == "generate_until":
            answers.append(Answer(response=value))
        else:
            logprob, is_greedy = value
            answers.append(Answer(logprob=math.nan if logprob is None else logprob, is_greedy=is_greedy))
    return answers


def doc_hash(doc: dict[str, Any]) -> str:
    """Return lm-eval's hash of a doc."""
    from lm_eval.utils import handle_non_serializable

    return _sha256(json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False))


def target_text(planned: TaskPlan, sample: DocSample) -> str | None:
    """Return the right answer as text; a choice's index becomes its text."""
    target, task = sample.target, planned.task
    if isinstance(target, int) and getattr(task.config, "doc_to_choice", None) is not None:
        choices = task.doc_to_choice(sample.doc)
        return str(choices[target]) if 0 <= target < len(choices) else str(target)
    return None if target is None else str(target)


def extracted_text(planned: TaskPlan, sample: DocSample) -> str | None:
    """Return what a filter made of a doc's responses, as text; None where the doc is not scored."""
    if sample.metrics is None or not sample.extracted:
        return None
    if planned.task.OUTPUT_TYPE == "multiple_choice":
        logprobs = [value[0] for value in sample.extracted]
        choices = planned.task.doc_to_choice(sample.doc)
        best = max(range(min(len(choices), len(logprobs))), key=lambda i: logprobs[i])
        return str(choices[best])
    first = sample.extracted[0]
    return first if isinstance(first, str) else json.dumps(first, ensure_ascii=False, default=str)


def raw_response(answer: Answer, kind: str) -> Any:
    """Return an answer as lm-eval's backends return it."""
    if kind == "generate_until":
        return answer.response
    return answer.logprob if kind == "loglikelihood_rolling" else (answer.logprob, answer.is_greedy)


def _problem(rows: list[list[Answer]]) -> str | None:
    """Return why a doc can't be scored, a failed request before NaN, or None."""
    answers = [answer for row in rows for answer in row]
    errors = [answer.error for answer in answers if answer.error is not None]
    is_nan = any(answer.logprob is not None and math.isnan(answer.logprob) for answer in answers)
    return errors[0] if errors else "the model returned NaN" if is_nan else None


def _filter_answered(
    planned: TaskPlan,
    by_doc: Mapping[int, list[PlannedRequest]],
    given: Mapping[int, list[list[Answer]]],
    problems: Mapping[int, str | None],
) -> dict[str, dict[int, list[Any]]]:
    """Return filter -> doc id -> filtered responses, of the docs that were answered whole."""
    owners: list[int] = []
    docs: list[dict[str, Any]] = []
    responses: list[Any] = []
    for doc_id, doc in zip(planned.doc_ids, planned.docs, strict=True):
        if problems[doc_id] is None:
            for request, row in zip(by_doc[doc_id], given[doc_id], strict=True):
                owners.append(doc_id)
                docs.append(doc)
                responses.append([raw_response(answer, request.kind) for answer in row])
    if not responses:
        return {ensemble.name: {} for ensemble in planned.task._filters}
    result: dict[str, dict[int, list[Any]]] = {}
    for name, filtered in filter_responses(planned.task, docs, responses).items():
        per_doc: dict[int, list[Any]] = defaultdict(list)
        for owner, value in zip(owners, filtered, strict=True):
            per_doc[owner].append(value)
        result[name] = per_doc
    return result


def _score_doc(
    planned: TaskPlan,
    doc_id: int,
    doc: dict[str, Any],
    filter_name: str,
    requests: list[PlannedRequest],
    answers: list[list[Answer]],
    filtered: list[Any] | None,
    problem: str | None,
) -> DocSample:
    metrics: dict[str, Any] | None = None
    target = planned.task.doc_to_target(doc)
    if filtered is not None:
        try:
            metrics = planned.task.process_results(doc, filtered)
        # a task author's scorer may raise anything on one odd answer: that doc is not scored, the others are
        except Exception as err:  # noqa: BLE001
            problem = f"the scorer failed: {type(err).__name__}: {err}"
    executions = planned.task.executions(doc, filtered) if filtered is not None and _is_code(planned.task) else None
    return DocSample(doc_id, doc, filter_name, requests, answers, filtered or [], target, metrics, problem, executions)


def _is_code(task: "Task") -> bool:
    """Whether a task's answers are programs; see `code_task`."""
    return hasattr(task, "run_programs")


def _run_programs(planned: TaskPlan, per_doc: Mapping[int, list[Any]]) -> None:
    """Run the programs of all docs at once, where there are some."""
    if _is_code(planned.task):
        by_id = dict(zip(planned.doc_ids, planned.docs, strict=True))
        planned.task.run_programs([(by_id[doc_id], results) for doc_id, results in per_doc.items()])


def _judge_columns(judgement: Judgement | None) -> dict[str, str | None]:
    return dict(zip(JUDGE_COLUMNS, judgement or (None, None), strict=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
