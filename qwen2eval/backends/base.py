"""What every backend offers to a run: who it is, and answers in batches as they finish."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwen2eval.requests import Answer, Request

Identity = Mapping[str, str | int | float | bool | None]
AnswerBatch = list[tuple[int, Answer]]


class Backend(ABC):
    """A model that is open and ready to answer."""

    name: str
    """The name given to `--model`."""
    tokenizer: Any = None
    """A Hugging Face tokenizer, or None where only the server knows it."""
    max_length: int | None = None
    """Longest prompt plus answer, in tokens; None where unknown."""
    n_parameters: int | None = None
    window_requests: int | None = 1_024
    """How many requests are handed over at a time, those answered already among them; None: a whole task's."""

    may_change: bool = False
    """Whether another model may answer under the same identity, as behind a server: stored answers are then checked."""

    @abstractmethod
    def identity(self) -> Identity:
        """Return all that decides this backend's answers besides the request; it becomes part of the store key."""

    @abstractmethod
    def answer(self, requests: Sequence[Request]) -> Iterator[AnswerBatch]:
        """Answer `requests`, all of one kind, yielding (index into `requests`, answer) as they finish.

        The caller commits each yielded list at once, so a kill loses at most the list under way. One request that
        fails becomes an `Answer` with `error`; the remaining requests are answered.

        Raises:
            BackendError: nothing more can be answered (the engine died, the server refuses every connection).
        """

    def answer_some(self, requests: Sequence[Request], wanted: Sequence[int]) -> Iterator[AnswerBatch]:
        """Answer the requests at the indices `wanted`; most backends ignore the other indices.

        Yields:
            As `answer`, with indices into `requests`.
        """
        for batch in self.answer([requests[index] for index in wanted]):
            yield [(wanted[i], answer) for i, answer in batch]

    def usage(self) -> Mapping[str, int]:
        """Return counts of the work done so far, for run.json; empty where the backend doesn't know."""
        return {}

    def close(self) -> None:
        """Free what the backend holds."""
