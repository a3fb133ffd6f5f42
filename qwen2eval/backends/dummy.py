"""A model-free backend for tests, trials of a protocol and benchmarks: its answers come from a hash of the request."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen2eval.backends.base import AnswerBatch, Backend, Identity
from qwen2eval.config import RunConfig
from qwen2eval.errors import BackendError, ModelError
from qwen2eval.requests import Answer, Request


class DummyBackend(Backend):
    """Answers at once, always the same to the same request.

    Model arguments: `batch` (answers a batch), `delay` (seconds a batch), `seed` (another seed is another model), and
    for trying out failures: `fail_every=N` (every N-th request is not answered), `nan_every=N`, `empty_every=N`,
    `die_after=N` (the backend breaks down after N answers). `log=FILE` appends a hash of each request that is answered.
    """

    name = "dummy"
    FAULTS = ("fail_every", "nan_every", "empty_every", "die_after")
    ARGS = ("batch", "delay", "seed", "log", "max_length", "tokenizer", "think_end_token", *FAULTS)

    def __init__(self, config: RunConfig) -> None:
        if unknown := sorted(set(config.model_args) - set(self.ARGS)):
            raise ModelError(f"--model dummy has no argument {unknown[0]!r}; it takes {', '.join(self.ARGS)}")
        self._args = dict(config.model_args)
        self._answered = 0

    def identity(self) -> Identity:
        """Return the seed: two seeds are two models."""
        return {"backend": self.name, "seed": int(self._args.get("seed", 0)), "version": 1}

    def answer(self, requests: Sequence[Request]) -> Iterator[AnswerBatch]:
        """Yield batches of hashed answers."""
        size = int(self._args.get("batch", 64))
        for start in range(0, len(requests), size):
            time.sleep(float(self._args.get("delay", 0)))
            batch = [(i, self._answer(i, requests[i])) for i in range(start, min(start + size, len(requests)))]
            self._answered += len(batch)
            if (limit := self._args.get("die_after")) and self._answered > limit:
                raise BackendError(f"The dummy was set to die after {limit} answers")
            if path := self._args.get("log"):
                with Path(path).open("a", encoding="utf-8") as file:
                    file.write("".join(f"{self._number(requests[i]):x}\n" for i, _ in batch))
            yield batch

    def _answer(self, i: int, request: Request) -> Answer:
        if self._every("fail_every", i):
            return Answer(error="the dummy was set to fail this request")
        number = self._number(request)
        if request.kind == "generate_until":
            response = (
                "" if self._every("empty_every", i) else f"I think that it is {number % 100}.\n#### {number % 100}"
            )
            return Answer(response=response, finish_reason="stop", n_response_tokens=len(response.split()))
        logprob = float("nan") if self._every("nan_every", i) else -(number % 10**9) / 10**8
        return Answer(logprob=logprob, is_greedy=None if request.kind == "loglikelihood_rolling" else number % 2 == 0)

    def _number(self, request: Request) -> int:
        seed = self._args.get("seed", 0)
        text = "\x1f".join((str(seed), request.kind, request.context, request.continuation, str(request.seed)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")

    def _every(self, name: str, i: int) -> bool:
        period = int(self._args.get(name, 0))
        return period > 0 and i % period == period - 1
