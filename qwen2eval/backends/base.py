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

    @abstractmethod
    def identity(self) -> Identity:
        """Return all that decides this backend's answers besides the request; it becomes part of the store key."""

    @abstractmethod
    def answer(self, requests: Sequence[Request]) -> Iterator[AnswerBatch]:
        """Answer `requests`, all of one kind, yielding (index into `requests`, answer) as they finish.

        The caller commits each yielded list at once, so a kill loses at most the list under way. One request that
        fails becomes an `Answer` with `error`; the others go on.

        Raises:
            BackendError: nothing more can be answered (the engine died, the server refuses every connection).
        """

    def close(self) -> None:
        """Free what the backend holds."""
