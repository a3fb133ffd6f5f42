"""Requests to an lm-eval model and its answers back: what the backends that use lm-eval's classes share."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from lm_eval.api.instance import Instance
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from qwen2eval.requests import Answer, FinishReason, Request

if TYPE_CHECKING:
    from lm_eval.api.model import TemplateLM


class EndingRecorder:
    """Takes the place of lm-eval's cache hook while it generates, and notes how each generation ended.

    The hook is called once for each finished generation, in the order of the outputs; the model's class gives the
    recorder beforehand how these ended.
    """

    def __init__(self) -> None:
        self._pending: deque[FinishReason] = deque()
        self._by_context: dict[str, deque[FinishReason]] = defaultdict(deque)

    def expect(self, endings: Iterable[FinishReason]) -> None:
        """Take the endings of the outputs that lm-eval will now report, in order."""
        self._pending.extend(endings)

    def add_partial(self, _method: str, args: tuple[str, object], _result: str) -> None:
        """Note one finished generation (lm-eval's name for it)."""
        self._by_context[args[0]].append(self._pending.popleft())

    def take(self, context: str) -> FinishReason:
        """Return the ending of the next answer to `context`."""
        return self._by_context[context].popleft()


def score(lm: "TemplateLM", batch: Sequence[Request]) -> list[Answer]:
    """Return log-probabilities, plain or rolling."""
    kind = batch[0].kind
    if kind == "loglikelihood_rolling":
        return [Answer(logprob=_rolling(lm, request.context)) for request in batch]
    instances = [_instance(kind, (r.context, r.continuation)) for r in batch]
    results = lm.loglikelihood(instances, disable_tqdm=True)
    return [Answer(logprob=logprob, is_greedy=is_greedy) for logprob, is_greedy in results]


def _rolling(lm: "TemplateLM", text: str) -> float:
    """Return the log-probability of a whole text, in lm-eval's windows."""
    windows = get_rolling_token_windows(
        token_list=rolling_tokens(lm, text), prefix_token=lm.prefix_token_id, max_seq_len=lm.max_length, context_len=1
    )
    asked = [(None, *make_disjoint_window(window)) for window in windows]
    return float(sum(logprob for logprob, _ in lm._loglikelihood_tokens(asked, disable_tqdm=True)))


def rolling_tokens(lm: "TemplateLM", text: str) -> list[int]:
    """Return the tokens of a text that is scored as a whole, without any that the tokenizer puts around it.

    The first window has lm-eval's prefix token, BOS where there is one, before the text. lm-eval's own encoding would
    have it a second time, as a part of the text.
    """
    tokens: list[int] = lm.tok_encode(text, add_special_tokens=False)
    # A text may spell it out
    return tokens[1:] if tokens[:1] == [lm.prefix_token_id] else tokens


def generate(
    lm: "TemplateLM", batch: Sequence[Request], *, gen_kwargs: Callable[[Request], dict[str, object]] | None = None
) -> list[Answer]:
    """Return generated texts with how they ended.

    Args:
        lm: an lm-eval model whose `_model_generate` reports to an `EndingRecorder` in its cache hook how outputs ended.
        gen_kwargs: the arguments of a request where they aren't the task's own.
    """
    instances = [
        _instance("generate_until", (r.context, gen_kwargs(r) if gen_kwargs else dict(r.gen_kwargs or {})))
        for r in batch
    ]
    recorder, before = EndingRecorder(), lm.cache_hook
    lm.set_cache_hook(recorder)
    try:
        texts = lm.generate_until(instances, disable_tqdm=True)
    finally:
        lm.set_cache_hook(before)
    return [
        Answer(
            response=text,
            finish_reason=recorder.take(request.context),
            n_response_tokens=len(lm.tokenizer.encode(text, add_special_tokens=False)),
        )
        for request, text in zip(batch, texts, strict=True)
    ]


def _instance(kind: str, arguments: tuple[object, ...]) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=(None, 0, 1))
