"""Plan -> answers: the store answers what it has, the backend answers the rest, and each answer is committed at once.

Requests go to the backend in windows that depend on the plan alone, not on what is answered already; so a resumed run
asks the same batches as the interrupted one would have.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from qwen2eval.answers.probe import probe
from qwen2eval.answers.store import AnswerKey, ResponseStore
from qwen2eval.backends.base import Backend
from qwen2eval.errors import BackendError
from qwen2eval.planning.planned import PlannedRequest, TaskPlan
from qwen2eval.progress import Progress
from qwen2eval.requests import Answer, Request, RequestKind, is_sampled
from qwen2eval.texts import whole_texts


@dataclass
class TaskAnswers:
    """What a task's requests got."""

    by_request: dict[tuple[bytes, int], Answer] = field(default_factory=dict)
    """By (digest, repeat)."""
    n_from_store: int = 0
    n_answered: int = 0
    """Answered by the backend in this run."""
    n_failed: int = 0
    model_id: int | None = None
    """Under which number of the store they are; None: not decided yet."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know of stored answers, such as why they were refused."""


NextRequests = Callable[[Mapping[tuple[bytes, int], Answer]], list[PlannedRequest]]
"""Requests that depend on the answers so far, by (digest, repeat); none: there are no more."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Who is asked, and where answers are kept."""

    backend: Backend
    store: ResponseStore
    identity: Mapping[str, object]
    """By which the store knows the model."""
    seed: int
    """The run's seed of sampled generations."""
    progress: Progress
    is_fresh: bool = False
    """Whether stored answers are asked for again, and replaced."""


def answer_task(planned: TaskPlan, asking: Asking, *, next_requests: NextRequests | None = None) -> TaskAnswers:
    """Answer every request of a task.

    Args:
        planned: the task; requests of later turns are added to it.
        asking: who is asked.
        next_requests: of the next turn, for tasks with turns; asked until it returns none.

    Raises:
        BackendError: the backend failed; the answers before that are in the store.
    """
    result = TaskAnswers()
    requests = planned.requests
    while requests:
        _answer(planned, requests, asking, result)
        requests = next_requests(result.by_request) if next_requests is not None else []
        planned.requests += requests
    return result


def _answer(planned: TaskPlan, requests: Sequence[PlannedRequest], asking: Asking, result: TaskAnswers) -> None:
    """Answer some of a task's requests, kind by kind, and add the answers to `result`."""
    backend, store = asking.backend, asking.store
    for kind in dict.fromkeys(request.kind for request in requests):
        keys = _unique_keys(requests, kind, asking.seed, n_repeats=planned.repeats)
        with asking.progress.task(planned.name, kind, total=len(keys)) as bar:
            found = _stored(planned.name, keys, kind, asking, result)
            stored = {(key.digest, key.repeat): answer for key, answer in found.items()}
            result.by_request |= stored
            result.n_from_store += len(stored)
            bar.advance(len(stored), from_store=True)
            for window in _windows(keys, backend.window_requests):
                pending = [(k.digest, k.repeat) not in result.by_request for k in window]
                for batch in _ask(window, pending, backend, kind):
                    model_id = _model_id(asking, result)
                    # NaN and failures are not kept: the next run asks again
                    kept = [(k, a) for k, a in batch if _is_kept(a)]
                    store.add(model_id, kind, kept, replaces=asking.is_fresh)
                    for key, answer in batch:
                        result.by_request[(key.digest, key.repeat)] = answer
                        result.n_failed += answer.error is not None
                        result.n_answered += answer.error is None
                    bar.advance(len(batch))


def _stored(
    name: str, keys: dict[AnswerKey, PlannedRequest], kind: RequestKind, asking: Asking, result: TaskAnswers
) -> dict[AnswerKey, Answer]:
    """Return the stored answers that this model gave, and decide under which number its new ones are kept."""
    if asking.is_fresh:
        return {}
    store, refusal, n_refused = asking.store, None, 0
    for model_id in store.editions(asking.identity) if result.model_id is None else [result.model_id]:
        found = dict(store.find(model_id, keys))
        if not found:
            continue
        if asking.backend.may_change and result.model_id is None:
            shown = probe(found, keys, lambda key: _ask_one(key, keys[key], asking.backend, kind))
            if shown.refusal is not None:
                refusal, n_refused = refusal or shown.refusal, n_refused + len(found)
                continue
            if shown.doubt is not None:
                result.notes.append(
                    f"{name}: {len(found):,} answers are from the store, and it can't be checked that the server still "
                    f"has the same model: {shown.doubt}. Use --fresh if it may have changed"
                )
        result.model_id = model_id
        return found
    if refusal is not None:
        result.model_id = store.new_edition(asking.identity)
        result.notes.append(
            f"{name}: {n_refused:,} stored answers were not used, because the server has another model now: {refusal}. "
            "All requests were asked again; the stored answers are kept, and used when that model is back"
        )
    return {}


def _model_id(asking: Asking, result: TaskAnswers) -> int:
    """Return the number under which a task's answers are kept: the newest model's, if none is known yet."""
    if result.model_id is None:
        result.model_id = asking.store.editions(asking.identity)[0]
    return result.model_id


def _ask_one(key: AnswerKey, request: PlannedRequest, backend: Backend, kind: RequestKind) -> Answer:
    (((_, answer),),) = _ask({key: request}, [True], backend, kind)
    return answer


def _unique_keys(
    requests: Sequence[PlannedRequest], kind: RequestKind, seed: int, *, n_repeats: int
) -> dict[AnswerKey, PlannedRequest]:
    """Return the distinct requests of one kind, longest docs first; equal requests of two docs are asked once."""
    lengths: dict[int, int] = {}
    for request in requests:
        lengths[request.doc_id] = max(lengths.get(request.doc_id, 0), _length(request))
    ordered = sorted((r for r in requests if r.kind == kind), key=lambda r: (-lengths[r.doc_id], r.doc_id, r.index))
    keys: dict[AnswerKey, PlannedRequest] = {}
    for request in ordered:
        # A greedy answer does not depend on the seed, so runs with other seeds share it in the store
        own_seed = seed if request.gen_kwargs is not None and is_sampled(request.gen_kwargs) else 0
        for repeat in range(n_repeats):
            keys.setdefault(AnswerKey(request.digest, own_seed, repeat), request)
    return keys


def _windows(keys: dict[AnswerKey, PlannedRequest], size: int | None) -> Iterator[dict[AnswerKey, PlannedRequest]]:
    """Cut the requests into windows whose prompts are spelled out in memory; the choices of one doc stay together."""
    window: dict[AnswerKey, PlannedRequest] = {}
    for key, request in keys.items():
        if size is not None and len(window) >= size and request.index == 0 and key.repeat == 0:
            yield window
            window = {}
        window[key] = request
    if window:
        yield window


def _ask(
    window: dict[AnswerKey, PlannedRequest], pending: list[bool], backend: Backend, kind: RequestKind
) -> Iterator[list[tuple[AnswerKey, Answer]]]:
    """Yield the answers to those requests of a window that are pending."""
    if not any(pending):
        return
    keys, wanted = list(window), [i for i, is_pending in enumerate(pending) if is_pending]
    # The choices of a doc share one prompt object, whose text is made once for all of them
    contexts: dict[int, str] = {}
    requests = [
        Request(
            kind=kind,
            context=contexts.setdefault(id(r.prompt), str(r.prompt)),
            continuation=r.continuation,
            gen_kwargs=r.gen_kwargs,
            seed=_request_seed(key),
            n_context_tokens=r.n_context_tokens,
            n_continuation_tokens=r.n_continuation_tokens,
        )
        for key, r in window.items()
    ]
    n_answered = 0
    for batch in backend.answer_some(requests, wanted):
        n_answered += len(batch)
        yield [(keys[i], _whole(answer)) for i, answer in batch]
    if n_answered != len(wanted):
        raise BackendError(
            f"Backend {backend.name!r} answered {n_answered} of {len(wanted)} requests. This is a bug in the backend: "
            "please report it"
        )


def _request_seed(key: AnswerKey) -> int:
    """Return a separate seed for each sampled request and repeat."""
    text = key.digest + key.seed.to_bytes(8, "big", signed=True) + key.repeat.to_bytes(4, "big")
    # 31 bits, because some engines take a signed 32-bit seed
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") >> 1


def _whole(answer: Answer) -> Answer:
    """Return an answer that the store, files and tokenizers take."""
    response, error = whole_texts(answer.response), whole_texts(answer.error)
    if response is answer.response and error is answer.error:
        return answer
    return replace(answer, response=response, error=error)


def _is_kept(answer: Answer) -> bool:
    return answer.error is None and not (answer.logprob is not None and math.isnan(answer.logprob))


def _length(request: PlannedRequest) -> int:
    return 0 if request.n_context_tokens is None else request.n_context_tokens + request.n_continuation_tokens
