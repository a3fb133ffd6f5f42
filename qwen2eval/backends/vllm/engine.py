"""Prompts into vLLM's engine and its outputs back as they finish, one engine step at a time.

`LLM.generate` returns nothing before its last prompt is done; the engine under it reports what each step finished.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from qwen2eval.backends.base import AnswerBatch
from qwen2eval.requests import Answer

Answered = tuple[int, Answer]
"""Index of a request, and its answer."""

MOST_UNDER_WAY = 1_024
"""Prompts that the engine has at a time: several times what it computes at once, few enough to be made in seconds."""
CPU_TOKENS_UNDER_WAY, GPU_TOKENS_UNDER_WAY = 16_384, 1 << 20
"""Tokens of these prompts: what the engine reads in a minute or less. It reads prompts before it ends answers, and a
kill loses what it has not ended."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt for the engine."""

    tokens: list[int]
    params: Any
    """vLLM's `SamplingParams`."""
    take: Callable[[Any], Iterable["Ask | Answered"]]
    """What follows from the `RequestOutput`: answers, or more to ask."""
    indices: tuple[int, ...]
    """The requests that fail with this prompt."""


@dataclass
class Usage:
    """Work of an engine, in tokens."""

    n_computed: int = 0
    """Went through the layers; those read from the prefix cache did not."""


def run_engine(
    llm: Any,
    asks: Iterable[Ask | Answered],
    *,
    usage: Usage,
    lora_request: object = None,
    most_tokens: int = GPU_TOKENS_UNDER_WAY,
) -> Iterator[AnswerBatch]:
    """Keep the engine supplied and yield after each of its steps what is answered; each request is answered once.

    Args:
        llm: a `vllm.LLM`.
        asks: what to ask; requests that need no prompt may come answered.
        usage: is added to.
        lora_request: the adapter of all prompts.
        most_tokens: of prompts under way; one prompt may have more.
    """
    queue, coming = _Queue(llm, usage, lora_request), iter(asks)
    try:
        while True:
            batch = queue.follow(queue.fitting(coming, most_tokens))
            if not batch and not queue.under_way:
                return
            if batch := batch + queue.step():
                yield batch
    finally:  # the caller stopped early: nothing of this may come back among later answers
        if queue.under_way:
            llm.llm_engine.abort_request(list(queue.under_way))


class _Queue:
    """The prompts that the engine has, and what to do with their outputs."""

    def __init__(self, llm: Any, usage: Usage, lora_request: object) -> None:
        self._llm, self._usage, self._lora_request = llm, usage, lora_request
        self._numbers = count()
        self._answered: set[int] = set()
        self.under_way: dict[str, Ask] = {}

    def fitting(self, coming: Iterator[Ask | Answered], most_tokens: int) -> Iterator[Ask | Answered]:
        """Yield what is to come while there is room; the caller sends each before it takes the next."""
        for _ in range(MOST_UNDER_WAY - len(self.under_way)):
            if self.under_way and sum(len(ask.tokens) for ask in self.under_way.values()) >= most_tokens:
                return
            if (ask := next(coming, None)) is None:
                return
            yield ask

    def follow(self, results: Iterable[Ask | Answered]) -> AnswerBatch:
        """Send the prompts among `results` to the engine and return the answers."""
        batch: AnswerBatch = []
        for result in results:
            if isinstance(result, Ask):
                batch += self._send(result)
            # A prompt that fails answers its requests at once, and their other prompts may still come back
            elif result[0] not in self._answered:
                self._answered.add(result[0])
                batch.append(result)
        return batch

    def step(self) -> AnswerBatch:
        """Let the engine do one step, and return the answers that it finished."""
        if not self.under_way:
            return []
        outputs = [output for output in self._llm.llm_engine.step() if output.finished]
        return [pair for output in outputs for pair in self._receive(output)]

    def _send(self, ask: Ask) -> AnswerBatch:
        from vllm.exceptions import VLLMValidationError

        # Never used twice: a request may be asked in several prompts
        name = str(next(self._numbers))
        try:
            (prompt,) = self._llm.renderer.render_cmpl([{"prompt_token_ids": ask.tokens}])
            self._llm.llm_engine.add_request(name, prompt, ask.params, lora_request=self._lora_request)
        # an empty prompt, one that is too long, a token that the model doesn't have
        except (ValueError, VLLMValidationError) as err:
            return self._fail(ask, f"vLLM refuses the prompt: {err}")
        self.under_way[name] = ask
        return []

    def _receive(self, output: Any) -> AnswerBatch:
        ask = self.under_way.pop(output.request_id)
        if output.outputs[0].finish_reason in ("abort", "error"):
            return self._fail(ask, "vLLM gave the prompt up")
        n_read = len(ask.tokens) - (output.num_cached_tokens or 0)
        # The last one is not read
        self._usage.n_computed += n_read + max(0, len(output.outputs[0].token_ids) - 1)
        return self.follow(ask.take(output))

    def _fail(self, ask: Ask, error: str) -> AnswerBatch:
        return self.follow((i, Answer(error=error)) for i in ask.indices)
