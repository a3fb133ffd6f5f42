"""A haystack with a needle in it, cut so that the final prompt has exactly the asked number of tokens."""

import bisect
import re
from dataclasses import dataclass
from typing import NamedTuple

from qwen2eval.errors import ConfigError
from qwen2eval.long_context.haystack import BETWEEN_PARAGRAPHS, Haystack
from qwen2eval.long_context.lengths import PromptCounter
from qwen2eval.long_context.sentences import sentence_ends

_MAX_STEPS = 8
_MAX_TRIES = 100
_WINDOW = 48
"""Characters before and behind the best cut that are tried one by one."""
_FILLERS = ("", ".", "\n", " .", "..", " . .", "...", " . . .", " . . . .")
"""Ends of a haystack that make up for the few tokens that no cut of it gives: a rare character has up to four."""
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Frame:
    """What the user says around the haystack."""

    before: str
    after: str


class Placed(NamedTuple):
    """Where the needle is, and where the haystack ends; with the haystack's text this is the prompt."""

    needle_at: int
    """Characters of the haystack before the needle."""
    end: int
    """Characters of the haystack."""
    filler: str
    """The text behind it that fills up the length."""
    depth_percent: float
    """Tokens of the haystack before the needle, of all."""


class Stretch:
    """A haystack from one paragraph on, with places of tokens and sentences.

    Args:
        n_tokens: how long it has to be at least.
    """

    def __init__(self, haystack: Haystack, start: int, *, n_tokens: int, counter: PromptCounter) -> None:
        # Parts by themselves count for more
        n_wanted = n_tokens + 200 + (0 if counter.is_piecewise else n_tokens // 3)
        pieces: list[str] = []
        self._starts = []
        self._n_chars, self._n_tokens = [0], [0]
        for paragraph in haystack.circle(start):
            pieces.append(paragraph + BETWEEN_PARAGRAPHS)
            starts = counter.token_starts(pieces[-1])
            self._starts.append(starts)
            self._n_chars.append(self._n_chars[-1] + len(pieces[-1]))
            self._n_tokens.append(self._n_tokens[-1] + len(starts) - 1)
            if self._n_tokens[-1] > n_wanted:
                break
            # More text that gives no more tokens would be asked for without end
            if len(pieces) == len(haystack.paragraphs) and not self._n_tokens[-1]:
                raise counter.no_tokens_error(pieces[0])
        self.text = "".join(pieces)
        self._n_chars_once = self._n_chars[min(len(haystack.paragraphs), len(pieces))]
        self._sentence_ends = sentence_ends(self.text)

    def char_at(self, n_tokens: int) -> int:
        """Return how many characters the first tokens have."""
        k = bisect.bisect_right(self._n_tokens, n_tokens) - 1
        if k >= len(self._starts):
            return len(self.text)
        starts = self._starts[k]
        return self._n_chars[k] + starts[n_tokens - self._n_tokens[k]]

    def is_repeated_at(self, n_chars: int) -> bool:
        """Whether the first characters are more than the haystack has."""
        return n_chars > self._n_chars_once

    def token_at(self, n_chars: int) -> int:
        """Return how many tokens begin in the first characters."""
        k = bisect.bisect_right(self._n_chars, n_chars) - 1
        if k >= len(self._starts):
            return self._n_tokens[-1]
        return self._n_tokens[k] + bisect.bisect_left(self._starts[k], n_chars - self._n_chars[k])

    def nearest_sentence_end(self, n_tokens: int, *, end: int) -> int:
        """Return the place between sentences, in characters, nearest to a token; the earlier of two.

        Args:
            end: it is not behind this character.
        """
        at = bisect.bisect_right(self._sentence_ends, min(self.char_at(n_tokens), end))
        near = [place for place in self._sentence_ends[max(at - 1, 0) : at + 1] if place <= end]
        return min(near, key=lambda place: abs(self.token_at(place) - n_tokens))


def assemble(frame: Frame, text: str, needle: str, *, needle_at: int, end: int, filler: str = "") -> str:
    r"""Return what the user says: the haystack's first `end` characters, with the needle on a separate line.

    >>> assemble(Frame("", ""), "One. Two.\n\nThree.", "Needle.", needle_at=4, end=9)
    'One.\nNeedle.\nTwo.'
    """
    left, rest = text[:needle_at], text[needle_at:end]
    gap = _SPACE.match(rest)
    assert gap is not None, "the pattern matches nothing, too"
    right = rest[gap.end() :].rstrip()
    between = BETWEEN_PARAGRAPHS if not left or BETWEEN_PARAGRAPHS in gap[0] else "\n"
    body = f"{left}\n{needle}" if left else needle
    if right:
        filler = between + right + filler
    elif filler.strip():
        # A full stop more would change the needle
        filler = f"\n{filler.lstrip()}"
    return f"{frame.before}{body}{filler}{frame.after}"


def fit(
    stretch: Stretch, frame: Frame, needle: str, *, length: int, depth_percent: float, counter: PromptCounter
) -> Placed:
    """Place a needle at the sentence end nearest to a depth, and cut the haystack so that the length is met.

    Args:
        length: tokens of the final prompt.
        depth_percent: tokens of the haystack before the needle, of all.

    Raises:
        ConfigError: needle and question alone are longer.
    """
    n_bare = counter.count(assemble(frame, "", needle, needle_at=0, end=0))
    n_tokens = length - n_bare
    if n_tokens < 0:
        raise ConfigError(
            f"A prompt of {length:,} tokens is too short: question and needle alone take {n_bare:,} ({needle[:60]!r}). "
            "Ask for longer ones with `lengths` in the task's metadata, or give a shorter needle"
        )
    end = stretch.char_at(n_tokens)
    while end >= 0:
        needle_at = stretch.nearest_sentence_end(round(n_tokens * depth_percent / 100), end=end)
        placed = _fit_end(
            stretch, frame, needle, length=length, needle_at=needle_at, n_tokens=n_tokens, counter=counter
        )
        if placed is not None:
            return placed
        # The last sentence ends where the haystack has to: no room to make up for a token
        end = needle_at - 1
    raise ConfigError(
        f"No cut of the haystack near {stretch.text[:60]!r} makes a prompt of exactly {length:,} tokens: ask for "
        "another length, or give another haystack"
    )


def _fit_end(
    stretch: Stretch, frame: Frame, needle: str, *, length: int, needle_at: int, n_tokens: int, counter: PromptCounter
) -> Placed | None:
    """Cut the haystack behind its needle so that the length is met; None where no cut does.

    Args:
        n_tokens: of the haystack, by a first guess.
    """
    end, seen = needle_at, set[int]()
    while n_tokens not in seen and len(seen) < _MAX_STEPS:
        seen.add(n_tokens)
        end = max(stretch.char_at(n_tokens), needle_at)
        missing = length - counter.count(assemble(frame, stretch.text, needle, needle_at=needle_at, end=end))
        if missing == 0:
            return _placed(stretch, needle_at, end, "")
        n_tokens = max(0, n_tokens + missing)
    return _fit_finely(stretch, frame, needle, length=length, needle_at=needle_at, near=end, counter=counter)


def _fit_finely(
    stretch: Stretch, frame: Frame, needle: str, *, length: int, needle_at: int, near: int, counter: PromptCounter
) -> Placed | None:
    """Try each character near the best cut as the end, with something behind it where need be; likeliest first.

    Only the last part of the text is counted for each, as the whole may take half a second.
    """
    begin = max(near - _WINDOW, needle_at)
    ends = range(begin, min(len(stretch.text), near + _WINDOW) + 1)

    def said(end: int, filler: str) -> str:
        return assemble(frame, stretch.text, needle, needle_at=needle_at, end=end, filler=filler)

    def n_last(end: int, filler: str) -> int:
        return counter.count_part(stretch.text[max(begin - _WINDOW, 0) : end].rstrip() + filler + frame.after)

    lasts = {(end, filler): n_last(end, filler) for filler in _FILLERS for end in ends}
    n_before = counter.count(said(near, "")) - lasts[near, ""]
    for _ in range(min(_MAX_TRIES, len(lasts))):
        wanted = length - n_before
        end, filler = min(lasts, key=lambda one: abs(lasts[one] - wanted))
        n_tokens = counter.count(said(end, filler))
        if n_tokens == length:
            return _placed(stretch, needle_at, end, filler)
        # What is at the cut may merge with what is before
        n_before = n_tokens - lasts.pop((end, filler))
    return None


def _placed(stretch: Stretch, needle_at: int, end: int, filler: str) -> Placed:
    n_all = stretch.token_at(end)
    return Placed(needle_at, end, filler, 100 * stretch.token_at(needle_at) / n_all if n_all else 0.0)
