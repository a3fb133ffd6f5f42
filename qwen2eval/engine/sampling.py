"""The next token from logits: greedy, or drawn with a generator of the request's own.

The steps and their order are those of transformers' `generate`: repetition penalty, temperature, top-k, top-p, min-p.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class GenerationParams:
    """How one text is continued."""

    max_new_tokens: int
    """Tokens at the most."""
    eos_ids: AbstractSet[int] = frozenset()
    """Tokens that end the text."""
    do_sample: bool = False
    """Draw; otherwise the likeliest token is taken."""
    temperature: float = 1.0
    """What logits are divided by, over 0."""
    top_k: int = 0
    """Draw among so many likeliest tokens; 0: among all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability (0-1)."""
    min_p: float = 0.0
    """Draw among tokens of at least this share (0-1) of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """Logits of tokens seen before are divided by it, or multiplied where negative; also without sampling."""
    seed: int = 0
    """Of this text's own draws."""


def next_tokens(
    logits_BV: Tensor, params: list[GenerationParams], seen: list[Tensor | None], generators: list[torch.Generator]
) -> list[int | None]:
    """Return one token for each row; None where the logits are not finite.

    Args:
        logits_BV: (texts, vocab), float32; changed in place.
        seen: tokens of each text so far, for the repetition penalty; None where it has none.
    """
    for row, tokens in enumerate(seen):
        if tokens is not None:
            _penalise(logits_BV[row], tokens.to(logits_BV.device), params[row].repetition_penalty)
    best_B = logits_BV.max(dim=-1)
    chosen: list[int | None] = list(best_B.indices.tolist())
    for row, (param, is_finite) in enumerate(zip(params, best_B.values.isfinite().tolist(), strict=True)):
        if not is_finite:
            chosen[row] = None
        elif param.do_sample:
            # On the CPU, where the text's generator is
            probabilities_V = filtered(logits_BV[row].cpu(), param).softmax(dim=-1)
            chosen[row] = int(torch.multinomial(probabilities_V, 1, generator=generators[row]))
    return chosen


def filtered(logits_V: Tensor, params: GenerationParams) -> Tensor:
    """Return the logits of one text by temperature, with those that can't be drawn at minus infinity."""
    logits_V = logits_V / params.temperature
    if 0 < params.top_k < len(logits_V):
        logits_V = logits_V.masked_fill(logits_V < logits_V.topk(params.top_k).values[-1], -torch.inf)
    if params.top_p < 1.0:
        ascending_V, order_V = logits_V.sort()
        dropped_V = ascending_V.softmax(dim=-1).cumsum(dim=-1) <= 1 - params.top_p
        # The likeliest token always stays
        dropped_V[-1] = False
        logits_V = logits_V.masked_fill(torch.zeros_like(dropped_V).scatter(0, order_V, dropped_V), -torch.inf)
    if params.min_p > 0.0:
        probabilities_V = logits_V.softmax(dim=-1)
        logits_V = logits_V.masked_fill(probabilities_V < params.min_p * probabilities_V.max(), -torch.inf)
    return logits_V


def _penalise(logits_V: Tensor, tokens: Tensor, penalty: float) -> None:
    values = logits_V[tokens]
    logits_V[tokens] = torch.where(values < 0, values * penalty, values / penalty)
