"""Answers -> samples: lm-eval's filters and `process_results` on each doc, one sample a doc and filter.

A doc with an answer missing (a failed request, NaN) is not scored: its metrics are None and it is counted, never 0.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qwen2eval.errors import TASK_ERRORS, in_one_line
from qwen2eval.planning.planned import PlannedRequest, TaskPlan
from qwen2eval.requests import Answer, Doc
from qwen2eval.results.sample import DocSample, TaskSamples, raw_response
from qwen2eval.tasks.lm_eval_internals import compiled_templates
from qwen2eval.thoughts import read_thought


@dataclass(frozen=True)
class _AnsweredDoc:
    """A doc with all that was asked about it."""

    doc_id: int
    doc: Doc
    requests: list[PlannedRequest]
    answers: list[list[Answer]]
    """For each request, one answer a repeat."""
    problem: str | None
    """Why it can't be scored."""


def score_task(planned: TaskPlan, answers: Mapping[tuple[bytes, int], Answer]) -> TaskSamples:
    """Filter and score every doc.

    Args:
        planned: the task's docs and requests.
        answers: by (digest of the request, repeat).
    """
    docs = _answered_docs(planned, answers)
    samples = TaskSamples(planned)
    with compiled_templates():
        try:
            filtered = _filter_answered(planned, docs)
        # As with scorers: only the docs that a filter fails on are not scored
        except TASK_ERRORS:
            docs = _without_those_that_fail(planned, docs)
            filtered = _filter_answered(planned, docs)
        for name, per_doc in filtered.items():
            _run_programs(planned, per_doc)
            samples.by_filter[name] = [_score_doc(planned, one, name, per_doc.get(one.doc_id)) for one in docs]
    return samples


def _answered_docs(planned: TaskPlan, answers: Mapping[tuple[bytes, int], Answer]) -> list[_AnsweredDoc]:
    """Return the task's docs in order, each with its requests and answers."""
    by_doc: dict[int, list[PlannedRequest]] = {}
    for request in planned.requests:
        by_doc.setdefault(request.doc_id, []).append(request)
    docs = []
    for doc_id, doc in zip(planned.doc_ids, planned.docs, strict=True):
        # lm-eval's scorers expect the choices in their own order
        requests = sorted(by_doc[doc_id], key=lambda request: request.index)
        given = [
            [_read(planned, request, answers[request.digest, k]) for k in range(planned.repeats)]
            for request in requests
        ]
        docs.append(_AnsweredDoc(doc_id, doc, requests, given, _problem(given)))
    return docs


def _read(planned: TaskPlan, request: PlannedRequest, answer: Answer) -> Answer:
    """Return an answer as it is scored: of a model that thinks, what follows the thought."""
    if request.kind != "generate_until":
        return answer
    return read_thought(answer, prompt=str(request.prompt), thinking=planned.thinking, n_tokens=planned.count_tokens)


def _problem(rows: list[list[Answer]]) -> str | None:
    """Return why a doc can't be scored, a failed request before NaN, or None."""
    answers = [answer for row in rows for answer in row]
    errors = [answer.error for answer in answers if answer.error is not None]
    is_nan = any(answer.logprob is not None and math.isnan(answer.logprob) for answer in answers)
    return errors[0] if errors else "the model returned NaN" if is_nan else None


def _filter_answered(planned: TaskPlan, answered: list[_AnsweredDoc]) -> dict[str, dict[int, list[Any]]]:
    """Return filter -> doc id -> filtered responses, of the docs whose requests were all answered."""
    owners: list[int] = []
    docs: list[Doc] = []
    responses: list[Any] = []
    for one in answered:
        if one.problem is None:
            for request, row in zip(one.requests, one.answers, strict=True):
                owners.append(one.doc_id)
                docs.append(one.doc)
                responses.append([raw_response(answer, request.kind) for answer in row])
    if not responses:
        return {name: {} for name in planned.task.filter_names}
    result: dict[str, dict[int, list[Any]]] = {}
    for name, filtered in planned.task.filtered(docs, responses).items():
        per_doc: dict[int, list[Any]] = defaultdict(list)
        for owner, value in zip(owners, filtered, strict=True):
            per_doc[owner].append(value)
        result[name] = per_doc
    return result


def _without_those_that_fail(planned: TaskPlan, answered: list[_AnsweredDoc]) -> list[_AnsweredDoc]:
    """Return the docs, those with a problem on which a filter fails when it gets them alone; if all do, it raises."""
    checked, error = [], None
    for one in answered:
        try:
            _filter_answered(planned, [one])
            checked.append(one)
        except TASK_ERRORS as err:  # the task author's filters may raise anything
            error = err
            checked.append(replace(one, problem=f"the scorer failed in a filter: {in_one_line(err)}"))
    if error is not None and all(one.problem is not None for one in checked):
        raise error
    return checked


def _score_doc(planned: TaskPlan, one: _AnsweredDoc, filter_name: str, filtered: list[Any] | None) -> DocSample:
    """Score a doc under one filter; `filtered` is None for a doc that can't be scored."""
    metrics: dict[str, Any] | None = None
    problem, target = one.problem, planned.task.target(one.doc)
    if filtered is not None:
        try:
            metrics = planned.task.score(one.doc, filtered)
        # A task author's scorer may raise anything on one odd answer: only that doc is not scored
        except TASK_ERRORS as err:
            problem = f"the scorer failed: {in_one_line(err)}"
    programs = planned.task.programs
    executions = None if filtered is None or programs is None else programs.executions(one.doc, filtered)
    return DocSample(
        one.doc_id,
        one.doc,
        filter_name,
        one.requests,
        one.answers,
        filtered or [],
        target,
        metrics,
        problem,
        executions,
    )


def _run_programs(planned: TaskPlan, per_doc: Mapping[int, list[Any]]) -> None:
    """Run the programs of all docs at once, if the task's answers are programs."""
    if planned.task.programs is not None:
        by_id = dict(zip(planned.doc_ids, planned.docs, strict=True))
        planned.task.programs.run_programs([(by_id[doc_id], results) for doc_id, results in per_doc.items()])
