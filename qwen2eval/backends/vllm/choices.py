"""Log-probabilities from vLLM without computing a shared context twice.

vLLM reads no prefix cache where log-probabilities of the prompt are asked, so lm-eval's class pays the context once for
each choice. Here a context is asked once for its next token, with the log-probabilities of the first tokens of all
choices: choices of one token, as in MMLU, are answered by that. Longer ones follow as context + choice, reading the
context from the cache. vLLM then has no log-probabilities for positions that came from the cache; those wanted all the
same (two choices that begin alike, over the end of a cache block) are asked one by one.

Tokens and truncation are lm-eval's, log-probabilities are over the whole vocabulary and before any sampling argument.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, islice
from typing import Any, NamedTuple

from qwen2eval.backends import pairs
from qwen2eval.backends.lm_eval_calls import rolling_tokens
from qwen2eval.backends.vllm.engine import Answered, Ask
from qwen2eval.requests import Answer, Request

MOST_TOKENS = 128
"""Tokens whose log-probability one prompt may ask (vLLM's MAX_LOGPROB_TOKEN_IDS)."""


class Score:
    """The log-probability of one request, token by token as they come."""

    def __init__(self, index: int, n_tokens: int, *, is_rolling: bool = False) -> None:
        self.index = index
        self._logprobs = [0.0] * n_tokens
        self._is_greedy = None if is_rolling else True
        self._n_missing = n_tokens

    def put(self, place: int, logprob: float, *, is_top: bool) -> Iterator[Answered]:
        """Note the token at `place`, and yield the answer with the last one."""
        self._logprobs[place] = logprob
        self._is_greedy = self._is_greedy and is_top
        self._n_missing -= 1
        yield from self.answer_if_complete()

    def answer_if_complete(self) -> Iterator[Answered]:
        """Yield the answer unless a token is missing."""
        if not self._n_missing:
            yield self.index, Answer(logprob=float(sum(self._logprobs)), is_greedy=self._is_greedy)


class Wanted(NamedTuple):
    """A token whose log-probability after some prompt is a part of a score, and what to ask after it."""

    token: int
    score: Score
    place: int
    then: Ask | None = None


def choice_asks(lm: Any, requests: Sequence[Request]) -> Iterator[Ask | Answered]:
    """Yield what to ask for "loglikelihood" requests; those of equal context should come one after another.

    Args:
        lm: lm-eval's `VLLM`.
    """
    for _, group in groupby(enumerate(requests), key=lambda pair: pair[1].context):
        by_context: dict[tuple[int, ...], list[Wanted]] = defaultdict(list)
        for index, request in group:
            context, continuation = fit(*encode_pair(lm, request.context, request.continuation), lm.max_length - 1)
            score = Score(index, len(continuation))
            if not context:
                room = f"the {lm.max_length} tokens of the model's context"
                yield index, Answer(error=f"a continuation of {len(continuation)} tokens does not fit {room}")
            elif not continuation:
                yield from score.answer_if_complete()
            else:
                then = None
                if len(continuation) > 1:
                    then = tail_ask(context + continuation, len(continuation) - 1, score, first_place=1)
                by_context[tuple(context)].append(Wanted(continuation[0], score, 0, then))
        for tokens, wanted in by_context.items():
            yield from next_token_asks(list(tokens), wanted)


def rolling_asks(lm: Any, requests: Sequence[Request]) -> Iterator[Ask | Answered]:
    """Yield what to ask for "loglikelihood_rolling" requests: lm-eval's windows, which share nothing."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    for index, request in enumerate(requests):
        tokens = rolling_tokens(lm, request.context)
        windows = get_rolling_token_windows(
            token_list=tokens, prefix_token=lm.prefix_token_id, max_seq_len=lm.max_length - 2, context_len=1
        )
        score, place = Score(index, len(tokens), is_rolling=True), 0
        yield from score.answer_if_complete()
        for context, continuation in map(make_disjoint_window, windows):
            prompt = context + continuation
            yield tail_ask(prompt, len(continuation), score, first_place=place, reads_cache=False)
            place += len(continuation)


def encode_pair(lm: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Return the tokens of both, as lm-eval's `TemplateLM.loglikelihood` does."""
    if context:
        return pairs.encode_pair(lm, context, continuation)
    tokens = lm.tok_encode(continuation, add_special_tokens=False)
    if tokens[:1] == [lm.prefix_token_id]:
        return tokens[:1], tokens[1:]
    return [lm.prefix_token_id], tokens


def fit(context: list[int], continuation: list[int], length: int) -> tuple[list[int], list[int]]:
    """Drop the start of a context that doesn't fit `length` tokens with its continuation.

    >>> fit([1, 2, 3], [4, 5], 4)
    ([2, 3], [4, 5])
    """
    return context[max(0, len(context) + len(continuation) - length) :], continuation


def next_token_asks(prompt: list[int], wanted: Iterable[Wanted]) -> Iterator[Ask]:
    """Ask for the log-probabilities of tokens right after `prompt`."""
    from vllm import SamplingParams

    # Choices may begin with the same token: it is asked for once
    by_token: dict[int, list[Wanted]] = defaultdict(list)
    for want in wanted:
        by_token[want.token].append(want)
    rest = iter(by_token.items())
    while part := dict(islice(rest, MOST_TOKENS)):
        params = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=list(part), detokenize=False)
        indices = tuple(want.score.index for wants in part.values() for want in wants)
        yield Ask(prompt, params, partial(_take_next_token, part), indices)


def _take_next_token(part: Mapping[int, Sequence[Wanted]], output: Any) -> Iterator[Ask | Answered]:
    """Hand the log-probabilities after one prompt to the scores that want them."""
    (generated,) = output.outputs
    row = {token: entry.logprob for token, entry in generated.logprobs[0].items()}
    top = row[generated.token_ids[0]]
    for token, wants in part.items():
        for want in wants:
            # equal to the top one counts, as in lm-eval
            yield from want.score.put(want.place, row[token], is_top=row[token] >= top)
            if want.then:
                yield want.then


def tail_ask(prompt: list[int], n_tail: int, score: Score, *, first_place: int, reads_cache: bool = True) -> Ask:
    """Ask for the log-probabilities of the last `n_tail` tokens of `prompt`, each after those before it."""
    from vllm import SamplingParams

    params = SamplingParams(
        temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False, skip_reading_prefix_cache=not reads_cache
    )
    return Ask(prompt, params, partial(_take_tail, prompt, n_tail, score, first_place), (score.index,))


def _take_tail(prompt: list[int], n_tail: int, score: Score, first_place: int, output: Any) -> Iterator[Ask | Answered]:
    """Hand the log-probabilities of a prompt's last tokens to their score, and ask again for those it lacks."""
    start = len(prompt) - n_tail
    # Only the end of this list is sure: of cached positions vLLM gives garbage (model runner V1) or nothing (V2)
    end = list((output.prompt_logprobs or [])[-n_tail:])
    rows = [None] * (n_tail - len(end)) + end
    for i, (token, row) in enumerate(zip(prompt[start:], rows, strict=True)):
        if start + i <= (output.num_cached_tokens or 0) or not row or token not in row:
            yield from next_token_asks(prompt[: start + i], [Wanted(token, score, first_place + i)])
        else:
            top = max(entry.logprob for entry in row.values())
            yield from score.put(first_place + i, row[token].logprob, is_top=row[token].logprob >= top)
