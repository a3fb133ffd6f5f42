"""Grouped-query attention: the projections of a layer, and attention to one part of the keys.

Which tokens belong to one text, and what is kept of them, is not known to a layer: it hands queries, keys and values
to an `Attend`. `row_attention.py` has the one for rows of equal length, `qwen2eval/engine` those for many texts that
share prefixes. Both attend in parts, each either a rectangle (all queries see all keys) or a causal square, and merge
the parts by their log-sum-exp, so no matrix of length x length ever exists.

Shape suffixes: B batch, H heads, T queries, S keys, D values of a head, P parts.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen2eval.model.config import Qwen2Config

_QUERY_BLOCK = 256
"""Queries whose scores exist at once where there is no fused kernel that returns the log-sum-exp."""


class Attend(Protocol):
    """Lets tokens look at each other."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what each token gathers, shaped as q.

        Args:
            layer: counted from 0; which of the caches.
            q: queries, (…, heads, head size), not yet turned by their positions.
            k: keys, (…, key-value heads, head size), not yet turned.
            v: values, shaped as k.
        """


class Attention(nn.Module):
    """Self-attention: biases on queries, keys and values, none on the output."""

    def __init__(self, config: Qwen2Config, layer: int) -> None:
        super().__init__()
        query_width = config.num_attention_heads * config.head_size
        kv_width = config.num_key_value_heads * config.head_size
        self.head_size, self.layer = config.head_size, layer
        self.q_proj = nn.Linear(config.hidden_size, query_width)
        self.k_proj = nn.Linear(config.hidden_size, kv_width)
        self.v_proj = nn.Linear(config.hidden_size, kv_width)
        self.o_proj = nn.Linear(query_width, config.hidden_size, bias=False)

    def forward(self, x_C: Tensor, attend: Attend) -> Tensor:
        """Return what each token gathers from itself and those before it, (…, hidden), in x's dtype."""
        q, k, v = (proj(x_C).unflatten(-1, (-1, self.head_size)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        output: Tensor = self.o_proj(attend(self.layer, q, k, v).flatten(-2))
        return output


class Partial(NamedTuple):
    """Attention to a part of the keys: mergeable."""

    out_BHTD: Tensor
    lse_BHT: Tensor
    """Log of the sum of exponentiated scores, float32 or wider."""


def attend_part(
    q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, *, causal: bool, scale: float, mask: Tensor | None = None
) -> Partial:
    """Attend to one part: a causal square (S = T), or a rectangle.

    Args:
        k_BHSD: keys, with as many heads as queries; heads that share keys are views of one (`expand`).
        mask: added to the scores, broadcast to (B, H, T, S); each query must see at least one key.
    """
    if q_BHTD.device.type == "cpu":
        # What scaled_dot_product_attention calls on a CPU; only this form hands out the log-sum-exp
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return Partial(*fused(q_BHTD, k_BHSD, v_BHSD, 0.0, causal, attn_mask=mask, scale=scale))
    # A stride of 0: all heads are views of the same keys (`expand`)
    if not causal and mask is None and k_BHSD.stride(1) == 0:
        return _attend_folded(q_BHTD, k_BHSD, v_BHSD, scale=scale)
    return _attend_in_blocks(q_BHTD, k_BHSD, v_BHSD, causal=causal, scale=scale, mask=mask)


def merge(parts: Sequence[Partial]) -> Tensor:
    """Return the attention over the keys of all parts together: outputs weighted by their share of the softmax."""
    if len(parts) == 1:
        return parts[0].out_BHTD
    lse_PBHT = torch.stack([part.lse_BHT for part in parts])
    weights_PBHT1 = lse_PBHT.softmax(dim=0).unsqueeze(-1)
    # Summed in the weights' dtype, float32 or wider: bfloat16 would round after each part
    out_BHTD = torch.zeros_like(parts[0].out_BHTD, dtype=weights_PBHT1.dtype)
    for part, weight_BHT1 in zip(parts, weights_PBHT1, strict=True):
        out_BHTD += part.out_BHTD * weight_BHT1
    return out_BHTD.to(parts[0].out_BHTD.dtype)


def _attend_folded(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Partial:
    """Attend to a rectangle of keys that all heads share: their queries are concatenated.

    A product would copy the keys for each head.
    """
    n_batch, n_heads, n_queries, size = q.shape
    part = _attend_in_blocks(
        q.reshape(n_batch, 1, n_heads * n_queries, size), k[:, :1], v[:, :1], causal=False, scale=scale
    )
    return Partial(part.out_BHTD.reshape(q.shape), part.lse_BHT.reshape(n_batch, n_heads, n_queries))


def _attend_in_blocks(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, mask: Tensor | None = None
) -> Partial:
    """Attend block by block of queries in plain torch, on any device; all (batch, heads, time, head size)."""
    outs, lses = [], []
    for begin in range(0, q.shape[2], _QUERY_BLOCK):
        block = q[:, :, begin : begin + _QUERY_BLOCK]
        # Of a causal square, a block sees nothing behind its own last column
        n_seen = min(begin + _QUERY_BLOCK, k.shape[2]) if causal else k.shape[2]
        scores = torch.matmul(block, k[:, :, :n_seen].transpose(-1, -2)).float() * scale
        if causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(begin + 1)
            scores = scores.masked_fill(future, float("-inf"))
        if mask is not None:
            scores = scores + mask
        lses.append(scores.logsumexp(dim=-1))
        outs.append(torch.matmul(F.softmax(scores, dim=-1).to(v.dtype), v[:, :, :n_seen]))
    return Partial(torch.cat(outs, dim=2), torch.cat(lses, dim=2))
