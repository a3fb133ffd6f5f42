"""Requests to a model and its answers: plain values that every backend and the store share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Doc = dict[str, Any]
"""One benchmark item, as its data holds it: columns of any type, by name."""
GenKwargs = Mapping[str, Any]
"""lm-eval's generation arguments: `until`, `max_gen_toks`, `do_sample`, `temperature` …"""
RequestKind = Literal["loglikelihood", "loglikelihood_rolling", "generate_until"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the model, as lm-eval words it."""

    kind: RequestKind
    context: str
    """The prompt; for rolling log-likelihood the whole text."""
    continuation: str = ""
    """The text whose log-probability is asked; empty unless `kind` is "loglikelihood"."""
    gen_kwargs: GenKwargs | None = None
    """Only for "generate_until"."""
    seed: int = 0
    """Seed of a sampled generation; greedy ones ignore it."""
    n_context_tokens: int | None = None
    """Tokens of `context`; None where the tokenizer is not known."""
    n_continuation_tokens: int = 0

    @property
    def n_tokens(self) -> int | None:
        """Tokens of context and continuation together."""
        return None if self.n_context_tokens is None else self.n_context_tokens + self.n_continuation_tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """What a backend says to one request."""

    logprob: float | None = None
    """Natural log, summed over the continuation's tokens; NaN is kept as NaN and counts as not scored."""
    is_greedy: bool | None = None
    """Whether greedy decoding would have produced the continuation."""
    response: str | None = None
    """Generated text, cut at the first stop string; with its thought, until `thoughts.read_thought` takes it off."""
    finish_reason: FinishReason | None = None
    """"length": cut off at `max_gen_toks`; None if the backend does not report it."""
    n_response_tokens: int | None = None
    """Of all that was generated, the thought too."""
    error: str | None = None
    """Why there is no answer. Such an answer is never stored and leaves its doc unscored."""
    thought: str | None = None
    """What the model wrote before its answer, with the marks; None: there is none, or it is still in `response`."""
    is_thought_open: bool = False
    """Whether the text ended inside the thought: the response is empty."""
    n_thought_tokens: int | None = None
    """None: there is no thought, or no tokenizer is known."""
    answered_at: str | None = field(default=None, compare=False)
    """When the store got it, ISO 8601 in UTC; None: it does not come from the store."""


def is_sampled(gen_kwargs: GenKwargs) -> bool:
    """Whether tokens are drawn: as `do_sample` says, or, where it is not given, with a temperature over 0."""
    if gen_kwargs.get("do_sample") is not None:
        return bool(gen_kwargs["do_sample"])
    return float(gen_kwargs.get("temperature") or 0.0) > 0.0
