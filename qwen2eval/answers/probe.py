"""Whether stored answers are still those of the model that is asked: a few of them are asked for once more.

A checkpoint is known by its bytes. A server is known by what it says of itself, which may be the same for another
model behind the same name. So before its stored answers are used, up to three of them are asked for again, and all are
refused if one comes back otherwise.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from qwen2eval.answers.store import AnswerKey
from qwen2eval.errors import BackendError
from qwen2eval.planning.planned import PlannedRequest
from qwen2eval.requests import Answer, is_sampled

MOST_PROBES = 3
CHEAP = 12
"""Stored answers among which the probes are picked: those with the shortest prompts and responses."""
COMPARED_CHARS = 200
"""Characters of a response that are compared: other last bits of sums change a long text first at its end."""
ALIKE_CHARS = 12
"""The same for servers that don't repeat themselves: some three tokens."""
LOGPROB_TOLERANCE = 0.05
"""Of log-probabilities, plus a hundredth of them: what half precision and other batches change."""
SHOWN_CHARS = 40

Ask = Callable[[AnswerKey], Answer]


class Probe(NamedTuple):
    """What asking again has shown."""

    refusal: str | None = None
    """Why stored answers can't be used; None: they can."""
    doubt: str | None = None
    """Why that is not sure; None: it is."""


def probe(stored: Mapping[AnswerKey, Answer], requests: Mapping[AnswerKey, PlannedRequest], ask: Ask) -> Probe:
    """Ask for a few stored answers again.

    Args:
        stored: at least one.
        requests: those that `stored` answers, among others.
        ask: gets one answer of the model.

    Raises:
        BackendError: the model answered no such request.
    """
    doubt = None
    for key in pick_probes(stored, requests):
        before, now = stored[key], ask(key)
        if now.error is not None:
            raise BackendError(
                f"A request that was answered before, asked again to check the stored answers, failed: {now.error}. "
                "Run the same command again, or with --fresh, which does not use stored answers"
            )
        if is_same(before, now):
            continue
        again = ask(key)
        if is_same(before, again):
            continue
        repeats_itself = again.error is None and is_same(now, again)
        gen_kwargs = requests[key].gen_kwargs
        if not repeats_itself and gen_kwargs is not None and is_sampled(gen_kwargs):
            doubt = "its sampled answers differ each time they are asked for"
        elif repeats_itself or not _is_alike(before, now):
            return Probe(f"asked again, it says {_shown(now)}, before {_shown(before)}")
    return Probe(doubt=doubt)


def pick_probes(stored: Mapping[AnswerKey, Answer], requests: Mapping[AnswerKey, PlannedRequest]) -> list[AnswerKey]:
    """Return up to three stored answers: the most telling of the cheap ones, the oldest and the newest.

    The last two find a store that a run on another model has filled in part. Sampled answers are picked only where
    there are no others.
    """
    greedy = [key for key in stored if (kwargs := requests[key].gen_kwargs) is None or not is_sampled(kwargs)]
    cheap = sorted(greedy or stored, key=lambda key: _cost(requests[key], stored[key]))
    telling = max(cheap[:CHEAP], key=lambda key: _weight(stored[key]))
    oldest = min(cheap, key=lambda key: stored[key].answered_at or "")
    newest = max(cheap, key=lambda key: stored[key].answered_at or "")
    picked = dict.fromkeys((telling, oldest, newest))
    # Answers of one second have no oldest: then the next cheap ones
    return list(dict.fromkeys((*picked, *cheap)))[:MOST_PROBES]


def is_same(before: Answer, now: Answer) -> bool:
    """Whether two answers to one request come from one model.

    >>> is_same(Answer(logprob=-8.0), Answer(logprob=-8.1)), is_same(Answer(logprob=-8.0), Answer(logprob=-9.0))
    (True, False)
    """
    if before.logprob is not None or now.logprob is not None:
        if before.logprob is None or now.logprob is None:
            return False
        tolerance = LOGPROB_TOLERANCE + 0.01 * abs(before.logprob)
        return before.logprob == now.logprob or abs(before.logprob - now.logprob) <= tolerance
    return _head(before, COMPARED_CHARS) == _head(now, COMPARED_CHARS)


def _is_alike(before: Answer, now: Answer) -> bool:
    """Whether a server that does not repeat itself may have said both."""
    return before.logprob is None and _head(before, ALIKE_CHARS) == _head(now, ALIKE_CHARS)


def _head(answer: Answer, n_chars: int) -> str | None:
    return None if answer.response is None else answer.response[:n_chars]


def _cost(request: PlannedRequest, answer: Answer) -> int:
    return sum(map(len, request.prompt.pieces)) + 4 * len(answer.response or "")


def _weight(answer: Answer) -> float:
    """Return how unlikely it is that another model says the same: unlikely continuations and longer texts tell more."""
    if answer.logprob is not None:
        return min(-answer.logprob, 100.0)
    return min(len(answer.response or ""), COMPARED_CHARS)


def _shown(answer: Answer) -> str:
    if answer.logprob is not None:
        return f"a log-probability of {answer.logprob:.3f}"
    text = answer.response or ""
    return repr(text[:SHOWN_CHARS] + "…" * (len(text) > SHOWN_CHARS))
