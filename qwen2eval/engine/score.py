"""Log-probabilities of continuations: a prefix tree walked once, in passes of a token budget.

Only nodes with branches below, and those longer than a pass, keep keys and values; a node's are let go when the last
text that needs them is done. Logits are computed at scored positions only, in blocks of equal size.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qwen2eval.engine.kv import OverBudgetError
from qwen2eval.engine.packed import Piece
from qwen2eval.engine.tree import Node, Tokens, build_tree, sort_by_first_sequence, walk

if TYPE_CHECKING:
    from qwen2eval.engine.engine import Engine

LOGIT_ROWS = 64
"""Positions whose logits exist at once: 39 MB for a vocabulary of 151,936 in float32."""


class ScoreRequest(NamedTuple):
    """A continuation whose log-probability is asked; both parts hold at least one token, (time,) int32 or int64."""

    context: Tokens
    continuation: Tokens
    sequence_length: int | None = None
    """Tokens that DCA's score scaling goes by; None: those of the context."""


class Score(NamedTuple):
    """What the model thinks of a continuation."""

    logprob: float
    """Natural log, summed over the continuation's tokens."""
    is_greedy: bool
    """Whether each token is the likeliest one."""


class Failure(NamedTuple):
    """Why a request has no answer."""

    reason: str


class _Target(NamedTuple):
    """Positions of a node that predict tokens of one request."""

    request: int
    offset: int
    """Of the first position, counted from the node's first token."""
    tokens: Tokens
    """What should follow each position."""


class Scoring:
    """The scoring of requests whose prefixes may be shared.

    Args:
        requests: all requests of the plan: they make the tree, so that answers don't depend on what is left to ask.
        wanted: indices of those to answer.
        factor: what scores are multiplied by (DCA's scaling); the same for all.
    """

    def __init__(
        self, engine: "Engine", requests: Sequence[ScoreRequest], wanted: Sequence[int], *, factor: float
    ) -> None:
        self._engine, self._factor, self._requests = engine, factor, requests
        # choices of one token all are their context: no copies
        sequences = [
            request.context if len(request.continuation) == 1 else np.concatenate(request[:2])[:-1]
            for request in requests
        ]
        self._root = build_tree(sequences)
        sort_by_first_sequence(self._root)
        self._end_of: dict[int, Node] = {}
        self._targets: dict[Node, list[_Target]] = defaultdict(list)
        self._logprobs = np.zeros(len(requests))
        self._greedy = np.ones(len(requests), dtype=bool)
        self._pass: list[Piece] = []
        self._scored: set[Node] = set()
        self._ended: list[int] = []
        chosen = set(wanted)
        for node in walk(self._root):
            for index in node.sequences:
                if index in chosen:
                    self._expect(index, node)

    def run(self) -> Iterator[list[tuple[int, Score | Failure]]]:
        """Yield (index, answer) of the wanted requests as they finish."""
        for node in walk(self._root):
            if not node.n_waiting:
                continue
            # A leaf that fits one pass is never read again, so its keys and values need no room
            is_kept = len(node.tokens) > self._engine.pass_tokens or any(child.n_waiting for child in node.children)
            keep = [*node.path()[:-1], *([node] if is_kept else [])]
            try:
                # Nodes of the pass that is being filled are pinned: they are not computed yet, but will be needed
                missing = self._engine.memory.hold(keep, busy=self._busy())
            except OverBudgetError:
                yield from self._flush()
                try:
                    missing = self._engine.memory.hold(keep)
                except OverBudgetError:
                    yield from self._fail(node)
                    continue
            for needed in missing if is_kept else [*missing, node]:
                for piece in self._engine.pieces(needed, factor=self._factor):
                    if self._pass and sum(p.n_tokens for p in self._pass) + piece.n_tokens > self._engine.pass_tokens:
                        yield from self._flush()
                    self._pass.append(piece)
            # Noted even if the node is still in the pass: `_flush` answers what is complete
            self._ended += node.sequences
        yield from self._flush()

    def _expect(self, index: int, end: Node) -> None:
        """Note where the tree predicts a wanted request's continuation."""
        self._end_of[index] = end
        context, continuation, _ = self._requests[index]
        for node in end.path():
            node.n_waiting += 1
            first = max(node.start, len(context) - 1)
            if first < node.end:
                skipped = first - (len(context) - 1)
                targets = continuation[skipped : skipped + node.end - first]
                self._targets[node].append(_Target(index, first - node.start, targets))

    def _busy(self) -> set[Node]:
        return {node for piece in self._pass for node in piece.node.path()}

    def _flush(self) -> Iterator[list[tuple[int, Score | Failure]]]:
        """Run the pass under way and yield what it finished."""
        if not self._pass:
            return
        self._add_logprobs(self._pass, self._engine.run_pass(self._pass))
        complete = {piece.node for piece in self._pass if piece.end == len(piece.node.tokens)}
        self._pass = []
        self._scored |= complete
        ready = [i for i in self._ended if i in self._end_of and self._end_of[i] in complete]
        for index in ready:
            self._finish(index)
        self._ended = [i for i in self._ended if i in self._end_of]
        if ready:
            yield [(i, Score(float(self._logprobs[i]), bool(self._greedy[i]))) for i in ready]

    def _finish(self, index: int) -> None:
        """Let go of what only this request needed."""
        self._engine.stats.n_tokens_asked += len(self._requests[index].context)
        self._engine.stats.n_tokens_asked += len(self._requests[index].continuation) - 1
        for node in self._end_of.pop(index).path():
            node.n_waiting -= 1
            if not node.n_waiting:
                self._engine.memory.release(node)
                self._targets.pop(node, None)

    def _fail(self, node: Node) -> Iterator[list[tuple[int, Score | Failure]]]:
        """Give up what ends at this node: what it needs alone is over the budget."""
        if failed := [index for index in node.sequences if index in self._end_of]:
            for index in failed:
                self._finish(index)
            yield [(index, self._engine.over_budget(node.end)) for index in failed]

    def under_way(self) -> set[int]:
        """Return the requests that the pass under way serves."""
        nodes = [piece.node for piece in self._pass]
        return {i for top in nodes for node in (top, *walk(top)) for i in node.sequences if i in self._end_of}

    def _add_logprobs(self, pieces: Sequence[Piece], stream_NC: Tensor) -> None:
        """Score the targets within some pieces, given the stream under the head."""
        rows, tokens, requests, first_row = [], [], [], 0
        for piece in pieces:
            if piece.node not in self._scored:
                for request, offset, target in self._targets.get(piece.node, ()):
                    begin, end = max(piece.begin, offset), min(piece.end, offset + len(target))
                    if begin < end:
                        rows.append(np.arange(begin, end) - piece.begin + first_row)
                        tokens.append(target[begin - offset : end - offset])
                        requests.append(np.full(end - begin, request))
            first_row += piece.n_tokens
        if rows:
            self._add(stream_NC, np.concatenate(rows), np.concatenate(tokens), np.concatenate(requests))

    def _add(self, stream_NC: Tensor, rows: Tokens, tokens: Tokens, requests: Tokens) -> None:
        """Add the log-probability of each (row, token) to its request."""
        # Choices of one doc share their first position
        distinct, which = np.unique(rows, return_inverse=True)
        for begin in range(0, len(distinct), LOGIT_ROWS):
            block = distinct[begin : begin + LOGIT_ROWS]
            mine = np.flatnonzero((which >= begin) & (which < begin + LOGIT_ROWS))
            # always the same number of rows: a row's logits then don't depend on other rows, to the last bit
            padded = np.concatenate((block, np.full(LOGIT_ROWS - len(block), block[0])))
            at_rows = torch.from_numpy(padded).to(stream_NC.device)
            logits_RV = self._engine.model.logits(stream_NC[at_rows])[: len(block)]
            normalizers, best = logits_RV.logsumexp(dim=-1), logits_RV.argmax(dim=-1)
            at = torch.from_numpy(which[mine] - begin).to(logits_RV.device)
            wanted = torch.from_numpy(tokens[mine]).long().to(logits_RV.device)
            logprobs = (logits_RV[at, wanted] - normalizers[at]).cpu().numpy()
            np.add.at(self._logprobs, requests[mine], logprobs)
            np.logical_and.at(self._greedy, requests[mine], (best[at] == wanted).cpu().numpy())
