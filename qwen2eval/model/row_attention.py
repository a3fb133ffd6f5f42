"""Attention of a batch of rows of equal length, ordinary and dual chunk (DCA, arXiv 2402.17463), with a cache.

The cache keeps keys already turned: by their position or, with DCA, by their position within the chunk. Decoding is a
call with one token; a DCA query is turned anew for each part.

Shape suffixes: B batch, H query heads, K key-value heads, T new tokens, S tokens so far, D values of a head.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from qwen2eval.model.attention import Partial, attend_part, merge
from qwen2eval.model.cache import KVCache
from qwen2eval.model.config import DualChunk
from qwen2eval.model.rope import Rope, key_positions, successive_positions


class Span(NamedTuple):
    """Where the new tokens lie in the sequence."""

    start: int
    """Tokens before them, all in the cache."""
    positions_T: Tensor
    """Their positions, counted from 0, int64."""
    sequence_length: int
    """Tokens of the whole sequence, which DCA's score scaling depends on."""


class RowAttention:
    """An `Attend` for tensors of (batch, time, heads, head size)."""

    def __init__(self, span: Span, rope: Rope, dual: DualChunk | None, cache: KVCache | None) -> None:
        self._span, self._rope, self._dual, self._cache = span, rope, dual, cache

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what each token gathers, (batch, time, heads, head size)."""
        q_BHTD, k_BKTD, v_BKTD = (x.transpose(1, 2) for x in (q, k, v))
        scale, positions_T = q.shape[-1] ** -0.5, self._span.positions_T
        if self._dual is None:
            k_BKTD = self._rope.rotate(k_BKTD, positions_T)
        else:
            # As in the released code: keys are scaled when they are written, queries when they read
            factor = self._dual.score_factor(self._span.sequence_length)
            k_BKTD = self._rope.rotate(k_BKTD, key_positions(positions_T, self._dual)) * factor
            scale *= factor
        if self._cache is not None:
            k_BKTD, v_BKTD = self._cache.layers[layer].extend(k_BKTD, v_BKTD)
        if self._dual is None:
            out_BHTD = attend(self._rope.rotate(q_BHTD, positions_T), k_BKTD, v_BKTD, scale=scale)
        else:
            out_BHTD = attend_dual_chunk(q_BHTD, k_BKTD, v_BKTD, self._span, self._rope, self._dual, scale=scale)
        return out_BHTD.transpose(1, 2)


def attend(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, *, scale: float) -> Tensor:
    """Return ordinary causal attention; the queries are the last T of the S tokens."""
    n_new, n_before = q_BHTD.shape[2], k_BKSD.shape[2] - q_BHTD.shape[2]
    return merge(list(_causal_parts(q_BHTD, k_BKSD, v_BKSD, slice(0, n_before), n_new, scale)))


def attend_dual_chunk(
    q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, span: Span, rope: Rope, dual: DualChunk, *, scale: float
) -> Tensor:
    """Return dual chunk attention of unturned queries to turned keys, the queries being the last T of the S tokens.

    Each run of queries within a chunk sees its own chunk (intra), the one before (successive) and all earlier (inter).
    """
    length, end, pieces = dual.chunk_length, span.start + q_BHTD.shape[2], []
    begin = span.start
    while begin < end:
        # A prompt may begin in the middle of a chunk, behind what the cache holds
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
    """Attend to one part, each group of query heads to its key-value head."""
    (n_batch, n_heads, n_new, size), n_kv = q_BHTD.shape, k_BKSD.shape[1]
    n_groups = n_heads // n_kv
    if causal:
        # A view: the heads of a group share their keys without a copy
        q = q_BHTD.reshape(n_batch * n_kv, n_groups, n_new, size)
    else:
        # The queries of a group are concatenated, so that the keys are read once for all of them
        q = q_BHTD.reshape(n_batch * n_kv, 1, n_groups * n_new, size)
    k, v = (x.flatten(0, 1).unsqueeze(1).expand(-1, q.shape[1], -1, -1) for x in (k_BKSD, v_BKSD))
    out, lse = attend_part(q, k, v, causal=causal, scale=scale)
    return Partial(out.reshape(q_BHTD.shape), lse.reshape(n_batch, n_heads, n_new))
