"""What a backend calls: a model, its limits, and the two kinds of work."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from qwen2eval.engine.generate import Generated, GenerateRequest, Generation
from qwen2eval.engine.kv import KVMemory
from qwen2eval.engine.packed import Piece, forward
from qwen2eval.engine.score import Failure, Score, ScoreRequest, Scoring
from qwen2eval.engine.tree import Node
from qwen2eval.model.packing import generation_head, pack_linears
from qwen2eval.model.qwen2 import Qwen2Model

CPU_PASS_TOKENS, GPU_PASS_TOKENS = 512, 8_192
CPU_RUNNING, GPU_RUNNING = 64, 256
SMALLEST_PASS = 16
"""Tokens; where memory runs out for so few, it is not their number."""
CPU_KV_SHARE, GPU_KV_SHARE = 0.4, 0.8
"""Of the memory that is free once the weights are there."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Limits of an engine; None: what suits the machine."""

    kv_bytes: int | None = None
    """Memory for keys and values, in bytes."""
    pass_tokens: int | None = None
    """Tokens of one forward pass."""
    max_running: int | None = None
    """Texts that are generated side by side."""


@dataclass
class EngineStats:
    """What was asked of an engine and what it computed, in tokens."""

    n_tokens_asked: int = 0
    """Tokens of all prompts, continuations and answers, as if no two requests shared any."""
    n_tokens_computed: int = 0
    """Tokens that went through the layers."""
    n_passes: int = 0
    """Forward passes."""

    @property
    def n_tokens_saved(self) -> int:
        """Tokens that another request had computed already."""
        return self.n_tokens_asked - self.n_tokens_computed


class Engine:
    """Scores and generates with one model.

    Args:
        options: limits; a `kv_bytes` that fits nothing makes every request fail with the reason.
        clock: seconds from any point on; by them the engine decides how many texts it writes at a time.
    """

    def __init__(
        self,
        model: Qwen2Model,
        options: EngineOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        options, self.clock = options or EngineOptions(), clock
        # The defaults differ by device: a GPU needs larger passes to be busy
        on_cpu = model.device.type == "cpu"
        pack_linears(model)
        self.model, self.stats = model, EngineStats()
        self.memory = KVMemory(model, _kv_bytes(model) if options.kv_bytes is None else options.kv_bytes)
        self.pass_tokens = options.pass_tokens or (CPU_PASS_TOKENS if on_cpu else GPU_PASS_TOKENS)
        self.max_running = options.max_running or (CPU_RUNNING if on_cpu else GPU_RUNNING)

    def score(
        self, requests: Sequence[ScoreRequest], *, wanted: Sequence[int] | None = None
    ) -> Iterator[list[tuple[int, Score | Failure]]]:
        """Yield (index, answer) as they finish; one that fails doesn't stop the remaining ones.

        Args:
            requests: token ids, each part not empty; the whole within the model's length.
            wanted: indices to answer; None: all. The other requests only show where prefixes are shared, so
                that an answer is the same whether or not they are asked.
        """
        lengths = [request.sequence_length or len(request.context) for request in requests]
        for factor, group in self._by_factor(lengths).items():
            own = [requests[index] for index in group]
            pending = _places(group, wanted)
            for answers in self._surviving(partial(Scoring, self, own, factor=factor), pending):
                yield [(group[i], answer) for i, answer in answers]

    def generate(
        self, requests: Sequence[GenerateRequest], *, wanted: Sequence[int] | None = None
    ) -> Iterator[list[tuple[int, Generated | Failure]]]:
        """Yield (index, answer) as they finish; one that fails doesn't stop the remaining ones.

        Args:
            wanted: as for `score`.
        """
        for factor, group in self._by_factor([len(request.prompt) for request in requests]).items():
            own = [requests[index] for index in group]
            pending = _places(group, wanted)
            for answers in self._surviving(partial(Generation, self, own, factor=factor), pending):
                yield [(group[i], answer) for i, answer in answers]

    @cached_property
    def generation_head(self) -> Callable[[Tensor], Tensor]:
        """What gives logits, (texts, vocab), to texts that are generated; made when the first one is."""
        return generation_head(self.model)

    def pieces(self, node: Node, *, factor: float) -> Iterator[Piece]:
        """Cut a node into pieces that fit a pass; always at the same places, so that results don't depend on others."""
        for begin in range(0, len(node.tokens), self.pass_tokens):
            yield Piece(node, begin, min(begin + self.pass_tokens, len(node.tokens)), factor)

    def run_pass(self, pieces: Sequence[Piece]) -> Tensor:
        """Run pieces as one pass and return their stream under the head, (tokens, hidden)."""
        stream_NC = forward(self.model, pieces)
        self.stats.n_tokens_computed += len(stream_NC)
        self.stats.n_passes += 1
        return stream_NC

    def over_budget(self, n_tokens: int) -> Failure:
        """Say that keys and values of so many tokens don't fit."""
        budget = self.memory.budget_bytes // self.memory.bytes_per_token
        needed_gb = n_tokens * self.memory.bytes_per_token / 1e9
        return Failure(
            f"keys and values of {n_tokens:,} tokens are over the budget of {budget:,}: give "
            f"kv_memory_gb={needed_gb:.3g} or more in --model_args, or shorten the prompt"
        )

    def _by_factor(self, n_prompt_tokens: Sequence[int]) -> dict[float, list[int]]:
        """Group requests by the scaling of their scores: texts that are scaled differently share nothing.

        With DCA and a trained length, scores of longer sequences are scaled by m^2 (`DualChunk.score_factor`). Here m
        is that of the prompt, also while it is answered, so that choices of one context share it.
        """
        dual, groups = self.model.config.dual_chunk, defaultdict[float, list[int]](list)
        for index, n_tokens in enumerate(n_prompt_tokens):
            groups[dual.score_factor(n_tokens) ** 2 if dual else 1.0].append(index)
        return groups

    def _surviving(self, start: Callable[[list[int]], "_Work"], pending: set[int]) -> Iterator[list[tuple[int, Any]]]:
        """Do some work; where memory runs out, begin again with half the limits and what is still to answer.

        Nothing of the broken attempt is kept, so it can't be wrong. Where the limits can't be halved any more, what
        was under way fails, and the rest continues with the former limits.
        """
        # Kept, because a request that fails even at the smallest limits must not slow down all that follow
        limits = self.pass_tokens, self.max_running
        while pending:
            # A set has no order, but the same requests must make the same passes
            work = start(sorted(pending))
            try:
                for answers in work.run():
                    pending -= {index for index, _ in answers}
                    yield answers
                return
            except (RuntimeError, MemoryError) as err:
                if not is_out_of_memory(err):
                    raise
            finally:
                # Also after an error or an early end of the caller's loop: nodes of this attempt are never used again
                self.memory.release_all()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if self.pass_tokens > SMALLEST_PASS or self.max_running > 1:
                self.pass_tokens = max(SMALLEST_PASS, self.pass_tokens // 2)
                self.max_running = max(1, self.max_running // 2)
            else:
                # If nothing was under way, the memory is too small even to begin: then no request can succeed
                failed = (work.under_way() & pending) or pending
                yield [(index, Failure("out of memory")) for index in sorted(failed)]
                pending = pending - failed
                self.pass_tokens, self.max_running = limits


class _Work(Protocol):
    """Scoring or Generation."""

    def run(self) -> Iterator[list[tuple[int, Any]]]:
        """Yield answers as they finish."""

    def under_way(self) -> set[int]:
        """Return the requests that are being computed."""


def _places(group: Sequence[int], wanted: Sequence[int] | None) -> set[int]:
    """Return which places of a group hold a wanted request."""
    chosen = set(group if wanted is None else wanted)
    return {place for place, index in enumerate(group) if index in chosen}


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error means that memory ran out: torch's CPU allocator raises a plain RuntimeError."""
    marks = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(err, MemoryError | torch.OutOfMemoryError) or any(mark in str(err) for mark in marks)


def _kv_bytes(model: Qwen2Model) -> int:
    """Return a share of the memory that is free now."""
    if model.device.type == "cuda":
        return int(GPU_KV_SHARE * torch.cuda.mem_get_info(model.device)[0])
    return int(CPU_KV_SHARE * _free_bytes())


def _free_bytes() -> int:
    """Return the machine's free memory in bytes, what caches could give back included; half of all where unknown."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            # Not MemFree: that leaves out caches, which the kernel gives back on demand
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
