"""Signs that a score should not be believed: cut prompts and answers, failed extraction, chance level, one choice.

Counts are facts and always there; a flag is raised only where a count or a test says that a reader must know.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qwen2eval.requests import Answer
from qwen2eval.results.sample import NO_EXTRACTION, DocSample, TaskSamples
from qwen2eval.results.suspicious import shown_response, suspicious_docs
from qwen2eval.run_info import FlagInfo, HealthInfo

if TYPE_CHECKING:
    from qwen2eval.sandbox import Execution

MIN_DOCS_FOR_TESTS = 20
CONSTANT_CHOICE_RATIO = 0.9
SAME_ANSWER_RATIO = 0.5
MANY_FAILURES_RATIO = 0.1
MANY_TIES_RATIO = 0.03
FEW_SUSPICIOUS_RATIO = 0.02
MOST_LISTED = 5
Z_95 = 1.96
"""Half the width of a 95 % interval of a normal distribution, in standard deviations."""


def check_health(samples: TaskSamples) -> HealthInfo:
    """Count and test one task's samples."""
    docs = next(iter(samples.by_filter.values()), [])
    executions = [one for doc in docs for one in doc.executions or ()]
    suspicious = suspicious_docs(samples)
    health = HealthInfo(
        n_docs=len(docs),
        n_unscored=sum(doc.metrics is None for doc in docs),
        n_truncated_prompts=sum(map(_is_truncated, docs)),
        n_unfinished=sum(map(_is_unfinished, docs)),
        n_empty=sum(map(_is_empty, docs)),
        n_nan=sum(map(_has_nan, docs)),
        n_failed_requests=len(_request_errors(docs)),
        n_scoring_errors=len(_scoring_errors(docs)),
        n_extraction_failures=_extraction_failures(samples),
        verdicts=dict(Counter(one.verdict for one in executions).most_common()),
        n_same_process=sum(one.separated is False for one in executions),
        flags=(),
        n_thoughts=sum(any(answer.thought is not None for answer in _answers(doc)) for doc in docs),
        n_unfinished_thoughts=sum(map(_is_thought_open, docs)),
        n_suspicious={name: len(found) for name, found in suspicious.items() if found} or None,
    )
    flags = (
        *_program_flags(executions),
        *_count_flags(health, docs),
        *_suspicious_flags(suspicious, len(docs)),
        *_value_flags(samples),
        *_choice_flags(samples, docs),
        *_response_flags(docs),
        *_judge_flags(samples, docs),
    )
    return replace(health, flags=flags)


def chance_score(samples: TaskSamples) -> float | None:
    """Return the accuracy (0-1) of blind guessing in a multiple-choice task; None for others."""
    if not samples.plan.task.is_multiple_choice or not samples.plan.docs:
        return None
    counts = Counter(request.doc_id for request in samples.plan.requests)
    return sum(samples.plan.task.requests_per_choice / n for n in counts.values()) / len(counts)


def _program_flags(executions: "Sequence[Execution]") -> Iterable[FlagInfo]:
    if any(one.level == "none" for one in executions):
        yield FlagInfo(
            "no_sandbox",
            "warning",
            f"{len(executions)} programs that the model wrote ran without a sandbox (--sandbox none): each could "
            "read, change and send all that you can, and forge its verdict. Don't publish this score",
        )


def _count_flags(health: HealthInfo, docs: list[DocSample]) -> Iterable[FlagInfo]:
    n = health.n_docs
    if health.n_failed_requests:
        first = _request_errors(docs)[0]
        yield FlagInfo(
            "failed_requests",
            "error",
            f"{health.n_failed_requests} requests were not answered (the first: {first}). Run the same command again: "
            "only these are asked",
        )
    if health.n_nan:
        yield FlagInfo(
            "nan", "error", f"the model returned NaN for {health.n_nan} of {n} docs: check its weights and dtype"
        )
    if health.n_scoring_errors:
        first = _scoring_errors(docs)[0]
        yield FlagInfo("scoring_error", "error", f"{health.n_scoring_errors} of {n} docs could not be scored: {first}")
    if health.n_truncated_prompts:
        yield FlagInfo(
            "truncated_prompts", "warning", f"{health.n_truncated_prompts} of {n} prompts were cut to fit the model"
        )
    cut = [doc for doc in docs if _was_cut(doc)]
    if len(cut) > MANY_FAILURES_RATIO * n:
        n_open = sum(map(_is_thought_open, cut))
        inside = f", {n_open} of them inside a thought (they count as wrong)" if n_open else ""
        yield FlagInfo("unfinished", "warning", f"{len(cut)} of {n} answers were cut off{inside}: raise max_gen_toks")
    if ended := [doc for doc in docs if _is_thought_open(doc) and not _was_cut(doc)]:
        yield FlagInfo("open_thought", "warning", _open_thoughts(ended, n))
    if health.n_empty > MANY_FAILURES_RATIO * n:
        yield FlagInfo("empty", "warning", f"{health.n_empty} of {n} answers are empty")
    for name, failures in health.n_extraction_failures.items():
        if failures > MANY_FAILURES_RATIO * n:
            what = "no program that is Python and has the function" if health.verdicts else "no answer"
            yield FlagInfo("extraction", "warning", f"{name} found {what} in {failures} of {n} responses")


def _value_flags(samples: TaskSamples) -> Iterable[FlagInfo]:
    for metric in samples.without_value:
        yield FlagInfo("no_value", "error", f"the aggregation of {metric} gives no number for the docs that have it")


def _suspicious_flags(suspicious: Mapping[str, list[DocSample]], n_docs: int) -> Iterable[FlagInfo]:
    for name, docs in suspicious.items():
        if len(docs) > FEW_SUSPICIOUS_RATIO * n_docs:
            ids = ", ".join(str(doc.doc_id) for doc in docs[:MOST_LISTED]) + (", …" if len(docs) > MOST_LISTED else "")
            shown = json.dumps(shown_response(docs[0]), ensure_ascii=False)
            by = "the scorer" if name == "none" else f"the filter {name}"
            yield FlagInfo(
                "suspicious_answers",
                "warning",
                f"{len(docs)} of {n_docs} answers seem to say the target and score 0 (docs {ids}; the first ends with "
                f"{shown}): {by} may read the answers wrongly",
            )


def _choice_flags(samples: TaskSamples, docs: list[DocSample]) -> Iterable[FlagInfo]:
    """Test multiple-choice answers: equal log-probabilities, always the same choice, no better than guessing."""
    if not samples.plan.task.is_multiple_choice:
        return
    scored = [doc for doc in docs if doc.metrics is not None and doc.extracted]
    logprobs = [_choice_logprobs(doc, samples.plan.task.requests_per_choice) for doc in scored]
    n_flat = sum(len(of_doc) > 1 and len(set(of_doc)) == 1 for of_doc in logprobs)
    if n_flat:
        yield FlagInfo(
            "degenerate_logprobs",
            "error",
            f"{n_flat} of {len(scored)} docs have equal log-probabilities for all choices: the backend scored none",
        )
    # With fewer docs, the same choice or an accuracy near guessing is likely by chance
    if len(scored) >= MIN_DOCS_FOR_TESTS:
        yield from _preference_flags(logprobs)
        yield from _chance_flags(scored, chance_score(samples))


def _choice_logprobs(doc: DocSample, requests_per_choice: int) -> list[float]:
    """Return the log-probability of each choice.

    For `acc_mutual_info` each choice is asked a second time, without its context; those answers come last.
    """
    return [answer[0] for answer in doc.extracted[: len(doc.extracted) // requests_per_choice]]


def _preference_flags(logprobs: list[list[float]]) -> Iterable[FlagInfo]:
    """Test whether the choices are ranked at all, and whether it is nearly always the same one."""
    n_docs = len(logprobs)
    n_tied = sum(of_doc.count(max(of_doc)) > 1 for of_doc in logprobs)
    if n_tied > MANY_TIES_RATIO * n_docs:
        yield FlagInfo(
            "tied_choices",
            "warning",
            f"the best choices have equal log-probabilities in {n_tied} of {n_docs} docs: the dtype is too coarse "
            "to rank them (try dtype=float32)",
        )
    chosen = Counter(of_doc.index(max(of_doc)) for of_doc in logprobs)
    choice, n_chosen = chosen.most_common(1)[0]
    if n_chosen > CONSTANT_CHOICE_RATIO * n_docs:
        yield FlagInfo("constant_choice", "warning", f"choice {choice + 1} was taken in {n_chosen} of {n_docs} docs")


def _chance_flags(scored: list[DocSample], chance: float | None) -> Iterable[FlagInfo]:
    """Test whether the accuracy differs from guessing."""
    values = [doc.metrics["acc"] for doc in scored if doc.metrics is not None and "acc" in doc.metrics]
    if chance is None or len(values) < len(scored):
        return
    acc = sum(values) / len(values)
    # The normal approximation of the binomial distribution, under the hypothesis of guessing
    if abs(acc - chance) <= Z_95 * math.sqrt(chance * (1 - chance) / len(values)):
        yield FlagInfo(
            "chance_level", "warning", f"acc {acc:.3f} is within noise of guessing ({chance:.3f}, n = {len(values)})"
        )


def _response_flags(docs: list[DocSample]) -> Iterable[FlagInfo]:
    responses = [row[0].response for doc in docs for row in doc.answers if row[0].response]
    if len(responses) >= MIN_DOCS_FOR_TESTS:
        response, n = Counter(responses).most_common(1)[0]
        if n > SAME_ANSWER_RATIO * len(responses):
            shown = json.dumps(response[:60], ensure_ascii=False)
            yield FlagInfo("same_answer", "warning", f"{n} of {len(responses)} answers are the same text: {shown}")


def _judge_flags(samples: TaskSamples, docs: list[DocSample]) -> Iterable[FlagInfo]:
    judged = [(doc.judgement, doc.metrics or {}) for doc in docs if doc.judgement is not None]
    if errors := [judgement.error for judgement, _ in judged if judgement.error is not None]:
        yield FlagInfo(
            "not_judged",
            "error",
            f"{len(errors)} of {len(judged)} answers have no verdict of the judge (the first: {errors[0]}). The same "
            "command again, or `qwen2eval score RUN --judge …`, asks about these only",
        )
    n_unrated = sum(
        judgement.error is None and not set(samples.judge_metrics) <= set(metrics) for judgement, metrics in judged
    )
    if n_unrated:
        yield FlagInfo(
            "no_rating", "warning", f"{n_unrated} of {len(judged)} verdicts of the judge have no rating: not scored"
        )


def _answers(doc: DocSample) -> Iterator[Answer]:
    for row in doc.answers:
        yield from row


def _is_truncated(doc: DocSample) -> bool:
    return any(request.is_truncated for request in doc.requests)


def _is_unfinished(doc: DocSample) -> bool:
    return _was_cut(doc) or _is_thought_open(doc)


def _was_cut(doc: DocSample) -> bool:
    return any(answer.finish_reason == "length" for answer in _answers(doc))


def _is_thought_open(doc: DocSample) -> bool:
    return any(answer.is_thought_open for answer in _answers(doc))


def _open_thoughts(ended: list[DocSample], n: int) -> str:
    """Say what to do about answers that ended by themselves without the end of their thought."""
    return (
        f"{len(ended)} of {n} answers ended inside a thought, though not at max_gen_toks; they count as wrong. Where "
        "thoughts end with another mark, give it (--model_args think_end_token=MARK, such as </think>); a model that "
        "may answer without a thought needs no think_end_token"
    )


def _is_empty(doc: DocSample) -> bool:
    return any(
        answer.response is not None and not answer.response.strip() and not answer.is_thought_open
        for answer in _answers(doc)
    )


def _has_nan(doc: DocSample) -> bool:
    return any(answer.logprob is not None and math.isnan(answer.logprob) for answer in _answers(doc))


def _request_errors(docs: list[DocSample]) -> list[str]:
    return [answer.error for doc in docs for answer in _answers(doc) if answer.error is not None]


def _scoring_errors(docs: list[DocSample]) -> list[str]:
    return [doc.error for doc in docs if doc.error is not None and doc.error.startswith("the scorer failed")]


def _extraction_failures(samples: TaskSamples) -> dict[str, int]:
    """Return in how many docs each filter that looks for an answer, or for a program, found none."""
    if samples.plan.task.programs is not None:
        return {
            name: sum(any(one.is_no_program for one in doc.executions or ()) for doc in docs)
            for name, docs in samples.by_filter.items()
        }
    return {
        name: sum(NO_EXTRACTION in doc.extracted for doc in docs)
        for name, docs in samples.by_filter.items()
        if samples.plan.task.extracts(name)
    }
