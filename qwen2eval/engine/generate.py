"""Continuing texts with continuous batching: a finished text leaves at once, and a waiting one takes its row.

Prompts form a prefix tree; what several share is computed once and kept while one of them waits or runs. A text's own
tokens live in a row of the slots, which are read together; a prompt's own part is in the row, too, unless it is long or
several requests have the same prompt.

A kill loses what texts under way have cost so far. New texts are taken in only while that is little (`unkept_limit`),
so answers come from the beginning on. No token is computed twice for it: shared prefixes stay while a text waits.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qwen2eval.engine.decode import DecodeAttention
from qwen2eval.engine.kv import OverBudgetError, Slots
from qwen2eval.engine.packed import Piece, forward
from qwen2eval.engine.sampling import GenerationParams, next_tokens
from qwen2eval.engine.score import Failure
from qwen2eval.engine.tree import Node, Tokens, build_tree, walk

if TYPE_CHECKING:
    from qwen2eval.engine.engine import Engine

ROW_PROMPT_TOKENS = 1_024
"""A longer own part of a prompt stays outside the rows, which all have the same length."""


LEAST_UNKEPT_SECONDS, MOST_UNKEPT_SECONDS = 3.0, 30.0
"""Half of what a kill may lose: the texts that are taken in last, and the tokens that all still need, come on top."""


def unkept_limit(elapsed_seconds: float) -> float:
    """Return how many seconds of work texts under way may have cost before no more are taken in.

    >>> [unkept_limit(seconds) for seconds in (0, 40, 3600)]
    [3.0, 10.0, 30.0]
    """
    return min(MOST_UNKEPT_SECONDS, max(LEAST_UNKEPT_SECONDS, elapsed_seconds / 4))


class GenerateRequest(NamedTuple):
    """A prompt to continue, (time,) int64 with at least one token."""

    prompt: Tokens
    params: GenerationParams
    is_complete: Callable[[Sequence[int]], bool] = lambda _tokens: False
    """Whether the text so far ends the answer (a stop string); asked after each token."""


class Generated(NamedTuple):
    """A continuation."""

    tokens: tuple[int, ...]
    """What was generated, the token that ended it included."""
    finish_reason: Literal["stop", "length"]


@dataclass(eq=False)
class _Text:
    """A request under way."""

    index: int
    request: GenerateRequest
    tail: Node
    """What is in its row; the nodes above are shared, or long."""
    above: list[Node]
    row: int
    length: int
    """Tokens in its row."""
    generator: torch.Generator
    generated: list[int] = field(default_factory=list)
    seconds: float = 0.0
    """Its share of the work so far, which a kill would lose."""

    @property
    def seen(self) -> Tensor | None:
        """Tokens so far, for the repetition penalty."""
        if self.request.params.repetition_penalty == 1.0:
            return None
        return torch.from_numpy(np.unique(np.concatenate((self.request.prompt, np.array(self.generated, np.int64)))))

    @property
    def position(self) -> int:
        """Of the last token, whose keys and values are not there yet."""
        return self.tail.start + self.length


class _Admission(NamedTuple):
    """What goes into free rows."""

    texts: list[_Text]
    nodes: list[Node]
    """Nodes above them that must be computed first."""


class Generation:
    """The generation of requests whose prompts may share prefixes.

    Args:
        requests: all requests of the plan: they make the tree, so that answers don't depend on what is left to ask.
        wanted: indices of those to answer.
        factor: what scores are multiplied by (DCA's scaling); the same for all.
    """

    def __init__(
        self, engine: "Engine", requests: Sequence[GenerateRequest], wanted: Sequence[int], *, factor: float
    ) -> None:
        self._engine, self._requests, self._factor = engine, requests, factor
        root = build_tree([request.prompt for request in requests])
        self._leaf_of: dict[int, Node] = {}
        self._waiting: deque[int] = deque()
        chosen = set(wanted)
        for node in walk(root):
            for index in [index for index in node.sequences if index in chosen]:
                self._leaf_of[index] = node
                self._waiting.append(index)
                for above in node.path():
                    above.n_waiting += 1
        self._ends: dict[Node, Tensor] = {}
        """The stream under the head at the last token of prompts that are separate nodes."""
        self._admitted: list[_Text] = []
        self._running: list[_Text] = []
        self._alone: list[int] = []
        """Requests that fit the budget, but not beside rows as long as other requests need."""
        self._max_running = engine.max_running
        self._slots: Slots | None = None
        self._began = engine.clock()

    def run(self) -> Iterator[list[tuple[int, Generated | Failure]]]:
        """Yield (index, answer) as texts finish."""
        yield from self._refuse_too_long()
        if self._waiting:
            self._slots = self._make_slots()
            try:
                while self._waiting or self._running:
                    admission = self._admit() if self._may_admit() else _Admission([], [])
                    if answers := self._prefill(admission) if admission.texts else self._decode():
                        yield answers
            finally:
                self._engine.memory.return_slots(self._slots)
        for index in self._alone:
            # Only after the slots are given back: the request gets the whole budget
            alone = Generation(self._engine, [self._requests[index]], [0], factor=self._factor)
            yield from ([(index, answer) for _, answer in answers] for answers in alone.run())

    def under_way(self) -> set[int]:
        """Return the requests that have a row, or are about to."""
        return {text.index for text in (*self._running, *self._admitted)} or set(list(self._waiting)[:1])

    def _row_tokens(self, index: int) -> int:
        """Return the room that a request needs in its row."""
        return self._n_own(index) + self._requests[index].params.max_new_tokens

    def _n_own(self, index: int) -> int:
        """Return how many tokens of a prompt go to its row."""
        leaf = self._leaf_of[index]
        is_apart = len(leaf.sequences) > 1 or leaf.children or len(leaf.tokens) > ROW_PROMPT_TOKENS
        return 0 if is_apart else len(leaf.tokens)

    def _refuse_too_long(self) -> Iterator[list[tuple[int, Generated | Failure]]]:
        """Fail what doesn't fit the budget even alone."""
        memory, kept = self._engine.memory, deque[int]()
        for index in self._waiting:
            n_tokens = self._leaf_of[index].end + self._requests[index].params.max_new_tokens
            if n_tokens * memory.bytes_per_token > memory.budget_bytes:
                self._let_go(index)
                yield [(index, self._engine.over_budget(n_tokens))]
            else:
                kept.append(index)
        self._waiting = kept

    def _make_slots(self) -> Slots:
        """Make rows for as many texts as the budget holds; up to half of it is left for what is outside the rows."""
        memory = self._engine.memory
        n_tokens = max(self._row_tokens(index) for index in self._waiting)
        outside = max(self._leaf_of[index].end - self._n_own(index) for index in self._waiting)
        room = memory.budget_bytes - outside * memory.bytes_per_token
        # Without shared nodes the rows may take all of the budget
        if outside:
            room = min(room, memory.budget_bytes // 2)
        n_rows = max(1, min(self._max_running, len(self._waiting), room // (n_tokens * memory.bytes_per_token)))
        self._max_running = n_rows
        return memory.slots(n_rows, n_tokens)

    def _may_admit(self) -> bool:
        """Whether what texts under way have cost may still grow."""
        unkept = sum(text.seconds for text in self._running)
        return not self._running or unkept < unkept_limit(self._engine.clock() - self._began)

    def _admit(self) -> _Admission:
        """Take waiting requests into free rows, up to about one pass of tokens."""
        admitted: list[_Text] = []
        self._admitted = admitted
        nodes: list[Node] = []
        n_tokens = 0
        while self._waiting and len(self._running) + len(admitted) < self._max_running:
            if n_tokens >= self._engine.pass_tokens:
                break
            index = self._waiting[0]
            leaf = self._leaf_of[index]
            above = leaf.path()[:-1] if self._n_own(index) else leaf.path()
            busy = {node for text in (*self._running, *admitted) for node in text.above}
            try:
                missing = self._engine.memory.hold(above, busy=busy)
            except OverBudgetError:
                if self._running or admitted:
                    # Until one of them is done
                    break
                assert len(self._requests) > 1, "a text that doesn't fit alone has been refused"
                self._alone.append(self._waiting.popleft())
                self._let_go(index)
                continue
            nodes += missing
            text = self._text(self._waiting.popleft(), above, row=len(self._running) + len(admitted))
            admitted.append(text)
            n_tokens += text.length + sum(len(node.tokens) for node in missing)
        return _Admission(admitted, nodes)

    def _text(self, index: int, above: list[Node], *, row: int) -> _Text:
        assert self._slots is not None, "rows are made before texts are admitted"
        request, leaf, n_own = self._requests[index], self._leaf_of[index], self._n_own(index)
        tokens = np.zeros(self._slots.k_LRKTD.shape[3], np.int64)
        tokens[:n_own] = leaf.tokens[:n_own]
        parent = leaf.parent if n_own else leaf
        # A node for the row alone, outside the tree: decoding then reads it as it reads any other node
        tail = Node(tokens, parent.end if parent else 0, parent, kv=self._slots.row(row))
        # Its own generator on the CPU: what is drawn depends on neither the device nor the neighbours
        generator = torch.Generator().manual_seed(request.params.seed)
        return _Text(index, request, tail, above, row, n_own, generator)

    def _prefill(self, admission: _Admission) -> list[tuple[int, Generated | Failure]]:
        """Compute the prompts of admitted texts and their first tokens."""
        begin = self._engine.clock()
        nodes = [(node, len(node.tokens)) for node in admission.nodes]
        nodes += [(text.tail, text.length) for text in admission.texts if text.length]
        for pieces in self._passes(nodes):
            stream_NC, n_tokens = self._engine.run_pass(pieces), 0
            for piece in pieces:
                n_tokens += piece.n_tokens
                # A prompt ends here
                if piece.node.sequences or not piece.node.children:
                    self._ends[piece.node] = stream_NC[n_tokens - 1].clone()
        texts = admission.texts
        ends = [self._ends.pop(text.tail) if text.length else self._ends[text.above[-1]] for text in texts]
        self._running += texts
        self._admitted = []
        return self._take_tokens(texts, torch.stack(ends), since=begin)

    def _passes(self, nodes: Sequence[tuple[Node, int]]) -> Iterator[list[Piece]]:
        """Cut the first tokens of each node into pieces, and pack these into passes."""
        pieces: list[Piece] = []
        size = self._engine.pass_tokens
        for node, n_tokens in nodes:
            for begin in range(0, n_tokens, size):
                piece = Piece(node, begin, min(begin + size, n_tokens), self._factor)
                if pieces and sum(p.n_tokens for p in pieces) + piece.n_tokens > size:
                    yield pieces
                    pieces = []
                pieces.append(piece)
        if pieces:
            yield pieces

    def _decode(self) -> list[tuple[int, Generated | Failure]]:
        """Give every running text one more token."""
        model, texts = self._engine.model, list(self._running)
        # What waited continues alone
        if not texts:
            return []
        assert self._slots is not None, "rows are made before texts run"
        begin = self._engine.clock()
        if model.config.dual_chunk is not None:
            # a row may lie in several chunks: each text is a separate piece
            stream_BC = forward(model, [Piece(t.tail, t.length, t.length + 1, self._factor) for t in texts])
        else:
            positions, lengths = [text.position for text in texts], [text.length for text in texts]
            with torch.inference_mode():
                attend = DecodeAttention(model, self._slots, positions, lengths, [text.above for text in texts])
                tokens = torch.tensor([text.generated[-1] for text in texts], device=model.device)
                stream_BC = model.stream(tokens, attend)
        self._engine.stats.n_passes += 1
        self._engine.stats.n_tokens_computed += len(texts)
        for text in texts:
            text.length += 1
        return self._take_tokens(texts, stream_BC, since=begin)

    def _take_tokens(
        self, texts: list[_Text], stream_BC: Tensor, *, since: float
    ) -> list[tuple[int, Generated | Failure]]:
        """Choose each text's next token; return the texts that it ends.

        Args:
            since: the clock when the work for them began.
        """
        params = [text.request.params for text in texts]
        with torch.inference_mode():
            logits_BV = self._engine.generation_head(stream_BC)
            chosen = next_tokens(logits_BV, params, [t.seen for t in texts], [t.generator for t in texts])
        # Only now: on a GPU the tokens are what waits for the work
        seconds = (self._engine.clock() - since) / len(texts)
        answers: list[tuple[int, Generated | Failure]] = []
        for text, token in zip(texts, chosen, strict=True):
            if token is None:
                answers.append((text.index, Failure("the model's logits are not finite: try dtype=float32")))
                self._clear(text)
                continue
            text.generated.append(token)
            text.seconds += seconds
            if text.length < len(text.tail.tokens):
                text.tail.tokens[text.length] = token
            if token in text.request.params.eos_ids or text.request.is_complete(text.generated):
                answers.append((text.index, Generated(tuple(text.generated), "stop")))
            elif len(text.generated) >= text.request.params.max_new_tokens:
                answers.append((text.index, Generated(tuple(text.generated), "length")))
        for index, answer in answers:
            if isinstance(answer, Generated):
                self._engine.stats.n_tokens_asked += len(self._requests[index].prompt) + len(answer.tokens) - 1
        self._leave({index for index, _ in answers})
        return answers

    def _clear(self, text: _Text) -> None:
        """Overwrite a row: what is masked must not be NaN either."""
        assert text.tail.kv is not None, "a text has its row"
        for x_LKTD in text.tail.kv:
            x_LKTD.zero_()

    def _leave(self, indices: set[int]) -> None:
        """Let finished texts go; the last texts take their rows, so that the rows in use have no holes."""
        for text in [text for text in self._running if text.index in indices]:
            last = self._running.pop()
            if last is not text:
                self._running[text.row] = last
                self._move(last, text.row)
            self._let_go(text.index)

    def _move(self, text: _Text, row: int) -> None:
        if text.row != row:
            assert self._slots is not None, "rows are made before texts run"
            self._slots.move(text.row, row, text.length)
            text.row, text.tail.kv = row, self._slots.row(row)

    def _let_go(self, index: int) -> None:
        """Release what only this request needed."""
        for node in self._leaf_of[index].path():
            node.n_waiting -= 1
            if not node.n_waiting:
                self._engine.memory.release(node)
                self._ends.pop(node, None)
