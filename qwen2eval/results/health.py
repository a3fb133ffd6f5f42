"""Signs that a score should not be believed: cut prompts and answers, failed extraction, chance level, one choice.

Counts are facts and always there; a flag is raised only where a count or a test says that a reader must know.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qwen2eval.results.sample import NO_EXTRACTION, DocSample, TaskSamples
from qwen2eval.run_info import FlagInfo, HealthInfo

if TYPE_CHECKING:
    from qwen2eval.sandbox import Execution

MIN_DOCS_FOR_TESTS = 20
CONSTANT_CHOICE_RATIO = 0.9
SAME_ANSWER_RATIO = 0.5
MANY_FAILURES_RATIO = 0.1
MANY_TIES_RATIO = 0.03
Z_95 = 1.96


def check_health(samples: TaskSamples) -> HealthInfo:
    """Count and test one task's samples."""
    docs = next(iter(samples.by_filter.values()), [])
    executions = [one for doc in docs for one in doc.executions or ()]
    health = HealthInfo(
        n_docs=len(docs),
        n_unscored=sum(doc.metrics is None for doc in docs),
        n_truncated_prompts=sum(any(r.is_truncated for r in doc.requests) for doc in docs),
        n_unfinished=sum(_any_answer(doc, finish_reason="length") for doc in docs),
        n_empty=sum(_is_empty(doc) for doc in docs),
        n_nan=sum(_has_nan(doc) for doc in docs),
        n_failed_requests=sum(a.error is not None for doc in docs for row in doc.answers for a in row),
        n_scoring_errors=sum((doc.error or "").startswith("the scorer failed") for doc in docs),
        n_extraction_failures={
            name: sum(NO_EXTRACTION in doc.extracted for doc in of_filter)
            for name, of_filter in samples.by_filter.items()
            if samples.plan.task.extracts(name)
        },
        verdicts=dict(Counter(one.verdict for one in executions).most_common()),
        n_same_process=sum(one.separated is False for one in executions),
        flags=(),
    )
    flags = (
        *_program_flags(executions),
        *_count_flags(health, docs),
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
        first = next(a.error for doc in docs for row in doc.answers for a in row if a.error)
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
        first = next(doc.error for doc in docs if doc.error and doc.error.startswith("the scorer"))
        yield FlagInfo("scoring_error", "error", f"{health.n_scoring_errors} of {n} docs could not be scored: {first}")
    if health.n_truncated_prompts:
        yield FlagInfo(
            "truncated_prompts", "warning", f"{health.n_truncated_prompts} of {n} prompts were cut to fit the model"
        )
    if health.n_unfinished > MANY_FAILURES_RATIO * n:
        yield FlagInfo(
            "unfinished", "warning", f"{health.n_unfinished} of {n} answers were cut off: raise max_gen_toks"
        )
    if health.n_empty > MANY_FAILURES_RATIO * n:
        yield FlagInfo("empty", "warning", f"{health.n_empty} of {n} answers are empty")
    for name, failures in health.n_extraction_failures.items():
        if failures > MANY_FAILURES_RATIO * n:
            yield FlagInfo("extraction", "warning", f"{name} found no answer in {failures} of {n} responses")


def _choice_flags(samples: TaskSamples, docs: list[DocSample]) -> Iterable[FlagInfo]:
    """Test multiple-choice answers: equal log-probabilities, always the same choice, no better than guessing."""
    if not samples.plan.task.is_multiple_choice:
        return
    scored = [doc for doc in docs if doc.metrics is not None and doc.extracted]
    choices = [
        [v[0] for v in doc.extracted[: len(doc.extracted) // samples.plan.task.requests_per_choice]] for doc in scored
    ]
    flat = sum(len(set(logprobs)) == 1 and len(logprobs) > 1 for logprobs in choices)
    if flat:
        yield FlagInfo(
            "degenerate_logprobs",
            "error",
            f"{flat} of {len(scored)} docs have equal log-probabilities for all choices: the backend scored none",
        )
    if len(scored) < MIN_DOCS_FOR_TESTS:
        return
    tied = sum(logprobs.count(max(logprobs)) > 1 for logprobs in choices)
    if tied > MANY_TIES_RATIO * len(scored):
        yield FlagInfo(
            "tied_choices",
            "warning",
            f"the best choices have equal log-probabilities in {tied} of {len(scored)} docs: the dtype is too coarse "
            "to rank them (try dtype=float32)",
        )
    chosen = Counter(max(range(len(lp)), key=lp.__getitem__) for lp in choices)
    choice, n_chosen = chosen.most_common(1)[0]
    if n_chosen > CONSTANT_CHOICE_RATIO * len(scored):
        yield FlagInfo(
            "constant_choice", "warning", f"choice {choice + 1} was taken in {n_chosen} of {len(scored)} docs"
        )
    chance = chance_score(samples)
    values = [doc.metrics["acc"] for doc in scored if doc.metrics is not None and "acc" in doc.metrics]
    if chance is not None and len(values) == len(scored):
        acc = sum(values) / len(values)
        if abs(acc - chance) <= Z_95 * math.sqrt(chance * (1 - chance) / len(values)):
            yield FlagInfo(
                "chance_level",
                "warning",
                f"acc {acc:.3f} is within noise of guessing ({chance:.3f}, n = {len(values)})",
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


def _any_answer(doc: DocSample, *, finish_reason: str) -> bool:
    return any(answer.finish_reason == finish_reason for row in doc.answers for answer in row)


def _is_empty(doc: DocSample) -> bool:
    return any(a.response is not None and not a.response.strip() for row in doc.answers for a in row)


def _has_nan(doc: DocSample) -> bool:
    return any(a.logprob is not None and math.isnan(a.logprob) for row in doc.answers for a in row)
