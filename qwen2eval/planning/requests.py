"""A task's docs -> its planned requests: prompts by lm-eval's own code, counted in the model's tokens.

Prompts are always built as rank 0 of 1 in the canonical order of docs; `--limit` picks docs afterwards. So a prompt
depends on its task, doc and seed alone.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.planning.planned import PlannedRequest, TaskPlan
from qwen2eval.planning.request_key import Tokens, context_tokens, request_digest
from qwen2eval.prompts import PrefixCounter, PromptPool, PromptText, TokenCounter
from qwen2eval.requests import Answer, Doc
from qwen2eval.tasks.lm_eval_task import PromptForm, TaskRequest
from qwen2eval.texts import whole_text
from qwen2eval.thoughts import read_thought

TOKENIZE_DOCS = 256
"""Docs whose prompts are tokenized in one call."""
TOKENIZE_CHARS = 1 << 24
"""Characters of prompts that are tokenized in one call: a few long ones take as much memory as many short ones."""


class _Drafted(NamedTuple):
    """A request whose tokens are not counted yet."""

    doc_id: int
    request: TaskRequest
    prompt: PromptText


def prompt_form(config: RunConfig, spec: ModelSpec) -> PromptForm:
    """Return what a run decides of every prompt."""
    return PromptForm(
        system_instruction=config.system_instruction,
        apply_chat_template=bool(config.apply_chat_template),
        fewshot_as_multiturn=config.fewshot_as_multiturn,
        chat_template=spec.chat_template if config.apply_chat_template else None,
    )


def pick_docs(n_docs: int, *, limit: float | None, clusters: Sequence[object] | None = None) -> list[int]:
    """Return the doc ids of a run, ascending: the first `limit`, or, with clusters, spread over them evenly.

    >>> pick_docs(6, limit=2), pick_docs(6, limit=0.5)
    ([0, 1], [0, 1, 2])
    >>> pick_docs(6, limit=3, clusters=["a", "a", "a", "b", "b", "c"])
    [0, 3, 5]
    """
    if limit is None:
        return list(range(n_docs))
    n_picked = min(n_docs, math.ceil(n_docs * limit) if limit < 1 else int(limit))
    if clusters is None:
        return list(range(n_picked))
    seen: Counter[object] = Counter()
    turns = []
    for doc_id, cluster in enumerate(clusters):
        turns.append((seen[cluster], doc_id))
        seen[cluster] += 1
    return sorted(doc_id for _, doc_id in sorted(turns)[:n_picked])


def add_requests(planned: TaskPlan, all_docs: list[Doc], *, form: PromptForm, spec: ModelSpec) -> None:
    """Build the requests of the picked docs and add them to the plan, in batches that are tokenized together."""
    pool, prefixes = PromptPool(), PrefixCounter()
    is_rolling = planned.task.output_type == "loglikelihood_rolling"
    counter = (
        None
        if spec.tokenizer is None
        else TokenCounter(spec.tokenizer, add_bos_token=spec.add_bos_token, is_whole_text=is_rolling)
    )
    batch, n_chars = list[_Drafted](), 0
    for doc_id, request in _task_requests(planned, all_docs, form):
        batch.append(_Drafted(doc_id, request, pool.add(request.context)))
        # The choices of one doc share their prompt object
        is_repeated = len(batch) > 1 and batch[-2].prompt is batch[-1].prompt
        n_chars += 0 if is_repeated else sum(map(len, batch[-1].prompt.pieces))
        if len(batch) >= 4 * TOKENIZE_DOCS or n_chars >= TOKENIZE_CHARS:
            _finish(batch, planned, counter, prefixes, spec)
            batch, n_chars = [], 0
    _finish(batch, planned, counter, prefixes, spec)
    planned.shared_prefix_ratio = prefixes.shared_ratio


def next_turn(
    planned: TaskPlan, answers: Mapping[tuple[bytes, int], Answer], *, form: PromptForm, spec: ModelSpec
) -> list[PlannedRequest]:
    """Return the requests of each conversation's next turn; none: all conversations are over.

    A conversation with a turn that was not answered is over, too: its doc is not scored.

    Args:
        planned: a task with turns; all requests of its turns so far.
        answers: by (digest, repeat), to all of these.
    """
    turns: dict[int, list[PlannedRequest]] = defaultdict(list)
    for request in planned.requests:
        turns[request.doc_id].append(request)
    n_turns = max(map(len, turns.values()))
    pool, counter = (
        PromptPool(),
        None if spec.tokenizer is None else TokenCounter(spec.tokenizer, add_bos_token=spec.add_bos_token),
    )
    made = []
    for doc_id, doc in zip(planned.doc_ids, planned.docs, strict=True):
        asked = turns[doc_id]
        # What a model thought is no part of what it said
        read = [
            read_thought(answers[one.digest, 0], prompt=str(one.prompt), thinking=planned.thinking) for one in asked
        ]
        responses = [answer.response for answer in read]
        said = [response for response in responses if response is not None]
        if len(asked) < n_turns or len(said) < n_turns:
            continue
        text = planned.task.next_prompt(doc, str(asked[0].prompt), said, form)
        if text is not None:
            turn = TaskRequest(n_turns, "generate_until", whole_text(text), gen_kwargs=asked[0].gen_kwargs)
            drafted = _Drafted(doc_id, turn, pool.add(turn.context))
            context = context_tokens(drafted.prompt, counter)
            made.append(_planned_request(drafted, planned, context, counter, spec))
    return made


def _task_requests(planned: TaskPlan, all_docs: list[Doc], form: PromptForm) -> Iterator[tuple[int, TaskRequest]]:
    """Yield the picked docs' requests, built by lm-eval in canonical order.

    Few-shot examples come from one running random stream, so the docs before a picked one are built as well, unless the
    task's sampler draws nothing.
    """
    task, picked = planned.task, set(planned.doc_ids)
    draws = task.draws_at_random
    for doc_id in range(max(picked) + 1):
        if doc_id not in picked and not draws:
            continue
        prompt = task.prompt(all_docs[doc_id], form)
        if doc_id in picked:
            for request in task.requests(all_docs[doc_id], doc_id, prompt, form):
                yield doc_id, _whole(request)


def _whole(request: TaskRequest) -> TaskRequest:
    """Return a request that tokenizers take: a template may hold what the docs no longer do."""
    context, continuation = whole_text(request.context), whole_text(request.continuation)
    if context is request.context and continuation is request.continuation:
        return request
    return replace(request, context=context, continuation=continuation)


def _finish(
    batch: list[_Drafted],
    planned: TaskPlan,
    counter: TokenCounter | None,
    prefixes: PrefixCounter,
    spec: ModelSpec,
) -> None:
    """Count tokens, make digests and share generation arguments, and add the batch to the task."""
    if counter is not None:
        counter.prepare(drafted.prompt for drafted in batch)
    last: PromptText | None = None
    context, is_whole = Tokens(b"", None), False
    for drafted in batch:
        if drafted.prompt is not last:
            last = drafted.prompt
            context = context_tokens(last, counter)
            # Characters count instead of tokens where a piece's tokens are not known by themselves
            is_in_pieces = counter is not None and counter.is_in_pieces(last)
            prefixes.add(last, list(map(len, counter.pieces(last) if counter and is_in_pieces else last.pieces)))
            is_whole |= counter is not None and not is_in_pieces
        planned.requests.append(_planned_request(drafted, planned, context, counter, spec))
    # A novel for each doc: no piece of it comes again
    if counter is not None and is_whole:
        counter.forget_prompts()


def _planned_request(
    drafted: _Drafted, planned: TaskPlan, context: Tokens, counter: TokenCounter | None, spec: ModelSpec
) -> PlannedRequest:
    """Return a request with its tokens counted; equal generation arguments of a task are one object."""
    request, n_continuation_tokens = drafted.request, 0
    continuation = request.continuation.encode()
    if counter is not None and request.continuation:
        ids = counter.continuation(request.continuation)
        n_continuation_tokens, continuation = len(ids), ids.tobytes()
    gen_kwargs = request.gen_kwargs
    if gen_kwargs is not None and planned.requests and planned.requests[0].gen_kwargs == gen_kwargs:
        gen_kwargs = planned.requests[0].gen_kwargs
    return PlannedRequest(
        doc_id=drafted.doc_id,
        index=request.index,
        kind=request.kind,
        prompt=drafted.prompt,
        continuation=request.continuation,
        gen_kwargs=gen_kwargs,
        digest=request_digest(request.kind, context, continuation=continuation, gen_kwargs=gen_kwargs),
        n_context_tokens=context.n_tokens,
        n_continuation_tokens=n_continuation_tokens,
        is_truncated=_is_truncated(request, context.n_tokens, n_continuation_tokens, spec),
    )


def _is_truncated(request: TaskRequest, n_context: int | None, n_continuation: int, spec: ModelSpec) -> bool:
    """Return whether the prompt has to be cut; a rolling log-likelihood is read in windows and never is."""
    if spec.max_length is None or n_context is None or request.kind == "loglikelihood_rolling":
        return False
    if request.kind == "generate_until":
        return n_context > spec.max_length - spec.answer_tokens(request.gen_kwargs)
    # The last token of a continuation is predicted, never read
    return n_context + n_continuation > spec.max_length + 1
