"""Tokens of a model's own tokenizer, in place of words.

A text is folded and stripped as for words: what is left are stretches of letters, digits and marks between separators.
Each is tokenised with a space before it, which for Qwen2 gives the same as all of the stripped text at once, since its
pre-tokenizer never joins what a space divides. So stretches can be kept, and a text costs little more than looking them
up.
"""

import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.errors import DecontamError
from decontam.kernels.words import VocabularyBuilder, split_stretches
from decontam.normalize import Folded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QWEN2 = "Qwen/Qwen2-7B"
MARKERS = ("Ġ", "▁")
"""With what a token begins that has the space before it, byte by byte or as in SentencePiece."""
_KEPT, _KEPT_CHARACTERS = 200_000, 4_000_000
"""Stretches that are kept with their tokens, and their characters."""

Ints = npt.NDArray[np.int64]


class Tokens(NamedTuple):
    """A folded text's tokens; places count its entries."""

    ids: npt.NDArray[np.int32]
    """As the tokenizer numbers them."""
    begins: Ints
    """That of a token with the space before a stretch: where the stretch begins."""
    ends: Ints
    stretch_begins: Ints
    """Where stretches begin; `stretch_ends`: one past them."""
    stretch_ends: Ints
    counts: Ints
    """How many tokens each stretch has."""


class BpeVocabulary(NamedTuple):
    """The tokens that items have."""

    tokenizer: "BpeTokens"
    numbers: npt.NDArray[np.int32]
    """(all tokens,) numbers of the items' tokens, -1 for others."""
    n_known: int


class BpeTokens:
    """A tokenizer. Threads may share it, and it can be pickled."""

    def __init__(self, name: str) -> None:
        """Load it.

        Args:
            name: `qwen2`, or `hf:` and the path of a tokenizer.json or its folder, or a name on the hub.

        Raises:
            DecontamError: it isn't there, or its tokens don't say where a word begins.
        """
        self.name = name
        self._tokenizer = _load(name)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._prefix = self._right_prefix()
        self._lock = threading.Lock()
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_tokenizer": self._tokenizer, "_prefix": self._prefix}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._forget()

    @property
    def fingerprint(self) -> str:
        """Hash of the tokenizer, wherever it lies."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def read(self, folded: Folded) -> Tokens:
        """Return a folded text's tokens."""
        stretches = split_stretches(folded)
        with self._lock:
            if len(self._stretches) > _KEPT or self._stretches.n_characters > _KEPT_CHARACTERS:
                self._forget()
            numbers = self._stretches.add(stretches)
            self._tokenize_new()
            known, stops = self._known, self._stops
        counts = np.diff(stops, prepend=0)[numbers]
        stops_T = np.cumsum(counts)
        places = np.arange(int(counts.sum())) + np.repeat(stops[numbers] - stops_T, counts)
        bases = np.repeat(stretches.begins, counts)
        ids, begins, ends = (column[places] for column in known)
        return Tokens(ids, bases + begins, bases + ends, stretches.begins, stretches.ends, counts)

    def _forget(self) -> None:
        self._stretches = VocabularyBuilder()
        self._known = tuple(np.empty(0, np.int32) for _ in range(3))
        """Tokens of all stretches one after another; begins and ends in characters of the stretch."""
        self._stops = np.empty(0, np.int64)

    def _tokenize_new(self) -> None:
        """Tokenise the stretches that are not known yet."""
        new = [self._stretches.text(number) for number in range(len(self._stops), len(self._stretches))]
        if not new:
            return
        encodings = self._tokenizer.encode_batch([self._prefix + one for one in new], add_special_tokens=False)
        low, columns = len(self._prefix), list[Any](self._known)
        ids = [one for encoding in encodings for one in encoding.ids]
        # the place of a token that is only the space is the first character's
        lasts = np.repeat([len(one) - 1 for one in new], [len(encoding) for encoding in encodings])
        offsets = np.array([one for encoding in encodings for one in encoding.offsets], np.int64).reshape(-1, 2) - low
        begins = np.minimum(np.maximum(offsets[:, 0], 0), lasts)
        for i, column in enumerate((ids, begins, np.maximum(offsets[:, 1], 0))):
            columns[i] = np.concatenate((columns[i], np.array(column, np.int32)))
        self._known = tuple(columns)
        n_before = len(self._known[0]) - len(ids)
        stops = np.cumsum([len(encoding) for encoding in encodings]) + n_before
        self._stops = np.concatenate((self._stops, stops)).astype(np.int64)

    def is_first(self, token: int) -> bool:
        """Whether a token has the space before a stretch."""
        return str(self._tokenizer.id_to_token(token)).startswith(MARKERS)

    def _right_prefix(self) -> str:
        for prefix in (" ", ""):
            tokens = self._tokenizer.encode(f"{prefix}word", add_special_tokens=False).tokens
            if tokens and [token.startswith(MARKERS) for token in tokens] == [True] + [False] * (len(tokens) - 1):
                return prefix
        raise DecontamError(
            f"tokenizer {self.name}: its tokens don't say where a word begins: "
            "give one that works on bytes, as Qwen2's does, or SentencePiece's"
        )


def _load(name: str) -> "Tokenizer":
    from tokenizers import Tokenizer  # no need of it where tokens are words

    path = Path(name.removeprefix("hf:"))
    if name != "qwen2" and path.exists():
        file = path / "tokenizer.json" if path.is_dir() else path
    else:
        file = _from_hub(QWEN2 if name == "qwen2" else name.removeprefix("hf:"))
    try:
        return Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as err:  # tokenizers raises plain Exceptions
        raise DecontamError(f"tokenizer {name}: {file}: {err}: give hf:PATH of a folder with a tokenizer.json") from err


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as err:
        raise DecontamError(
            f"the tokenizer of {name} is neither on this machine nor could be fetched "
            f"({type(err).__name__}): give --tokenizer hf:PATH of a folder with its tokenizer.json"
        ) from err
