"""Grouped-query attention with a key-value cache, ordinary and dual chunk (DCA, arXiv 2402.17463).

A call attends in parts, each either a rectangle (all queries see all keys) or the square of the new tokens, causal. The
parts are merged by their log-sum-exp, so no mask is built and nothing of size length x length ever exists.

The cache keeps keys already turned: by their position or, with DCA, by their position within the chunk. Decoding is a
call with one token; a DCA query is turned anew for each part.

Shape suffixes: B batch, H query heads, K key-value heads, T new tokens, S tokens of the part attended to, D values of a
head, C hidden size, P parts.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen2eval.model.cache import LayerCache
from qwen2eval.model.config import DualChunk, Qwen2Config
from qwen2eval.model.rope import Rope, key_positions, successive_positions

_QUERY_BLOCK = 256
"""Queries whose scores exist at once where there is no fused kernel that returns the log-sum-exp."""


class Span(NamedTuple):
    """Where the new tokens lie in the sequence."""

    start: int
    """Tokens before them, all in the cache."""
    positions_T: Tensor
    """Their positions, counted from 0, int64."""
    sequence_length: int
    """Tokens of the whole sequence, which DCA's score scaling depends on."""


class Attention(nn.Module):
    """Self-attention: biases on queries, keys and values, none on the output."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        query_width = config.num_attention_heads * config.head_size
        kv_width = config.num_key_value_heads * config.head_size
        self.head_size, self.dual = config.head_size, config.dual_chunk
        self.q_proj = nn.Linear(config.hidden_size, query_width)
        self.k_proj = nn.Linear(config.hidden_size, kv_width)
        self.v_proj = nn.Linear(config.hidden_size, kv_width)
        self.o_proj = nn.Linear(query_width, config.hidden_size, bias=False)

    def forward(self, x_BTC: Tensor, span: Span, rope: Rope, cache: LayerCache | None) -> Tensor:
        """Return what each token gathers from itself and those before it, (batch, time, hidden), x's dtype."""
        q_BHTD, k_BKTD, v_BKTD = (
            proj(x_BTC).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        scale = self.head_size**-0.5
        if self.dual is None:
            k_BKTD = rope.rotate(k_BKTD, span.positions_T)
        else:
            # As in the released code: keys are scaled when they are written, queries when they read
            factor = self.dual.score_factor(span.sequence_length)
            k_BKTD, scale = rope.rotate(k_BKTD, key_positions(span.positions_T, self.dual)) * factor, scale * factor
        if cache is not None:
            k_BKTD, v_BKTD = cache.extend(k_BKTD, v_BKTD)
        if self.dual is None:
            out_BHTD = attend(rope.rotate(q_BHTD, span.positions_T), k_BKTD, v_BKTD, scale=scale)
        else:
            out_BHTD = attend_dual_chunk(q_BHTD, k_BKTD, v_BKTD, span, rope, self.dual, scale=scale)
        output: Tensor = self.o_proj(out_BHTD.transpose(1, 2).flatten(2))
        return output


class Partial(NamedTuple):
    """Attention to a part of the keys: mergeable."""

    out_BHTD: Tensor
    lse_BHT: Tensor
    """Log of the sum of exponentiated scores, float32 or wider."""


def attend(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, *, scale: float) -> Tensor:
    """Return ordinary causal attention; the queries are the last T of the S tokens."""
    n_new, n_before = q_BHTD.shape[2], k_BKSD.shape[2] - q_BHTD.shape[2]
    return merge(_causal_parts(q_BHTD, k_BKSD, v_BKSD, slice(0, n_before), n_new, scale))


def attend_dual_chunk(
    q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, span: Span, rope: Rope, dual: DualChunk, *, scale: float
) -> Tensor:
    """Return dual chunk attention of unturned queries to turned keys, the queries being the last T of the S tokens.

    Each run of queries within a chunk sees its own chunk (intra), the one before (successive) and all earlier (inter).
    """
    length, end, pieces = dual.chunk_length, span.start + q_BHTD.shape[2], []
    begin = span.start
    while begin < end:
        chunk_start = begin - begin % length
        stop = min(chunk_start + length, end)
        run = slice(begin - span.start, stop - span.start)
        q_run, positions = q_BHTD[:, :, run], span.positions_T[run]
        k_seen, v_seen = k_BKSD[:, :, :stop], v_BKSD[:, :, :stop]
        q_intra = rope.rotate(q_run, key_positions(positions, dual))
        parts = list(_causal_parts(q_intra, k_seen, v_seen, slice(chunk_start, begin), stop - begin, scale))
        before = max(chunk_start - length, 0)
        if chunk_start > 0:
            q_succ = rope.rotate(q_run, successive_positions(positions, dual))
            seen = slice(before, chunk_start)
            parts.append(_partial(q_succ, k_seen[:, :, seen], v_seen[:, :, seen], causal=False, scale=scale))
        if before > 0:
            q_inter = rope.rotate(q_run, torch.full_like(positions[:1], dual.inter_position))
            parts.append(_partial(q_inter, k_seen[:, :, :before], v_seen[:, :, :before], causal=False, scale=scale))
        pieces.append(merge(parts))
        begin = stop
    return torch.cat(pieces, dim=2) if len(pieces) > 1 else pieces[0]


def merge(partials: Iterable[Partial]) -> Tensor:
    """Return the attention over the keys of all parts together: outputs weighted by their share of the softmax."""
    parts = list(partials)
    if len(parts) == 1:
        return parts[0].out_BHTD
    lse_PBHT = torch.stack([part.lse_BHT for part in parts])
    weights_PBHT1 = lse_PBHT.softmax(dim=0).unsqueeze(-1)
    out_BHTD = torch.zeros_like(parts[0].out_BHTD, dtype=weights_PBHT1.dtype)
    for part, weight_BHT1 in zip(parts, weights_PBHT1, strict=True):
        out_BHTD += part.out_BHTD * weight_BHT1
    return out_BHTD.to(parts[0].out_BHTD.dtype)


def _causal_parts(q: Tensor, k: Tensor, v: Tensor, before: slice, n_new: int, scale: float) -> Iterator[Partial]:
    """Yield the square of the last `n_new` keys, and the rectangle of the keys `before` them, if there are any."""
    # One new token sees everything: the rectangle is all there is
    if n_new == 1:
        yield _partial(q, k[:, :, before.start :], v[:, :, before.start :], causal=False, scale=scale)
        return
    yield _partial(q, k[:, :, -n_new:], v[:, :, -n_new:], causal=True, scale=scale)
    if before.stop > before.start:
        yield _partial(q, k[:, :, before], v[:, :, before], causal=False, scale=scale)


def _partial(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, *, causal: bool, scale: float) -> Partial:
    """Attend to one part: a causal square (S = T), or a rectangle."""
    (n_batch, n_heads, n_new, size), n_kv = q_BHTD.shape, k_BKSD.shape[1]
    n_groups = n_heads // n_kv
    if causal:
        # A view: the heads of a group share their keys without a copy
        q = q_BHTD.reshape(n_batch * n_kv, n_groups, n_new, size)
    else:
        # The queries of a group stand behind each other, so that the keys are read once for all of them
        q = q_BHTD.reshape(n_batch * n_kv, 1, n_groups * n_new, size)
    k, v = (x.flatten(0, 1).unsqueeze(1).expand(-1, q.shape[1], -1, -1) for x in (k_BKSD, v_BKSD))
    if q.device.type == "cpu":
        # What scaled_dot_product_attention calls on a CPU; only this form hands out the log-sum-exp
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = fused(q, k, v, 0.0, causal, scale=scale)
    else:
        out, lse = _attend_in_blocks(q, k, v, causal=causal, scale=scale)
    return Partial(out.reshape(q_BHTD.shape), lse.reshape(n_batch, n_heads, n_new))


def _attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
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
        lses.append(scores.logsumexp(dim=-1))
        outs.append(torch.matmul(F.softmax(scores, dim=-1).to(v.dtype), v[:, :, :n_seen]))
    return torch.cat(outs, dim=2), torch.cat(lses, dim=2)
