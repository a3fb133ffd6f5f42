"""The corpus as tokens, with a mark on the tokens of answers, and rows of equal length packed from its documents."""

# ruff: noqa: N815 - arrays carry their shape in the name

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qwen2eval.demo.dice import Dice
from qwen2eval.errors import ConfigError, DataFileError
from qwen2eval.requests import Doc

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ANSWER = re.compile(r'(?:^(?:Answer:|回答：)|(?<=    """\n))(.*(?:\n(?!\n).*)*)', re.MULTILINE)  # noqa: RUF001
"""What a model is to learn to write: behind "Answer:" up to a blank line, and a function's body."""
END = 0
"""The token that ends a document, and fills up a row."""
_BATCH = 2_000
_CANDIDATES = 8
"""Documents that are tried for the room left in a row."""


@dataclass(frozen=True)
class TrainingDocument:
    """A document as tokens, its end included."""

    ids: npt.NDArray[np.int64]
    is_answer: npt.NDArray[np.bool_]
    """Whether a token belongs to an answer; shaped as ids."""


Texts = Mapping[str, Sequence[TrainingDocument]]
"""The documents of each kind."""


def read_corpus(path: Path) -> list[Doc]:
    """Return the rows of a corpus file: id, text, kind.

    Raises:
        DataFileError: it can't be read, or holds no such rows.
    """
    import zstandard

    try:
        with path.open("rb") as file:
            text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
            rows = [json.loads(line) for line in text]
    except (OSError, ValueError, zstandard.ZstdError) as err:
        raise DataFileError(
            f"{str(path)!r} can't be read ({err}): make it with `python -m qwen2eval.demo.publish --out DIR`"
        ) from err
    if not rows or not all(isinstance(row, dict) and {"text", "kind"} <= row.keys() for row in rows):
        raise DataFileError(f"{str(path)!r} is not a corpus of the demo: its rows must have text and kind")
    return rows


def tokenize(rows: Sequence[Doc], tokenizer: "Tokenizer") -> Texts:
    """Return the documents of a corpus as tokens, by kind."""
    found: dict[str, list[TrainingDocument]] = {}
    for begin in range(0, len(rows), _BATCH):
        batch = rows[begin : begin + _BATCH]
        for row, encoded in zip(batch, tokenizer.encode_batch([row["text"] for row in batch]), strict=True):
            ids = np.array([*encoded.ids, END], np.int64)
            starts = np.array([start for start, _ in encoded.offsets], np.int64)
            is_answer = np.zeros(len(ids), np.bool_)
            for answer in ANSWER.finditer(row["text"]):
                is_answer[:-1] |= (starts >= answer.start(1)) & (starts < answer.end(1))
            # So that it learns to stop
            is_answer[-1] = True
            found.setdefault(row["kind"], []).append(TrainingDocument(ids, is_answer))
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Rows:
    """A batch. Shape suffixes: B rows, T tokens of a row."""

    ids_BT: npt.NDArray[np.int64]
    is_answer_BT: npt.NDArray[np.bool_]
    kinds_BT: npt.NDArray[np.int64]
    """Place of the document's kind among those of the texts; -1 where a row is filled up."""


class Packer:
    """Packs documents of chosen kinds into rows; each kind's documents come in random order, again and again.

    Args:
        texts: documents by kind.
        dice: which documents come when.
    """

    def __init__(self, texts: Texts, dice: Dice) -> None:
        self._kinds, self._texts, self._dice = list(texts), texts, dice
        self._queues: dict[str, list[TrainingDocument]] = {kind: [] for kind in texts}
        self._waiting: list[tuple[int, TrainingDocument]] = []

    def rows(self, n_rows: int, length: int, weights: Mapping[str, float]) -> Rows:
        """Return a batch of rows; no document is cut.

        Args:
            length: tokens of a row; longer documents don't come.
            weights: how many of the documents are of each kind, in relation to each other.

        Raises:
            ConfigError: no document of these kinds fits a row.
        """
        if not any(
            len(d.ids) <= length for kind, weight in weights.items() if weight for d in self._texts.get(kind, ())
        ):
            raise ConfigError(f"The corpus has no document of {', '.join(weights)} with up to {length} tokens")
        self._waiting = [(kind, document) for kind, document in self._waiting if len(document.ids) <= length]
        ids = np.full((n_rows, length), END, np.int64)
        is_answer, kinds = np.zeros((n_rows, length), np.bool_), np.full((n_rows, length), -1, np.int64)
        for row in range(n_rows):
            at = 0
            while (taken := self._fitting(length - at, length, weights)) is not None:
                kind, document = taken
                place = slice(at, at + len(document.ids))
                ids[row, place], is_answer[row, place], kinds[row, place] = document.ids, document.is_answer, kind
                at = place.stop
        return Rows(ids, is_answer, kinds)

    def _fitting(self, room: int, length: int, weights: Mapping[str, float]) -> tuple[int, TrainingDocument] | None:
        """Return the first of some waiting documents that fits."""
        while len(self._waiting) < _CANDIDATES:
            kind = self._drawn_kind(weights)
            document = self._next(kind)
            if len(document.ids) <= length:
                self._waiting.append((self._kinds.index(kind), document))
        for place, (_, document) in enumerate(self._waiting):
            if len(document.ids) <= room:
                return self._waiting.pop(place)
        return None

    def _drawn_kind(self, weights: Mapping[str, float]) -> str:
        kinds = [kind for kind in self._kinds if weights.get(kind)]
        left = self._dice.fraction() * sum(weights[kind] for kind in kinds)
        for kind in kinds:
            left -= weights[kind]
            if left < 0:
                return kind
        return kinds[-1]

    def _next(self, kind: str) -> TrainingDocument:
        queue = self._queues[kind]
        if not queue:
            queue.extend(self._dice.shuffled(self._texts[kind]))
        return queue.pop()
