"""The columns of samples/<task>.parquet: one table, from which rows, schema and documentation are made.

To add a column, add one `Column` to a group here; nothing else lists them.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from qwen2eval.columns import Column, Value, row_of
from qwen2eval.planning.planned import PlannedRequest, TaskPlan
from qwen2eval.requests import Answer
from qwen2eval.results.sample import DocSample, Judgement, TaskSamples, cell_of, metric_names
from qwen2eval.tasks.metric_spec import as_number
from qwen2eval.texts import whole_text, whole_texts


class SamplePlace(NamedTuple):
    """One row to be: a sample and one of its repeats."""

    samples: TaskSamples
    sample: DocSample
    repeat: int

    @property
    def plan(self) -> TaskPlan:
        """The task."""
        return self.samples.plan

    @property
    def answers(self) -> list[Answer]:
        """The repeat's answer to each request."""
        return [rows[self.repeat] for rows in self.sample.answers]


SampleColumn = Column[SamplePlace]


def _cluster(at: SamplePlace) -> str | None:
    column = at.plan.task.cluster_column
    return None if column is None else str(at.sample.doc[column])


DOC_COLUMNS = (
    SampleColumn("task", "string", "The task's name.", lambda at: at.plan.name),
    SampleColumn("doc_id", "int64", "Place of the doc in the task, from 0.", lambda at: at.sample.doc_id),
    SampleColumn("doc_hash", "string", "lm-eval's sha256 of the doc.", lambda at: at.sample.doc_hash),
    SampleColumn("prompt_hash", "string", "sha256 of `prompt`.", lambda at: _sha256(at.sample.prompt)),
    SampleColumn(
        "target_hash", "string", "sha256 of the target as lm-eval has it.", lambda at: _sha256(str(at.sample.target))
    ),
    SampleColumn("repeat", "int64", "Number of the answer, from 0, in tasks that ask again.", lambda at: at.repeat),
    SampleColumn(
        "filter",
        "string",
        "The filter that read the response; `none` if the task has none.",
        lambda at: at.sample.filter,
    ),
    SampleColumn("cluster", "string", "What the doc's standard error is clustered by; null: nothing.", _cluster),
    SampleColumn("prompt", "string", "The first request's prompt, as the model got it.", lambda at: at.sample.prompt),
    SampleColumn(
        "response",
        "string",
        "The generated text after the thought, or JSON `[[logprob, is_greedy], …]` in the order of the choices; null: "
        "not answered.",
        lambda at: response_text(at.answers, at.sample.requests),
    ),
    SampleColumn(
        "extracted",
        "string",
        "What the filter took from the response; of a multiple choice the chosen text. Null: not scored.",
        lambda at: extracted_text(at.plan, at.sample),
    ),
    SampleColumn(
        "target",
        "string",
        "The right answer; of a multiple choice its text.",
        lambda at: at.plan.task.target_text(at.sample.doc, at.sample.target),
    ),
)
"""Columns before the task's metrics, of which each is a column `float64`: see `metric_column`."""
ANSWER_COLUMNS = (
    SampleColumn(
        "finish_reason",
        "string",
        "Why the generation ended: `stop`, or `length` at max_gen_toks; null: the backend does not say.",
        lambda at: at.answers[0].finish_reason,
    ),
    SampleColumn(
        "n_prompt_tokens",
        "int64",
        "Tokens of the first request's prompt; null where no tokenizer is known.",
        lambda at: at.sample.requests[0].n_context_tokens,
    ),
    SampleColumn(
        "n_response_tokens",
        "int64",
        "Tokens of the generated text, its thought included; null for log-probabilities.",
        lambda at: at.answers[0].n_response_tokens,
    ),
    SampleColumn(
        "thought",
        "string",
        "What the model wrote before the response, with the marks; of several requests JSON. Null: it did not think.",
        lambda at: thought_text(at.answers),
    ),
    SampleColumn(
        "n_thought_tokens",
        "int64",
        "Tokens of `thought`; null: there is none, or no tokenizer is known.",
        lambda at: at.answers[0].n_thought_tokens,
    ),
    SampleColumn(
        "thought_unfinished",
        "bool",
        "Whether the text ended inside the thought: the response is empty, and wrong. Null: it did not think.",
        lambda at: any(a.is_thought_open for a in at.answers) if thought_text(at.answers) is not None else None,
    ),
    SampleColumn(
        "truncated",
        "bool",
        "Whether a prompt of the doc was cut to fit the model.",
        lambda at: any(request.is_truncated for request in at.sample.requests),
    ),
)
CONTAMINATION_COLUMNS = (
    SampleColumn(
        "contamination",
        "string",
        "By the n-gram rule: `clean`, `contaminated`, `not_testable`, or `template` (clean: only text of other docs "
        "was found); null: no corpus was searched.",
        lambda at: None if at.samples.contamination is None else at.samples.contamination[at.sample.doc_id],
    ),
    SampleColumn(
        "contamination_qwen2",
        "string",
        "The same by n-gram and longest common subsequence.",
        lambda at: None if at.samples.contamination_qwen2 is None else at.samples.contamination_qwen2[at.sample.doc_id],
    ),
)
CELL_COLUMNS = (
    SampleColumn(
        "cell",
        "string",
        "Place in a heat map, as JSON with `length` (tokens) and `depth` (percent); null: the task has no heat map.",
        lambda at: None if (cell := cell_of(at.sample.doc)) is None else json.dumps(cell._asdict()),
    ),
)
PROGRAM_COLUMNS = (
    SampleColumn(
        "verdict",
        "string",
        "Outcome of the answer's program in the sandbox, such as `passed` or `timed_out`; null: not a program.",
        lambda at: None if at.sample.executions is None else at.sample.executions[at.repeat].verdict,
    ),
    SampleColumn(
        "verdict_detail",
        "string",
        "The error of a program that did not pass.",
        lambda at: None if at.sample.executions is None else at.sample.executions[at.repeat].detail or None,
    ),
)
JUDGE_COLUMNS = (
    SampleColumn(
        "judge_response",
        "string",
        "The judge's verdict on the answer, as text; only in runs with a judge. Null: it gave none.",
        lambda at: _judgement(at).verdict,
    ),
    SampleColumn(
        "judge_error",
        "string",
        "Why the judge gave no verdict; only in runs with a judge.",
        lambda at: _judgement(at).error,
    ),
)
"""Only in the files of tasks whose answers a judge was asked about."""
ERROR_COLUMNS = (
    SampleColumn("error", "string", "Why the doc is not scored; null: it is scored.", lambda at: at.sample.error),
)
COLUMN_GROUPS = (
    *(DOC_COLUMNS, ANSWER_COLUMNS, CONTAMINATION_COLUMNS, CELL_COLUMNS, PROGRAM_COLUMNS, JUDGE_COLUMNS, ERROR_COLUMNS),
)
"""In the order of the file; the metrics come after the first group."""
SAMPLE_COLUMNS = tuple(column for group in COLUMN_GROUPS for column in group)
_RESERVED = frozenset(column.name for column in SAMPLE_COLUMNS)


def sample_columns(samples: TaskSamples) -> list[SampleColumn]:
    """Return the columns of a task's file, its metrics among them."""
    after = [
        column for group in COLUMN_GROUPS[1:] if group is not JUDGE_COLUMNS or samples.judge_metrics for column in group
    ]
    return [*DOC_COLUMNS, *map(_metric, metric_names(samples)), *after]


def sample_rows(samples: TaskSamples, columns: Sequence[SampleColumn] | None = None) -> Iterator[dict[str, Value]]:
    """Yield the rows of `samples/<task>.parquet`: one a doc, filter and repeat; metrics are on repeat 0.

    Args:
        samples: of one task.
        columns: as `sample_columns` returns them; None: these.
    """
    columns = sample_columns(samples) if columns is None else columns
    for sample in samples:
        for repeat in range(samples.plan.repeats):
            at = SamplePlace(samples, sample, repeat)
            yield whole_texts(row_of(columns, at))


def metric_column(metric: str) -> str:
    """Return the column of a metric; one that is called like a column of every task gets a prefix.

    >>> metric_column("acc"), metric_column("response")
    ('acc', 'metric_response')
    """
    return f"metric_{metric}" if metric in _RESERVED else metric


def _metric(name: str) -> SampleColumn:
    def value(at: SamplePlace) -> float | None:
        is_first = at.repeat == 0 and at.sample.metrics is not None and name in at.sample.metrics
        return as_number((at.sample.metrics or {})[name]) if is_first else None

    return Column(
        metric_column(name), "float64", f"The metric {name}; null: not scored, or not the first repeat.", value
    )


def response_text(given: Sequence[Answer], requests: Sequence[PlannedRequest]) -> str | None:
    """Return a doc's answers as text: the response itself, or JSON `[[logprob, is_greedy], …]` in choice order.

    There, NaN is `[null, …]`, and a request that was not answered is `null`.
    """
    if len(given) == 1 and requests[0].kind == "generate_until":
        return given[0].response
    values: list[object] = []
    for answer, request in zip(given, requests, strict=True):
        if answer.error is not None or request.kind == "generate_until":
            values.append(answer.response)
        else:
            logprob = None if answer.logprob is None or math.isnan(answer.logprob) else answer.logprob
            values.append([logprob, answer.is_greedy])
    return json.dumps(values, ensure_ascii=False)


def thought_text(given: Sequence[Answer]) -> str | None:
    """Return a doc's thoughts as text: the thought itself, or a JSON list where several requests were asked."""
    if all(answer.thought is None for answer in given):
        return None
    return given[0].thought if len(given) == 1 else json.dumps([a.thought for a in given], ensure_ascii=False)


def parse_thoughts(text: str | None, given: Sequence[Answer], *, is_open: bool | None) -> list[Answer]:
    """Return answers with the thoughts that `thought_text` wrote.

    Args:
        given: as `parse_response` returns them.
        is_open: whether one of them ended inside its thought.
    """
    if text is None:
        return list(given)
    thoughts = [text] if len(given) == 1 else json.loads(text)
    return [
        answer
        if thought is None
        else replace(answer, thought=thought, is_thought_open=bool(is_open) and not answer.response)
        for answer, thought in zip(given, thoughts, strict=True)
    ]


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


def extracted_text(planned: TaskPlan, sample: DocSample) -> str | None:
    """Return a doc's filtered responses as text; None where the doc is not scored."""
    if sample.metrics is None or not sample.extracted:
        return None
    if planned.task.is_multiple_choice:
        logprobs = [value[0] for value in sample.extracted]
        choices = planned.task.choices(sample.doc)
        best = max(range(min(len(choices), len(logprobs))), key=lambda i: logprobs[i])
        return str(choices[best])
    first = sample.extracted[0]
    return first if isinstance(first, str) else json.dumps(first, ensure_ascii=False, default=str)


def _judgement(at: SamplePlace) -> Judgement:
    return at.sample.judgement or Judgement(None)


def _sha256(text: str) -> str:
    return hashlib.sha256(whole_text(text).encode()).hexdigest()
