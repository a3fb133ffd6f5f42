"""One forward pass over pieces of many texts, laid end to end without padding.

A piece is a run of tokens of one node of a prefix tree. Its queries see the nodes above it, what its own node has kept,
and themselves; each of these is a part of attention that is merged with the other parts. With dual chunk attention a
part is cut where a chunk ends, and the queries are turned anew for their own, the preceding and all earlier chunks;
without it, there is one endless chunk.

A piece is cut and attended in a way that depends on nothing but its path and its own length, so that an answer does
not depend on what else is asked, or was answered before a kill. What remains is rounding: a row of a matrix product may
differ in the last bits with the number of rows. With packed weights (`model/packing.py`) and the released dense
models' widths in float32 it does not; a mixture's experts see different rows in each pass.

Shape suffixes: N tokens of the pass, H query heads, K key-value heads, G heads that share one, T, S queries and keys of
a part, D values of a head.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from qwen2eval.engine.tree import Node
from qwen2eval.model.attention import Partial, attend_part, merge
from qwen2eval.model.config import DualChunk
from qwen2eval.model.qwen2 import Qwen2Model
from qwen2eval.model.rope import Turns, across_heads, key_positions, successive_positions, turn

_ENDLESS = 1 << 60

Distance = Literal["intra", "successive", "inter"]
"""How far apart the chunks of query and key are: none, one, more."""


class Piece(NamedTuple):
    """A run of a node's tokens, to be computed."""

    node: Node
    begin: int
    """Counted from the node's first token; what is before it must have been kept."""
    end: int
    factor: float = 1.0
    """What scores are multiplied by (DCA's scaling of long sequences)."""

    @property
    def n_tokens(self) -> int:
        """Tokens to compute."""
        return self.end - self.begin


class _Part(NamedTuple):
    """Keys that a run of queries sees."""

    distance: Distance
    keys: slice
    """Of the node's kept tokens, or rows of the pass."""
    node: Node | None
    """None: keys of this pass."""
    causal: bool = False


class _Run(NamedTuple):
    """Queries of one piece within one chunk, and all that they see."""

    rows: slice
    parts: tuple[_Part, ...]


def forward(model: Qwen2Model, pieces: Sequence[Piece]) -> Tensor:
    """Compute pieces and return the stream under the head, (tokens, hidden), in the order of the pieces.

    Nodes that hold room (`Node.kv`) get their keys and values written; the nodes above a piece must have theirs, from
    before or from an earlier piece of this pass.
    """
    with torch.inference_mode():
        tokens = torch.cat([torch.from_numpy(piece.node.tokens[piece.begin : piece.end]) for piece in pieces])
        return model.stream(tokens.to(model.device), PackedAttention(model, pieces))


class PackedAttention:
    """An `Attend` for tensors of (tokens, heads, head size) that hold the tokens of pieces end to end."""

    def __init__(self, model: Qwen2Model, pieces: Sequence[Piece]) -> None:
        config, n_rows = model.config, sum(piece.n_tokens for piece in pieces)
        self._dual, self._rope, self._n_kv = config.dual_chunk, model.rope, config.num_key_value_heads
        self._scale = config.head_size**-0.5
        self._positions_N = torch.zeros(n_rows, dtype=torch.int64)
        factors_N1 = torch.ones(n_rows, 1)
        self._writes: list[tuple[Piece, slice]] = []
        self._runs: list[_Run] = []
        first = 0
        for piece in pieces:
            rows = slice(first, first + piece.n_tokens)
            start = piece.node.start + piece.begin
            self._positions_N[rows] = torch.arange(start, start + piece.n_tokens)
            factors_N1[rows] = piece.factor
            if piece.node.kv is not None:
                self._writes.append((piece, rows))
            self._runs += _runs(piece, first, self._dual)
            first = rows.stop
        self._positions_N, self._factors_N1 = self._positions_N.to(model.device), factors_N1.to(model.device)
        self._dtype, self._turns = model.dtype, dict[str, Turns]()

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what each token gathers, (tokens, heads, head size)."""
        k = turn(k, self._turns_of("keys"))
        for piece, rows in self._writes:
            assert piece.node.kv is not None, "a pass doesn't take a node's room away"
            piece.node.kv.write(layer, piece.begin, k[rows], v[rows])
        turned: dict[Distance, Tensor] = {}
        out_NHD = torch.empty_like(q)
        for rows, parts in self._runs:
            partials = []
            for part in parts:
                if part.distance not in turned:
                    turned[part.distance] = turn(q, self._turns_of(part.distance))
                partials.append(self._attend(turned[part.distance][rows], k, v, part, layer))
            # (K, G, T, D) -> (T, H, D)
            out_NHD[rows] = merge(partials).permute(2, 0, 1, 3).flatten(1, 2)
        return out_NHD

    def _attend(self, q_THD: Tensor, k_NKD: Tensor, v_NKD: Tensor, part: _Part, layer: int) -> Partial:
        if part.node is None:
            k_KSD, v_KSD = k_NKD[part.keys].transpose(0, 1), v_NKD[part.keys].transpose(0, 1)
        else:
            assert part.node.kv is not None, "what a piece sees has been kept"
            k_KSD, v_KSD = (x[layer, :, part.keys] for x in part.node.kv)
        q_KGTD = q_THD.view(len(q_THD), self._n_kv, -1, q_THD.shape[-1]).permute(1, 2, 0, 3)
        k_KGSD, v_KGSD = (x.unsqueeze(1).expand(-1, q_KGTD.shape[1], -1, -1) for x in (k_KSD, v_KSD))
        return attend_part(q_KGTD, k_KGSD, v_KGSD, causal=part.causal, scale=self._scale)

    def _turns_of(self, what: str) -> Turns:
        """Return how keys, or queries towards keys at some distance, are turned; the same in all layers."""
        if what not in self._turns:
            positions, factor = self._positions_N, self._factors_N1
            if self._dual is not None:
                if what == "successive":
                    positions = successive_positions(positions, self._dual)
                elif what == "inter":
                    positions = torch.full_like(positions, self._dual.inter_position)
                else:
                    positions = key_positions(positions, self._dual)
            # a product of query and key is scaled once: keys are kept as they are, so that texts can share them
            turns = self._rope.turns(positions, factor=1.0 if what == "keys" else factor, dtype=self._dtype)
            self._turns[what] = across_heads(turns)
        return self._turns[what]


def _runs(piece: Piece, first_row: int, dual: DualChunk | None) -> Iterator[_Run]:
    """Yield the piece's queries chunk by chunk, with the parts that each run sees."""
    length = dual.chunk_length if dual else _ENDLESS
    node, end = piece.node, piece.node.start + piece.end
    piece_start = begin = node.start + piece.begin
    above: list[tuple[Node, int, int]] = [(up, up.start, up.end) for up in node.path()[:-1]]
    if piece.begin:
        # The node's own earlier tokens, which an earlier piece has computed and kept
        above.append((node, node.start, piece_start))
    while begin < end:
        chunk_start = begin - begin % length
        stop = min(chunk_start + length, end)
        rows = slice(first_row + begin - piece_start, first_row + stop - piece_start)
        parts = [_Part("intra", rows, None, causal=True)]
        seen: list[tuple[Node | None, int, int]] = [*above, (None, piece_start, begin)]
        for source, low, high in seen:
            offset = low if source is None else source.start
            shift = first_row if source is None else 0
            for distance, from_, to in _cut(low, high, chunk_start, length):
                parts.append(_Part(distance, slice(from_ - offset + shift, to - offset + shift), source))
        yield _Run(rows, tuple(parts))
        begin = stop


def _cut(low: int, high: int, chunk_start: int, length: int) -> Iterator[tuple[Distance, int, int]]:
    """Yield the stretches of positions [low, high) by how far their chunk is from the one at `chunk_start`."""
    borders: tuple[tuple[Distance, int, int], ...] = (
        ("inter", 0, chunk_start - length),
        ("successive", chunk_start - length, chunk_start),
        ("intra", chunk_start, chunk_start + length),
    )
    for distance, first, end in borders:
        if max(first, low) < min(end, high):
            yield distance, max(first, low), min(end, high)
