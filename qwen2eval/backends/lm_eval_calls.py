"""Requests to an lm-eval model and its answers back: what the backends that use lm-eval's classes share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm_eval.api.instance import Instance
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from qwen2eval.requests import Answer, Request

if TYPE_CHECKING:
    from lm_eval.api.model import TemplateLM


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


def _instance(kind: str, arguments: tuple[object, ...]) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=(None, 0, 1))
