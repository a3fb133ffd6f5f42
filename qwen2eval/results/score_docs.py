"""Answers -> samples: lm-eval's filters and `process_results` on each doc, one sample a doc and filter.

A doc with an answer missing (a failed request, NaN) is not scored: its metrics are None and it is counted, never 0.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from qwen2eval.planning.planned import PlannedRequest, TaskPlan
from qwen2eval.requests import Answer, Doc
from qwen2eval.results.sample import DocSample, TaskSamples, raw_response
from qwen2eval.tasks.lm_eval_internals import compiled_templates


def score_task(planned: TaskPlan, answers: Mapping[tuple[bytes, int], Answer]) -> TaskSamples:
    """Filter and score every doc.

    Args:
        planned: the task's docs and requests.
        answers: by (digest of the request, repeat).
    """
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
    """Return filter -> doc id -> filtered responses, of the docs whose requests were all answered."""
    owners: list[int] = []
    docs: list[Doc] = []
    responses: list[Any] = []
    for doc_id, doc in zip(planned.doc_ids, planned.docs, strict=True):
        if problems[doc_id] is None:
            for request, row in zip(by_doc[doc_id], given[doc_id], strict=True):
                owners.append(doc_id)
                docs.append(doc)
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


def _score_doc(
    planned: TaskPlan,
    doc_id: int,
    doc: Doc,
    filter_name: str,
    requests: list[PlannedRequest],
    answers: list[list[Answer]],
    filtered: list[Any] | None,
    problem: str | None,
) -> DocSample:
    metrics: dict[str, Any] | None = None
    target = planned.task.target(doc)
    if filtered is not None:
        try:
            metrics = planned.task.score(doc, filtered)
        # a task author's scorer may raise anything on one odd answer: only that doc is not scored
        except Exception as err:  # noqa: BLE001
            problem = f"the scorer failed: {type(err).__name__}: {err}"
    programs = planned.task.programs
    executions = None if filtered is None or programs is None else programs.executions(doc, filtered)
    return DocSample(doc_id, doc, filter_name, requests, answers, filtered or [], target, metrics, problem, executions)


def _run_programs(planned: TaskPlan, per_doc: Mapping[int, list[Any]]) -> None:
    """Run the programs of all docs at once, if the task's answers are programs."""
    if planned.task.programs is not None:
        by_id = dict(zip(planned.doc_ids, planned.docs, strict=True))
        planned.task.programs.run_programs([(by_id[doc_id], results) for doc_id, results in per_doc.items()])
