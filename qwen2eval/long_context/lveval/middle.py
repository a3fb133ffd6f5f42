"""LV-Eval's way with texts that are too long: the middle goes, half of the limit's tokens stay at either end.

Where the tokenizer parts words by a known pattern, only as much as stays is tokenized, part by part from both ends: a
tenth of a text of 340,000 tokens that is cut to 32,000. Otherwise the whole text is, once.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from qwen2eval.prompts import TURN, cut_pieces, has_cutting_pattern
from qwen2eval.tokenizer import Tokenizer


class MiddleCutter:
    """Cuts prompts to a number of tokens.

    Args:
        tokenizer: a Hugging Face tokenizer.
        limit: tokens, without those that the model gets beside the text.
    """

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        self.tokenizer, self.limit = tokenizer, limit
        self._is_piecewise = has_cutting_pattern(tokenizer)

    def without_middle(self, text: str) -> str | None:
        """Return a text without what is too much in its middle; None where nothing is."""
        # Pieces begin there, and to some tokenizers it is a word
        if self._is_piecewise and TURN not in text:
            return self._cut_in_parts(text)
        if getattr(self.tokenizer, "is_fast", False):
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            starts = [begin for begin, _ in encoded["offset_mapping"]]
            return None if len(starts) <= self.limit else cut_middle(text, starts, limit=self.limit)
        # without offsets as the source does, at the risk of half a character at the seam
        ids, half = self.tokenizer.encode(text, add_special_tokens=False), self.limit // 2
        decode = self.tokenizer.decode
        return None if len(ids) <= self.limit else decode(ids[:half]) + decode(ids[len(ids) - half :])

    def _cut_in_parts(self, text: str) -> str | None:
        parts, half = list(cut_pieces(text)), self.limit // 2
        # the part in which token number `half` begins, and the place of its begin
        spec = self._until(parts, half + 1)
        back = self._until(reversed(parts[spec.n_parts :]), half)
        if spec.n_tokens + back.n_tokens <= self.limit and spec.n_parts + back.n_parts == len(parts):
            return None
        # The ends meet: all of it is known, and it is too long by little
        if back.n_tokens < half:
            starts = self._starts(text)
            return cut_middle(text, starts, limit=self.limit)
        begin, end = spec.n_chars - len(parts[spec.n_parts - 1]), len(text) - back.n_chars
        head = self._starts(parts[spec.n_parts - 1])
        tail = self._starts(parts[len(parts) - back.n_parts])
        first = begin + head[half - (spec.n_tokens - len(head))]
        return text[:first] + text[end + tail[back.n_tokens - half] :]

    def _until(self, parts: Iterable[str], n_wanted: int) -> "_Stretch":
        """Tokenize parts until there are so many tokens, or no parts."""
        n_parts = n_tokens = n_chars = 0
        for part in parts:
            if n_tokens >= n_wanted:
                break
            n_parts, n_chars = n_parts + 1, n_chars + len(part)
            n_tokens += len(self._encoded(part))
        return _Stretch(n_parts, n_tokens, n_chars)

    def _encoded(self, text: str) -> Any:
        return self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)

    def _starts(self, text: str) -> list[int]:
        return [begin for begin, _ in self._encoded(text).offsets]


class _Stretch(NamedTuple):
    n_parts: int
    n_tokens: int
    n_chars: int


def cut_middle(text: str, starts: Sequence[int], *, limit: int) -> str:
    """Return the first and the last half of `limit` tokens of a text.

    Args:
        starts: where each token of `text` begins, in characters.
        limit: tokens; an odd one is rounded down.

    >>> cut_middle("abcdefgh", range(8), limit=5)
    'abgh'
    """
    half = limit // 2
    return text[: starts[half]] + text[starts[len(starts) - half] :]
